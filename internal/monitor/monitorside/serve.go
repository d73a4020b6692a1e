package monitorside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

const socketFile = "monitor.sock"

// listener is the monitor's socket in the run folder.
type listener struct {
	file *os.File
	dir  int
	once sync.Once
}

// openSocket makes the socket. Its path goes through a descriptor of the
// folder, because a socket address has room for 108 bytes only.
func (m *monitor) openSocket() (*listener, error) {
	dir, err := unix.Open(m.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open run folder %s: %w", m.dir, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		unix.Close(dir)
		return nil, fmt.Errorf("make monitor socket: %w", err)
	}
	fail := func(err error) (*listener, error) {
		unix.Close(fd)
		unix.Close(dir)
		return nil, fmt.Errorf("make monitor socket in %s: %w", m.dir, err)
	}
	// The mode of a socket file is that of the socket's inode.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fail(err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, socketFile)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fail(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return fail(err)
	}
	return &listener{file: os.NewFile(uintptr(fd), socketFile), dir: dir}, nil
}

// listenOn takes over a socket of the program before.
func (m *monitor) listenOn(fd int) (*listener, error) {
	dir, err := unix.Open(m.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open run folder %s: %w", m.dir, err)
	}
	return &listener{file: inherited(fd, socketFile), dir: dir}, nil
}

// close removes the socket; nil is fine, and so is a second time.
func (l *listener) close() {
	if l == nil {
		return
	}
	l.once.Do(func() {
		_ = unix.Unlinkat(l.dir, socketFile, 0)
		unix.Close(l.dir)
		l.file.Close()
	})
}

// accept serves everybody who connects.
func (m *monitor) accept(ctx context.Context) {
	raw, err := m.listen.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd := -1
		var err error
		if raw.Read(func(s uintptr) bool {
			m.moving.RLock()
			fd, _, err = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err == unix.EAGAIN {
				m.moving.RUnlock()
				return false
			}
			return true
		}) != nil {
			return // closed
		}
		if err != nil {
			m.moving.RUnlock()
			if err == unix.ECONNABORTED || err == unix.EINTR {
				continue
			}
			// Out of descriptors or memory: others may give some back.
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		ok := m.welcome(ctx, fd)
		m.moving.RUnlock()
		if !ok {
			return
		}
	}
}

// welcome serves a new connection. It reports false at the end.
func (m *monitor) welcome(ctx context.Context, fd int) bool {
	conn, err := protocol.NewConn(fd, "client")
	if err != nil {
		return true
	}
	if !m.addConn(conn, false) {
		conn.Close()
		return false
	}
	if m.greet(conn) != nil {
		m.removeConn(conn)
		return true
	}
	m.work.Go(func() { m.serve(ctx, conn, false) })
	return true
}

func (m *monitor) addConn(c *protocol.Conn, control bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conns == nil {
		return false
	}
	c.SetWriteTimeout(writeTimeout)
	c.SetGate(m.moving.RLocker())
	m.conns[c] = control
	return true
}

func (m *monitor) removeConn(c *protocol.Conn) {
	c.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

// writeTimeout bounds a reply or event to somebody who does not read.
const writeTimeout = 10 * time.Second

// serve answers the requests of one connection until it ends.
func (m *monitor) serve(ctx context.Context, c *protocol.Conn, control bool) {
	busy := make(chan struct{}, busyLimit)
	for {
		f, files, err := c.Read()
		if err != nil {
			break
		}
		switch f.Kind {
		case protocol.KindHello:
			if checkHello(f.Payload) != nil {
				closeAll(files)
				c.Close()
			}
		case protocol.KindRequest:
			m.request(ctx, c, f, files, busy)
			continue
		}
		closeAll(files)
	}
	m.removeConn(c)
	if control && m.tied {
		m.kill(ctx)
	}
}

// request carries one out. What may take a while runs beside the connection.
func (m *monitor) request(ctx context.Context, c *protocol.Conn, f protocol.Frame, files []*os.File, busy chan struct{}) {
	op := protocol.Operation(f.Op)
	act, err := m.decode(ctx, op, f.Payload, files)
	head := protocol.Frame{Kind: f.Kind, Op: f.Op, ID: f.ID}
	if err != nil {
		closeAll(files)
		m.answer(c, head, nil, failureOf(err))
		return
	}
	busy <- struct{}{}
	m.moving.RLock()
	m.work.Go(func() {
		defer m.moving.RUnlock()
		var result any = protocol.Empty{}
		var after func()
		var err error
		if op != protocol.OpState {
			select {
			case <-m.ready:
			case <-ctx.Done():
			}
			if m.runner() == nil {
				err = errNotRunning(m.id)
			}
		}
		if err == nil {
			result, after, err = act()
		}
		closeAll(files)
		<-busy
		if err != nil {
			m.answer(c, head, nil, failureOf(err))
			return
		}
		m.answer(c, head, result, nil)
		if after != nil {
			m.work.Go(after)
		}
		m.grown.Store(true)
		m.asked.Store(m.now().UnixNano())
		m.trim.touch()
	})
}

func errNotRunning(id string) error {
	return errdefs.ErrNotFound.WithMessage("container " + id + " is not running")
}

// runner returns the container while it runs.
func (m *monitor) runner() runner {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exit != nil {
		return nil
	}
	return m.ctr
}

func (m *monitor) answer(c *protocol.Conn, f protocol.Frame, result any, failure *protocol.Failure) {
	if err := c.Answer(f, result, failure); err != nil {
		c.Close() // its reader ends and removes it
	}
}

// tell sends an event to every connection. One that does not take it within
// writeTimeout is closed.
func (m *monitor) tell(e protocol.Event, v any) {
	if !tells(e) {
		return
	}
	m.mu.Lock()
	list := make([]*protocol.Conn, 0, len(m.conns))
	for c := range m.conns {
		list = append(list, c)
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	for i, c := range list {
		send := func() {
			if c.Tell(e, v) != nil {
				c.Close()
			}
		}
		if i == len(list)-1 {
			send()
		} else {
			wg.Go(send)
		}
	}
	wg.Wait()
}

// action carries a request out: its result, and what to do after the reply.
type action func() (result any, after func(), err error)

// decode turns a request into an action. Its files stay the caller's, who closes
// them when the action is done.
func (m *monitor) decode(ctx context.Context, op protocol.Operation, payload []byte, files []*os.File) (action, error) {
	parse := func(v any) error {
		if err := json.Unmarshal(payload, v); err != nil {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s: %v", op, err))
		}
		return nil
	}
	plain := func(f func() error) (action, error) {
		return func() (any, func(), error) { return protocol.Empty{}, nil, f() }, nil
	}
	if !knows(op) {
		return nil, errdefs.ErrNotImplemented.WithMessage("this monitor does not know " + op.String())
	}
	switch op {
	case protocol.OpState:
		return func() (any, func(), error) {
			select {
			case <-m.ready:
				return m.state(), nil, nil
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}, nil
	case protocol.OpAttach:
		var a protocol.AttachArgs
		if err := parse(&a); err != nil {
			return nil, err
		}
		if len(files) != 1 {
			return nil, errdefs.ErrInvalidArgument.WithMessage("attach takes one descriptor")
		}
		return plain(func() error {
			t, err := m.task(a.Exec)
			if err != nil {
				return err
			}
			return t.attach(files[0], a, false)
		})
	case protocol.OpResize:
		var a protocol.ResizeArgs
		if err := parse(&a); err != nil {
			return nil, err
		}
		return plain(func() error {
			t, err := m.task(a.Exec)
			if err != nil {
				return err
			}
			return t.resize(a.Rows, a.Cols)
		})
	case protocol.OpSignal:
		var a protocol.SignalArgs
		if err := parse(&a); err != nil {
			return nil, err
		}
		if a.Signal < 0 || a.Signal > 64 {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no signal %d", a.Signal))
		}
		return plain(func() error { return m.signal(a) })
	case protocol.OpPause:
		return plain(func() error { return m.ctr.Pause(ctx) })
	case protocol.OpResume:
		return plain(func() error { return m.ctr.Resume(ctx) })
	case protocol.OpUpdate:
		var a protocol.UpdateArgs
		if err := parse(&a); err != nil {
			return nil, err
		}
		var r specs.LinuxResources
		if err := json.Unmarshal(a.Resources, &r); err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage("update: " + err.Error())
		}
		return plain(func() error { return m.ctr.Update(ctx, &r) })
	case protocol.OpExec:
		var x execution
		if err := parse(&x); err != nil {
			return nil, err
		}
		if x.ID == "" || x.Process == nil || len(files) > 1 {
			return nil, errdefs.ErrInvalidArgument.WithMessage("exec takes an id, a process and at most one descriptor")
		}
		return func() (any, func(), error) { return m.exec(ctx, &x, files) }, nil
	case protocol.OpExecs:
		return func() (any, func(), error) { return m.listExecs(), nil, nil }, nil
	}
	return nil, errdefs.ErrNotImplemented.WithMessage("this monitor does not know " + op.String())
}

// task finds the container's process ("") or an exec.
func (m *monitor) task(exec string) (*task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if exec == "" {
		return m.main, nil
	}
	if t := m.execs[exec]; t != nil {
		return t, nil
	}
	return nil, errdefs.ErrNotFound.WithMessage("no exec " + exec)
}

func (m *monitor) state() protocol.State {
	var dropped uint64
	if m.log != nil {
		dropped = m.log.Dropped()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return protocol.State{Started: m.started, Failed: m.failed, Exit: m.exit, OOMKills: m.oomKills, LogDropped: dropped}
}

func (m *monitor) signal(a protocol.SignalArgs) error {
	if a.All && a.Exec == "" {
		return m.ctr.SignalAll(a.Signal)
	}
	t, err := m.task(a.Exec)
	if err != nil {
		return err
	}
	err = t.proc.Signal(a.Signal)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrProcessDone) || errdefs.IsFailedPrecondition(err) {
		return errNotRunning(m.id)
	}
	return err
}
