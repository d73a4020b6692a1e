package daemonside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// Adopt connects to the monitor of a container that another life of the daemon
// started. It waits for a start that is still under way. ErrNotFound: no
// monitor answers; LastExit knows then how the container ended, and ends it if
// it did not. A monitor that does not even greet (Config.Patience, four times)
// is ended: nobody could do anything with its container any more.
func (l *Launcher) Adopt(ctx context.Context, id string) (*Monitor, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if m := l.monitor(id); m != nil {
		return m, nil
	}
	conn, err := l.connect(id)
	if err != nil {
		return nil, err
	}
	m := newMonitor(l, id, conn)
	if err := m.hello(); err != nil {
		conn.Close()
		return nil, notAnswering(id, err)
	}
	if m.pid, m.pidfd, err = peer(conn); err != nil {
		conn.Close()
		return nil, notAnswering(id, err)
	}
	state, err := m.post(protocol.OpState, []byte("{}"))
	if err != nil {
		conn.Close()
		m.pidfd.Close()
		return nil, notAnswering(id, err)
	}
	if !l.follow(m) {
		conn.Close()
		m.pidfd.Close()
		return nil, errdefs.ErrUnavailable.WithMessage("the launcher is closed")
	}
	for tries := 1; ; tries++ {
		err = m.awaitGreeting(ctx, protocol.OpState)
		if !errdefs.IsUnavailable(err) || tries == greetings {
			break
		}
	}
	if errdefs.IsUnavailable(err) {
		l.log.Error("monitor does not answer and is ended", "container", id, "pid", m.pid)
		m.kill()
		l.letGo(m)
		return nil, notAnswering(id, err)
	}
	var s protocol.State
	if err := m.await(ctx, state, &s); err != nil {
		l.letGo(m)
		if ctx.Err() != nil || errors.Is(err, errdefs.ErrFailedPrecondition) {
			return nil, fmt.Errorf("adopt container %s: %w", id, err)
		}
		return nil, notAnswering(id, err)
	}
	if s.Started == nil {
		l.letGo(m)
		return nil, errdefs.ErrNotFound.WithMessage("container " + id + " was not started")
	}
	m.setRunning(*s.Started)
	m.noteDropped(s.LogDropped)
	if err := m.adoptExecs(ctx); err != nil && !errdefs.IsNotFound(err) {
		l.letGo(m)
		return nil, fmt.Errorf("adopt container %s: %w", id, err)
	}
	return m, nil
}

// greetings is how many times Config.Patience an adoption waits.
const greetings = 4

// letGo forgets a monitor that could not be adopted.
func (l *Launcher) letGo(m *Monitor) {
	m.release()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.monitors[m.id] == m {
		delete(l.monitors, m.id)
	}
}

func notAnswering(id string, cause error) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("the monitor of container %s does not answer: %v", id, cause))
}

// connect opens the monitor's socket. The path goes through a descriptor of
// the folder, because a socket address has room for 108 bytes only.
func (l *Launcher) connect(id string) (*protocol.Conn, error) {
	dir, err := os.OpenFile(l.Dir(id), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errdefs.ErrNotFound.WithMessage("container " + id + " has no run folder")
	}
	if err != nil {
		return nil, fmt.Errorf("connect to monitor: %w", err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to monitor: socket: %w", err)
	}
	addr := &unix.SockaddrUnix{Name: filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), socketFile)}
	// Connecting to a local listener does not wait but for a full backlog.
	for {
		err = unix.Connect(fd, addr)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
			return nil, notAnswering(id, err)
		}
		return nil, fmt.Errorf("connect to monitor of %s: %w", id, err)
	}
	return protocol.NewConn(fd, "monitor of "+id)
}

// peer finds the process at the other end. The reply that is awaited next
// proves that the pid still was that process when the pidfd was opened.
func peer(conn *protocol.Conn) (pid int, pidfd *os.File, err error) {
	var cred *unix.Ucred
	var sockErr error
	if err := conn.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, nil, err
	}
	if sockErr != nil {
		return 0, nil, fmt.Errorf("SO_PEERCRED: %w", sockErr)
	}
	fd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return 0, nil, fmt.Errorf("pidfd_open %d: %w", cred.Pid, err)
	}
	return int(cred.Pid), pollable(fd), nil
}
