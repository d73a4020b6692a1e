package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
)

const (
	// execKept is how long an exec that has ended can still be inspected.
	execKept = 5 * time.Minute
	// resizeWait is how long a resize waits for an exec that is being started.
	resizeWait = 10 * time.Second
	// exitNotExecuted is recorded for an exec that failed to start for a
	// reason of its own.
	exitNotExecuted = 126
)

// execution is one exec of a container, from its creation on.
type execution struct {
	id   string
	o    *object
	req  containertypes.ExecCreateRequest
	keys []byte
	// process as it was configured at the creation.
	process *specs.Process
	// started is closed when the start has succeeded or failed.
	started chan struct{}

	mu      sync.Mutex
	begun   bool
	running bool
	proc    Exec
	code    *int
	ended   time.Time
}

// note is what a daemon that adopts the exec has to know of the request:
// what inspect and events show.
func (e *execution) note() []byte {
	req := e.req
	req.Env = nil // the largest part, and not shown
	raw, err := json.Marshal(req)
	if err != nil {
		return nil // it came as JSON
	}
	return raw
}

// ExecCreate configures another process of a running container.
func (s *Service) ExecCreate(ctx context.Context, ref string, req containertypes.ExecCreateRequest) (string, error) {
	if len(req.Cmd) == 0 {
		return "", invalid("no exec command specified")
	}
	keys, err := detachKeys(req.DetachKeys)
	if err != nil {
		return "", invalid("Invalid escape keys (%s) provided", req.DetachKeys)
	}
	o, err := s.find(ref)
	if err != nil {
		return "", err
	}
	if err := o.ask(ctx, container.ActExec); err != nil {
		return "", err
	}
	snap := o.snapshot()
	o.mu.Unlock()
	in, err := s.specInput(snap)
	if err != nil {
		return "", err
	}
	if req.User == "" {
		req.User = snap.saved.Config.User
	}
	if in.User, err = s.execUser(ctx, o.id, req.User, snap.saved.HostConfig.GroupAdd); err != nil {
		return "", withText(errdefs.ErrInvalidArgument, "%v", err)
	}
	process, err := container.ExecProcess(in, req)
	if err != nil {
		return "", fmt.Errorf("exec in container %s: %w", o.id, err)
	}
	e := &execution{id: s.cfg.NewID(), o: o, req: req, keys: keys, process: process, started: make(chan struct{})}
	s.mu.Lock()
	s.execs[e.id] = e
	s.mu.Unlock()
	s.tellExec(e, events.ActionExecCreate)
	return e.id, nil
}

// ExecStartOptions say how an exec is started.
type ExecStartOptions struct {
	// Detach returns once it runs; nobody sees its output.
	Detach bool
	// TTY is what the client believes; the creation decides.
	TTY bool
	// ConsoleSize is height and width; it replaces the creation's.
	ConsoleSize *[2]uint
	// DetachKeys replace the creation's; "" keeps them.
	DetachKeys string
	// Streams opens the client's side, after every check.
	Streams func(tty bool) (Streams, error)
}

// ExecStart runs an exec and, unless detached, serves its client until it
// ends. The client's end kills it only when ctx ends with it.
func (s *Service) ExecStart(ctx context.Context, id string, opts ExecStartOptions) (err error) {
	e, m, err := s.usableExec(ctx, id)
	if err != nil {
		return err
	}
	keys := e.keys
	if opts.DetachKeys != "" {
		if keys, err = detachKeys(opts.DetachKeys); err != nil {
			return invalid("Invalid escape keys (%s) provided", opts.DetachKeys)
		}
	}
	e.mu.Lock()
	switch {
	case e.code != nil:
		e.mu.Unlock()
		return conflict("exec command %s has already run", e.id)
	case e.begun:
		e.mu.Unlock()
		return conflict("exec command %s is already running", e.id)
	}
	e.begun, e.running = true, true
	e.mu.Unlock()
	defer func() {
		if err != nil {
			s.execFailed(e, err)
		}
	}()

	var client Streams
	if !opts.Detach {
		if client, err = opts.Streams(e.req.Tty); err != nil {
			return err
		}
		if client.In != nil {
			defer client.In.Close()
		}
	}
	s.tellExec(e, events.ActionExecStart)
	process := *e.process
	if size := opts.ConsoleSize; size != nil && process.Terminal {
		process.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	proc, err := m.Exec(context.WithoutCancel(ctx), ExecRequest{
		ID: e.id, Process: &process, Detach: opts.Detach, Note: e.note(),
		Streams: AttachStreams{Stdin: e.req.AttachStdin && client.In != nil, Stdout: e.req.AttachStdout, Stderr: e.req.AttachStderr},
	})
	if err != nil {
		return execError(err)
	}
	e.mu.Lock()
	e.proc = proc
	e.mu.Unlock()
	close(e.started)
	finished := make(chan struct{})
	s.spawn(func() {
		defer close(finished)
		s.awaitExec(e, proc)
	})
	if opts.Detach || proc.Stream() == nil {
		return nil
	}
	st := proc.Stream()
	defer st.Close()
	if pump(ctx, st, client, e.req.Tty, keys, true) {
		s.tellExec(e, events.ActionExecDetach)
		return nil
	}
	if ctx.Err() != nil {
		return nil // the client has gone; the process goes on, as in Docker
	}
	// The client asks for the exit status as soon as the stream has ended.
	select {
	case <-finished:
	case <-ctx.Done():
	case <-s.leaving:
	case <-s.cfg.After(resizeWait):
	}
	return nil
}

// awaitExec records the end of an exec.
func (s *Service) awaitExec(e *execution, proc Exec) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	exit, err := proc.Wait(ctx)
	if ctx.Err() != nil {
		return // the daemon leaves; the exec goes on
	}
	if err != nil {
		// The container has ended and took it along.
		exit = container.Exit{Code: 128 + container.SIGKILL}
	}
	s.execEnded(e, exit.Code)
	s.tell(e.o.snapshot(), events.ActionExecDie, map[string]string{"execID": e.id, "exitCode": strconv.Itoa(exit.Code)})
}

func (s *Service) execEnded(e *execution, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.ended = false, s.cfg.Now()
	if e.code == nil {
		e.code = &code
	}
}

// execFailed records an exec that could not be started.
func (s *Service) execFailed(e *execution, cause error) {
	code := exitNotExecuted
	var failure StartFailure
	if errors.As(cause, &failure) && failure.ExitCode() != 0 {
		code = failure.ExitCode()
	}
	s.execEnded(e, code)
	select {
	case <-e.started:
	default:
		close(e.started)
	}
}

// execError puts a failure of the runtime into Docker's words.
func execError(err error) error {
	var failure StartFailure
	if !errors.As(err, &failure) {
		if errdefs.IsNotFound(err) {
			return conflict("container is not running")
		}
		return err
	}
	return startedError{
		text:  "OCI runtime exec failed: exec failed: " + strings.TrimPrefix(processFailure(failure), "exec failed: "),
		cause: err,
	}
}

// findExec looks an exec up by its full id.
func (s *Service) findExec(id string) (*execution, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.execs[id]
	if e == nil {
		return nil, withText(errdefs.ErrNotFound, "No such exec instance: %s", id)
	}
	return e, nil
}

// usableExec finds an exec whose container can run it now.
func (s *Service) usableExec(ctx context.Context, id string) (*execution, Monitor, error) {
	e, err := s.findExec(id)
	if err != nil {
		return nil, nil, err
	}
	if err := e.o.ask(ctx, container.ActExec); err != nil {
		return nil, nil, err
	}
	m := e.o.monitor
	e.o.mu.Unlock()
	return e, m, nil
}

// ExecInspect tells about an exec.
func (s *Service) ExecInspect(_ context.Context, id string) (containertypes.ExecInspectResponse, error) {
	e, err := s.findExec(id)
	if err != nil {
		return containertypes.ExecInspectResponse{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged := e.req.Privileged
	keys := e.keys
	if keys == nil {
		keys = []byte{}
	}
	resp := containertypes.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.code,
		ProcessConfig: &containertypes.ExecProcessConfig{
			Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:], Privileged: &privileged,
			User: e.req.User,
		},
		OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout, OpenStderr: e.req.AttachStderr,
		CanRemove: e.code != nil, ContainerID: e.o.id, DetachKeys: keys,
	}
	if e.proc != nil {
		resp.Pid = e.proc.Pid()
	}
	return resp, nil
}

// ExecResize sets the size of an exec's terminal.
func (s *Service) ExecResize(ctx context.Context, id string, height, width uint) error {
	e, _, err := s.usableExec(ctx, id)
	if err != nil {
		return err
	}
	rows, cols, err := terminalSize(height, width)
	if err != nil {
		return err
	}
	select {
	case <-e.started:
	case <-s.cfg.After(resizeWait):
		return errors.New("timeout waiting for exec session ready")
	case <-ctx.Done():
		return ctx.Err()
	}
	e.mu.Lock()
	proc := e.proc
	e.mu.Unlock()
	if proc == nil {
		return invalid("exec process is not started")
	}
	return proc.Resize(ctx, rows, cols)
}

// execIDs lists the execs of a container that have not ended; nil when there
// are none.
func (s *Service) execIDs(container string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for id, e := range s.execs {
		if e.o.id != container {
			continue
		}
		e.mu.Lock()
		if e.code == nil {
			ids = append(ids, id)
		}
		e.mu.Unlock()
	}
	return ids
}

// forgetExecs drops execs that ended long ago.
func (s *Service) forgetExecs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.execs {
		e.mu.Lock()
		old := e.code != nil && s.cfg.Now().Sub(e.ended) >= execKept
		e.mu.Unlock()
		if old {
			delete(s.execs, id)
		}
	}
}

// tellExec publishes an event about an exec, with its command in the action.
func (s *Service) tellExec(e *execution, action events.Action) {
	if action != events.ActionExecDetach {
		action = events.Action(string(action) + ": " + e.req.Cmd[0] + " " + strings.Join(e.req.Cmd[1:], " "))
	}
	s.tell(e.o.snapshot(), action, map[string]string{"execID": e.id})
}

// runIn runs a command in a container and collects its output, at most limit
// bytes of it: health checks.
func (s *Service) runIn(ctx context.Context, e *execution, m Monitor, limit int) (code int, output string, err error) {
	proc, err := m.Exec(ctx, ExecRequest{ID: e.id, Process: e.process, Streams: AttachStreams{Stdout: true, Stderr: true}})
	if err != nil {
		return 0, "", execError(err)
	}
	st := proc.Stream()
	defer st.Close()
	var out strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			_, data, err := st.Next()
			if err != nil {
				return
			}
			out.Write(data[:min(len(data), limit-out.Len())])
		}
	}()
	exit, err := proc.Wait(ctx)
	if err != nil {
		// Its time is up, or the container's: nothing of it shall stay.
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
		defer cancel()
		_ = proc.Signal(kill, container.SIGKILL) // it may have ended just now
		_ = st.Close()
	}
	select {
	case <-read:
	case <-s.cfg.After(failedSignalWait):
		_ = st.Close() // a child of it holds the output open
		<-read
	}
	return exit.Code, out.String(), err
}

var _ io.Closer = Stream(nil)
