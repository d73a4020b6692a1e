package daemonside

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// newborn is a monitor process that has no container yet.
type newborn struct {
	conn  *protocol.Conn
	pid   int
	pidfd *os.File
	// watched is closed when nobody waits for its end any more; only a spare
	// one has it.
	watched chan struct{}
}

// watchSpare reaps a spare monitor that ends before it is used, e.g. because
// somebody killed it.
func (l *Launcher) watchSpare(p *newborn) {
	defer close(p.watched)
	if pidfd.Ended(p.pidfd) != nil {
		return // taken, or ended by us
	}
	l.mu.Lock()
	lost := l.spare == p
	if lost {
		l.spare = nil
	}
	l.mu.Unlock()
	if lost {
		l.log.Warn("spare monitor has ended", "pid", p.pid)
		p.end()
	}
}

// unwatch makes a spare monitor its taker's.
func (p *newborn) unwatch() {
	_ = p.pidfd.SetReadDeadline(time.Unix(1, 0))
	<-p.watched
	_ = p.pidfd.SetReadDeadline(time.Time{})
}

// end kills and reaps it.
func (p newborn) end() {
	p.conn.Close()
	endChild(p.pidfd)
}

// Prepare has a spare monitor process started, so that the next Start does not
// have to wait for one; every Start replaces the one it takes. Without Prepare
// the first Start pays for its own.
func (l *Launcher) Prepare() { l.refill() }

// refill starts a spare monitor beside the caller.
func (l *Launcher) refill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.spare != nil || l.filling {
		return
	}
	l.filling = true
	l.following.Go(func() {
		p, err := l.birth()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.filling = false
		switch {
		case err != nil:
			l.log.Warn("no spare monitor", "error", err) // the next Start says why
		case l.closed:
			p.end()
		default:
			p.watched = make(chan struct{})
			l.spare = &p
			l.following.Go(func() { l.watchSpare(&p) })
		}
	})
}

// newborn takes the spare monitor or starts one.
func (l *Launcher) newborn() (p newborn, spare bool, err error) {
	l.mu.Lock()
	if taken := l.spare; taken != nil {
		l.spare = nil
		l.mu.Unlock()
		taken.unwatch()
		return *taken, true, nil
	}
	l.mu.Unlock()
	p, err = l.birth()
	return p, false, err
}

// birth executes a monitor.
func (l *Launcher) birth() (newborn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return newborn{}, fmt.Errorf("socketpair: %w", err)
	}
	pid, pidfd, err := l.exec(pair[1])
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return newborn{}, err
	}
	conn, err := protocol.NewConn(pair[0], "monitor")
	if err != nil {
		endChild(pidfd)
		return newborn{}, err
	}
	return newborn{conn: conn, pid: pid, pidfd: pidfd}, nil
}

// exec runs the monitor program with conn as its descriptor 3. It leads a
// session of its own, so that nothing sent to the daemon's group reaches it.
func (l *Launcher) exec(conn int) (pid int, pidfd *os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	fd := -1
	env := append([]string{"PATH=" + os.Getenv("PATH")}, defense.Environment()...)
	pid, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", l.exe.Fd()), []string{"orlop-runtime", "monitor"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(conn)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &fd},
	})
	if err != nil {
		return 0, nil, err
	}
	if fd < 0 { // a kernel without CLONE_PIDFD; the child cannot be reaped by anybody else meanwhile
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // not reaped yet, so it is ours
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			return 0, nil, fmt.Errorf("pidfd_open: %w", err)
		}
	}
	return pid, pollable(fd), nil
}

// pollable makes a pidfd one that the Go runtime waits for.
func pollable(fd int) *os.File {
	_ = unix.SetNonblock(fd, true) // cannot fail on an open descriptor
	return os.NewFile(uintptr(fd), "pidfd")
}

// endChild kills a child of ours and reaps it.
func endChild(process *os.File) {
	_ = pidfd.Signal(process, int(unix.SIGKILL)) // one that has ended is as good
	reap(process)
	process.Close()
}

// reap waits for a child that is ending. By descriptor: the pid of one that was
// reaped as an orphan (linux/orphan) may be another's already.
func reap(process *os.File) {
	_, _ = pidfd.Wait(process)
}
