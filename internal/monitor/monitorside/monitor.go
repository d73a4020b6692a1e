package monitorside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/seccomp"
	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

const (
	// drainGrace is how long clients of an ended process may still get output
	// from others that hold its pipes (Docker waits as long).
	drainGrace = 2 * time.Second
	// execGrace bounds waiting for execs that the container's end kills, deadGrace
	// for the report of those that have ended.
	execGrace = 100 * time.Millisecond
	deadGrace = 10 * time.Second
	// logGrace is how long the end of a container waits for its log: who hears of
	// it reads the whole log, but a disk that hangs does not hide it.
	logGrace = 2 * time.Second
	// deliverTimeout bounds how long an ended container's monitor stays for a
	// client that does not read at all.
	deliverTimeout = time.Minute
	// deleteTimeout bounds removing cgroup and state.
	deleteTimeout = time.Minute
	// endedExecs is how many ended execs are kept for the list.
	endedExecs = 64
	// busyLimit bounds requests of a connection that are worked on at once.
	busyLimit = 32
)

// monitor runs one container.
type monitor struct {
	platform
	id     string
	dir    string
	spill  string
	tied   bool
	uids   []specs.LinuxIDMapping
	lock   *os.File
	log    *logfile.Writer
	listen *listener
	buffer buffer
	work   sync.WaitGroup
	// moving is held for reading by whoever has bytes in hand: taken from a
	// socket, pipe or terminal and not yet passed on. settle takes it, and
	// only when nobody has any.
	moving sync.RWMutex
	// settling is done once the container has run for a moment.
	settling sync.Once
	// grown: something was done that took memory; asked is when a request was
	// served last (nanoseconds since 1970). settled: this is not the program
	// that started the container, but the one it became.
	grown   atomic.Bool
	asked   atomic.Int64
	settled bool
	delay   time.Duration // of the next attempt to settle
	trim    trimmer
	cancel  context.CancelFunc

	// ready is closed when the container was started or failed to.
	ready chan struct{}

	mu       sync.Mutex
	conns    map[*protocol.Conn]bool // true: the control connection
	ctr      runner
	main     *task
	execs    map[string]*task
	order    []string // ended execs, the oldest first
	active   int      // execs that run or still have clients
	started  *protocol.Started
	failed   *protocol.Failure
	exit     *protocol.Exit
	oomKills uint64

	// dropping is set while somebody tells of output missing in the log; told is how
	// much was told of, and belongs to who has set it. over is closed by end.
	dropping atomic.Bool
	told     uint64
	over     chan struct{}

	// kernel is the kernel's log since the start, nil but with systemd's
	// cgroups; group is where they are.
	kernel *cgroup.KernelLog
	group  cgroup.Config
}

func newMonitor(p platform) *monitor {
	return &monitor{
		platform: p,
		conns:    map[*protocol.Conn]bool{},
		execs:    map[string]*task{},
		ready:    make(chan struct{}),
		over:     make(chan struct{}),
	}
}

// run serves from the first frame to the end of the container.
func (m *monitor) run(control *protocol.Conn) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.cancel = cancel
	if err := m.greet(control); err != nil {
		return err
	}
	m.warm(control)
	frame, l, files, err := readLaunch(control)
	if err != nil {
		_ = control.Discard() // why there is no launch is what is told
		return err
	}
	m.id, m.dir, m.tied = l.ID, l.RunDir, l.Tied
	m.addConn(control, true)
	// A launch may take a while (hooks); a tied monitor must notice meanwhile
	// that its starter has gone.
	m.work.Go(func() { m.serve(ctx, control, true) })

	err = m.start(ctx, l, files)
	if err != nil {
		return m.fail(control, frame, err)
	}
	m.answer(control, frame, m.started, nil)
	// The rest is not worth delaying a container that ends at once.
	m.trim.start(startTrim, func() time.Duration {
		m.settling.Do(func() {
			debug.SetMemoryLimit(math.MaxInt64)
			debug.SetGCPercent(gcPercent)
			protect()
			m.watchOOM(ctx)
		})
		return m.shrink()
	})
	m.finish(ctx)
	return nil
}

// usualLaunch has one of everything that usual launches have.
const usualLaunch = `{"rootfs":{"lower":[""]},"log":{},"spec":{"process":{"user":{"additionalGids":[0]},"args":[""],"env":[""],
"capabilities":{"bounding":[""]},"rlimits":[{}],"oomScoreAdj":0},"root":{},"mounts":[{"options":[""]}],"hooks":{},"annotations":{"":""},
"linux":{"sysctl":{"":""},"namespaces":[{}],"maskedPaths":[""],"resources":{"devices":[{}],"memory":{"limit":0},"cpu":{"shares":1},
"pids":{"limit":0},"blockIO":{}},"devices":[{"fileMode":0,"uid":0}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"op":"SCMP_CMP_EQ"}]}]}}}}`

// warm does once what every launch does, while none has come yet: a spare monitor
// waits anyway, and what runs for the first time is read from the program's file
// first. The first use of a type by encoding/json costs most.
func (m *monitor) warm(c *protocol.Conn) {
	waiting := true
	_ = c.Control(func(fd uintptr) { waiting = !readable(int(fd)) })
	if !waiting {
		return
	}
	var l launch
	if l.decode([]byte(usualLaunch)) == nil {
		_, _ = seccomp.Compile(l.Spec.Linux.Seccomp)
	}
	_, _ = json.Marshal(protocol.Started{})
	_, _ = json.Marshal(protocol.Reply{})
	_, _ = json.Marshal(protocol.Exit{})
}

// readLaunch reads the hello and the launch of the starter.
func readLaunch(c *protocol.Conn) (protocol.Frame, *launch, []*os.File, error) {
	for {
		f, files, err := c.Read()
		if err != nil {
			return f, nil, nil, err
		}
		switch {
		case f.Kind == protocol.KindHello:
			if err := checkHello(f.Payload); err != nil {
				return f, nil, nil, err
			}
			closeAll(files)
		case f.Kind == protocol.KindRequest && protocol.Operation(f.Op) == protocol.OpLaunch:
			var l launch
			if err := l.decode(f.Payload); err != nil {
				closeAll(files)
				return f, nil, nil, fmt.Errorf("launch: %w", err)
			}
			f.Payload = nil
			return f, &l, files, nil
		default:
			closeAll(files)
			return f, nil, nil, fmt.Errorf("%w: not a launch", protocol.ErrMalformed)
		}
	}
}

func checkHello(payload []byte) error {
	var h protocol.Hello
	if err := json.Unmarshal(payload, &h); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	_, err := h.Negotiate()
	return err
}

func (m *monitor) greet(c *protocol.Conn) error {
	h := hello()
	h.Pid = os.Getpid()
	if err := c.Send(protocol.KindHello, 0, 0, h); err != nil {
		return err
	}
	return chat(c)
}

// start brings the container up to its application's execve.
func (m *monitor) start(ctx context.Context, l *launch, files []*os.File) error {
	clients, err := m.assign(l, files)
	if err != nil {
		closeAll(files)
		return err
	}
	defer func() {
		if l.netNS != nil {
			l.netNS.Close()
			l.netNS = nil
		}
	}()
	if l.Spec == nil || l.Spec.Process == nil {
		closeAll(clients)
		return errdefs.ErrInvalidArgument.WithMessage("launch without a process")
	}
	m.spill = spillFolder(l)
	if m.log, err = logfile.Open(logfile.Config(l.Log)); err != nil {
		closeAll(clients)
		return fmt.Errorf("failed to initialize logging driver: %w", err)
	}
	if m.listen, err = m.openSocket(); err != nil {
		closeAll(clients)
		return err
	}
	m.work.Go(func() { m.accept(ctx) })
	if l.Spec.Linux != nil {
		m.uids = l.Spec.Linux.UIDMappings
	}
	t, ends, err := m.newTask("", taskOptions{
		owner: m.hostUID(l.Spec.Process.User.UID),
		tty:   l.Spec.Process.Terminal, stdin: l.OpenStdin, once: l.StdinOnce, stdout: true, stderr: true, log: m.log,
	})
	if err != nil {
		closeAll(clients)
		return err
	}
	for i, f := range clients {
		if err == nil {
			err = t.attach(f, l.Attach[i], true)
		}
	}
	closeAll(clients)
	if err != nil {
		ends.close()
		t.abort()
		return err
	}
	m.group = groupOf(l).cfg
	if m.group.Systemd {
		// Without the log a kill may go unnoticed; that is no reason not to start.
		m.kernel, _ = cgroup.OpenKernelLog()
	}
	r, err := m.platform.start(ctx, l, ends)
	ends.close()
	if err != nil {
		t.abort()
		return err
	}
	if err := t.begin(r); err != nil {
		_ = r.Delete(ctx) // what failed before is told
		t.abort()
		return err
	}
	m.mu.Lock()
	m.ctr, m.main = r, t
	m.started = &protocol.Started{Pid: r.Pid(), StartTime: r.StartTime(), At: m.now().UTC()}
	m.mu.Unlock()
	m.grown.Store(true)
	close(m.ready)
	return nil
}

// assign takes the descriptors that came with a launch.
func (m *monitor) assign(l *launch, files []*os.File) (clients []*os.File, err error) {
	if len(files) != len(l.Files) {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("launch names %d descriptors, %d came", len(l.Files), len(files)))
	}
	for i, kind := range l.Files {
		switch {
		case kind == protocol.FileLock && m.lock == nil:
			m.lock = files[i]
		case kind == protocol.FileNetNS && l.netNS == nil:
			l.netNS = files[i]
		case kind == protocol.FileAttach:
			clients = append(clients, files[i])
		default:
			return nil, errdefs.ErrInvalidArgument.WithMessage("launch with an unknown or second descriptor " + kind)
		}
	}
	if len(clients) != len(l.Attach) {
		return nil, errdefs.ErrInvalidArgument.WithMessage("launch with streams that are not described")
	}
	return clients, nil
}

// fail reports a start that failed and ends.
func (m *monitor) fail(control *protocol.Conn, frame protocol.Frame, cause error) error {
	failure := failureOf(cause)
	m.mu.Lock()
	m.failed = failure
	m.mu.Unlock()
	close(m.ready)
	code := 128
	if failure.Code != 0 {
		code = failure.Code
	}
	// For a daemon that died meanwhile.
	m.writeExit(protocol.Exit{Code: code, Time: m.now().UTC(), Reason: failure.Message})
	m.listen.close()
	if m.log != nil {
		_ = m.log.Close(m.now()) // why it did not start is what is told
	}
	m.closeLock()
	m.answer(control, frame, nil, failure)
	m.end()
	return cause
}

// finish waits for the end of the container and carries it out.
func (m *monitor) finish(ctx context.Context) {
	err := m.ctr.Ended()
	// From here on to the end, and before the status is taken: a program that this
	// one became could not find a child that was waited for, and would be lost.
	m.moving.RLock()
	code := 0
	if err == nil {
		code, err = m.ctr.Wait()
	}
	exit := protocol.Exit{Code: code, Time: m.now().UTC()}
	if err != nil {
		exit.Code, exit.Reason = 137, "wait: "+err.Error()
	}
	m.tellOOM(m.kills())
	m.trim.stop()
	m.main.drain()
	m.log.Drain(logGrace)
	m.awaitExecs()
	m.mu.Lock()
	exit.OOMKilled = m.oomKills > 0
	m.mu.Unlock()
	exit.LogDropped = m.log.Dropped()
	m.writeExit(exit)
	m.mu.Lock()
	m.exit = &exit
	m.mu.Unlock()
	m.listen.close()
	m.tell(protocol.EventExit, exit)

	deleteCtx, cancel := context.WithTimeout(ctx, deleteTimeout)
	deleteErr := m.ctr.Delete(deleteCtx)
	cancel()
	m.main.finish(drainGrace)
	for _, t := range m.allExecs() {
		t.finish(0)
	}
	_ = m.log.Close(m.now()) // every line is written by then
	m.closeLock()
	if deleteErr == nil {
		m.tell(protocol.EventGone, protocol.Empty{})
	}
	m.main.deliver(deliverTimeout)
	for _, t := range m.allExecs() {
		t.deliver(deliverTimeout)
	}
	m.end()
}

// end closes every connection and waits for the goroutines that served them.
func (m *monitor) end() {
	m.cancel()
	close(m.over)
	m.mu.Lock()
	for c := range m.conns {
		c.Close()
	}
	m.conns = nil
	m.mu.Unlock()
	m.work.Wait()
	_ = m.kernel.Close() // only read from
}

// closeLock lets the container be started again.
func (m *monitor) closeLock() {
	if m.lock != nil {
		m.lock.Close()
		m.lock = nil
	}
}

// awaitExecs lets execs report first that have ended, by themselves or with the
// container: who hears of its end first takes them for killed.
func (m *monitor) awaitExecs() {
	execs := m.allExecs()
	if len(execs) == 0 {
		return
	}
	alive, dead := time.NewTimer(execGrace), time.NewTimer(deadGrace)
	defer alive.Stop()
	defer dead.Stop()
	for _, t := range execs {
		select {
		case <-t.told:
			continue
		case <-alive.C:
			alive.Reset(0)
		}
		// A process of the host's pid namespace may outlive the container.
		if !t.ended() {
			continue
		}
		select {
		case <-t.told:
		case <-dead.C:
			return
		}
	}
}

// ended reports whether the process has, though nobody may have waited for it.
func (t *task) ended() bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, t.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || info.Signo != 0
		}
	}
}

func (m *monitor) allExecs() []*task {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*task, 0, len(m.execs))
	for _, t := range m.execs {
		list = append(list, t)
	}
	return list
}

// kill ends the container because a tied starter has gone.
func (m *monitor) kill(ctx context.Context) {
	<-m.ready
	m.mu.Lock()
	r := m.ctr
	m.mu.Unlock()
	if r != nil {
		_ = r.SignalAll(int(unix.SIGKILL)) // one that has ended is as good
	}
}

// watchOOM tells of OOM kills.
func (m *monitor) watchOOM(ctx context.Context) {
	m.work.Go(func() {
		events, err := m.ctr.OOMEvents(ctx)
		if err != nil || events == nil {
			return // the count is still read at the end
		}
		m.noteOOM() // those before anybody watched
		for {
			select {
			case _, ok := <-events:
				if !ok {
					return
				}
				m.noteOOM()
			case <-ctx.Done():
				return
			}
		}
	})
}

func (m *monitor) noteOOM() {
	m.moving.RLock()
	defer m.moving.RUnlock()
	if kills, err := m.ctr.OOM(); err == nil {
		m.tellOOM(kills)
	}
}

// droppedGap is how often the loss of output is told of.
const droppedGap = time.Second

// noteDropped tells of output that is missing in the log, from beside: the caller
// has bytes in hand.
func (m *monitor) noteDropped() {
	if !m.dropping.CompareAndSwap(false, true) {
		return
	}
	if m.log.Dropped() <= m.told {
		m.dropping.Store(false)
		return
	}
	m.work.Go(func() {
		defer m.dropping.Store(false)
		for n := m.log.Dropped(); n > m.told; n = m.log.Dropped() {
			m.told = n
			m.moving.RLock()
			m.tell(protocol.EventLogDropped, protocol.LogDropped{Bytes: n})
			m.moving.RUnlock()
			select {
			case <-time.After(droppedGap):
			case <-m.over:
				return
			}
		}
	})
}

// kills counts what the OOM killer took of a container that has ended.
func (m *monitor) kills() uint64 {
	kills, err := m.ctr.OOM()
	if err == nil && kills > 0 || m.kernel == nil {
		return kills
	}
	// systemd may have removed the scope, and the count with it.
	logged, _ := m.kernel.Kills(m.group) // what was read before an error counts
	return max(kills, logged)
}

// tellOOM records and tells how many processes were taken so far. The caller
// holds moving for reading; taking it twice could wait for a writer between.
func (m *monitor) tellOOM(kills uint64) {
	m.mu.Lock()
	more := kills > m.oomKills
	m.oomKills = max(m.oomKills, kills)
	m.mu.Unlock()
	if more {
		m.tell(protocol.EventOOM, protocol.OOM{Kills: kills})
	}
}

// failureOf gives an error its wire form.
func failureOf(err error) *protocol.Failure {
	f := &protocol.Failure{Class: protocol.ClassInternal, Message: err.Error()}
	var start *lifecycle.StartError
	var known *protocol.Failure
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &start):
		f.Class, f.Code = protocol.ClassStart, start.Code
	case errdefs.IsNotFound(err):
		f.Class = protocol.ClassNotFound
	case errdefs.IsInvalidArgument(err):
		f.Class = protocol.ClassInvalid
	case errdefs.IsConflict(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsAlreadyExists(err):
		f.Class = protocol.ClassConflict
	case errdefs.IsNotImplemented(err):
		f.Class = protocol.ClassUnimplemented
	}
	return f
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// name shows in ps, instead of the number of the descriptor it was run from.
const name = "orlop-monitor"

// protect names and protects the monitor. The container has been started with
// the score it was to have; execs are given the container's.
func protect() {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0) // needs CAP_SYS_RESOURCE
}
