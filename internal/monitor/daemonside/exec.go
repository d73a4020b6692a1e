package daemonside

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// ExecRequest is an additional process of a running container.
type ExecRequest struct {
	// ID is the daemon's name for it, unique in the container.
	ID      string
	Process *specs.Process
	// Stdin, Stdout, Stderr say which streams the first client takes part in.
	Stdin, Stdout, Stderr bool
	// Detach: there is no client; output is discarded.
	Detach bool
	// Note is JSON that the monitor keeps for a daemon that adopts the exec; may
	// be nil.
	Note []byte
}

// Exec is an additional process.
type Exec struct {
	m      *Monitor
	id     string
	note   []byte
	stream *Stream

	mu   sync.Mutex
	pid  int
	done chan struct{}
	exit container.Exit
	over bool
}

// execArgs is the payload of an exec: the protocol's part and the process.
type execArgs struct {
	protocol.ExecArgs
	Process *specs.Process `json:"process"`
}

// Exec starts another process in the container and returns once it was
// exec'ed, or with *StartFailed. ErrConflict: the id is taken, or the container
// is paused.
func (m *Monitor) Exec(ctx context.Context, req ExecRequest) (*Exec, error) {
	if req.ID == "" || req.Process == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("exec in container " + m.id + ": id and process are required")
	}
	x := &Exec{m: m, id: req.ID, note: req.Note, done: make(chan struct{})}
	m.mu.Lock()
	if _, taken := m.execs[req.ID]; taken {
		m.mu.Unlock()
		return nil, errdefs.ErrConflict.WithMessage("exec " + req.ID + " exists already")
	}
	m.execs[req.ID] = x
	m.mu.Unlock()
	started, err := m.startExec(ctx, x, req)
	if err != nil {
		m.dropExec(x)
		if x.stream != nil {
			x.stream.Close()
		}
		var f *protocol.Failure
		if errors.As(err, &f) && f.Class == protocol.ClassStart {
			return nil, &StartFailed{Code: f.Code, Message: f.Message}
		}
		return nil, fmt.Errorf("exec in container %s: %w", m.id, err)
	}
	x.mu.Lock()
	x.pid = started.Pid
	x.mu.Unlock()
	return x, nil
}

func (m *Monitor) startExec(ctx context.Context, x *Exec, req ExecRequest) (protocol.ExecStarted, error) {
	var started protocol.ExecStarted
	args := execArgs{
		ExecArgs: protocol.ExecArgs{ID: req.ID, Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Note: req.Note},
		Process:  req.Process,
	}
	var files []int
	if !req.Detach {
		stream, file, err := newStream(AttachOptions{Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr})
		if err != nil {
			return started, err
		}
		defer file.Close()
		x.stream = stream
		files = append(files, int(file.Fd()))
	}
	err := m.ask(ctx, protocol.OpExec, args, &started, files...)
	return started, err
}

// Note is that of the ExecRequest; nil from a monitor that keeps none.
func (x *Exec) Note() []byte { return x.note }

// Execs lists those that run and those that ended and were not waited for.
func (m *Monitor) Execs(ctx context.Context) ([]*Exec, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*Exec, 0, len(m.execs))
	for _, x := range m.execs {
		list = append(list, x)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].id < list[j].id })
	return list, nil
}

// adoptExecs learns the execs of another life of the daemon.
func (m *Monitor) adoptExecs(ctx context.Context) error {
	var list protocol.Execs
	if err := m.ask(ctx, protocol.OpExecs, protocol.Empty{}, &list); err != nil {
		if errdefs.IsNotImplemented(err) {
			return nil
		}
		return err
	}
	for _, s := range list.Execs {
		m.mu.Lock()
		x, known := m.execs[s.ID]
		if !known {
			x = &Exec{m: m, id: s.ID, note: s.Note, pid: s.Pid, done: make(chan struct{})}
			m.execs[s.ID] = x
		}
		m.mu.Unlock()
		if s.Exit != nil {
			x.conclude(exitOf(*s.Exit))
		}
	}
	return nil
}

func (m *Monitor) execEnded(s protocol.ExecState) {
	m.mu.Lock()
	x := m.execs[s.ID]
	m.mu.Unlock()
	if x != nil && s.Exit != nil {
		x.conclude(exitOf(*s.Exit))
	}
}

func (m *Monitor) dropExec(x *Exec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.execs[x.id] == x {
		delete(m.execs, x.id)
	}
}

// ID is the daemon's name for the exec.
func (x *Exec) ID() string { return x.id }

// Pid in the host's pid namespace.
func (x *Exec) Pid() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pid
}

// Stream is the first client's; nil when detached or adopted.
func (x *Exec) Stream() *Stream { return x.stream }

// Attach adds a client, e.g. to an adopted exec.
func (x *Exec) Attach(ctx context.Context, opts AttachOptions) (*Stream, error) {
	return x.m.attach(ctx, x.id, opts)
}

// Done is closed when the exec has ended.
func (x *Exec) Done() <-chan struct{} { return x.done }

// Wait returns how the exec ended. An exec that the end of its container ended
// has code 137. It is forgotten by the monitor's list afterwards.
func (x *Exec) Wait(ctx context.Context) (container.Exit, error) {
	select {
	case <-x.done:
		x.m.dropExec(x)
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.exit, nil
	case <-ctx.Done():
		return container.Exit{}, fmt.Errorf("wait for exec %s: %w", x.id, context.Cause(ctx))
	}
}

// Resize sets the size of its terminal.
func (x *Exec) Resize(ctx context.Context, rows, cols uint16) error {
	if err := x.m.ask(ctx, protocol.OpResize, protocol.ResizeArgs{Exec: x.id, Rows: rows, Cols: cols}, nil); err != nil {
		return fmt.Errorf("resize exec %s: %w", x.id, err)
	}
	return nil
}

// Signal its process.
func (x *Exec) Signal(ctx context.Context, sig int) error {
	if err := x.m.ask(ctx, protocol.OpSignal, protocol.SignalArgs{Exec: x.id, Signal: sig}, nil); err != nil {
		return fmt.Errorf("signal exec %s: %w", x.id, err)
	}
	return nil
}

func (x *Exec) conclude(exit container.Exit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.over, x.exit = true, exit
	close(x.done)
}
