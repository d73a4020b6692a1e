package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// seals of an executable: nothing can change it any more, not even the seals.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// SealSelf returns an unchangeable copy of the running program
// (CVE-2019-5736: what a container sees as /proc/self/exe is not the file of
// the host). A program that runs from such a copy already gets that one. The
// caller keeps it for as many starts as it likes.
func SealSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	if got, err := unix.FcntlInt(self.Fd(), unix.F_GET_SEALS, 0); err == nil && got&seals == seals {
		return self, nil
	}
	defer self.Close()
	return Seal(self)
}

// Seal copies an executable into sealed memory.
func Seal(exe *os.File) (*os.File, error) {
	const name = "orlop-runtime"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC is of kernel 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("seal executable: memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), name)
	st, err := exe.Stat()
	if err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	for off := int64(0); off < st.Size(); {
		n, err := unix.Sendfile(fd, int(exe.Fd()), &off, int(st.Size()-off))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("file became shorter")
		}
		if err != nil {
			_ = mem.Close()
			return nil, fmt.Errorf("seal executable: copy: %w", err)
		}
	}
	// Readable for nobody without rights over its owner: a process of a user
	// namespace that executes it is then not traceable from inside there.
	if err := unix.Fchmod(fd, 0o511); err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("seal executable: mode: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("seal executable: %w", err)
	}
	return mem, nil
}
