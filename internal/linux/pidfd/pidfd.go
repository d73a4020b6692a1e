// Package pidfd names processes by descriptor, so that a pid which was given to
// another process meanwhile is never waited for or signaled. Entry points:
// Open and Wait. No locks.
package pidfd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open returns a non-blocking pidfd of pid: ESRCH when there is no such process.
func Open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Wait returns the status of a child when it ended, and reaps it. The waiting
// goroutine occupies no thread. ECHILD: it is not a child of this process.
func Wait(f *os.File) (unix.WaitStatus, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info unix.Siginfo
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		for {
			failed = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG, nil)
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		if errors.Is(failed, unix.EAGAIN) {
			return false
		}
		return failed != nil || info.Signo != 0
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, fmt.Errorf("wait by pidfd: %w", err)
	}
	return status(&info), nil
}

// Ended blocks until the process ended, whoever its parent is.
func Ended(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// HasEnded reports whether the process has ended, reaped or not. The state 'Z' of
// its first thread does not mean that: the others may go on, for long when only
// main has returned, for a moment when one of them calls execve.
func HasEnded(f *os.File) (bool, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	ended := false
	var failed error
	if err := conn.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(fds, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			ended, failed = n > 0, err
			return
		}
	}); err != nil {
		return false, err
	}
	return ended, failed
}

// Alive reports whether the process has not ended yet.
func Alive(f *os.File) bool { return Signal(f, 0) == nil }

// Signal sends sig; ESRCH when the process has ended and was reaped.
func Signal(f *os.File, sig int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) {
		failed = unix.PidfdSendSignal(int(fd), unix.Signal(sig), nil, 0)
	}); err != nil {
		return err
	}
	return failed
}

// status makes a wait status of what waitid filled in: si_code and si_status.
func status(info *unix.Siginfo) unix.WaitStatus {
	const cldExited, cldDumped = 1, 3 // CLD_EXITED, CLD_DUMPED of waitid(2)
	code := sigStatus(info)
	if info.Code == cldExited {
		return unix.WaitStatus(code&0xff) << 8
	}
	ws := unix.WaitStatus(code & 0x7f)
	if info.Code == cldDumped {
		ws |= 0x80
	}
	return ws
}

// Stat is what /proc/<pid>/stat tells about a process.
type Stat struct {
	// State is a letter of proc_pid_stat(5), e.g. 'Z' for a zombie.
	State byte
	// Start in clock ticks after boot: with the pid it identifies a process.
	Start uint64
}

// ReadStat reads the state and start time of pid; os.ErrNotExist when gone.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = os.ErrNotExist
		}
		return Stat{}, err
	}
	// The second field, the program's name, may hold spaces and parentheses.
	s := string(b)
	i := strings.LastIndexByte(s, ')')
	f := strings.Fields(s[i+1:])
	if i < 0 || len(f) < 20 {
		return Stat{}, fmt.Errorf("read stat of %d: not in the form of proc(5)", pid)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("read stat of %d: %w", pid, err)
	}
	return Stat{State: f[0][0], Start: start}, nil
}
