package process

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// The Go runtime's monitor thread wakes every 20 µs while anything runs, to
// preempt goroutines and to take processors from system calls: a sixth of the CPU
// time of a process that lives for 10 ms of mounts and clones. It has no setting,
// but its sleep takes the kernel's timer slack of that thread (prctl(2),
// PR_SET_TIMERSLACK), and a thread begins with the slack of the one that made it.
//
// So a program that has an entry point of its own calls CalmFirst there, before
// the runtime makes its threads, and Calm in main, which gives all but the
// monitor the usual slack again. Without CalmFirst, Calm makes that thread calm
// from then on.

const (
	// calmSlack is how late the monitor thread may wake, in nanoseconds. It bounds
	// how long a system call keeps its processor from another goroutine.
	calmSlack = 10_000_000
	// lateSlack is the same where the runtime is up already.
	lateSlack = 2_000_000
)

// usualSlack is what CalmFirst found; 0 is not called, or nothing done.
var usualSlack uintptr

// CalmFirst may be called before there is a Go runtime; see package quickstart.
// Nothing is done for users other than root, who may not set the slack of other
// threads.
//
//go:nosplit
//go:norace
func CalmFirst() {
	if uid, _, _ := unix.RawSyscall6(unix.SYS_GETEUID, 0, 0, 0, 0, 0, 0); uid != 0 {
		return
	}
	slack, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0, 0, 0, 0)
	if e != 0 || slack >= calmSlack {
		return // 0 is a thread with a real-time scheduler
	}
	if _, _, e = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, calmSlack, 0, 0, 0, 0); e == 0 {
		usualSlack = slack
	}
}

// Calm lets the monitor thread sleep longer, and no other thread.
//
// For programs that are busy and short. With one processor, whatever waits for
// another's system call would wait for that thread, so it is as usual then.
func Calm() {
	one := runtime.GOMAXPROCS(0) < 2
	if one && usualSlack == 0 {
		return
	}
	// In the order of their making: the main thread, and the monitor, which the
	// runtime starts before anything else.
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	const room = 512
	buf := make([]byte, room)
	n, err := unix.ReadDirent(dir, buf)
	if err != nil {
		return
	}
	_, _, names := unix.ParseDirent(buf[:n], -1, nil)
	if len(names) < 2 || names[0] != strconv.Itoa(os.Getpid()) {
		return
	}
	if usualSlack == 0 {
		setSlack(names[1], lateSlack)
		return
	}
	for i, tid := range names {
		if i != 1 || one {
			setSlack(tid, usualSlack)
		}
	}
}

func setSlack(tid string, slack uintptr) {
	fd, err := unix.Open("/proc/"+tid+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, strconv.AppendUint(nil, uint64(slack), 10))
	_ = unix.Close(fd)
}

// UsualSlack gives the calling thread the timer slack that this program was
// started with. Who starts a child calls it on the thread that does, because the
// child inherits it, and a thread that the monitor made has the monitor's.
func UsualSlack() {
	if usualSlack != 0 {
		_, _, _ = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack, 0, 0, 0, 0)
	}
}
