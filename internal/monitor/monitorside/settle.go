package monitorside

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// Starting a container leaves threads, stacks and half-used heap spans behind
// that Go never gives back: 1.5 MiB where a fresh program needs 0.6. So a
// monitor whose container goes on executes itself again and passes on its
// descriptors and a page of state; pid, children and whatever is still in
// sockets and pipes stay what they are. See docs/decisions/0033.

const (
	// settledArg tells the new program the descriptor of its state.
	settledArg = "--settled="
	// settleTries and settleGap: somebody who moves bytes is done soon.
	settleTries = 20
	settleGap   = time.Millisecond
	// settleDelay doubles with every attempt that something stood in the way of.
	settleDelay    = time.Second
	settleMaxDelay = 5 * time.Minute
)

// settledState is what the program that started the container leaves to the one
// it becomes. Descriptors keep their numbers; -1 is none.
type settledState struct {
	ID      string                 `json:"id"`
	Dir     string                 `json:"dir"`
	Spill   string                 `json:"spill"`
	Tied    bool                   `json:"tied,omitempty"`
	TTY     bool                   `json:"tty,omitempty"`
	Once    bool                   `json:"once,omitempty"`
	UIDs    []specs.LinuxIDMapping `json:"uids,omitempty"`
	Cgroup  string                 `json:"cgroup"`
	Systemd bool                   `json:"systemd,omitempty"`
	Log     logfile.Config         `json:"log"`
	Halves  logfile.State          `json:"halves"`
	Pid     int                    `json:"pid"`
	Started *protocol.Started      `json:"started"`
	OOM     uint64                 `json:"oom,omitempty"`

	Lock    int                  `json:"lock"`
	Listen  int                  `json:"listen"`
	Stdin   int                  `json:"stdin"`
	Console int                  `json:"console"`
	Kernel  int                  `json:"kernel"`
	Streams []settledStream      `json:"streams,omitempty"`
	Conns   []settledConn        `json:"conns,omitempty"`
	Clients []settledClient      `json:"clients,omitempty"`
	Execs   []protocol.ExecState `json:"execs,omitempty"`
}

type settledStream struct {
	FD     int  `json:"fd"`
	Stream byte `json:"stream"`
}

type settledConn struct {
	FD      int  `json:"fd"`
	Control bool `json:"control,omitempty"`
}

type settledClient struct {
	FD    int  `json:"fd"`
	First bool `json:"first,omitempty"`
	protocol.AttachArgs
}

// settle replaces this program by a fresh one. It returns only when that was not
// possible: when to try again, 0 for never.
func (m *monitor) settle() time.Duration {
	again := func() time.Duration {
		m.delay = min(max(2*m.delay, settleDelay), settleMaxDelay)
		return m.delay
	}
	for try := 0; !m.moving.TryLock(); try++ {
		if try == settleTries {
			return again()
		}
		time.Sleep(settleGap)
	}
	// Nobody has a byte in hand now, and nobody takes one.
	defer m.moving.Unlock()
	var s settledState
	if !m.ctr.Remember(&s) {
		m.grown.Store(false)
		return 0
	}
	if !m.describe(&s) {
		return again()
	}
	if err := m.become(&s); err != nil {
		return again()
	}
	return 0
}

// describe fills s. It reports false when something is under way that cannot be
// passed on. moving is held.
func (m *monitor) describe(s *settledState) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.active > 0 || m.conns == nil || m.exit != nil || m.dropping.Load() {
		return false
	}
	halves, ok := m.log.State()
	if !ok {
		return false
	}
	t := m.main
	s.ID, s.Dir, s.Spill, s.Tied = m.id, m.dir, m.spill, m.tied
	s.UIDs = m.uids
	s.Log, s.Halves = m.log.Config(), halves
	s.Pid, s.Started, s.OOM = t.pid, m.started, m.oomKills
	s.TTY, s.Once = t.tty, t.in.once
	s.Lock, s.Listen = number(m.lock), number(m.listen.file)
	s.Stdin, s.Console, s.Kernel = -1, number(t.console), -1
	if m.kernel != nil {
		s.Kernel = number(m.kernel.File())
	}
	if t.console == nil && t.in.open() {
		s.Stdin = number(t.in.file)
	}
	for _, p := range t.pumps {
		if !p.done && t.console == nil {
			s.Streams = append(s.Streams, settledStream{number(p.file), p.stream})
		}
		if p.done && t.console != nil {
			return false // nobody holds the terminal: the end is near
		}
	}
	for c, control := range m.conns {
		fd := -1
		if err := c.Control(func(n uintptr) { fd = int(n) }); err == nil {
			s.Conns = append(s.Conns, settledConn{fd, control})
		}
	}
	for _, c := range t.out.list() {
		args, quiet := c.describe()
		if !quiet {
			return false
		}
		s.Clients = append(s.Clients, settledClient{number(c.file), c.first, args})
	}
	for _, id := range m.order {
		if x := m.execs[id]; x != nil {
			s.Execs = append(s.Execs, protocol.ExecState{ID: x.id, Pid: x.pid, Exit: x.exit, Note: x.note})
		}
	}
	return true
}

// describe tells how the client was attached, and whether nothing waits for it.
func (c *client) describe() (protocol.AttachArgs, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return protocol.AttachArgs{Stdin: c.stdin, Stdout: c.wants[1], Stderr: c.wants[2]}, !c.writing && !c.dead && !c.ended
}

// open reports whether the input is there and was not closed.
func (in *input) open() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.file != nil && !in.closed
}

// number is the descriptor of f, -1 for none.
func number(f *os.File) int {
	fd := -1
	if f == nil {
		return fd
	}
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

// become executes this program again. It returns only with an error.
func (m *monitor) become(s *settledState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	state, err := memory(data)
	if err != nil {
		return err
	}
	defer state.Close()
	keep := []int{s.Lock, s.Listen, s.Stdin, s.Console, s.Kernel, number(state)}
	for _, x := range s.Streams {
		keep = append(keep, x.FD)
	}
	for _, x := range s.Conns {
		keep = append(keep, x.FD)
	}
	for _, x := range s.Clients {
		keep = append(keep, x.FD)
	}
	inherit := func(flag int) {
		for _, fd := range keep {
			if fd >= 0 {
				_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
			}
		}
	}
	inherit(0)
	// One goroutine at a time is enough for what is left to do.
	env := []string{"GOMAXPROCS=1", "PATH=" + os.Getenv("PATH")}
	args := append(append([]string(nil), m.args...), settledArg+strconv.Itoa(number(state)))
	err = unix.Exec("/proc/self/exe", args, env)
	inherit(unix.FD_CLOEXEC)
	return fmt.Errorf("execute monitor again: %w", err)
}

// goOn is run for a program that a monitor became.
func (m *monitor) goOn(arg string) error {
	fd, err := strconv.Atoi(strings.TrimPrefix(arg, settledArg))
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	s, err := readState(fd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.cancel = cancel
	if err := m.takeOver(ctx, s); err != nil {
		return err
	}
	protect()
	m.watchOOM(ctx)
	m.trim.start(0, m.shrink)
	m.finish(ctx)
	return nil
}

func readState(fd int) (*settledState, error) {
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var s settledState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return &s, nil
}

// takeOver makes everything that describe described.
func (m *monitor) takeOver(ctx context.Context, s *settledState) error {
	m.id, m.dir, m.spill, m.tied, m.settled = s.ID, s.Dir, s.Spill, s.Tied, true
	m.started, m.oomKills, m.uids = s.Started, s.OOM, s.UIDs
	r, err := reopen(s)
	if err != nil {
		return err
	}
	m.ctr = r
	m.group = r.cfg
	if f := inherited(s.Kernel, "/dev/kmsg"); f != nil {
		m.kernel = cgroup.KernelLogOf(f)
	}
	if m.log, err = logfile.Open(s.Log); err != nil {
		m.log = logfile.Lost(s.Log) // the app goes on
	}
	m.log.Resume(s.Halves)
	m.told = s.Halves.Dropped
	m.lock = inherited(s.Lock, "lock")
	if m.listen, err = m.listenOn(s.Listen); err != nil {
		return err
	}

	t := &task{m: m, pid: s.Pid, proc: r, log: m.log, tty: s.TTY, told: make(chan struct{})}
	t.in = &input{once: s.Once, file: inherited(s.Stdin, "stdin")}
	t.out.m = m
	if s.Console >= 0 {
		t.console = inherited(s.Console, "terminal")
		t.in.file = t.console
		if err := t.addPump(t.console, logfile.Stdout); err != nil {
			return err
		}
	}
	for _, x := range s.Streams {
		if err := t.addPump(inherited(x.FD, "pipe"), x.Stream); err != nil {
			return err
		}
	}
	m.main = t
	for _, x := range s.Execs {
		ended := &task{m: m, id: x.ID, pid: x.Pid, exit: x.Exit, note: x.Note, in: &input{}, told: make(chan struct{})}
		ended.out.end()
		close(ended.told)
		m.execs[x.ID] = ended
		m.order = append(m.order, x.ID)
	}
	for _, x := range s.Clients {
		f := inherited(x.FD, "client")
		if err := t.attach(f, x.AttachArgs, x.First); err != nil {
			f.Close()
			continue
		}
		f.Close()
	}
	close(m.ready)
	t.pump()
	for _, x := range s.Conns {
		unix.CloseOnExec(x.FD)
		conn, err := protocol.NewConn(x.FD, "client")
		if err != nil {
			continue
		}
		m.addConn(conn, x.Control)
		m.work.Go(func() { m.serve(ctx, conn, x.Control) })
	}
	m.work.Go(func() { m.accept(ctx) })
	return nil
}

// inherited is a descriptor that came through the exec; nil for -1.
func inherited(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
