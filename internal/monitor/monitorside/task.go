package monitorside

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// task is one process with its streams: the container's own, or an exec's.
type task struct {
	m    *monitor
	id   string // of the exec; empty for the container's own
	pid  int
	proc process
	log  *logfile.Writer // nil: not logged
	tty  bool
	in   *input
	out  fanout
	// console is the terminal's master, shared by in and the only pump.
	console *os.File

	pumps []*pump
	// pumping ends when every pump has.
	pumping sync.WaitGroup
	// told is closed when the end was announced (execs only).
	told chan struct{}

	// exit is guarded by monitor.mu.
	exit *protocol.Exit
	// note is the daemon's, of an exec.
	note json.RawMessage
}

type taskOptions struct {
	// owner is the host's uid that the process runs as: it may open
	// /dev/stdout again then, which is how many images log.
	owner                            int
	tty, stdin, once, stdout, stderr bool
	log                              *logfile.Writer
}

// hostUID is the host's number of a user of the container. An id without one
// stays the monitor's.
func (m *monitor) hostUID(uid uint32) int {
	if len(m.uids) == 0 {
		return int(uid)
	}
	for _, r := range m.uids {
		if uid >= r.ContainerID && uid-r.ContainerID < r.Size {
			return int(r.HostID + (uid - r.ContainerID))
		}
	}
	return 0
}

// close closes the process's ends.
func (s stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}

// newTask makes the pipes of a process; a terminal comes with the process.
func (m *monitor) newTask(id string, o taskOptions) (_ *task, ends stdio, err error) {
	t := &task{m: m, id: id, tty: o.tty, log: o.log, told: make(chan struct{})}
	t.out.m, t.out.open = m, 1
	t.in = &input{once: o.once && !o.tty}
	if o.tty {
		return t, ends, nil
	}
	defer func() {
		if err != nil {
			ends.close()
			ends = stdio{}
			t.abort()
		}
	}()
	if o.stdin {
		var w *os.File
		if ends.in, w, err = pipe(false, o.owner); err != nil {
			return nil, ends, err
		}
		t.in.file = w
	}
	for _, s := range []struct {
		wanted bool
		stream byte
		end    **os.File
	}{{o.stdout, logfile.Stdout, &ends.out}, {o.stderr, logfile.Stderr, &ends.err}} {
		if !s.wanted {
			continue
		}
		var r *os.File
		if r, *s.end, err = pipe(true, o.owner); err != nil {
			return nil, ends, err
		}
		if err = t.addPump(r, s.stream); err != nil {
			return nil, ends, err
		}
	}
	return t, ends, nil
}

// pipe makes a pipe whose end for the monitor does not block.
func pipe(readable bool, owner int) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours := p[1]
	if readable {
		ours = p[0]
	}
	err = unix.SetNonblock(ours, true)
	if err == nil && owner != 0 {
		err = unix.Fchown(ours, owner, -1)
	}
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

func (t *task) addPump(f *os.File, stream byte) error {
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return err
	}
	t.pumps = append(t.pumps, &pump{t: t, file: f, raw: raw, stream: stream, quit: make(chan struct{})})
	return nil
}

// begin takes the process over and starts to move its bytes.
func (t *task) begin(p process) error {
	t.proc, t.pid = p, p.Pid()
	if t.tty {
		c := p.Console()
		if c == nil {
			return fmt.Errorf("the process has no terminal: %w", errdefs.ErrInternal)
		}
		var err error
		if t.console, err = polled(c); err != nil {
			return err
		}
		t.in.file = t.console
		if err := t.addPump(t.console, logfile.Stdout); err != nil {
			return err
		}
	}
	t.pump()
	return nil
}

// pump starts to move the process's output.
func (t *task) pump() {
	t.out.begin(len(t.pumps))
	for _, p := range t.pumps {
		t.pumping.Go(p.run)
	}
}

// polled duplicates a descriptor for the Go runtime's poller.
func polled(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(n uintptr) {
		if fd, dupErr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3); dupErr == nil {
			dupErr = unix.SetNonblock(fd, true)
		}
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// abort gives up a task whose process was not started.
func (t *task) abort() {
	t.in.close()
	for _, p := range t.pumps {
		p.file.Close()
	}
	t.out.end()
	t.out.dropAll()
}

// attach adds a client; first: before the process was started. The descriptor
// stays the caller's.
func (t *task) attach(f *os.File, a protocol.AttachArgs, first bool) error {
	f, err := polled(f)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	c, err := newClient(t, f, a, first)
	if err != nil {
		f.Close()
		return fmt.Errorf("attach: %w", err)
	}
	if !t.out.add(c) {
		f.Close()
		return errNotRunning(t.m.id)
	}
	t.m.work.Go(c.read)
	return nil
}

func (t *task) resize(rows, cols uint16) error {
	if t.console == nil {
		return errdefs.ErrInvalidArgument.WithMessage("the process has no terminal")
	}
	if err := pty.Resize(t.console, rows, cols); err != nil {
		return err
	}
	return nil
}

// drain moves what the ended process left in its pipes. It does not wait for
// processes that still hold them.
func (t *task) drain() {
	for _, p := range t.pumps {
		p.drain()
	}
}

// finish ends the streams of a process that has ended: at once when nobody
// holds its pipes, else after the grace.
func (t *task) finish(grace time.Duration) {
	ended := make(chan struct{})
	go func() {
		t.pumping.Wait()
		close(ended)
	}()
	timer := time.NewTimer(grace)
	select {
	case <-ended:
	case <-timer.C:
		t.drain()
	}
	timer.Stop()
	t.out.end()
	t.in.close()
	if t.id == "" {
		for _, p := range t.pumps {
			p.stop()
		}
	}
	<-ended
	for _, p := range t.pumps {
		p.file.Close()
	}
}

// deliver waits for clients to take what is queued for them, then closes them.
func (t *task) deliver(timeout time.Duration) {
	t.out.deliver(timeout)
	t.out.dropAll()
}

// input is a process's standard input.
type input struct {
	// once: the first client that goes closes it.
	once bool
	file *os.File // nil: there is none

	turn   sync.Mutex // one client's bytes at a time
	mu     sync.Mutex
	closed bool
}

// write passes p on; it waits for the process to read.
func (in *input) write(p []byte) {
	if in.file == nil {
		return
	}
	in.turn.Lock()
	defer in.turn.Unlock()
	// A process that closed its end or has ended needs no more.
	_, _ = in.file.Write(p)
}

// gone is called when a client that had attached it ends its part.
func (in *input) gone() {
	if in.once {
		in.close()
	}
}

func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed && in.file != nil {
		in.closed = true
		in.file.Close()
	}
}
