//go:build undefended

package rootfs

import (
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/safepath"
)

// placeByPath is what other runtimes did: look at a path, and use it later.
func placeByPath(root safepath.FD, dest string, dir bool) (safepath.FD, error) {
	name := path.Join("/proc/self/fd", strconv.Itoa(int(root)), dest)
	if looked, err := root.Open(dest, unix.O_PATH, 0); err == nil {
		_ = looked.Close()
	} else if dir {
		if err := os.MkdirAll(name, 0o755); err != nil {
			return safepath.None, err
		}
	} else if err := os.WriteFile(name, nil, 0o644); err != nil {
		return safepath.None, err
	}
	at, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	return safepath.FD(at), err
}

// nullByPath takes whatever is at /dev/null.
func nullByPath(root safepath.FD) (safepath.FD, error) {
	own, err := root.Open("/dev/null", unix.O_PATH, 0)
	if err != nil {
		return safepath.None, err
	}
	defer own.Close()
	return mount.Clone(int(own), "", false)
}
