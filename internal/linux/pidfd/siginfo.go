//go:build amd64 || arm64

package pidfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigStatus reads si_status: after signo, errno, code and padding come pid and
// uid of the sender, then the status (siginfo_t of 64-bit Linux).
func sigStatus(info *unix.Siginfo) int32 {
	return *(*int32)(unsafe.Add(unsafe.Pointer(info), 24))
}
