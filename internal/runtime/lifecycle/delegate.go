package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/bundle"
)

// delegated reports whether the container's group is to belong to its user
// (runtime-spec config-linux.md, "Cgroup ownership"): cgroup v2, a cgroup
// namespace of its own, and a mount of it that may be written.
func delegated(s *specs.Spec) bool {
	if own, path := bundle.Namespace(s, specs.CgroupNamespace); !own || path != "" {
		return false
	}
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return m.Source == "cgroup" && filepath.Clean(m.Destination) == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
}

// delegate gives the group and the files that the kernel names for it to the
// host's id of the container's user; a file that is not there is none.
func (k *creation) delegate() error {
	if !k.v2 || k.Spec.Process == nil || !delegated(k.Spec) {
		return nil
	}
	uid, ok := hostID(k.Spec.Process.User.UID, k.Spec.Linux.UIDMappings)
	if !ok || uid == os.Geteuid() {
		return nil
	}
	files := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if b, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		files = strings.Fields(string(b))
	}
	dir := k.c.cgroup.Paths()[""]
	if dir == "" {
		return nil
	}
	for _, name := range append([]string{"."}, files...) {
		if err := os.Chown(filepath.Join(dir, name), uid, -1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give cgroup to user %d: %w", uid, err)
		}
	}
	return nil
}

// hostID is the id on the host; without mappings it is the same.
func hostID(id uint32, maps []specs.LinuxIDMapping) (int, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + (id - m.ContainerID)), true
		}
	}
	return int(id), len(maps) == 0
}
