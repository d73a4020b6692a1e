package main

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/store/volumedir"
)

// volumes is containers.Volumes over folders.
type volumes struct{ s *volumedir.Store }

func (v volumes) Ensure(ctx context.Context, name string, labels map[string]string) (containers.Volume, error) {
	vol, created, err := v.s.Ensure(ctx, name, labels)
	if err != nil {
		return containers.Volume{}, err
	}
	return containers.Volume{Name: vol.Name, Path: v.s.Path(vol.Name), Created: created, Anonymous: vol.Anonymous}, nil
}

func (v volumes) Remove(ctx context.Context, name string) error { return v.s.Remove(ctx, name) }

// volumeList is what the API shows of volumes: httpapi.Volumes, and
// system.Volumes with sizes.
type volumeList struct {
	store      *volumedir.Store
	containers *containers.Service
}

// localDriver is the only driver of volumes there is yet.
const localDriver = "local"

func (l *volumeList) shown(v volumedir.Volume) volumetypes.Volume {
	labels := v.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return volumetypes.Volume{
		Name: v.Name, Driver: localDriver, Scope: "local", Mountpoint: l.store.Path(v.Name), Labels: labels,
		Options: map[string]string{}, CreatedAt: v.Created.Format(time.RFC3339),
	}
}

// List implements httpapi.Volumes.
func (l *volumeList) List(ctx context.Context, filters map[string][]string) ([]volumetypes.Volume, error) {
	f := container.Filters(filters)
	if err := f.Validate("dangling", "driver", "label", "name"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	list, err := l.store.List()
	if err != nil {
		return nil, err
	}
	used, err := l.used(ctx)
	if err != nil {
		return nil, err
	}
	var out []volumetypes.Volume
	for _, v := range list {
		switch {
		case !f.Exact("driver", localDriver), !f.Pattern("name", v.Name), !f.Labels("label", v.Labels):
		case f.Has("dangling") && dangling != (used[v.Name] == 0):
		default:
			out = append(out, l.shown(v))
		}
	}
	return out, nil
}

// Inspect implements httpapi.Volumes.
func (l *volumeList) Inspect(_ context.Context, name string) (volumetypes.Volume, error) {
	v, err := l.store.Load(name)
	if err != nil {
		return volumetypes.Volume{}, err
	}
	return l.shown(v), nil
}

// Usage implements system.Volumes.
func (l *volumeList) Usage(ctx context.Context) ([]volumetypes.Volume, error) {
	list, err := l.store.List()
	if err != nil {
		return nil, err
	}
	used, err := l.used(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]volumetypes.Volume, 0, len(list))
	for _, v := range list {
		size, err := l.store.Size(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		shown := l.shown(v)
		shown.UsageData = &volumetypes.UsageData{Size: size, RefCount: used[v.Name]}
		out = append(out, shown)
	}
	return out, nil
}

// used counts the containers of each volume, running or not.
func (l *volumeList) used(ctx context.Context) (map[string]int64, error) {
	list, err := l.containers.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	count := map[string]int64{}
	for _, c := range list {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeVolume {
				count[m.Name]++
			}
		}
	}
	return count, nil
}
