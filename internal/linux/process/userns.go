package process

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// NewUserNamespace makes a user namespace with the given maps and nobody in
// it, e.g. for an idmapped mount. The caller closes it.
func NewUserNamespace(uids, gids []IDMap) (*os.File, error) {
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
		flags:      unix.CLONE_VM | unix.CLONE_NEWUSER | unix.CLONE_CLEAR_SIGHAND,
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
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return f, nil
}
