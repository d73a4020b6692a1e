package main

import (
	"context"

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
