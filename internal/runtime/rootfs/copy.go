package rootfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
)

// copyTree copies what is in the directory from into the empty directory to,
// with owners, modes, times, links and extended attributes; other mounts below
// from are not entered. Both are descriptors, and no link is followed.
func copyTree(from, to safepath.FD) error {
	var root unix.Stat_t
	if err := unix.Fstat(int(from), &root); err != nil {
		return err
	}
	return copyDir(from, to, root.Dev)
}

func copyDir(from, to safepath.FD, dev uint64) error {
	fd, err := unix.Openat(int(from), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(from, to, name, dev); err != nil {
			return &os.PathError{Op: "copy", Path: name, Err: err}
		}
	}
	return nil
}

func copyEntry(from, to safepath.FD, name string, dev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(int(to), name, 0o700); err != nil {
			return err
		}
		if st.Dev == dev {
			if err := copySub(from, to, name, dev); err != nil {
				return err
			}
		}
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(from), name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), int(to), name); err != nil {
			return err
		}
		return unix.Fchownat(int(to), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFREG:
		if err := copyFile(from, to, name); err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(int(to), name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(int(to), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(int(to), name, st.Mode&0o7777, 0); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(to), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copySub(from, to safepath.FD, name string, dev uint64) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	src, err := unix.Openat(int(from), name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(int(to), name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	return copyDir(safepath.FD(src), safepath.FD(dst), dev)
}

func copyFile(from, to safepath.FD, name string) error {
	src, err := unix.Openat(int(from), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r := os.NewFile(uintptr(src), name)
	defer r.Close()
	dst, err := unix.Openat(int(to), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(dst), name)
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return copyAttrs(src, dst)
}

// copyAttrs copies extended attributes that tmpfs can hold.
func copyAttrs(src, dst int) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(src, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for start, i := 0, 0; i < n; i++ {
		if buf[i] != 0 {
			continue
		}
		key := string(buf[start:i])
		start = i + 1
		size, err := unix.Fgetxattr(src, key, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(dst, key, value[:size], 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}
