// Package cgroup makes, limits, watches and removes the control groups of
// containers on cgroup v1, v2 and hybrid hosts.
//
// New is the entry point: it finds the mounted hierarchies and returns the
// Manager of one group. What is written follows from a table (see plan): the
// resources become an ordered list of file writes, which is what tests
// compare, and only then the list is performed.
//
// The hot path never writes cgroup.procs: on an idle kernel that costs up to
// 17 ms (it waits for an RCU grace period). On v1 the thread that will
// execute the application writes "0" into the files of JoinFiles; on v2 the
// process is cloned into DirFD.
//
// A Manager is safe for concurrent use; its only lock guards its warnings
// and is never held over a file operation.
package cgroup

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config names a group.
type Config struct {
	// Path is the OCI cgroupsPath. With the cgroupfs driver an absolute path
	// is below the mounted hierarchies' roots, a relative one below the
	// caller's own group. With Systemd it is "slice:prefix:name".
	Path string
	// Systemd asks systemd (over D-Bus) for a transient scope instead of
	// making the directories.
	Systemd bool
	// Root is where cgroup file systems are looked for; empty is what
	// /proc/self/mountinfo says.
	Root string
}

// Manager is one control group in every hierarchy of the host.
//
// Life cycle: New → Create → (JoinFiles or DirFD) → any others → Remove.
// A Manager holds no kernel object, so that one for an existing group is made
// by New alone. All methods may be repeated.
type Manager interface {
	// Create makes the group's directories (and missing parents) and sets
	// limits. r may be nil. It fails with the class InvalidArgument for a
	// value the kernel refuses and leaves no directory it made behind.
	Create(ctx context.Context, r *specs.LinuxResources) error
	// Set changes limits of an existing group; unset fields stay as they are.
	Set(r *specs.LinuxResources) error
	// JoinFiles opens the files a thread writes "0" to, to move itself (v1);
	// empty on v2. The caller closes them.
	JoinFiles() ([]*os.File, error)
	// DirFD opens the v2 directory for CLONE_INTO_CGROUP; nil, nil when the
	// group has none (v1). The caller closes it.
	DirFD() (*os.File, error)
	// AddProcess moves a running process. Slow, see the package comment.
	AddProcess(pid int) error
	// Sub is the group of one exec: a child group on v2 (Create it, Remove it),
	// the same group on v1, where its Remove does nothing.
	Sub(name string) Manager
	// Freeze stops every process and returns when they stand, or undoes it
	// when ctx ends first. Thaw lets them run.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	// Frozen reports whether Freeze is in force.
	Frozen() (bool, error)
	// Kill sends SIGKILL to every process, also of groups below, frozen or not.
	Kill(ctx context.Context) error
	// Pids lists processes, also of groups below; empty when the group is gone.
	Pids() ([]int, error)
	// OOM counts processes that the kernel's OOM killer took from this group.
	OOM() (uint64, error)
	// OOMEvents gets a value after each OOM kill (several may be one value)
	// and is closed when the group is gone or ctx ends.
	OOMEvents(ctx context.Context) (<-chan struct{}, error)
	// Stats reads usage. A missing controller leaves its part zero.
	Stats() (*Stats, error)
	// Remove removes the group and groups below, waiting for exiting
	// processes until ctx ends. A group that is gone is no error.
	Remove(ctx context.Context) error
	// Exists reports whether any of the group's directories is there.
	Exists() bool
	// Paths maps controllers to directories; v2 has the key "".
	Paths() map[string]string
	// Warnings are sentences about limits that were clipped or left out
	// since New, each once.
	Warnings() []string
}

// New finds the hierarchies and returns the manager of a group. Nothing is
// created.
func New(c Config) (Manager, error) {
	return nil, errdefs.ErrNotImplemented
}
