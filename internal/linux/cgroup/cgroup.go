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
// A Manager is safe for concurrent use; its only lock guards its warnings and
// directories' names and is never held over a file operation.
package cgroup

import (
	"context"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config names a group.
type Config struct {
	// Path is the OCI cgroupsPath. With the cgroupfs driver an absolute path
	// is below the mounted hierarchies' roots, a relative one below the
	// caller's own group (beside it on v2). With Systemd it is
	// "slice:prefix:name"; an empty slice is system.slice.
	Path string
	// Systemd asks systemd (over D-Bus) for a transient scope instead of
	// making the directories.
	Systemd bool
	// Root is where cgroup file systems are looked for; empty is what
	// /proc/self/mountinfo says.
	Root string
	// Parent is set for a group that only holds others: its devices are not
	// limited. On v1 nothing below it could have more than it has.
	Parent bool
	// Plain keeps the group at the same path in every hierarchy, as others
	// expect it who look for the path of one controller. Else the devices
	// hierarchy of v1 may have it one level deeper, which saves 100 µs.
	Plain bool
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
	// JoinFiles opens the files a thread writes "0" to, to move itself (v1 and
	// hybrid hosts); none on v2. The caller closes them.
	JoinFiles() ([]*os.File, error)
	// JoinPaths names the files of JoinFiles, for a process that opens them itself.
	JoinPaths() []string
	// DirFD opens the directory for CLONE_INTO_CGROUP (v2 alone); nil, nil
	// where JoinFiles does it. The caller closes it.
	DirFD() (*os.File, error)
	// AddProcess moves a running process. Slow, see the package comment.
	AddProcess(pid int) error
	// Joined tells that the first process is in the group. A scope of systemd
	// cannot be empty, so Create puts a placeholder there, which ends now.
	// Without Systemd it does nothing.
	Joined() error
	// Sub is the group of one exec: a child group on v2 (Create it, Remove it).
	// On v1 it is the same group, and what would change it (Create, Set,
	// Freeze, Kill, Remove) does nothing.
	Sub(name string) Manager
	// Freeze stops every process and returns when they stand, or undoes it
	// when ctx ends first. Thaw lets them run.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	// Frozen reports whether Freeze is in force.
	Frozen() (bool, error)
	// FreezerFile is where Frozen looks, and the whole text that it has there
	// while nothing is frozen; "" on a host without a freezer.
	FreezerFile() (file, thawed string)
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
// created. The class is InvalidArgument for a malformed path, NotImplemented on
// a host without cgroups.
func New(c Config) (Manager, error) {
	hs, err := find(c.Root, !c.Systemd && !path.IsAbs(c.Path))
	if err != nil {
		return nil, err
	}
	return newGroup(c, hs)
}

func newGroup(c Config, hs []hierarchy) (*group, error) {
	if strings.ContainsAny(c.Path, "\x00\n") {
		return nil, invalid("cgroup path %q has a control character", c.Path)
	}
	g := &group{config: c, whole: !c.Parent, pure: hs[0].v2}
	name, absolute := c.Path, path.IsAbs(c.Path)
	if c.Systemd {
		s, err := parseScope(c.Path)
		if err != nil {
			return nil, err
		}
		g.scope, name, absolute = s, s.group(), true
	}
	if path.Join("/", name) == "/" {
		return nil, invalid("cgroup path %q names no group", c.Path)
	}
	for i := range hs {
		h := &hs[i]
		p := place{h, h.absolute(name)}
		if !absolute {
			p.dir = h.relative(name)
		}
		if g.whole && h.has("devices") {
			p.dir = findDevicesV1(&p)
		}
		g.places = append(g.places, p)
	}
	return g, nil
}
