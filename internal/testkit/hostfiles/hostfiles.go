// Package hostfiles gives the processes of a test a /dev and an /etc of their
// own, so that what they do to either ends with their mount namespace: an OCI
// runtime changes the owner of its standard streams, which may be /dev/null,
// and an engine asked to remap users adds one to /etc/passwd.
//
// Entry points: Privatize for a process that has a mount namespace, Enter for
// a test's program that has none, Streams for a process that comes into the
// namespace with descriptors from outside. There are no locks.
package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/safepath"
)

// Enter moves the calling program into a mount namespace of its own with
// private files: it is executed once more, with the environment variable mark
// set. It returns in the second instance, and where nothing can be done
// (nobody but root may).
func Enter(mark string) error {
	if os.Getenv(mark) != "" {
		return nil
	}
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
	if errors.Is(err, unix.EPERM) {
		runtime.UnlockOSThread()
		return nil
	}
	if err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := Privatize(); err != nil {
		return err
	}
	if err := Streams(); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), mark+"=1"))
}

// Privatize replaces /dev by a copy of its nodes and covers /etc with a layer
// that takes all changes, in the caller's mount namespace, whose mounts must
// be private and whose /proc the caller's. What is mounted below both stays,
// except for /dev/shm and /dev/mqueue, which are new ones.
func Privatize() error {
	below, err := mounts("/dev", "/etc")
	if err != nil {
		return err
	}
	if err := privateDev(below); err != nil {
		return fmt.Errorf("private /dev: %w", err)
	}
	if err := privateEtc(below); err != nil {
		return fmt.Errorf("private /etc: %w", err)
	}
	return nil
}

// mounts lists what is mounted below the folders, each place once, outer ones
// first.
func mounts(dirs ...string) ([]string, error) {
	info, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var below []string
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		for _, dir := range dirs {
			if strings.HasPrefix(f[4], dir+"/") {
				below = append(below, f[4])
			}
		}
	}
	slices.Sort(below)
	return slices.Compact(below), nil
}

// kept are mounts to be put back, by their places.
type kept map[string]safepath.FD

func keep(below []string, dir string) (kept, error) {
	k := kept{}
	for _, at := range below {
		if !strings.HasPrefix(at, dir+"/") || at == "/dev/shm" || at == "/dev/mqueue" {
			continue
		}
		m, err := mount.Clone(unix.AT_FDCWD, at, false)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("keep %s: %w", at, err)
		}
		k[at] = m
	}
	return k, nil
}

func (k kept) restore(below []string) error {
	for _, at := range below {
		if m, ok := k[at]; ok {
			if err := attach(m, at); err != nil {
				return fmt.Errorf("keep %s: %w", at, err)
			}
		}
	}
	return nil
}

func (k kept) close() {
	for _, m := range k {
		_ = m.Close()
	}
}

func attach(m safepath.FD, at string) error {
	return unix.MoveMount(int(m), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func privateDev(below []string) error {
	k, err := keep(below, "/dev")
	if err != nil {
		return err
	}
	defer k.close()
	m, err := mount.New("tmpfs", "dev", mount.Options{Set: unix.MOUNT_ATTR_NOSUID, Data: []string{"mode=755"}})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := copyNodes("/dev", fmt.Sprintf("/proc/self/fd/%d", m)); err != nil {
		return err
	}
	// The host's would only be hidden, and every namespace made from this one
	// would copy it too.
	if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := attach(m, "/dev"); err != nil {
		return err
	}
	if err := k.restore(below); err != nil {
		return err
	}
	for _, own := range []struct{ at, kind, options string }{{"/dev/shm", "tmpfs", "mode=1777"}, {"/dev/mqueue", "mqueue", ""}} {
		if _, err := os.Stat(own.at); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := unix.Mount(own.kind, own.at, own.kind, unix.MS_NOSUID|unix.MS_NODEV, own.options); err != nil {
			return fmt.Errorf("mount %s: %w", own.at, err)
		}
	}
	return nil
}

// copyNodes makes the folders, links and device nodes of from in to. Sockets
// (/dev/log) belong to somebody outside.
func copyNodes(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, dest := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(source, &st); err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(source)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, dest); err != nil {
				return err
			}
			continue
		case unix.S_IFDIR:
			if err := os.Mkdir(dest, 0o755); err != nil {
				return err
			}
			var parent unix.Stat_t
			if err := unix.Lstat(from, &parent); err != nil {
				return err
			}
			if st.Dev == parent.Dev { // else it is a mount, which is kept or made anew
				if err := copyNodes(source, dest); err != nil {
					return err
				}
			}
		case unix.S_IFCHR, unix.S_IFBLK:
			err := unix.Mknod(dest, st.Mode, int(st.Rdev))
			if errors.Is(err, unix.EPERM) {
				continue // a device that this machine's own container may not have
			}
			if err != nil {
				return fmt.Errorf("make %s: %w", e.Name(), err)
			}
		default:
			continue
		}
		if err := errors.Join(unix.Lchown(dest, int(st.Uid), int(st.Gid)), unix.Chmod(dest, st.Mode&0o7777)); err != nil {
			return fmt.Errorf("owner and mode of %s: %w", e.Name(), err)
		}
	}
	return nil
}

func privateEtc(below []string) error {
	k, err := keep(below, "/etc")
	if err != nil {
		return err
	}
	defer k.close()
	changes, err := mount.New("tmpfs", "etc", mount.Options{Data: []string{"mode=700"}})
	if err != nil {
		return err
	}
	defer changes.Close()
	etc, err := unix.Open("/etc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(etc)
	// Until 6.15 an overlay takes no folders of a mount that is nowhere attached,
	// so the changes lie on /etc for as long as the overlay is made.
	if err := attach(changes, "/etc"); err != nil {
		return err
	}
	m, err := overlayEtc(fmt.Sprintf("/proc/self/fd/%d", etc))
	if err := errors.Join(err, unix.Unmount("/etc", unix.MNT_DETACH)); err != nil {
		return err
	}
	defer m.Close()
	if err := attach(m, "/etc"); err != nil {
		return err
	}
	return k.restore(below)
}

// overlayEtc lays what is now at /etc over lower.
func overlayEtc(lower string) (safepath.FD, error) {
	const upper, work = "/etc/upper", "/etc/work"
	// The upper folder's mode is that of /etc.
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Chmod(upper, 0o755), os.Mkdir(work, 0o700)); err != nil {
		return safepath.None, err
	}
	return mount.Overlay([]string{lower}, upper, work, nil)
}

// memoryMajor is the major number of /dev/null and its like (Linux
// Documentation/admin-guide/devices.txt).
const memoryMajor = 1

// Streams replaces each of the caller's standard streams that is one of the
// host's memory devices, /dev/null above all, by the one that the caller's
// mount namespace has. Terminals, files and pipes stay what they are.
func Streams() error {
	names := map[uint32]string{3: "null", 5: "zero", 7: "full", 8: "random", 9: "urandom"}
	for fd := range 3 {
		var st, own unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			continue // a closed stream is nobody's
		}
		name, known := names[unix.Minor(st.Rdev)]
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != memoryMajor || !known {
			continue
		}
		path := "/dev/" + name
		if err := unix.Stat(path, &own); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if own.Dev == st.Dev && own.Ino == st.Ino {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return fmt.Errorf("stream %d: %w", fd, err)
		}
		opened, err := unix.Open(path, flags&(unix.O_ACCMODE|unix.O_APPEND|unix.O_NONBLOCK)|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		err = unix.Dup3(opened, fd, 0)
		_ = unix.Close(opened)
		if err != nil {
			return fmt.Errorf("stream %d: %w", fd, err)
		}
	}
	return nil
}
