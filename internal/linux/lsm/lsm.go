// Package lsm puts containers under the kernel's mandatory access control:
// AppArmor profiles and SELinux labels.
//
// A runtime calls SetAppArmorExec or SetSELinuxExec on the locked thread that
// executes the application; the daemon calls LoadDefaultAppArmor once at
// start. AppArmorEnabled and SELinuxEnabled tell whether the kernel has the
// module at all; setting a label without it fails with NotImplemented, never
// silently: a container must not be less confined than was asked.
package lsm

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
)

// writeAttr writes an attribute file of the calling thread.
//
// The file's path is walked below a handle of procfs and refuses mounts and
// magic links: a container's image or mounts could otherwise lead the write to
// another file, and the container would start unconfined (CVE-2025-52881).
func writeAttr(proc *os.File, value string, files ...string) error {
	if defense.Dropped(defense.OwnProc) {
		return os.WriteFile("/proc/thread-self/attr/"+files[0], []byte(value), 0)
	}
	var dir int
	if proc != nil {
		dir = int(proc.Fd())
	} else {
		fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /proc: %w", err)
		}
		defer unix.Close(fd)
		dir = fd
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return fmt.Errorf("look at /proc: %w", err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return errdefs.ErrPermissionDenied.WithMessage("/proc is not a proc file system")
	}
	var first error
	for _, f := range files {
		fd, err := unix.Openat2(dir, "thread-self/attr/"+f, &unix.OpenHow{
			Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			err = fmt.Errorf("open attribute %s: %w", f, err)
		} else {
			_, err = unix.Write(fd, []byte(value))
			unix.Close(fd)
			if err == nil {
				return nil
			}
			err = fmt.Errorf("write attribute %s: %w", f, err)
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }
