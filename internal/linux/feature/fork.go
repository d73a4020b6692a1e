package feature

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes a child that exits with code at once, with more clone(2) flags.
// A fork and not a program, so that no file has to be there; signals are
// blocked, because the Go runtime's handlers must not run in the copy.
func fork(flags uintptr, pidfd *int32, code uintptr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, old := ^uint64(0), uint64(0)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0); e != 0 {
		return 0, fmt.Errorf("block signals: %w", e)
	}
	pid, e := rawFork(flags|uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(pidfd)), code)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	if e != 0 {
		return 0, fmt.Errorf("clone: %w", e)
	}
	return int(pid), nil
}

// rawFork must not grow the stack or allocate after the clone: in the copy
// there is no Go scheduler. clone's argument order is (flags, stack,
// parent_tid = pidfd, …) on every architecture but s390.
//
//go:nosplit
//go:norace
func rawFork(flags, pidfd, code uintptr) (uintptr, syscall.Errno) {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, pidfd, 0, 0, 0)
	if e != 0 || pid != 0 {
		return pid, e
	}
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}

// forkIdle is a child that waits to be killed, or for its parent's end.
//
//go:nosplit
//go:norace
func forkIdle(flags, parent uintptr) (uintptr, syscall.Errno) {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		return pid, e
	}
	for {
		second := unix.Timespec{Sec: 1}
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&second)), 0, 0, 0)
		if now, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); now != parent {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
