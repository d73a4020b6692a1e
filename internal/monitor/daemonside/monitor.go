package daemonside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// reconnectPause keeps a monitor that closes every connection from keeping the
// daemon busy.
const reconnectPause = 100 * time.Millisecond

// Monitor is the monitor of a container that was started.
//
// Calls fail with ErrNotFound once the container has ended, with
// ErrNotImplemented when an older monitor cannot do what is asked, and with
// ErrUnavailable when the connection is closed or the monitor does not answer
// (Config.Patience), e.g. because somebody stopped it.
type Monitor struct {
	l   *Launcher
	id  string
	log *slog.Logger

	// pid and pidfd of the monitor; child: it is ours and must be reaped.
	pid   int
	pidfd *os.File
	child bool

	launchCall *call
	// greeted is closed when the other side's hello has come.
	greeted chan struct{}
	exited  chan struct{}
	gone    chan struct{}
	oom     chan struct{}
	quit    chan struct{}
	// dead is closed when the monitor process has ended.
	dead chan struct{}

	mu       sync.Mutex
	conn     *protocol.Conn
	caps     map[string]bool
	version  int
	released bool
	running  container.Running
	exit     container.Exit
	ended    bool // exited is closed
	goneSet  bool // gone is closed
	tidy     bool // the monitor removed cgroup and state itself
	broken   error
	nextID   uint32
	calls    map[uint32]*call
	execs    map[string]*Exec
	oomKills uint64
	// lost counts bytes of output missing in the log; dropped has the newest count
	// until somebody takes it.
	lost    uint64
	dropped chan uint64
}

// call is a request that waits for its reply.
type call struct {
	id      uint32
	done    chan struct{}
	result  json.RawMessage
	failure error
}

func newMonitor(l *Launcher, id string, conn *protocol.Conn) *Monitor {
	conn.SetWriteTimeout(l.patience)
	return &Monitor{
		l: l, id: id, log: l.log, conn: conn,
		greeted: make(chan struct{}),
		exited:  make(chan struct{}),
		gone:    make(chan struct{}),
		oom:     make(chan struct{}, 16),
		dropped: make(chan uint64, 1),
		quit:    make(chan struct{}),
		dead:    make(chan struct{}),
		calls:   map[uint32]*call{},
		execs:   map[string]*Exec{},
	}
}

// ID of the container.
func (m *Monitor) ID() string { return m.id }

// Running identifies the container's process.
func (m *Monitor) Running() container.Running {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running
}

// Exited is closed when the container has ended or its monitor was lost.
func (m *Monitor) Exited() <-chan struct{} { return m.exited }

// Exit is valid once Exited is closed.
func (m *Monitor) Exit() container.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// Gone is closed when the container's cgroup and state are removed too, so
// that it may be started again, or when its monitor is dead.
func (m *Monitor) Gone() <-chan struct{} { return m.gone }

// OOM delivers one value for every OOM kill in the container's cgroup (never
// more than 16 that nobody took), and is closed with Exited.
func (m *Monitor) OOM() <-chan struct{} { return m.oom }

// Attach adds a client: it gets what is written from now on.
func (m *Monitor) Attach(ctx context.Context, opts AttachOptions) (*Stream, error) {
	return m.attach(ctx, "", opts)
}

func (m *Monitor) attach(ctx context.Context, exec string, opts AttachOptions) (*Stream, error) {
	stream, file, err := newStream(opts)
	if err != nil {
		return nil, err
	}
	args := protocol.AttachArgs{Exec: exec, Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr}
	err = m.ask(ctx, protocol.OpAttach, args, nil, int(file.Fd()))
	file.Close()
	if err != nil {
		stream.Close()
		return nil, fmt.Errorf("attach to container %s: %w", m.id, err)
	}
	return stream, nil
}

// Resize sets the size of the container's terminal in characters.
// ErrInvalidArgument: it has none.
func (m *Monitor) Resize(ctx context.Context, rows, cols uint16) error {
	if err := m.ask(ctx, protocol.OpResize, protocol.ResizeArgs{Rows: rows, Cols: cols}, nil); err != nil {
		return fmt.Errorf("resize container %s: %w", m.id, err)
	}
	return nil
}

// Signal the container's process, or all of its processes.
func (m *Monitor) Signal(ctx context.Context, sig int, all bool) error {
	if err := m.can(ctx, protocol.OpSignal); err != nil {
		return fmt.Errorf("signal container %s: %w", m.id, err)
	}
	err := m.ask(ctx, protocol.OpSignal, protocol.SignalArgs{Signal: sig, All: all}, nil)
	if errdefs.IsNotFound(err) {
		// It ran when it was asked for and ended before the reply: by this
		// signal, or too early for it to matter.
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal container %s: %w", m.id, err)
	}
	return nil
}

// Pause freezes every process of the container; it returns when all stand.
func (m *Monitor) Pause(ctx context.Context) error {
	if err := m.ask(ctx, protocol.OpPause, protocol.Empty{}, nil); err != nil {
		return fmt.Errorf("pause container %s: %w", m.id, err)
	}
	return nil
}

// Resume undoes Pause.
func (m *Monitor) Resume(ctx context.Context) error {
	if err := m.ask(ctx, protocol.OpResume, protocol.Empty{}, nil); err != nil {
		return fmt.Errorf("resume container %s: %w", m.id, err)
	}
	return nil
}

// Update changes limits; fields that are not set stay.
func (m *Monitor) Update(ctx context.Context, resources *specs.LinuxResources) error {
	raw, err := marshal(resources)
	if err != nil {
		return err
	}
	if err := m.ask(ctx, protocol.OpUpdate, protocol.UpdateArgs{Resources: raw}, nil); err != nil {
		return fmt.Errorf("update container %s: %w", m.id, err)
	}
	return nil
}

// LogDropped delivers how many bytes of output are missing in the log, e.g.
// because the disk is full, whenever there are more: the newest count only. An
// older monitor tells it on adoption alone. Exit has the last count.
func (m *Monitor) LogDropped() <-chan uint64 { return m.dropped }

// noteDropped hands a higher count on.
func (m *Monitor) noteDropped(bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes <= m.lost {
		return
	}
	m.lost = bytes
	select {
	case <-m.dropped:
	default:
	}
	m.dropped <- bytes
}

func (m *Monitor) setRunning(s protocol.Started) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = container.Running{
		MonitorPid: m.pid, InitPid: s.Pid, InitStart: s.StartTime, StartedAt: s.At, BootID: m.l.bootID,
	}
}

// ask sends a request and waits for the reply.
func (m *Monitor) ask(ctx context.Context, op protocol.Operation, args, result any, files ...int) error {
	if err := m.can(ctx, op); err != nil {
		return err
	}
	payload, err := marshal(args)
	if err != nil {
		return err
	}
	c, err := m.post(op, payload, files...)
	if err != nil {
		return err
	}
	if err := m.attend(ctx, op, c); err != nil {
		return err
	}
	return m.await(ctx, c, result)
}

// attend waits for a reply as long as the monitor lives. What it does may take
// any time (a fork in a frozen group, a limit below what is in use), but a
// question about its state is answered at once beside that.
func (m *Monitor) attend(ctx context.Context, op protocol.Operation, c *call) error {
	timer := time.NewTimer(m.l.patience)
	defer timer.Stop()
	var probe *call
	for {
		var answered <-chan struct{}
		if probe != nil {
			answered = probe.done
		}
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return nil // await says what it means
		case <-answered:
			probe = nil
		case <-timer.C:
			if over(c.done) || over(answered) {
				continue // it was us who came late
			}
			if probe != nil || !m.knows(protocol.OpState) {
				m.forgetCall(c)
				m.forgetCall(probe)
				return m.silent(op)
			}
			var err error
			if probe, err = m.post(protocol.OpState, []byte("{}")); err != nil {
				return err
			}
		}
		timer.Reset(m.l.patience)
	}
}

// over reports whether c is closed.
func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (m *Monitor) silent(op protocol.Operation) error {
	return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("%s: the monitor of container %s (pid %d) does not answer", op, m.id, m.pid))
}

func (m *Monitor) knows(op protocol.Operation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.caps[op.Capability()]
}

// forgetCall is for a reply that nobody waits for any more; nil is fine.
func (m *Monitor) forgetCall(c *call) {
	if c == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.calls, c.id)
}

// can says whether the monitor knows an operation.
func (m *Monitor) can(ctx context.Context, op protocol.Operation) error {
	if err := m.awaitGreeting(ctx, op); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil || m.ended {
		return m.closedError()
	}
	if !m.caps[op.Capability()] {
		return errdefs.ErrNotImplemented.WithMessage("the monitor of this container was started by an older release and cannot " + op.String())
	}
	return nil
}

// awaitGreeting waits for the other side's hello, which comes first.
func (m *Monitor) awaitGreeting(ctx context.Context, op protocol.Operation) error {
	select {
	case <-m.greeted:
		return nil
	default:
	}
	timer := time.NewTimer(m.l.patience)
	defer timer.Stop()
	select {
	case <-m.greeted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return m.silent(op)
	}
}

// closedError is why no request can be sent. mu is held.
func (m *Monitor) closedError() error {
	if m.ended {
		return errdefs.ErrNotFound.WithMessage("container " + m.id + " is not running")
	}
	if errors.Is(m.broken, errdefs.ErrFailedPrecondition) {
		return m.broken
	}
	return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("no connection to the monitor of container %s: %v", m.id, m.broken))
}

func (m *Monitor) hello() error {
	return m.conn.Send(protocol.KindHello, 0, 0, protocol.Hello{
		Version: protocol.Version, MinVersion: protocol.MinVersion, Pid: os.Getpid(),
	})
}

// post sends a request.
func (m *Monitor) post(op protocol.Operation, payload []byte, files ...int) (*call, error) {
	c := &call{done: make(chan struct{})}
	m.mu.Lock()
	if m.broken != nil || m.ended {
		err := m.closedError()
		m.mu.Unlock()
		return nil, err
	}
	m.nextID++
	c.id = m.nextID
	m.calls[c.id] = c
	conn := m.conn
	m.mu.Unlock()
	if err := conn.Write(protocol.Frame{Kind: protocol.KindRequest, Op: uint16(op), ID: c.id, Payload: payload}, files...); err != nil {
		m.mu.Lock()
		delete(m.calls, c.id)
		if m.ended {
			err = m.closedError()
		}
		m.mu.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			conn.Close() // a part of the frame may be sent: run connects again
			err = m.silent(op)
		}
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c, nil
}

// await waits for a reply; what was asked may still happen when ctx ends.
func (m *Monitor) await(ctx context.Context, c *call, result any) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.calls, c.id)
		m.mu.Unlock()
		return context.Cause(ctx)
	}
	if c.failure != nil {
		return c.failure
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(c.result, result); err != nil {
		return fmt.Errorf("reply of the monitor: %w", err)
	}
	return nil
}

// follow registers the monitor and starts the goroutines that read from it and
// wait for its death. It reports false when the launcher was closed.
func (l *Launcher) follow(m *Monitor) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.monitors[m.id] = m
	l.following.Go(m.watch)
	l.following.Go(m.run)
	return true
}

// watch waits for the death of the monitor. The connection alone would not
// tell: a process that inherited the other end would keep it open.
func (m *Monitor) watch() {
	if pidfd.Ended(m.pidfd) != nil {
		return // released
	}
	if m.child {
		reap(m.pidfd)
	}
	close(m.dead)
	m.mu.Lock()
	conn := m.conn
	m.mu.Unlock()
	// What it sent before is still read; one that is closed reads no more.
	_ = conn.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
}

// run reads until the monitor is gone or released.
func (m *Monitor) run() {
	defer m.pidfd.Close()
	for {
		err := m.readAll()
		if m.isReleased() || m.readExitFile() || m.isDead() || errors.Is(err, errdefs.ErrFailedPrecondition) || !m.reconnect() {
			m.disconnect(err)
			break
		}
	}
	m.conn.Close()
	select {
	case <-m.dead:
	case <-m.quit:
		return
	}
	m.readExitFile()
	m.mu.Lock()
	lost := !m.ended
	launched := m.running.InitPid != 0
	m.mu.Unlock()
	if lost {
		exit := container.Exit{Code: 137, Time: m.l.now().UTC(), Reason: container.ReasonMonitorLost}
		if launched {
			ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
			var err error
			if exit, err = m.l.lost(ctx, m.id); err != nil {
				m.log.Error("monitor lost", "container", m.id, "error", err)
			} else {
				m.log.Warn("monitor lost", "container", m.id, "pid", m.pid)
			}
			cancel()
		}
		m.conclude(exit)
	}
	m.setGone(false)
}

// readAll handles frames until the connection ends.
func (m *Monitor) readAll() error {
	for {
		f, files, err := m.conn.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the monitor closed it")
			}
			return err
		}
		for _, file := range files {
			file.Close() // no frame towards the daemon has any yet
		}
		if err := m.handle(f); err != nil {
			return err
		}
	}
}

func (m *Monitor) handle(f protocol.Frame) error {
	switch f.Kind {
	case protocol.KindHello:
		return m.greet(f.Payload)
	case protocol.KindReply:
		m.reply(f)
	case protocol.KindEvent:
		return m.event(protocol.Event(f.Op), f.Payload)
	}
	return nil
}

func (m *Monitor) greet(payload []byte) error {
	var h protocol.Hello
	if err := json.Unmarshal(payload, &h); err != nil {
		return fmt.Errorf("hello of the monitor: %w", err)
	}
	v, err := h.Negotiate()
	if err != nil {
		return errdefs.ErrFailedPrecondition.WithMessage(err.Error())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = v
	first := m.caps == nil
	m.caps = map[string]bool{}
	for _, c := range h.Capabilities {
		m.caps[c] = true
	}
	if first {
		close(m.greeted)
	}
	return nil
}

func (m *Monitor) reply(f protocol.Frame) {
	m.mu.Lock()
	c := m.calls[f.ID]
	delete(m.calls, f.ID)
	m.mu.Unlock()
	if c == nil {
		return
	}
	var r protocol.Reply
	switch err := json.Unmarshal(f.Payload, &r); {
	case err != nil:
		c.failure = fmt.Errorf("reply of the monitor: %w", err)
	case r.Failure != nil:
		c.failure = failureOf(r.Failure)
	default:
		c.result = r.Result
	}
	close(c.done)
}

func (m *Monitor) event(e protocol.Event, payload []byte) error {
	switch e {
	case protocol.EventExit:
		var exit protocol.Exit
		if err := json.Unmarshal(payload, &exit); err != nil {
			return fmt.Errorf("exit event: %w", err)
		}
		m.conclude(exitOf(exit))
	case protocol.EventExecExit:
		var s protocol.ExecState
		if err := json.Unmarshal(payload, &s); err != nil {
			return fmt.Errorf("exec exit event: %w", err)
		}
		m.execEnded(s)
	case protocol.EventOOM:
		var o protocol.OOM
		if err := json.Unmarshal(payload, &o); err != nil {
			return fmt.Errorf("oom event: %w", err)
		}
		m.countOOM(o.Kills)
	case protocol.EventLogDropped:
		var d protocol.LogDropped
		if err := json.Unmarshal(payload, &d); err != nil {
			return fmt.Errorf("log dropped event: %w", err)
		}
		m.noteDropped(d.Bytes)
	case protocol.EventGone:
		m.setGone(true)
	}
	return nil
}

func (m *Monitor) countOOM(kills uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	for ; m.oomKills < kills; m.oomKills++ {
		select {
		case m.oom <- struct{}{}:
		default:
			m.oomKills = kills
			return
		}
	}
}

// conclude records how the container ended; only the first time counts.
func (m *Monitor) conclude(exit container.Exit) {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	m.ended = true
	m.exit = exit
	close(m.oom)
	close(m.exited)
	var left []*Exec
	for _, x := range m.execs {
		left = append(left, x)
	}
	launched := m.running.InitPid != 0
	m.mu.Unlock()
	if exit.Reason != "" && launched {
		m.log.Warn("the exit status is not the program's own", "container", m.id, "code", exit.Code, "reason", exit.Reason)
	}
	for _, x := range left {
		x.conclude(container.Exit{Code: 137, Time: exit.Time, Reason: exit.Reason})
	}
}

// setGone closes gone; tidy: the monitor says that it cleaned up.
func (m *Monitor) setGone(tidy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.goneSet {
		m.goneSet, m.tidy = true, tidy
		close(m.gone)
	}
}

// clean reports whether nothing but the run folder is left of the container.
func (m *Monitor) clean() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tidy
}

func (m *Monitor) waitGone(ctx context.Context) error {
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// disconnect fails every call that waits.
func (m *Monitor) disconnect(cause error) {
	m.mu.Lock()
	if cause == nil {
		cause = errors.New("closed")
	}
	m.broken = cause
	if m.caps == nil {
		m.caps = map[string]bool{}
		close(m.greeted)
	}
	calls := m.calls
	m.calls = map[uint32]*call{}
	err := m.closedError()
	m.mu.Unlock()
	for _, c := range calls {
		c.failure = err
		close(c.done)
	}
}

// readExitFile concludes from the exit file when there is one. The daemon was
// told nothing yet when the connection broke between file and event.
func (m *Monitor) readExitFile() bool {
	m.mu.Lock()
	known, launched := m.ended, m.running.InitPid != 0
	m.mu.Unlock()
	if known {
		return true
	}
	if !launched {
		return false
	}
	exit, err := m.l.readExit(m.id)
	if err != nil {
		return false
	}
	m.conclude(exit)
	return true
}

// reconnect opens another connection to a monitor that lives.
func (m *Monitor) reconnect() bool {
	select {
	case <-m.quit:
		return false
	case <-time.After(reconnectPause):
	}
	conn, err := m.l.connect(m.id)
	if err != nil {
		return false
	}
	m.mu.Lock()
	if m.released {
		m.mu.Unlock()
		conn.Close()
		return false
	}
	old := m.conn
	conn.SetWriteTimeout(m.l.patience)
	m.conn = conn
	calls := m.calls
	m.calls = map[uint32]*call{}
	m.mu.Unlock()
	old.Close()
	for _, c := range calls {
		c.failure = errdefs.ErrUnavailable.WithMessage("the connection to the monitor of container " + m.id + " broke")
		close(c.done)
	}
	if err := m.hello(); err != nil {
		return false
	}
	m.log.Warn("connected to the monitor again", "container", m.id)
	return true
}

// release lets go of a monitor without ending its container.
func (m *Monitor) release() {
	m.mu.Lock()
	if !m.released {
		m.released = true
		close(m.quit)
	}
	conn := m.conn
	m.mu.Unlock()
	conn.Close()
	_ = m.pidfd.SetReadDeadline(time.Unix(1, 0)) // fails only once it is closed
}

func (m *Monitor) isReleased() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.released
}

// kill ends the monitor at once.
func (m *Monitor) kill() {
	_ = pidfd.Signal(m.pidfd, int(unix.SIGKILL)) // one that has ended is as good
}

func (m *Monitor) isDead() bool {
	select {
	case <-m.dead:
		return true
	default:
		return false
	}
}

// failureOf gives a monitor's error its class here.
func failureOf(f *protocol.Failure) error {
	switch f.Class {
	case protocol.ClassNotFound:
		return errdefs.ErrNotFound.WithMessage(f.Message)
	case protocol.ClassInvalid:
		return errdefs.ErrInvalidArgument.WithMessage(f.Message)
	case protocol.ClassConflict:
		return errdefs.ErrConflict.WithMessage(f.Message)
	case protocol.ClassUnimplemented:
		return errdefs.ErrNotImplemented.WithMessage(f.Message)
	}
	return f
}

func marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("encode for the monitor: " + err.Error())
	}
	return data, nil
}
