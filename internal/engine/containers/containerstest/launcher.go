package containerstest

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
)

// InitPid is the pid of every fake container.
const InitPid = 4242

// Launcher runs containers that do what tests tell them.
type Launcher struct {
	clock *Clock
	run   *RunDir

	mu       sync.Mutex
	monitors map[string]*Monitor
	exits    map[string]container.Exit
	folders  map[string]bool
	launches []container.Launch
	// StartError is returned by Start.
	StartError error
	// Gate, when set, holds Start up until it is closed.
	Gate chan struct{}
	// Entered gets a value when a start arrives at the gate.
	Entered chan struct{}
}

// NewLauncher makes a launcher that runs nothing yet.
func NewLauncher(clock *Clock, run *RunDir) *Launcher {
	return &Launcher{clock: clock, run: run, monitors: map[string]*Monitor{}, exits: map[string]container.Exit{},
		folders: map[string]bool{}, Entered: make(chan struct{}, 16)}
}

// Failure is a start that failed.
type Failure struct {
	Code    int
	Message string
}

func (f Failure) Error() string { return f.Message }

// ExitCode implements containers.StartFailure.
func (f Failure) ExitCode() int { return f.Code }

// Unwrap gives it the class of the real one.
func (f Failure) Unwrap() error { return errdefs.ErrInvalidArgument }

// Monitor of a container that was started.
func (l *Launcher) Monitor(id string) *Monitor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.monitors[id]
}

// Launches lists what was started.
func (l *Launcher) Launches() []container.Launch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.launches)
}

// Fail sets the error of starts; nil lets them succeed.
func (l *Launcher) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.StartError = err
}

// Start implements containers.Launcher.
func (l *Launcher) Start(ctx context.Context, launch container.Launch, opts containers.StartOptions) (containers.Monitor, []containers.Stream, error) {
	l.mu.Lock()
	gate, err := l.Gate, l.StartError
	l.folders[launch.ID] = true
	l.mu.Unlock()
	if gate != nil {
		l.Entered <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	m := &Monitor{l: l, id: launch.ID, exited: make(chan struct{}), oom: make(chan struct{}, 4), dropped: make(chan uint64, 1),
		running: container.Running{MonitorPid: 1, InitPid: InitPid, StartedAt: l.clock.Now(), BootID: "boot-1"}}
	var streams []containers.Stream
	for _, a := range opts.Attach {
		streams = append(streams, m.stream(a))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.exits, launch.ID)
	l.monitors[launch.ID] = m
	l.launches = append(l.launches, launch)
	return m, streams, nil
}

// Adopt implements containers.Launcher.
func (l *Launcher) Adopt(_ context.Context, id string) (containers.Monitor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.monitors[id]
	if m == nil || m.hasEnded() {
		return nil, errdefs.ErrNotFound
	}
	return m, nil
}

// LastExit implements containers.Launcher.
func (l *Launcher) LastExit(id string) (container.Exit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	exit, ok := l.exits[id]
	if !ok {
		return exit, errdefs.ErrNotFound
	}
	return exit, nil
}

// Leave puts back the run folder of a container, of which only an exit is known.
func (l *Launcher) Leave(id string, exit container.Exit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.monitors, id)
	l.folders[id], l.exits[id] = true, exit
}

// Leftovers implements containers.Launcher.
func (l *Launcher) Leftovers() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id := range l.folders {
		ids = append(ids, id)
	}
	return ids, nil
}

// Forget implements containers.Launcher.
func (l *Launcher) Forget(_ context.Context, id string) error {
	l.mu.Lock()
	m := l.monitors[id]
	delete(l.folders, id)
	delete(l.exits, id)
	l.mu.Unlock()
	if m != nil {
		m.End(137)
	}
	l.run.Drop(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.exits, id)
	delete(l.monitors, id)
	return nil
}

// PowerOff loses everything that runs and what lies on the tmpfs.
func (l *Launcher) PowerOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.folders {
		l.run.Drop(id)
	}
	clear(l.folders)
	clear(l.exits)
	clear(l.monitors)
}

// Monitor is a fake container: it ignores signals but SIGKILL, unless told
// otherwise.
type Monitor struct {
	l       *Launcher
	id      string
	running container.Running
	exited  chan struct{}
	oom     chan struct{}
	dropped chan uint64

	mu      sync.Mutex
	exit    container.Exit
	ended   bool
	frozen  bool
	signals []int
	streams []*Stream
	// stuck: a request is not answered before its context ends.
	stuck bool
	// OnSignal says what a signal does; it may call End.
	onSignal func(m *Monitor, sig int)
	gate     chan struct{}
	pauseErr error
	execs    map[string]*Exec
}

func (m *Monitor) hasEnded() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// End ends the process.
func (m *Monitor) End(code int) { m.EndBecause(code, "") }

// EndBecause ends the process with a reason.
func (m *Monitor) EndBecause(code int, reason string) {
	exit := container.Exit{Code: code, Time: m.l.clock.Now(), Reason: reason}
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	m.ended, m.exit = true, exit
	streams := m.streams
	m.mu.Unlock()
	m.l.mu.Lock()
	m.l.exits[m.id] = exit
	m.l.mu.Unlock()
	for _, s := range streams {
		s.finish()
	}
	close(m.exited)
}

// OnSignal sets what signals do.
func (m *Monitor) OnSignal(do func(m *Monitor, sig int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onSignal = do
}

// HoldPause makes Pause wait for the gate, then fail with err.
func (m *Monitor) HoldPause(gate chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate, m.pauseErr = gate, err
}

// Stick makes it answer no signal any more.
func (m *Monitor) Stick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuck = true
}

// Signals lists what was sent.
func (m *Monitor) Signals() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.signals)
}

// Frozen reports whether it is paused.
func (m *Monitor) Frozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frozen
}

// Write sends output to every attached client.
func (m *Monitor) Write(kind byte, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		s.push(kind, text)
	}
}

// Running implements containers.Monitor.
func (m *Monitor) Running() container.Running { return m.running }

// Exited implements containers.Monitor.
func (m *Monitor) Exited() <-chan struct{} { return m.exited }

// Exit implements containers.Monitor.
func (m *Monitor) Exit() container.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// OOM implements containers.Monitor.
func (m *Monitor) OOM() <-chan struct{} { return m.oom }

// LogDropped implements containers.Monitor.
func (m *Monitor) LogDropped() <-chan uint64 { return m.dropped }

// DropLog reports output missing in the log.
func (m *Monitor) DropLog(bytes uint64) { m.dropped <- bytes }

// KillByOOM reports an OOM kill.
func (m *Monitor) KillByOOM() { m.oom <- struct{}{} }

func (m *Monitor) stream(a containers.AttachStreams) *Stream {
	s := &Stream{asked: a, wake: make(chan struct{}, 1)}
	if a.Stdin {
		s.stdin = &Stdin{done: make(chan struct{})}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams = append(m.streams, s)
	return s
}

// Attach implements containers.Monitor.
func (m *Monitor) Attach(_ context.Context, a containers.AttachStreams) (containers.Stream, error) {
	if m.hasEnded() {
		return nil, errdefs.ErrNotFound
	}
	return m.stream(a), nil
}

// Resize implements containers.Monitor.
func (m *Monitor) Resize(context.Context, uint16, uint16) error { return nil }

// Signal implements containers.Monitor.
func (m *Monitor) Signal(ctx context.Context, sig int, _ bool) error {
	m.mu.Lock()
	if m.stuck {
		m.mu.Unlock()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if m.ended {
		m.mu.Unlock()
		return errdefs.ErrNotFound
	}
	m.signals = append(m.signals, sig)
	do := m.onSignal
	m.mu.Unlock()
	switch {
	case do != nil:
		do(m, sig)
	case sig == container.SIGKILL:
		m.End(137)
	}
	return nil
}

// Pause implements containers.Monitor.
func (m *Monitor) Pause(context.Context) error {
	m.mu.Lock()
	gate, err := m.gate, m.pauseErr
	m.mu.Unlock()
	if gate != nil {
		m.l.Entered <- struct{}{}
		<-gate
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
	return nil
}

// Resume implements containers.Monitor.
func (m *Monitor) Resume(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = false
	return nil
}

// Update implements containers.Monitor.
func (m *Monitor) Update(context.Context, *specs.LinuxResources) error { return nil }

// Exec implements containers.Monitor.
func (m *Monitor) Exec(_ context.Context, req containers.ExecRequest) (containers.Exec, error) {
	if m.hasEnded() {
		return nil, errdefs.ErrNotFound
	}
	if req.Process.Args[0] == "missing" {
		return nil, Failure{Code: 127, Message: `exec: "missing": executable file not found in $PATH`}
	}
	x := &Exec{id: req.ID, note: req.Note, Process: req.Process, done: make(chan struct{})}
	if !req.Detach {
		x.stream = m.stream(req.Streams)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.execs == nil {
		m.execs = map[string]*Exec{}
	}
	m.execs[req.ID] = x
	if req.Process.Args[0] == "true" {
		x.End(0)
	}
	return x, nil
}

// ExecOf finds an exec.
func (m *Monitor) ExecOf(id string) *Exec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.execs[id]
}

// Execs implements containers.Monitor.
func (m *Monitor) Execs(context.Context) ([]containers.Exec, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []containers.Exec
	for _, x := range m.execs {
		out = append(out, x)
	}
	return out, nil
}

// Exec is a fake process.
type Exec struct {
	id      string
	note    []byte
	Process *specs.Process
	stream  *Stream
	done    chan struct{}
	once    sync.Once
	code    int
}

// End ends it.
func (x *Exec) End(code int) {
	x.once.Do(func() {
		x.code = code
		close(x.done)
		if x.stream != nil {
			x.stream.finish()
		}
	})
}

// ID implements containers.Exec.
func (x *Exec) ID() string { return x.id }

// Note implements containers.Exec.
func (x *Exec) Note() []byte { return x.note }

// Pid implements containers.Exec.
func (x *Exec) Pid() int { return 77 }

// Stream implements containers.Exec.
func (x *Exec) Stream() containers.Stream {
	if x.stream == nil {
		return nil
	}
	return x.stream
}

// Wait implements containers.Exec.
func (x *Exec) Wait(ctx context.Context) (container.Exit, error) {
	select {
	case <-x.done:
		return container.Exit{Code: x.code}, nil
	case <-ctx.Done():
		return container.Exit{}, ctx.Err()
	}
}

// Resize implements containers.Exec.
func (x *Exec) Resize(context.Context, uint16, uint16) error { return nil }

// Signal implements containers.Exec.
func (x *Exec) Signal(context.Context, int) error {
	x.End(137)
	return nil
}

// Stream is a fake attached client.
type Stream struct {
	asked containers.AttachStreams
	stdin *Stdin
	wake  chan struct{}

	mu     sync.Mutex
	queue  []piece
	over   bool
	closed bool
}

type piece struct {
	kind byte
	text string
}

func (s *Stream) push(kind byte, text string) {
	s.mu.Lock()
	s.queue = append(s.queue, piece{kind, text})
	s.mu.Unlock()
	s.ring()
}

func (s *Stream) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) finish() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.ring()
}

// Stdin implements containers.Stream.
func (s *Stream) Stdin() io.WriteCloser {
	if s.stdin == nil {
		return nil
	}
	return s.stdin
}

// Next implements containers.Stream.
func (s *Stream) Next() (byte, []byte, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, nil, os.ErrClosed
		case len(s.queue) > 0:
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return p.kind, []byte(p.text), nil
		case s.over:
			s.mu.Unlock()
			return 0, nil, io.EOF
		}
		s.mu.Unlock()
		<-s.wake
	}
}

// Close implements containers.Stream.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ring()
	return nil
}

// Stdin is the standard input of a fake container.
type Stdin struct {
	mu   sync.Mutex
	data []byte
	done chan struct{}
	once sync.Once
}

// Write implements io.Writer.
func (s *Stdin) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = append(s.data, p...)
	return len(p), nil
}

// Close implements io.Closer.
func (s *Stdin) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}
