// Package safepath opens and makes files beneath a root descriptor: links are
// resolved as if that root were "/", magic links are refused, and what was
// checked is what is used, because callers get descriptors. The kernel does the
// resolving (openat2, 5.6). Entry points: FD.Open, FD.MkdirAll. No locks.
package safepath

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// FD is a descriptor; who gets one closes it.
type FD int

// None is no descriptor; closing it does nothing.
const None FD = -1

// Close releases the descriptor.
func (fd FD) Close() error {
	if fd < 0 {
		return nil
	}
	return unix.Close(int(fd))
}

// OpenRoot opens a directory of the host as a root.
func OpenRoot(dir string) (FD, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return None, fmt.Errorf("open %s: %w", dir, err)
	}
	return FD(fd), nil
}

// Open opens name beneath root. flags are those of open(2); O_CLOEXEC is added.
// A magic link (e.g. below /proc/<pid>/fd) on the way is ELOOP.
func (fd FD) Open(name string, flags int, mode uint32) (FD, error) {
	return fd.open(name, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenExact opens name beneath root without following any link and without
// crossing into another mount: the file is one of the file system of root
// itself. For trees, like procfs, whose content must not have been covered.
func (fd FD) OpenExact(name string, flags int) (FD, error) {
	return fd.open(name, flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
}

func (fd FD) open(name string, flags int, mode uint32, resolve uint64) (FD, error) {
	if name == "" || name == "/" {
		name = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	for tries := 0; ; tries++ {
		got, err := unix.Openat2(int(fd), name, &how)
		// EAGAIN: a rename elsewhere raced with a ".." (openat2(2)).
		if (err == unix.EAGAIN || err == unix.EINTR) && tries < 128 {
			continue
		}
		if err != nil {
			return None, err
		}
		return FD(got), nil
	}
}

// maxLinks is the kernel's own limit of links in one path (path_resolution(7)).
const maxLinks = 40

// MkdirAll opens the directory name beneath root and makes what is missing on
// the way with the given mode, also behind a dangling link.
func (fd FD) MkdirAll(name string, mode uint32) (FD, error) {
	dir, err := fd.Open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return dir, err
	}
	if dir, err := fd.mkdirLast(name, mode); err == nil {
		return dir, nil
	}
	rest := split(name)
	done := "" // resolved part: exists, relative to root
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if next == ".." {
			done = parent(done)
			continue
		}
		at := path.Join(done, next)
		sub, err := fd.Open(at, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			_ = sub.Close()
			done = at
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return None, err
		}
		up, err := fd.Open(done, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return None, err
		}
		err = unix.Mkdirat(int(up), next, mode)
		if errors.Is(err, unix.EEXIST) {
			// A dangling link, or somebody was faster.
			target, lerr := readlink(up, next)
			_ = up.Close()
			if lerr != nil {
				rest = append([]string{next}, rest...)
				if links++; links > maxLinks {
					return None, unix.ELOOP
				}
				continue
			}
			if links++; links > maxLinks {
				return None, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				done = ""
			}
			rest = append(split(target), rest...)
			continue
		}
		_ = up.Close()
		if err != nil {
			return None, err
		}
		done = at
	}
	return fd.Open(done, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// mkdirLast is MkdirAll where only the last element is missing, which is the
// usual case, and no link.
func (fd FD) mkdirLast(name string, mode uint32) (FD, error) {
	dir, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == "." || base == ".." || strings.Contains(dir, "..") {
		return None, unix.EINVAL
	}
	up, err := fd.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return None, err
	}
	err = unix.Mkdirat(int(up), base, mode)
	_ = up.Close()
	if err != nil {
		return None, err
	}
	return fd.Open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// Parent opens the directory that holds name, making it when missing, and
// returns the last element. The last element is not resolved.
func (fd FD) Parent(name string, mode uint32) (FD, string, error) {
	clean := path.Clean("/" + name)
	dir, err := fd.MkdirAll(path.Dir(clean), mode)
	return dir, path.Base(clean), err
}

// Touch opens the file name beneath root (O_PATH) and makes an empty one, and
// the directories on the way, when there is none.
func (fd FD) Touch(name string, mode uint32) (FD, error) {
	for links := 0; links <= maxLinks; links++ {
		f, err := fd.Open(name, unix.O_PATH, 0)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		dir, base, err := fd.Parent(name, 0o755)
		if err != nil {
			return None, err
		}
		made, err := unix.Openat(int(dir), base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY, mode)
		if err == nil {
			_ = dir.Close()
			_ = unix.Close(made)
			continue
		}
		if errors.Is(err, unix.EEXIST) {
			target, lerr := readlink(dir, base)
			_ = dir.Close()
			if lerr == nil {
				// Dangling: make its target instead.
				if strings.HasPrefix(target, "/") {
					name = target
				} else {
					name = path.Join(path.Dir(path.Clean("/"+name)), target)
				}
			}
			continue
		}
		_ = dir.Close()
		return None, err
	}
	return None, unix.ELOOP
}

func readlink(dir FD, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func split(name string) []string {
	var parts []string
	for _, s := range strings.Split(name, "/") {
		if s != "" && s != "." {
			parts = append(parts, s)
		}
	}
	return parts
}

func parent(dir string) string {
	if dir = path.Dir(dir); dir == "." || dir == "/" {
		return ""
	}
	return dir
}

// Stat is fstat(2).
func (fd FD) Stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(fd), &st)
	return st, err
}

// IsDir reports whether the file is a directory.
func (fd FD) IsDir() (bool, error) {
	st, err := fd.Stat()
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// Reopen opens the file of an O_PATH descriptor for use, through proc, a
// procfs that nobody could have changed.
func (fd FD) Reopen(proc FD, flags int) (FD, error) {
	// The only place where a magic link is followed: proc is our own mount.
	got, err := unix.Openat(int(proc), fmt.Sprintf("self/fd/%d", fd), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return None, err
	}
	return FD(got), nil
}

// ReadFile reads at most limit bytes of the file name beneath root; a longer
// one is EFBIG, and so is anything but a regular file EINVAL.
func (fd FD) ReadFile(name string, limit int) ([]byte, error) {
	f, err := fd.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	var all []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(int(f), buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return all, nil
		}
		if all = append(all, buf[:n]...); len(all) > limit {
			return nil, unix.EFBIG
		}
	}
}
