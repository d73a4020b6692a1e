// Package confine takes a process's rights away, in the one order that works:
// bounding set, user, capabilities, seccomp. Entry points: User and Final; both
// act on the calling thread, which must be locked and is the one that executes
// the application. No locks.
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/linux/seccomp"
)

// Confinement is what Final still has to do after User.
type Confinement struct {
	caps    capability.State
	have    capability.State // before
	filter  *seccomp.Filter
	noNew   bool
	warning string
}

// New prepares the confinement of p; filter is a compiled seccomp profile in
// its binary form, or nil.
func New(p *specs.Process, filter []byte) (*Confinement, error) {
	have, err := capability.Current()
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	return NewFor(have, p, filter)
}

// NewFor is New for a thread that has these capabilities.
func NewFor(have capability.State, p *specs.Process, filter []byte) (*Confinement, error) {
	c := &Confinement{noNew: p.NoNewPrivileges, have: have}
	var err error
	want, unknown := capability.FromSpec(p.Capabilities)
	if len(unknown) > 0 {
		c.warning = fmt.Sprintf("capabilities %v are unknown and left out", unknown)
	}
	var lost capability.Set
	if c.caps, lost = want.Clip(have); lost != 0 && c.warning == "" {
		c.warning = "capabilities that this process does not have itself are left out: " + lost.String()
	}
	if defense.Dropped(defense.Capabilities) {
		c.caps = have
	}
	if filter != nil && !defense.Dropped(defense.Seccomp) {
		if c.filter, err = seccomp.UnmarshalFilter(filter); err != nil {
			return nil, fmt.Errorf("seccomp: %w", err)
		}
	}
	return c, nil
}

// Warning is what had to be left out, or "".
func (c *Confinement) Warning() string { return c.warning }

// Notify reports whether Final returns a seccomp listener.
func (c *Confinement) Notify() bool { return c.filter != nil && c.filter.Notify() }

// User drops the bounding set and becomes the user of p. The permitted set is
// kept for Final; for a user that is not root the effective set is empty now.
func (c *Confinement) User(p *specs.Process, denySetgroups bool) error {
	if err := capability.DropBounding(c.caps.Bounding); err != nil {
		return fmt.Errorf("unable to apply bounding set: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("unable to set keep caps: %w", err)
	}
	groups := make([]uint32, len(p.User.AdditionalGids))
	copy(groups, p.User.AdditionalGids)
	if len(groups) > 0 && denySetgroups {
		return errors.New("cannot set any additional groups in a rootless container")
	}
	if !denySetgroups {
		if err := setgroups(groups); err != nil {
			return fmt.Errorf("set additional groups %v: %w", groups, err)
		}
	}
	uid, gid := uintptr(p.User.UID), uintptr(p.User.GID)
	if err := raw3(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot setgid to unmapped gid %d in user namespace", gid)
		}
		return fmt.Errorf("setgid %d: %w", gid, err)
	}
	if err := raw3(unix.SYS_SETRESUID, uid, uid, uid); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot setuid to unmapped uid %d in user namespace", uid)
		}
		return fmt.Errorf("setuid %d: %w", uid, err)
	}
	return nil
}

// Final sets the last capabilities, no_new_privs and the seccomp filter. After
// it the thread may do little more than execve. listener gets the descriptor of
// a filter that notifies, right after it is in force and on another thread; it
// may be nil otherwise.
func (c *Confinement) Final(listener func(fd int)) error {
	// Without no_new_privs the filter needs CAP_SYS_ADMIN, which the permitted
	// set still has, so it goes in before the last capabilities are dropped.
	privileged := c.filter != nil && !c.noNew
	if privileged {
		if err := c.raise(); err != nil {
			return err
		}
		if err := c.install(listener); err != nil {
			return err
		}
	}
	if err := c.caps.Apply(); err != nil {
		return fmt.Errorf("unable to apply caps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("unable to clear keep caps: %w", err)
	}
	if c.noNew {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("unable to set no new privileges: %w", err)
		}
	}
	if c.filter != nil && !privileged {
		return c.install(listener)
	}
	return nil
}

// raise makes the whole permitted set effective again after a change of user.
func (c *Confinement) raise() error {
	now, err := capability.Current()
	if err == nil && now.Effective != now.Permitted {
		now.Effective = now.Permitted
		err = now.Apply()
	}
	if err != nil {
		return fmt.Errorf("unable to keep capabilities for seccomp: %w", err)
	}
	return nil
}

func (c *Confinement) install(listener func(fd int)) error {
	if c.filter.Notify() {
		return c.installNotify(listener)
	}
	if err := c.filter.Install(); err != nil {
		return fmt.Errorf("unable to init seccomp: %w", err)
	}
	return nil
}

// installNotify attaches a filter that asks an agent. Nothing that this thread
// could do to hand the listener over is sure to pass the filter: the call would
// wait for an agent that has no listener yet. So another thread, which the
// filter is not in force on, stands ready for it, and this one makes no system
// call until the agent has it.
func (c *Confinement) installNotify(listener func(fd int)) error {
	const waiting, failed = -1, -2
	var fd atomic.Int32
	var ready, done atomic.Bool
	fd.Store(waiting)
	go func() {
		runtime.LockOSThread()
		ready.Store(true)
		for fd.Load() == waiting {
			// Not through the Go scheduler: it might want a word with the other thread.
			pause := unix.Timespec{Nsec: 20_000}
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
		if n := fd.Load(); n >= 0 {
			listener(int(n))
		}
		done.Store(true)
	}()
	for !ready.Load() {
		runtime.Gosched()
	}
	n, err := c.filter.InstallListener()
	if err != nil {
		fd.Store(failed)
		return fmt.Errorf("unable to init seccomp: %w", err)
	}
	fd.Store(int32(n))
	for !done.Load() {
		// Busy: a pause would be a system call.
	}
	return nil
}

// Labels makes the next execve enter the AppArmor profile and SELinux label of
// p. proc is a procfs of the thread's pid namespace that nobody could change.
func Labels(p *specs.Process, proc *os.File) error {
	if p.ApparmorProfile != "" && p.ApparmorProfile != lsm.Unconfined || p.ApparmorProfile == lsm.Unconfined && lsm.AppArmorEnabled() {
		if err := lsm.SetAppArmorExec(proc, p.ApparmorProfile); err != nil {
			return fmt.Errorf("unable to apply apparmor profile: %w", err)
		}
	}
	if p.SelinuxLabel != "" && lsm.SELinuxEnabled() {
		if err := lsm.SetSELinuxExec(proc, p.SelinuxLabel); err != nil {
			return fmt.Errorf("can't set process label: %w", err)
		}
	}
	return nil
}

func raw3(nr, a, b, c uintptr) error {
	// Of this thread only: Go's own wrappers would change every thread.
	if _, _, e := unix.RawSyscall(nr, a, b, c); e != 0 {
		return e
	}
	return nil
}
