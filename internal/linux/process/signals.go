package process

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// DefaultSignal gives a signal that this process ignores its default action
// again; one with a handler stays as it is. Handlers end with execve(2), but an
// ignored signal stays ignored in all that is started (signal(7)). Numbers that
// the kernel does not have are left alone.
//
// It asks the kernel directly: os/signal does not know 32 and 33, which glibc's
// posix_spawn leaves ignored in what it starts, and glibc refuses them.
func DefaultSignal(sig unix.Signal) {
	const ignored = 1 // SIG_IGN
	// struct kernel_sigaction of rt_sigaction(2); zero is SIG_DFL.
	type action struct{ handler, flags, restorer, mask uintptr }
	var now, def action
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
	if errno == 0 && now.handler == ignored {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0)
	}
}
