package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
)

// markRoot puts into the root of a new container what Docker puts there beside
// the image: /.dockerenv, by which programs see that they are in a container,
// and /etc/mtab, without which the mount and df of small systems know nothing.
// Each only where the image has none. Nothing runs there yet, so nobody
// interferes.
func (s *Service) markRoot(ctx context.Context, id string) error {
	rootfs, err := s.cfg.Store.Rootfs(ctx, id)
	if err != nil {
		return fmt.Errorf("mark root: %w", err)
	}
	if rootfs.Upper == "" {
		return nil
	}
	if where, err := findInLayers(rootfs, ".dockerenv"); where == "" && err == nil {
		name := filepath.Join(rootfs.Upper, ".dockerenv")
		if err := os.WriteFile(name, nil, 0o755); err != nil {
			return fmt.Errorf("mark root: %w", err)
		}
		if err := os.Lchown(name, hostID(rootfs.IDMap.UIDs), hostID(rootfs.IDMap.GIDs)); err != nil {
			return fmt.Errorf("mark root: %w", err)
		}
	}
	if where, err := findInLayers(rootfs, "etc/mtab"); where != "" || err != nil {
		return nil // it is there, or it is no matter of a link in an ordinary folder
	}
	return linkMounts(rootfs)
}

// linkMounts makes /etc/mtab in the writable layer, in a folder like the image's.
func linkMounts(rootfs container.Rootfs) error {
	mode, uid, gid := os.FileMode(0o755), hostID(rootfs.IDMap.UIDs), hostID(rootfs.IDMap.GIDs)
	for _, dir := range rootfs.Lower {
		info, err := os.Lstat(filepath.Join(dir, "etc"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mark root: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() || !ok || !rootfs.IDMap.Empty() && st.Uid|st.Gid != 0 {
			return nil
		}
		mode = info.Mode().Perm()
		if rootfs.IDMap.Empty() {
			uid, gid = int(st.Uid), int(st.Gid)
		}
		break
	}
	etc := filepath.Join(rootfs.Upper, "etc")
	if err := os.Mkdir(etc, mode); err != nil {
		return fmt.Errorf("mark root: %w", err)
	}
	link := filepath.Join(etc, "mtab")
	return errors.Join(os.Chmod(etc, mode), os.Lchown(etc, uid, gid), os.Symlink("/proc/mounts", link),
		os.Lchown(link, hostID(rootfs.IDMap.UIDs), hostID(rootfs.IDMap.GIDs)))
}

// hostID is the host's id of the container's root.
func hostID(m []specs.LinuxIDMapping) int {
	for _, line := range m {
		if line.ContainerID == 0 {
			return int(line.HostID)
		}
	}
	return 0
}
