package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startPlaceholder makes a process that does nothing: a copy of this one that
// never leaves a few raw system calls. systemd refuses a scope without a
// process, and our container's first process is born inside its group, so
// something must be there before. Executing a program instead would need one
// that is known to exist.
//
// It ends when killed, or a second after this process has ended.
func startPlaceholder() (int, error) {
	var talk [2]int
	if err := unix.Pipe2(talk[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("start a placeholder process: %w", err)
	}
	defer unix.Close(talk[0])
	// The thread's signals are blocked so that no handler of the Go runtime
	// ever runs in the copy. The set is on the stack: the copy must not
	// allocate.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := [1]uint64{^uint64(0)}
	var old [1]uint64
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0); e != 0 {
		_ = unix.Close(talk[1])
		return 0, fmt.Errorf("block signals: %w", e)
	}
	pid, e := forkIdle(uintptr(unix.Getpid()), uintptr(talk[1]))
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	_ = unix.Close(talk[1])
	if e != 0 {
		return 0, fmt.Errorf("start a placeholder process: %w", e)
	}
	// Its end of the talk is the last descriptor that the copy closes.
	for {
		if _, err := unix.Read(talk[0], make([]byte, 1)); !errors.Is(err, unix.EINTR) {
			return int(pid), nil
		}
	}
}

// forkIdle must not grow the stack, allocate or be preempted after the clone:
// in the copy there is no Go scheduler.
//
//go:nosplit
//go:norace
func forkIdle(parent, talk uintptr) (pid uintptr, e syscall.Errno) {
	pid, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		return pid, e
	}
	// Descriptors of the copy would keep pipes and sockets open.
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, talk-1, 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, talk+1, uintptr(^uint32(0)), 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, talk, 0, 0)
	for {
		second := unix.Timespec{Sec: 1}
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&second)), 0, 0, 0)
		if now, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); now != parent {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
