// Package capability names Linux capabilities and sets the five sets of the
// calling thread.
//
// A process that becomes a container calls, on a locked thread: DropBounding,
// then changes its user (with SECUREBITS keep-caps when that drops root),
// then Apply. Names are those of capabilities(7), "CAP_NET_ADMIN".
package capability

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Cap is a capability's number.
type Cap uint8

// names in the order of linux/capability.h; the newest is of kernel 5.9.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// String is the name, or "CAP_63" for one this package does not know.
func (c Cap) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return "CAP_" + strconv.Itoa(int(c))
}

// Parse finds a capability by name. Case and a missing "CAP_" are forgiven, as
// Docker's command line does. ErrInvalidArgument for an unknown name.
func Parse(name string) (Cap, error) {
	for i, n := range names {
		if n == name {
			return Cap(i), nil
		}
	}
	for i, n := range names {
		if strings.EqualFold(n, name) || strings.EqualFold(n[len("CAP_"):], name) {
			return Cap(i), nil
		}
	}
	return 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("unknown capability %q", name))
}

// Set is a set of capabilities, bit n for capability n.
type Set uint64

// Of is the set of its arguments.
func Of(caps ...Cap) Set {
	var s Set
	for _, c := range caps {
		s |= 1 << c
	}
	return s
}

// Known is every capability this package has a name for.
func Known() Set { return 1<<len(names) - 1 }

// Supported is every capability the running kernel knows
// (/proc/sys/kernel/cap_last_cap).
func Supported() (Set, error) {
	last, err := Last()
	if err != nil {
		return 0, err
	}
	return Set(1<<(last+1) - 1), nil
}

// Last is the running kernel's highest capability. It asks prctl, not /proc,
// so that it works before /proc is mounted.
func Last() (Cap, error) {
	// PR_CAPBSET_READ answers EINVAL above the last one.
	lo, hi := 0, 63
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(mid), 0, 0, 0); err == nil {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return Cap(lo), nil
}

// ParseSet is the set of names. Unknown ones are returned beside it: runc and
// Docker warn about them and go on.
func ParseSet(caps []string) (s Set, unknown []string) {
	for _, n := range caps {
		c, err := Parse(n)
		if err != nil {
			unknown = append(unknown, n)
			continue
		}
		s |= 1 << c
	}
	return s, unknown
}

// Has reports whether c is in s.
func (s Set) Has(c Cap) bool { return s&(1<<c) != 0 }

// Names lists the set in numerical order.
func (s Set) Names() []string {
	if s == 0 {
		return nil
	}
	out := make([]string, 0, bits.OnesCount64(uint64(s)))
	for v := uint64(s); v != 0; v &= v - 1 {
		out = append(out, Cap(bits.TrailingZeros64(v)).String())
	}
	return out
}

// String is the names joined by commas.
func (s Set) String() string { return strings.Join(s.Names(), ",") }

// State is the five sets of a thread (capabilities(7)).
type State struct {
	Effective, Permitted, Inheritable, Bounding, Ambient Set
}

// FromSpec reads an OCI capabilities object; nil is no capability at all.
// Unknown names are returned once each.
func FromSpec(c *specs.LinuxCapabilities) (st State, unknown []string) {
	if c == nil {
		return State{}, nil
	}
	for _, p := range []struct {
		to   *Set
		from []string
	}{
		{&st.Bounding, c.Bounding}, {&st.Effective, c.Effective}, {&st.Permitted, c.Permitted},
		{&st.Inheritable, c.Inheritable}, {&st.Ambient, c.Ambient},
	} {
		s, u := ParseSet(p.from)
		*p.to = s
	next:
		for _, n := range u {
			for _, have := range unknown {
				if have == n {
					continue next
				}
			}
			unknown = append(unknown, n)
		}
	}
	return st, unknown
}

// Spec is the OCI form.
func (st State) Spec() *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{
		Bounding: st.Bounding.Names(), Effective: st.Effective.Names(), Permitted: st.Permitted.Names(),
		Inheritable: st.Inheritable.Names(), Ambient: st.Ambient.Names(),
	}
}

// Clip removes what a thread in state have cannot give: nothing outside its
// permitted and bounding sets. It also keeps the kernel's rules between the
// sets: effective ⊆ permitted, ambient ⊆ permitted ∩ inheritable. The second
// result is what was asked for and is lost, for one warning.
func (st State) Clip(have State) (State, Set) {
	limit := have.Permitted & have.Bounding
	out := State{
		Bounding:    st.Bounding & have.Bounding,
		Permitted:   st.Permitted & limit,
		Inheritable: st.Inheritable & limit,
	}
	out.Effective = st.Effective & limit & st.Permitted
	out.Ambient = st.Ambient & out.Permitted & out.Inheritable
	lost := st.Bounding&^have.Bounding | (st.Permitted|st.Effective|st.Inheritable|st.Ambient)&^limit
	return out, lost
}

// Current reads the calling thread's sets.
func Current() (State, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if _, _, e := unix.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return State{}, fmt.Errorf("read capabilities: %w", e)
	}
	st := State{
		Effective:   Set(data[0].Effective) | Set(data[1].Effective)<<32,
		Permitted:   Set(data[0].Permitted) | Set(data[1].Permitted)<<32,
		Inheritable: Set(data[0].Inheritable) | Set(data[1].Inheritable)<<32,
	}
	last, err := Last()
	if err != nil {
		return State{}, err
	}
	for c := Cap(0); c <= last; c++ {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			st.Bounding |= 1 << c
		}
		if v, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0); err == nil && v == 1 {
			st.Ambient |= 1 << c
		}
	}
	return st, nil
}

// DropBounding removes every capability that is not in keep from the calling
// thread's bounding set. It needs CAP_SETPCAP and must come before the user
// changes.
func DropBounding(keep Set) error {
	for c := Cap(0); c < 64; c++ {
		if keep.Has(c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err == unix.EINVAL {
			return nil // above the kernel's last
		}
		if err != nil {
			return fmt.Errorf("drop %v from the bounding set: %w", c, err)
		}
	}
	return nil
}

// Apply sets the calling thread's effective, permitted and inheritable sets
// and then the ambient one. The bounding set is DropBounding's.
func (st State) Apply() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(st.Effective), Permitted: uint32(st.Permitted), Inheritable: uint32(st.Inheritable)},
		{Effective: uint32(st.Effective >> 32), Permitted: uint32(st.Permitted >> 32), Inheritable: uint32(st.Inheritable >> 32)},
	}
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return fmt.Errorf("set capabilities: %w", os.NewSyscallError("capset", e))
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for v := uint64(st.Ambient); v != 0; v &= v - 1 {
		c := Cap(bits.TrailingZeros64(v))
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %v: %w", c, err)
		}
	}
	return nil
}
