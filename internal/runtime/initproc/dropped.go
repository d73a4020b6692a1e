//go:build undefended

package initproc

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/safepath"
)

// consoleByPath is what other runtimes did: bind /dev/pts/N.
func consoleByPath(root safepath.FD, slave int) (safepath.FD, error) {
	st, err := safepath.FD(slave).Stat()
	if err != nil {
		return safepath.None, err
	}
	at, err := root.Open("/dev/pts/"+strconv.Itoa(int(unix.Minor(st.Rdev))), unix.O_PATH, 0)
	if err != nil {
		return safepath.None, err
	}
	defer at.Close()
	return mount.Clone(int(at), "", false)
}

// openByPath trusts the container's own /proc.
func openByPath(name string) (safepath.FD, error) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return safepath.FD(fd), err
}
