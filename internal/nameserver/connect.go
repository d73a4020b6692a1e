package nameserver

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawConnect calls connect(2) with an address that the library cannot express.
func rawConnect(fd int, sa *unix.RawSockaddrUnix) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), unsafe.Sizeof(sa.Family))
	if errno != 0 {
		return errno
	}
	return nil
}
