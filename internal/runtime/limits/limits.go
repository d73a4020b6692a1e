// Package limits gives the calling thread what a process object says about
// scheduling: priority, affinity, memory policy, personality. (Resource limits
// are linux/rlimit's, control groups linux/cgroup's.) Entry points are the
// functions; each acts on the calling thread, which must be locked. No locks.
package limits

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var policies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4,
	specs.SchedIdle: 5, specs.SchedDeadline: 6,
}

var schedFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04,
	specs.SchedFlagKeepPolicy: 0x08, specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20,
	specs.SchedFlagUtilClampMax: 0x40,
}

// Scheduler sets policy and priority (sched_setattr(2)); nil leaves them.
func Scheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("scheduler policy %q is unknown", s.Policy))
	}
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, name := range s.Flags {
		flag, ok := schedFlags[name]
		if !ok {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("scheduler flag %q is unknown", name))
		}
		attr.Flags |= flag
	}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("error setting scheduler %s: %w", s.Policy, err)
	}
	return nil
}

var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

// IOPriority sets the I/O scheduling class (ioprio_set(2)); nil leaves it.
func IOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	class, ok := ioClasses[p.Class]
	if !ok || p.Priority < 0 || p.Priority > 7 {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("ioPriority %s %d: no such class or level", p.Class, p.Priority))
	}
	const whoProcess, classShift = 1, 13
	if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(class<<classShift|p.Priority)); e != 0 {
		return fmt.Errorf("set ioPriority: %w", e)
	}
	return nil
}

// Affinity binds the thread to a list of processors, "0-3,7"; "" leaves it.
func Affinity(list string) error {
	if list == "" {
		return nil
	}
	var set unix.CPUSet
	if err := eachListed(list, set.Set); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("set CPU affinity %s: %w", list, err)
	}
	return nil
}

// maxListed bounds processor and node numbers.
const maxListed = 4096

// eachListed calls f with every number of a list in the format of cpuset(7), as
// often as it is listed. It keeps none of them: a list comes from a bundle and
// may name the same range a million times.
func eachListed(list string, f func(n int)) error {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.Atoi(from)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(to)
		}
		if err != nil || a < 0 || b < a || b >= maxListed {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("list %.100q is not of the form 0-3,7 with numbers below %d", list, maxListed))
		}
		for ; a <= b; a++ {
			f(a)
		}
	}
	return nil
}

var domains = map[specs.LinuxPersonalityDomain]uintptr{specs.PerLinux: 0, specs.PerLinux32: 8}

// Personality sets the execution domain (personality(2)); nil leaves it.
func Personality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	domain, ok := domains[p.Domain]
	if !ok || len(p.Flags) > 0 {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("personality %q with flags %v is not supported", p.Domain, p.Flags))
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, domain, 0, 0); e != 0 {
		return fmt.Errorf("set personality: %w", e)
	}
	return nil
}

var memoryModes = map[specs.MemoryPolicyModeType]int{
	specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
	specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{
	specs.MpolFStaticNodes: 1 << 15, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFNumaBalancing: 1 << 13,
}

// MemoryPolicy sets the NUMA policy (set_mempolicy(2)); nil leaves it.
func MemoryPolicy(p *specs.LinuxMemoryPolicy) error {
	if p == nil {
		return nil
	}
	mode, ok := memoryModes[p.Mode]
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("memoryPolicy mode %q is unknown", p.Mode))
	}
	for _, name := range p.Flags {
		flag, ok := memoryFlags[name]
		if !ok {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("memoryPolicy flag %q is unknown", name))
		}
		mode |= flag
	}
	var mask [maxListed / bits.UintSize]uint
	var ptr, size uintptr
	if p.Nodes != "" {
		if err := eachListed(p.Nodes, func(n int) { mask[n/bits.UintSize] |= 1 << (n % bits.UintSize) }); err != nil {
			return err
		}
		ptr, size = uintptr(unsafe.Pointer(&mask[0])), maxListed
	}
	if _, _, e := unix.Syscall(unix.SYS_SET_MEMPOLICY, uintptr(mode), ptr, size); e != 0 {
		return fmt.Errorf("set memory policy %s: %w", p.Mode, e)
	}
	return nil
}
