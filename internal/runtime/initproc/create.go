package initproc

import (
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/hooks"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// create makes the container around this process and becomes its application.
func (s *stage) create() error {
	if s.CgroupNS {
		// A cgroup namespace's root is the group its maker is in.
		if err := s.joinCgroups(); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("unshare cgroup namespace: %w", err)
		}
	}
	if err := s.surround(); err != nil {
		return err
	}
	return s.become()
}

// surround makes what the application will see around it.
func (s *stage) surround() error {
	if s.NewNetNS && !fault.On("lo stays down") {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring lo up: %w", err)
		}
	}
	old := unix.Umask(0)
	root, err := s.buildRoot()
	if err != nil {
		return err
	}
	if err := s.enterRoot(root); err != nil {
		return err
	}
	unix.Umask(old)
	return s.kernelSettings()
}

// buildRoot attaches the root and does its plan; the result is the root's mount.
func (s *stage) buildRoot() (safepath.FD, error) {
	if err := s.separateMounts(); err != nil {
		return safepath.None, err
	}
	root := safepath.FD(s.Root)
	if s.Root < 0 {
		var err error
		if root, err = rootfs.MountRoot(s.Overlay, s.RootPath); err != nil {
			return safepath.None, err
		}
	}
	// On top of "/": a place every mount namespace has. Lookups of absolute
	// paths start below it, so the host's files stay in reach until pivot_root.
	top, err := safepath.OpenRoot("/")
	if err != nil {
		return safepath.None, err
	}
	defer top.Close()
	if err := mount.SetPropagation(root, unix.MS_PRIVATE|unix.MS_REC); err != nil {
		return safepath.None, fmt.Errorf("make root private: %w", err)
	}
	b := rootfs.NewBuilder(root)
	defer b.Close()
	b.Cgroups, b.CgroupNS, b.UserNS = s.Cgroups, s.CgroupNS, s.UserNS
	b.GivenProc = s.givenProc
	if s.MountLabel != "" && lsm.SELinuxEnabled() {
		b.MountLabel = s.MountLabel
	}
	if len(s.Prepared) > 0 {
		b.Prepared = make(map[int]safepath.FD, len(s.Prepared))
		for i, fd := range s.Prepared {
			b.Prepared[i] = safepath.FD(fd)
		}
	}
	if err := b.CloneHost(s.Plan); err != nil {
		return safepath.None, err
	}
	if err := mount.Attach(root, top); err != nil {
		return safepath.None, fmt.Errorf("attach root: %w", err)
	}
	// Masks and read-only paths come last: a hook and a terminal may still
	// need what they cover.
	plan := s.Plan
	last := len(plan)
	for last > 0 && (plan[last-1].Kind == rootfs.Mask || plan[last-1].Kind == rootfs.Readonly) {
		last--
	}
	if err := b.Perform(plan[:last]); err != nil {
		return safepath.None, err
	}
	s.proc = b.Proc
	if s.Process.Terminal {
		if err := s.console(root); err != nil {
			return safepath.None, err
		}
	}
	if err := s.runHooks(); err != nil {
		return safepath.None, err
	}
	if err := b.Perform(plan[last:]); err != nil {
		return safepath.None, err
	}
	return root, nil
}

// separateMounts stops mounts of ours from reaching the host.
func (s *stage) separateMounts() error {
	flags := uint64(unix.MS_SLAVE | unix.MS_REC)
	if p, ok := mount.Propagation(s.Propagation); ok && p&unix.MS_UNBINDABLE == 0 {
		flags = p | unix.MS_REC
	}
	if err := unix.Mount("", "/", "", uintptr(flags), ""); err != nil {
		return fmt.Errorf("set propagation of /: %w", err)
	}
	if flags&unix.MS_SHARED != 0 {
		// pivot_root refuses a shared parent.
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make / private: %w", err)
		}
	}
	return nil
}

// runHooks runs those of the runtime's namespaces (by the parent) and then
// those of the container's, both before the root is entered.
func (s *stage) runHooks() error {
	if fault.On("hooks swapped") {
		if err := hooks.Run("createContainer", s.Rare.CreateContainer, s.Rare.State); err != nil {
			return err
		}
		s.Rare.CreateContainer = nil
	}
	if s.RuntimeHooks {
		if err := s.conn.Send(HooksDue, nil); err != nil {
			return err
		}
		if _, _, err := s.conn.expect(HooksDone); err != nil {
			return fmt.Errorf("wait for hooks: %w", err)
		}
	}
	return hooks.Run("createContainer", s.Rare.CreateContainer, s.Rare.State)
}

// console makes the container's terminal in its own devpts, takes it as our
// standard streams and shows it as /dev/console.
func (s *stage) console(root safepath.FD) error {
	pts, err := root.Open("/dev/pts", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("console: /dev/pts: %w", err)
	}
	defer pts.Close()
	if err := isDevpts(pts); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	slave, err := s.openConsole(int(pts), s.Process)
	if err != nil {
		return err
	}
	defer unix.Close(slave)
	dev, err := root.Open("/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("console: /dev: %w", err)
	}
	defer dev.Close()
	// A clone of what TIOCGPTPEER opened, not of a path: /dev/pts/N could be a
	// link to anything (CVE-2025-52565).
	m, err := mount.Clone(slave, "", false)
	if defense.Dropped(defense.ConsoleByDescriptor) {
		m, err = consoleByPath(root, slave)
	}
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	defer m.Close()
	if err := rootfs.AttachFile(m, dev, "console"); err != nil {
		return fmt.Errorf("console: /dev/console: %w", err)
	}
	return takeTerminal(slave)
}

// openConsole makes the terminal and sends its master to the parent.
func (s *stage) openConsole(pts int, p *specs.Process) (int, error) {
	master, slave, number, err := pty.Open(pts, "ptmx")
	if err != nil {
		return -1, fmt.Errorf("console: %w", err)
	}
	defer unix.Close(master)
	if b := p.ConsoleSize; b != nil && !fault.On("console size ignored") {
		if err := pty.SetSize(master, uint16(b.Height), uint16(b.Width)); err != nil {
			return -1, err
		}
	}
	if err := unix.Fchown(slave, int(p.User.UID), -1); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return -1, fmt.Errorf("console: give it to user %d: %w", p.User.UID, err)
	}
	if err := s.conn.Send(Console, []byte{byte(number), byte(number >> 8), byte(number >> 16)}, master); err != nil {
		return -1, fmt.Errorf("console: send: %w", err)
	}
	return slave, nil
}

// takeTerminal makes slave the controlling terminal and the standard streams.
func takeTerminal(slave int) error {
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("console: take as controlling terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("console: %w", err)
		}
	}
	return nil
}

func isDevpts(dir safepath.FD) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir), &fs); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.New("/dev/pts is not a devpts")
	}
	return nil
}

// enterRoot makes root our root and forgets the host's files.
func (s *stage) enterRoot(root safepath.FD) error {
	if err := unix.Fchdir(int(root)); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if s.NoPivot {
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("enter root: chroot: %w", err)
		}
	} else {
		old, err := safepath.OpenRoot("/")
		if err != nil {
			return fmt.Errorf("enter root: %w", err)
		}
		defer old.Close()
		// pivot_root(".", ".") leaves the old root on top of the new one,
		// where the current folder still points below it (pivot_root(2), NOTES).
		if err := unix.PivotRoot(".", "."); err != nil {
			return fmt.Errorf("enter root: pivot_root: %w", err)
		}
		if strings.HasSuffix(s.Propagation, "shared") {
			// Else unmounting would reach the host. "." is to be the old root, or
			// the volumes of the container would no longer tell the host.
			if err := unix.Fchdir(int(old)); err != nil {
				return fmt.Errorf("enter root: %w", err)
			}
			if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("enter root: %w", err)
			}
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("enter root: unmount the old one: %w", err)
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if p, ok := mount.Propagation(s.Propagation); ok {
		if err := mount.SetPropagation(root, p); err != nil {
			return fmt.Errorf("set rootfsPropagation: %w", err)
		}
	}
	if s.ReadonlyRoot {
		if err := mount.SetAttrs(root, false, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
			return fmt.Errorf("make root read-only: %w", err)
		}
	}
	return root.Close()
}

// kernelSettings sets names and sysctls of the new namespaces.
func (s *stage) kernelSettings() error {
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("sethostname: %w", err)
		}
	}
	if s.Domainname != "" {
		if err := unix.Setdomainname([]byte(s.Domainname)); err != nil {
			return fmt.Errorf("setdomainname: %w", err)
		}
	}
	if len(s.Sysctl) == 0 {
		return nil
	}
	// Not through a path of the container, and not through the root's own
	// /proc, which is read-only by now: a procfs of our own (CVE-2025-52881).
	proc, err := ownProc()
	if defense.Dropped(defense.OwnProc) {
		proc, err = safepath.OpenRoot("/proc")
	}
	if err != nil {
		return err
	}
	defer proc.Close()
	for key, value := range s.Sysctl {
		if err := sysctl(proc, key, value); err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	return nil
}

func sysctl(proc safepath.FD, key, value string) error {
	name := strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, bundle.SysctlName(key))
	fd, err := proc.OpenExact("sys/"+name, unix.O_WRONLY)
	if defense.Dropped(defense.OwnProc) {
		fd, err = openByPath("/proc/sys/" + name)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), key)
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// ownProc opens a procfs of our pid namespace. A new mount of it when that is
// allowed, else /proc, when it is one and nothing can have covered it.
func ownProc() (safepath.FD, error) {
	m, err := mount.New("proc", "", mount.Options{})
	if err == nil {
		return m, nil
	}
	if !errors.Is(err, unix.EPERM) {
		return safepath.None, err
	}
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return safepath.None, err
	}
	const procRootInode = 1
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err = unix.Fstatfs(fd, &fs); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && (fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != procRootInode) {
		err = errors.New("/proc is not the root of a procfs")
	}
	if err != nil {
		_ = unix.Close(fd)
		return safepath.None, err
	}
	return safepath.FD(fd), nil
}
