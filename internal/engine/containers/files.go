package containers

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// mountpoints are made by the runtime for its mounts; they are no changes of
// the container's.
var mountpoints = []string{
	"/dev", "/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
	"/etc/mtab", "/proc", "/sys", "/sys/fs", "/sys/fs/cgroup", "/.dockerenv", initPath,
}

// initPath is where the program of --init is bound.
const initPath = "/sbin/docker-init"

// Changes lists what a container has changed of its image's files, ordered by
// path; nil when nothing.
func (s *Service) Changes(ctx context.Context, ref string) ([]containertypes.FilesystemChange, error) {
	o, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	snap := o.snapshot()
	if snap.state == container.StateRemoving || snap.state == container.StateDead {
		return nil, conflict("can not get changes of container which is dead or marked for removal")
	}
	rootfs, err := s.cfg.Store.Rootfs(ctx, o.id)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", snap.name, err)
	}
	ours := slices.Clone(mountpoints)
	for _, m := range snap.saved.Mounts {
		ours = append(ours, m.Destination)
	}
	var changes []containertypes.FilesystemChange
	walk := func(base string) error {
		return fs.DiffDirChanges(ctx, base, rootfs.Upper, fs.DiffSourceOverlayFS, func(kind fs.ChangeKind, path string, _ os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			c := containertypes.FilesystemChange{Path: path}
			switch kind {
			case fs.ChangeKindAdd:
				c.Kind = containertypes.ChangeAdd
			case fs.ChangeKindDelete:
				c.Kind = containertypes.ChangeDelete
			case fs.ChangeKindModify:
				c.Kind = containertypes.ChangeModify
			default:
				return nil
			}
			if !slices.Contains(ours, path) {
				changes = append(changes, c)
			}
			return nil
		})
	}
	if len(rootfs.Lower) == 0 {
		// Made from nothing: there is no folder to compare with.
		err := walk(filepath.Join(s.cfg.Store.Dir(o.id), "nothing"))
		return withParents(changes), err
	}
	err = s.cfg.Views.View(ctx, container.Rootfs{Lower: rootfs.Lower, IDMap: rootfs.IDMap}, ViewExact, walk)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", snap.name, err)
	}
	return withParents(changes), nil
}

// withParents orders changes and drops folders that are there only because of
// a mountpoint in them that was left out.
func withParents(changes []containertypes.FilesystemChange) []containertypes.FilesystemChange {
	slices.SortFunc(changes, func(a, b containertypes.FilesystemChange) int { return strings.Compare(a.Path, b.Path) })
	return slices.DeleteFunc(changes, func(c containertypes.FilesystemChange) bool {
		if c.Path != "/etc" && c.Path != "/sbin" {
			return false
		}
		return !slices.ContainsFunc(changes, func(other containertypes.FilesystemChange) bool {
			return strings.HasPrefix(other.Path, c.Path+"/")
		})
	})
}

// Export writes the files of a container as a tar archive, without what is
// mounted in it.
func (s *Service) Export(ctx context.Context, ref string, w io.Writer) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	snap := o.snapshot()
	if snap.state == container.StateRemoving {
		return conflict("You cannot export container %s which is being removed", o.id)
	}
	if snap.state == container.StateDead {
		return conflict("You cannot export container %s which is dead", o.id)
	}
	rootfs, err := s.cfg.Store.Rootfs(ctx, o.id)
	if err != nil {
		return fmt.Errorf("export container %s: %w", snap.name, err)
	}
	// The writable layer as the topmost read-only one: it may be in use.
	view := container.Rootfs{Lower: layersOf(rootfs), IDMap: rootfs.IDMap}
	err = s.cfg.Views.View(ctx, view, ViewExact, func(dir string) error {
		// A view's folder may be a link (/proc/<pid>/fd/<n>); "." is what it
		// leads to. Nothing reads there any more when this returns.
		return archive.WriteDiff(ctx, w, "", dir+"/.")
	})
	if err != nil {
		return fmt.Errorf("export container %s: %w", snap.name, err)
	}
	s.tell(snap, events.ActionExport, nil)
	return nil
}
