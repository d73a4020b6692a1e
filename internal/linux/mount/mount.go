// Package mount is the kernel's descriptor-based mount interface (Linux 5.2;
// attributes by mount_setattr, 5.12): a mount is made, or cloned, detached,
// gets its attributes, and is then attached to an opened place, so that no
// path is resolved twice. Entry points: New, Clone, Overlay and Attach. No locks.
package mount

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
)

// Error of a call with what the file system said about it.
type Error struct {
	// Act is the call and its object.
	Act string
	// Log has the kernel's own lines, if any (fsopen(2), "context log").
	Log   string
	Errno error
}

func (e *Error) Error() string {
	s := e.Act + ": " + e.Errno.Error()
	if e.Log != "" {
		s += " (" + e.Log + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Errno }

// Context is a file system being configured.
type Context struct {
	fd     int
	fsType string
}

// Open starts to configure a file system; Close it in any case.
func Open(fsType string) (*Context, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &Error{Act: "open file system " + fsType, Errno: err}
	}
	return &Context{fd: fd, fsType: fsType}, nil
}

// Close gives the context up; a mount made from it stays.
func (c *Context) Close() error { return unix.Close(c.fd) }

// Set gives an option, "key=value" or "key".
func (c *Context) Set(option string) error {
	key, value, pair := strings.Cut(option, "=")
	if !pair {
		return c.failed(option, unix.FsconfigSetFlag(c.fd, key))
	}
	return c.failed(option, unix.FsconfigSetString(c.fd, key, value))
}

// SetString gives one option whose value may hold anything.
func (c *Context) SetString(key, value string) error {
	return c.failed(key, unix.FsconfigSetString(c.fd, key, value))
}

// Mount makes the file system and a detached mount of it.
func (c *Context) Mount(attrs uint64) (safepath.FD, error) {
	if err := c.failed("", unix.FsconfigCreate(c.fd)); err != nil {
		return safepath.None, err
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return safepath.None, c.failed("", err)
	}
	return safepath.FD(fd), nil
}

func (c *Context) failed(option string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Act: "mount " + c.fsType, Log: c.log(), Errno: err}
	if option != "" {
		e.Act += ": option " + option
	}
	return e
}

// log reads what the file system had to say, newest errors included.
func (c *Context) log() string {
	var lines []string
	buf := make([]byte, 1024)
	for range 8 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		// "e text", "w text" or "i text"
		line := strings.TrimSpace(string(buf[:n]))
		if rest, isErr := strings.CutPrefix(line, "e "); isErr {
			lines = append(lines, rest)
		}
	}
	return strings.Join(lines, "; ")
}

// New makes a detached mount of a new file system. source may be empty.
func New(fsType, source string, o Options) (safepath.FD, error) {
	c, err := Open(fsType)
	if err != nil {
		return safepath.None, err
	}
	defer c.Close()
	if source != "" {
		if err := c.SetString("source", source); err != nil {
			return safepath.None, err
		}
	}
	for _, flag := range o.Super {
		// A file system that is read-only only as a mount stays writable for
		// its other mounts: procfs and sysfs are shared by a whole namespace.
		if flag == "ro" && (fsType == "proc" || fsType == "sysfs" || fsType == "cgroup2") {
			continue
		}
		if err := c.Set(flag); err != nil {
			return safepath.None, err
		}
	}
	for _, option := range o.Data {
		if err := c.Set(option); err != nil {
			return safepath.None, err
		}
	}
	return c.Mount(o.Set)
}

// Clone makes a detached bind mount of the file at path below dirfd
// (unix.AT_FDCWD: a path of the host), with everything mounted below it when tree.
func Clone(dirfd int, path string, tree bool) (safepath.FD, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if tree {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dirfd, path, flags)
	if err != nil {
		return safepath.None, err
	}
	return safepath.FD(fd), nil
}

// Attach puts the detached mount m on the opened file or directory at.
func Attach(m, at safepath.FD) error {
	return unix.MoveMount(int(m), "", int(at), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// SetAttrs changes attributes of a mount, of all below it too when tree.
func SetAttrs(m safepath.FD, tree bool, set, cleared uint64) error {
	return setattr(m, tree, &unix.MountAttr{Attr_set: set, Attr_clr: cleared})
}

// Apply sets the attributes that o names on a mount made by Clone, or on one
// that is attached already. Attributes o does not name stay as they are.
func (o Options) Apply(m safepath.FD) error {
	if o.Set|o.Clear != 0 {
		if err := SetAttrs(m, false, o.Set, o.Clear); err != nil {
			return err
		}
	}
	if o.TreeSet|o.TreeClear != 0 {
		return SetAttrs(m, true, o.TreeSet, o.TreeClear)
	}
	return nil
}

// SetPropagation sets a propagation type, MS_REC for the whole tree.
func SetPropagation(m safepath.FD, flags uint64) error {
	return setattr(m, flags&unix.MS_REC != 0, &unix.MountAttr{Propagation: flags &^ unix.MS_REC})
}

// SetIDMap translates the owners of files in the detached mount m by the user
// namespace userns.
func SetIDMap(m safepath.FD, tree bool, userns uintptr) error {
	return setattr(m, tree, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)})
}

func setattr(m safepath.FD, tree bool, a *unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if tree {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(m), "", flags, a)
}

// Reconfigure changes flags and options of the file system that the opened
// mount at belongs to ("remount").
func Reconfigure(at safepath.FD, o Options) error {
	fd, err := unix.Fspick(int(at), "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return err
	}
	c := &Context{fd: fd, fsType: "again"}
	defer c.Close()
	for _, option := range append(append([]string{}, o.Super...), o.Data...) {
		if err := c.Set(option); err != nil {
			return err
		}
	}
	return c.failed("", unix.FsconfigReconfigure(fd))
}
