package confine

import (
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/linux/process"
)

// UserCalls adds to l what User does.
func (c *Confinement) UserCalls(l *process.Calls, p *specs.Process, denySetgroups bool) error {
	last, err := capability.Last()
	if err != nil {
		return err
	}
	for n := capability.Cap(0); n <= last; n++ {
		if !c.caps.Bounding.Has(n) {
			l.Add("drop "+n.String()+" from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		}
	}
	l.Add("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	if n := len(p.User.AdditionalGids); !denySetgroups {
		groups := make([]byte, 4*n)
		for i, g := range p.User.AdditionalGids {
			*(*uint32)(unsafe.Pointer(&groups[4*i])) = g
		}
		l.Add("set additional groups", unix.SYS_SETGROUPS, uintptr(n), l.Bytes(groups))
	}
	uid, gid := uintptr(p.User.UID), uintptr(p.User.GID)
	l.Add("setgid", unix.SYS_SETRESGID, gid, gid, gid)
	l.Add("setuid", unix.SYS_SETRESUID, uid, uid, uid)
	return nil
}

// FinalCalls adds to l what Final does. The filter may not be one that notifies.
func (c *Confinement) FinalCalls(l *process.Calls) {
	// The order is explained in Final.
	privileged := c.filter != nil && !c.noNew
	if privileged {
		all := c.have
		all.Effective = all.Permitted
		capset(l, "keep capabilities for seccomp", all)
		c.filterCalls(l)
	}
	capset(l, "apply caps", c.caps)
	l.Add("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for n := capability.Cap(0); n < 64; n++ {
		if c.caps.Ambient.Has(n) {
			l.Add("raise ambient "+n.String(), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0)
		}
	}
	l.Add("clear keep caps", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
	if c.noNew {
		l.Add("set no new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if c.filter != nil && !privileged {
		c.filterCalls(l)
	}
}

func (c *Confinement) filterCalls(l *process.Calls) {
	flags, program := c.filter.Raw()
	// struct sock_fprog: the number of instructions and their address.
	prog := l.Words(uintptr(len(program)/8), l.Bytes(program))
	l.Add("init seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), prog)
}

func capset(l *process.Calls, name string, st capability.State) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(st.Effective), Permitted: uint32(st.Permitted), Inheritable: uint32(st.Inheritable)},
		{Effective: uint32(st.Effective >> 32), Permitted: uint32(st.Permitted >> 32), Inheritable: uint32(st.Inheritable >> 32)},
	}
	l.Add(name, unix.SYS_CAPSET, l.Bytes((*[unsafe.Sizeof(hdr)]byte)(unsafe.Pointer(&hdr))[:]),
		l.Bytes((*[unsafe.Sizeof(data)]byte)(unsafe.Pointer(&data))[:]))
}

// LabelCalls adds to l what Labels does, with proc as the descriptor of a procfs
// in the child; false when that cannot be told beforehand, as for SELinux.
func LabelCalls(l *process.Calls, p *specs.Process, proc func() uintptr) bool {
	if p.SelinuxLabel != "" && lsm.SELinuxEnabled() {
		return false
	}
	if p.ApparmorProfile == "" || !lsm.AppArmorEnabled() {
		// A profile without AppArmor in the kernel is refused elsewhere.
		return p.ApparmorProfile == "" || p.ApparmorProfile == lsm.Unconfined
	}
	// struct open_how of openat2(2): see lsm.writeAttr for why so strict.
	how := l.Words(unix.O_WRONLY|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
	value := "exec " + p.ApparmorProfile
	attr := l.Add("open attribute of AppArmor", unix.SYS_OPENAT2, proc(), l.Str("thread-self/attr/apparmor/exec"), how, unix.SizeofOpenHow)
	l.Add("apply apparmor profile", unix.SYS_WRITE, 0, l.Bytes([]byte(value)), uintptr(len(value))).Of(attr)
	return true
}
