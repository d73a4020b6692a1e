// Package orphan makes this process the one that the orphans among its
// descendants fall to, and reaps them: when a monitor is killed, its container
// would otherwise fall to the machine's first process, which in a container
// often reaps nobody. Entry points: Adopt, then Run.
//
// Run takes the status of no child that somebody here waits for. What this
// process starts itself stays in its session, or (monitors, netd) is waited for
// by descriptor and needs no status; an orphan is in the session of whoever
// started it. No locks.
package orphan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lookAgain is when an ended child of ours is looked at again: as long as
// nobody has waited for it, it hides orphans that ended after it.
const lookAgain = 50 * time.Millisecond

// Adopt makes this process a child subreaper (prctl(2)).
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	return nil
}

// Run reaps orphans until ctx ends.
func Run(ctx context.Context) error {
	own, err := unix.Getsid(0)
	if err != nil {
		return fmt.Errorf("reap orphans: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
		case <-timer.C:
		}
		if reap(own) {
			timer.Reset(lookAgain)
		}
	}
}

// reap takes ended orphans. It reports whether a child of our own stands in
// front of what may follow.
func reap(own int) (hidden bool) {
	for {
		pid := ended()
		if pid == 0 {
			return false
		}
		session, err := sessionOf(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // whoever waits for it was faster
		}
		if err != nil || session == own {
			return true
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil && !errors.Is(err, unix.ECHILD) && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
}

// ended looks for a child that has ended, without taking its status.
func ended() int {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Signo == 0 {
			return 0
		}
		// si_pid is the first of the union behind three ints and, on 64-bit
		// machines, padding (siginfo_t, sigaction(2)).
		const fields = (3*4 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), fields)))
	}
}

// sessionOf reads field 6 of /proc/<pid>/stat; getsid(2) does not know a process
// that has ended.
func sessionOf(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 4 {
		return 0, fmt.Errorf("stat of %d is not in the form of proc(5)", pid)
	}
	return strconv.Atoi(f[3])
}
