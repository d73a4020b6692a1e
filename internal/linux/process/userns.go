package process

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// NewUserNamespace makes a user namespace with the given maps and nobody in
// it, e.g. for an idmapped mount. The caller closes it.
func NewUserNamespace(uids, gids []IDMap) (*os.File, error) {
	return newOwned(0, "user", uids, gids)
}

// NewNetworkNamespace makes a network namespace that belongs to a new user
// namespace with the given maps: root of that one may change it. The caller
// closes it.
func NewNetworkNamespace(uids, gids []IDMap) (*os.File, error) {
	return newOwned(unix.CLONE_NEWNET, "net", uids, gids)
}

// NewNetworkNamespaceIn makes a network namespace that belongs to an existing
// user namespace. The caller closes it.
func NewNetworkNamespaceIn(userns *os.File) (*os.File, error) {
	prog, err := newProgram(0)
	if err != nil {
		return nil, err
	}
	defer prog.free()
	var hold, made [2]int
	if err := unix.Pipe2(hold[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make network namespace: pipe: %w", err)
	}
	defer unix.Close(hold[0])
	if err := unix.Pipe2(made[:], unix.O_CLOEXEC); err != nil {
		_ = unix.Close(hold[1])
		return nil, fmt.Errorf("make network namespace: pipe: %w", err)
	}
	defer unix.Close(made[0])
	byteOf := prog.bytes(make([]byte, 8))
	prog.add("close pipe", unix.SYS_CLOSE, uintptr(hold[1]))
	prog.add("join user namespace", unix.SYS_SETNS, userns.Fd(), unix.CLONE_NEWUSER)
	prog.add("unshare network", unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	prog.add("tell", unix.SYS_WRITE, uintptr(made[1]), byteOf, 1)
	prog.add("wait", unix.SYS_READ, uintptr(hold[0]), byteOf, 1)
	prog.add("exit", unix.SYS_EXIT_GROUP, 0)
	args := cloneArgs{flags: unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	pid, err := clone(&args, prog)
	_ = unix.Close(made[1])
	if err != nil {
		_ = unix.Close(hold[1])
		return nil, fmt.Errorf("make network namespace: clone: %w", err)
	}
	defer func() {
		_ = unix.Close(hold[1])
		_ = ignoringEINTR(func() error { _, err := unix.Wait4(pid, nil, 0, nil); return err })
	}()
	var b [1]byte
	n := 0
	err = ignoringEINTR(func() (err error) { n, err = unix.Read(made[0], b[:]); return err })
	if err == nil && n == 0 {
		if err = prog.failure(); err == nil { // it ended before
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return f, nil
}

// newOwned makes a user namespace, and others that it owns, and opens the one
// with the given name in /proc/<pid>/ns.
func newOwned(flags uint64, name string, uids, gids []IDMap) (*os.File, error) {
	prog, err := newProgram(0)
	if err != nil {
		return nil, err
	}
	defer prog.free()
	var hold [2]int
	if err := unix.Pipe2(hold[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make user namespace: pipe: %w", err)
	}
	defer unix.Close(hold[0])
	prog.add("close pipe", unix.SYS_CLOSE, uintptr(hold[1]))
	prog.add("wait", unix.SYS_READ, uintptr(hold[0]), prog.bytes(make([]byte, 8)), 1)
	prog.add("exit", unix.SYS_EXIT_GROUP, 0)
	args := cloneArgs{
		flags:      unix.CLONE_VM | unix.CLONE_NEWUSER | unix.CLONE_CLEAR_SIGHAND | flags,
		exitSignal: uint64(unix.SIGCHLD),
	}
	pid, err := clone(&args, prog)
	if err != nil {
		_ = unix.Close(hold[1])
		return nil, fmt.Errorf("make user namespace: clone: %w", err)
	}
	defer func() {
		_ = unix.Close(hold[1])
		_ = ignoringEINTR(func() error { _, err := unix.Wait4(pid, nil, 0, nil); return err })
	}()
	if err := writeMaps(pid, uids, gids); err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + name)
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return f, nil
}

// Owner opens the user namespace that a namespace belongs to (ioctl_ns(2),
// kernel 4.9). own tells that it is the caller's.
func Owner(ns uintptr) (f *os.File, own bool, err error) {
	fd, err := unix.IoctlRetInt(int(ns), unix.NS_GET_USERNS)
	if err != nil {
		return nil, false, fmt.Errorf("find the owner of a namespace: %w", err)
	}
	unix.CloseOnExec(fd)
	f = os.NewFile(uintptr(fd), "user namespace")
	var theirs, ours unix.Stat_t
	err = unix.Fstat(fd, &theirs)
	if err == nil {
		err = unix.Stat("/proc/self/ns/user", &ours)
	}
	if err != nil {
		_ = f.Close()
		return nil, false, fmt.Errorf("find the owner of a namespace: %w", err)
	}
	return f, theirs.Ino == ours.Ino && theirs.Dev == ours.Dev, nil
}
