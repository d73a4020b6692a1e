package process

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// calmSlack is how late the Go runtime's monitor thread may wake, in nanoseconds.
// It bounds how long a system call keeps its processor from another goroutine.
const calmSlack = "2000000"

// Calm lets the Go runtime's monitor thread sleep longer. It wakes every 20 µs
// while anything runs, to preempt goroutines and to take processors from
// system calls: a sixth of the CPU time of a process that lives for 10 ms of
// mounts and clones. It has no setting, but its sleep takes the kernel's timer
// slack of that thread (proc(5), timerslack_ns; CAP_SYS_NICE).
//
// For programs that are busy and short. With one processor, whatever waits for
// another's system call would wait for that thread, so nothing is done then.
func Calm() {
	if runtime.GOMAXPROCS(0) < 2 {
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
	fd, err := unix.Open("/proc/"+names[1]+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(calmSlack))
	_ = unix.Close(fd)
}
