package initproc

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// CanBuild reports whether Build can make what is around the application: not
// what needs the rights of a user namespace, a hook, a terminal, or a setting
// that belongs to the pid namespace.
func (c *Config) CanBuild() bool {
	if c.UserNS || c.RuntimeHooks || c.Root >= 0 || len(c.Prepared) > 0 || c.MountLabel != "" ||
		!c.Rare.empty() || c.Process.Terminal || c.Process.SelinuxLabel != "" {
		return false
	}
	procs := 0
	for i := range c.Plan {
		s := &c.Plan[i]
		if s.Kind != rootfs.FileSystem || s.Type != "proc" {
			continue
		}
		procs++
		if len(s.Options.Data) > 0 || s.Dest != "/proc" {
			return false
		}
	}
	for key := range c.Sysctl {
		if !strings.HasPrefix(key, "net.") {
			return false
		}
	}
	return procs == 1
}

// Build makes what is around the application of a container from outside, in
// the namespaces (CLONE_NEW* bits, with NEWNS) of the process that the pidfd
// target names, which waits in them with "/" as its current folder; proc is a
// detached procfs of its pid namespace, which Build closes. Only a thread that
// ends with the call ever is in there. The result is the container's root.
//
// A stage does the same from inside, but is a Go program to be started first.
func (c *Config) Build(target *os.File, namespaces uintptr, proc safepath.FD) (safepath.FD, error) {
	var root safepath.FD
	var err error
	process.OnThread(func() { root, err = c.build(target, namespaces, proc) })
	return root, err
}

func (c *Config) build(target *os.File, namespaces uintptr, proc safepath.FD) (safepath.FD, error) {
	s := &stage{Config: c, proc: safepath.None, givenProc: proc}
	defer func() {
		if s.proc != safepath.None {
			_ = s.proc.Close()
		}
	}()
	// A root, a current folder and a umask of this thread's own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return safepath.None, fmt.Errorf("unshare fs: %w", err)
	}
	if err := unix.Setns(int(target.Fd()), int(namespaces)); err != nil {
		return safepath.None, fmt.Errorf("join namespaces: %w", err)
	}
	if err := s.surround(); err != nil {
		return safepath.None, err
	}
	return safepath.OpenRoot("/")
}
