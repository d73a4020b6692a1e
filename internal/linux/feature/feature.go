// Package feature tells what the running kernel can do.
//
// A feature is a value with a name and the kernel version that brought it.
// Whether it is there is found out by trying, never by comparing versions
// (distributions backport, sandboxes forbid). Set remembers answers; its
// zero value is ready and nothing is probed before it is asked for.
//
// Locks: a sync.Once per feature, held while probing it (a few system calls).
package feature

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// Feature is something the kernel may lack.
type Feature uint8

// The features, each with the kernel version that brought it.
const (
	// Openat2 is openat2(2) with its RESOLVE flags (5.6).
	Openat2 Feature = iota
	// PidfdOpen is pidfd_open(2) (5.3).
	PidfdOpen
	// PidfdExitInfo is PIDFD_GET_INFO with PIDFD_INFO_EXIT: an exit status
	// from a pidfd by a process that is not the parent (6.15).
	PidfdExitInfo
	// CloneIntoCgroup is clone3(2) with CLONE_INTO_CGROUP (5.7).
	CloneIntoCgroup
	// CloseRange is close_range(2) with CLOSE_RANGE_CLOEXEC (5.11).
	CloseRange
	// MountAPI is fsopen(2), fsconfig(2), fsmount(2), move_mount(2) (5.2).
	MountAPI
	// MountSetattr is mount_setattr(2) (5.12); needed for idmapped mounts
	// and recursive read-only.
	MountSetattr
	// IDMappedOverlay is overlayfs with idmapped lower layers (5.19).
	IDMappedOverlay
	// OverlayAppend is overlayfs taking one lower layer per fsconfig(2) call
	// as "lowerdir+" (6.8 documents it).
	OverlayAppend
	// OverlayVolatile is overlayfs' option "volatile" (5.10).
	OverlayVolatile
	// EROFSFile is an EROFS mounted from a plain file without a loop device (6.12).
	EROFSFile
	// ProcSubset is proc's mount option subset=pid (5.8).
	ProcSubset
	// UserNamespace is CLONE_NEWUSER for this process (3.8; may be
	// forbidden by sysctl or an LSM).
	UserNamespace
	// TimeNamespace is CLONE_NEWTIME (5.6).
	TimeNamespace
	// CgroupNamespace is CLONE_NEWCGROUP (4.6).
	CgroupNamespace
	// CgroupV2 is a mounted cgroup2 file system (4.5).
	CgroupV2
	// CgroupKill is cgroup.kill on the mounted cgroup2 (5.14).
	CgroupKill
	// CgroupFreeze is cgroup.freeze on the mounted cgroup2 (5.2).
	CgroupFreeze
	// CgroupDeviceBPF is BPF_PROG_TYPE_CGROUP_DEVICE (4.15).
	CgroupDeviceBPF
	// SeccompFilter is seccomp(2) SECCOMP_SET_MODE_FILTER (3.17).
	SeccompFilter
	// SeccompNotify is the action SECCOMP_RET_USER_NOTIF (5.0).
	SeccompNotify
	// SeccompWaitKillable is SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (5.19).
	SeccompWaitKillable
	// MemfdExec is memfd_create(2) with MFD_EXEC (6.3).
	MemfdExec

	count
)

type row struct {
	name, since string
	probe       func() error
}

// String is the feature's name, e.g. "openat2".
func (f Feature) String() string { return rowOf(f).name }

// Since is the kernel version that brought the feature, e.g. "5.6".
func (f Feature) Since() string { return rowOf(f).since }

// All lists every feature.
func All() []Feature {
	out := make([]Feature, count)
	for i := range out {
		out[i] = Feature(i)
	}
	return out
}

// Missing says that the kernel lacks a feature, and what it answered. Its
// class is NotImplemented.
type Missing struct {
	Feature Feature
	Cause   error
}

func (m *Missing) Error() string {
	return fmt.Sprintf("kernel has no %v (since Linux %s): %v", m.Feature, m.Feature.Since(), m.Cause)
}

func (m *Missing) Unwrap() []error { return []error{errdefs.ErrNotImplemented, m.Cause} }

// Probe tries f now: nil when it is there, *Missing when not.
func Probe(f Feature) error {
	if err := rowOf(f).probe(); err != nil {
		return &Missing{Feature: f, Cause: err}
	}
	return nil
}

// Set is a memory of probes. Safe for concurrent use; do not copy.
type Set struct {
	once [count]sync.Once
	err  [count]error
}

// Err probes f the first time it is asked for and remembers the answer.
func (s *Set) Err(f Feature) error {
	if f >= count {
		return Probe(f)
	}
	s.once[f].Do(func() { s.err[f] = Probe(f) })
	return s.err[f]
}

// Has reports whether f is there.
func (s *Set) Has(f Feature) bool { return s.Err(f) == nil }
