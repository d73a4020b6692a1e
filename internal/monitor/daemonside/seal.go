package daemonside

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// mfdExec asks for an executable memfd where the sysctl vm.memfd_noexec makes
// others the default (kernel 6.3; older ones refuse the flag).
const mfdExec = 0x0010

// seal copies a program into memory that nobody can write to any more. The
// pages are shared by all processes that run it. Where the kernel forbids
// executing memory files (vm.memfd_noexec=2) the file itself is used.
func seal(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("orlop-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("orlop-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return src, nil
	}
	defer src.Close()
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	dst := os.NewFile(uintptr(fd), "orlop-runtime (sealed)")
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return nil, err
	}
	if err := dst.Chmod(0o500); err != nil {
		dst.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		dst.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return dst, nil
}
