package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/domain/container"
)

// makeVolumes makes the volumes of a container that is being created, sets the
// sources of their mounts, and returns the names of those that are new. The
// object is not yet known to anybody else.
func (s *Service) makeVolumes(ctx context.Context, o *object) (made []string, err error) {
	o.saved.Mounts = slices.Clone(o.saved.Mounts)
	for i, m := range o.saved.Mounts {
		if m.Type != mount.TypeVolume || m.Source != "" {
			continue
		}
		v, err := s.cfg.Volumes.Ensure(ctx, m.Name, m.Labels)
		if err != nil {
			return made, fmt.Errorf("create volume for %s: %w", m.Destination, err)
		}
		if v.Created {
			made = append(made, v.Name)
			if err := s.ownerFor(o.saved.HostConfig).take(v.Path); err != nil {
				return made, fmt.Errorf("create volume for %s: %w", m.Destination, err)
			}
			s.tellVolume(v.Name, events.ActionCreate, map[string]string{"driver": container.LocalDriver})
		}
		m.Name = v.Name
		m.Source = v.Path
		o.saved.Mounts[i] = m
	}
	o.publish()
	return made, nil
}

// fillVolumes copies what the image has at the place of a new volume into it.
func (s *Service) fillVolumes(ctx context.Context, o *object, made []string) error {
	var empty []container.Mount
	for _, m := range o.saved.Mounts {
		if m.Type == mount.TypeVolume && m.Copy && (slices.Contains(made, m.Name) || isEmpty(m.Source)) {
			empty = append(empty, m)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	rootfs, err := s.cfg.Store.Rootfs(ctx, o.id)
	if err != nil {
		return fmt.Errorf("fill volumes: %w", err)
	}
	if len(rootfs.Lower) == 0 {
		return nil
	}
	view := container.Rootfs{Lower: rootfs.Lower}
	if container.Remapped(o.saved.HostConfig, s.settings.Load().Defaults) {
		// Unlike layers, volumes are shown with the ids that they have on disk.
		view.IDMap = s.settings.Load().Defaults.IDMap
	}
	return s.cfg.Views.View(ctx, view, ViewLinks, func(dir string) error {
		for _, m := range empty {
			source, err := securejoin.SecureJoin(dir, m.Destination)
			if err != nil {
				return fmt.Errorf("fill volume %s: %w", m.Name, err)
			}
			info, err := os.Stat(source)
			switch {
			case errors.Is(err, os.ErrNotExist):
				continue
			case err != nil:
				return fmt.Errorf("fill volume %s: %w", m.Name, err)
			case !info.IsDir():
				if m.Anonymous {
					return fmt.Errorf("cannot mount volume over existing file, file exists %s", m.Destination)
				}
				continue
			}
			if slices.Contains(made, m.Name) || defense.Dropped(defense.VolumesInside) {
				err = copyTree(m.Source, source)
			} else {
				err = fillUsed(m.Source, source, info)
			}
			if err != nil {
				return fmt.Errorf("fill volume %s: %w", m.Name, err)
			}
		}
		return nil
	})
}

func copyTree(to, from string) error {
	return fs.CopyDir(to, from, fs.WithXAttrExclude("trusted.overlay.opaque", "trusted.overlay.origin", "trusted.overlay.impure"))
}

// fillUsed fills a volume that is empty but not new: a container that has it may
// be running, and could exchange a folder that is being filled for a link to one
// of the host. So the copy is made beside the volume, where no container sees it,
// and moved in name by name; what is there by then stays.
func fillUsed(volume, from string, info os.FileInfo) (err error) {
	beside, err := os.MkdirTemp(filepath.Dir(volume), ".fill-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(beside)) }()
	if err := copyTree(beside, from); err != nil {
		return err
	}
	entries, err := os.ReadDir(beside)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(volume, e.Name())
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(beside, e.Name()), to); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return errors.Join(os.Lchown(volume, int(st.Uid), int(st.Gid)), os.Chmod(volume, info.Mode()))
	}
	return nil
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// dropVolumes removes the anonymous volumes of a container that is gone. One
// that cannot be removed is logged and stays.
func (s *Service) dropVolumes(ctx context.Context, mounts []container.Mount) {
	for _, m := range mounts {
		if m.Type != mount.TypeVolume || !m.Anonymous || s.volumeUsed(m.Name) {
			continue
		}
		if err := s.cfg.Volumes.Remove(ctx, m.Name); err != nil && !errdefs.IsNotFound(err) {
			s.cfg.Logger.Warn("remove anonymous volume", "volume", m.Name, "error", err)
			continue
		}
		s.tellVolume(m.Name, events.ActionDestroy, map[string]string{"driver": container.LocalDriver})
	}
}

// volumeUsed reports whether a container mounts the volume (--volumes-from).
func (s *Service) volumeUsed(name string) bool {
	return slices.ContainsFunc(s.objects(), func(o *object) bool {
		return slices.ContainsFunc(o.snapshot().saved.Mounts, func(m container.Mount) bool { return m.Name == name })
	})
}

func (s *Service) tellVolume(name string, action events.Action, attributes map[string]string) {
	now := s.cfg.Now().UTC()
	s.cfg.Events.Publish(events.Message{
		Type: events.VolumeEventType, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{ID: name, Attributes: attributes},
	})
}

// tellMounts publishes the mount (or unmount) events of a container's volumes.
func (s *Service) tellMounts(snap *snapshot, action events.Action) {
	for _, m := range snap.saved.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attributes := map[string]string{"driver": container.LocalDriver, "container": snap.id}
		if action == events.ActionMount {
			attributes["destination"] = m.Destination
			attributes["read/write"] = strconv.FormatBool(m.RW)
			attributes["propagation"] = string(m.Propagation)
		}
		s.tellVolume(m.Name, action, attributes)
	}
}
