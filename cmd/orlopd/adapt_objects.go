package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/store/records"
)

// containerImages is containers.Images over images.Service.
type containerImages struct{ s *images.Service }

func (i containerImages) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (containers.Image, error) {
	img, err := i.s.Resolve(ctx, ref, platform)
	if err != nil {
		return containers.Image{}, err
	}
	return containers.Image{
		ID: img.ID, Name: img.Name, Target: img.Target, Manifest: img.Manifest, ChainID: img.ChainID, Config: img.Config,
	}, nil
}

// networkStore is networks.Store over a bucket of records.
type networkStore struct{ b *records.Bucket }

func (s networkStore) Load(ctx context.Context) ([]network.Record, error) {
	var out []network.Record
	err := s.b.ForEach(ctx, func(key string, raw json.RawMessage) error {
		var rec network.Record
		if err := json.Unmarshal(raw, &rec); err != nil {
			return fmt.Errorf("network record %s: %w: %w", key, err, errdefs.ErrDataLoss)
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

func (s networkStore) Save(ctx context.Context, rec network.Record) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return s.b.Put(ctx, rec.ID, raw)
}

func (s networkStore) Delete(ctx context.Context, id string) error { return s.b.Delete(ctx, id) }

// layerStorage is containers.Storage: how the writable layers are described.
type layerStorage struct{}

// storageDriver is the name that clients know this way of keeping layers by.
const storageDriver = "overlay2"

func (layerStorage) Driver() string { return storageDriver }

func (layerStorage) Describe(rootfs container.Rootfs) (*storage.DriverData, *storage.Storage) {
	data := map[string]string{"UpperDir": rootfs.Upper, "WorkDir": rootfs.Work}
	lower := ""
	for i, dir := range rootfs.Lower {
		if i > 0 {
			lower += ":"
		}
		lower += dir
	}
	data["LowerDir"] = lower
	return &storage.DriverData{Name: storageDriver, Data: data}, nil
}
