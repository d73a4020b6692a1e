package lifecycle

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// prepareMounts makes, with our rights over the host, the mounts that a stage in
// a user namespace could not make or reach, and those with translated ids.
// give hands a descriptor to the stage and returns its number there.
func (k *creation) prepareMounts(give func(*os.File) int) error {
	if k.user || k.Rootfs != nil && len(k.Rootfs.UIDs) > 0 {
		root, err := k.prepareRoot()
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(root), "root")
		k.closeLater(f)
		k.config.Root = give(f)
	}
	for i := range k.plan {
		s := &k.plan[i]
		if s.Kind != rootfs.Bind || !k.user && !s.Options.IDMap {
			continue
		}
		m, err := k.prepareBind(s)
		if err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", s.Source, s.Dest, err)
		}
		f := os.NewFile(uintptr(m), s.Source)
		k.closeLater(f)
		if k.config.Prepared == nil {
			k.config.Prepared = map[int]int{}
		}
		k.config.Prepared[s.Mount] = give(f)
	}
	return nil
}

func (k *creation) prepareBind(s *rootfs.Step) (safepath.FD, error) {
	m, err := mount.Clone(unix.AT_FDCWD, s.Source, s.Options.Recursive)
	if err != nil {
		return safepath.None, &os.PathError{Op: "stat", Path: s.Source, Err: err}
	}
	if !s.Options.IDMap {
		return m, nil
	}
	spec := k.Spec.Mounts[s.Mount]
	uids, gids := spec.UIDMappings, spec.GIDMappings
	if len(uids) == 0 {
		uids, gids = k.Spec.Linux.UIDMappings, k.Spec.Linux.GIDMappings
	}
	if len(uids) == 0 {
		_ = m.Close()
		return safepath.None, fmt.Errorf("an idmapped mount needs mappings")
	}
	if err := translate(m, s.Options.TreeIDMap, idMap(uids), idMap(gids)); err != nil {
		_ = m.Close()
		return safepath.None, err
	}
	return m, nil
}

// translate makes m an idmapped mount.
func translate(m safepath.FD, tree bool, uids, gids []process.IDMap) error {
	user, err := process.NewUserNamespace(uids, gids)
	if err != nil {
		return err
	}
	defer user.Close()
	if err := mount.SetIDMap(m, tree, user.Fd()); err != nil {
		return fmt.Errorf("idmap mount: %w", err)
	}
	return nil
}

// prepareRoot makes the root's mount. Layers are mounted in a mount namespace
// that only lives for it: translated layers cover their own folders there, and
// older kernels attach an overlay before it can be taken.
func (k *creation) prepareRoot() (safepath.FD, error) {
	if k.Rootfs == nil {
		return rootfs.MountRoot(nil, rootfs.HostPath(k.Spec, k.Bundle))
	}
	fd, err := safepath.None, error(nil)
	process.OnThread(func() { fd, err = k.mountLayers() })
	return fd, err
}

func (k *creation) mountLayers() (safepath.FD, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return safepath.None, fmt.Errorf("mount rootfs: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return safepath.None, fmt.Errorf("mount rootfs: %w", err)
	}
	return rootfs.MountRoot(k.Rootfs, "")
}
