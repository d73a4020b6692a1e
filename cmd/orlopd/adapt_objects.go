package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/engine/networks"
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

// containerNetworks is containers.Networks over networks.Service.
type containerNetworks struct{ s *networks.Service }

func (n containerNetworks) Check(ctx context.Context, req containers.SandboxRequest) error {
	return n.s.Check(ctx, networks.SandboxRequest(req))
}

func (n containerNetworks) Open(ctx context.Context, req containers.SandboxRequest) (*containers.Sandbox, error) {
	s, err := n.s.Open(ctx, networks.SandboxRequest(req))
	if err != nil {
		return nil, err
	}
	out := containers.Sandbox(*s)
	return &out, nil
}

func (n containerNetworks) Started(ctx context.Context, id string, pid int) error {
	return n.s.Started(ctx, id, pid)
}

func (n containerNetworks) Close(ctx context.Context, id string) error { return n.s.Close(ctx, id) }

func (n containerNetworks) Restore(ctx context.Context, live []containers.LiveSandbox) error {
	out := make([]networks.LiveSandbox, len(live))
	for i, l := range live {
		out[i] = networks.LiveSandbox(l)
	}
	return n.s.Restore(ctx, out)
}

func (n containerNetworks) Resolve(ctx context.Context, ref string, mode containertypes.NetworkMode, others []string, ask *networktypes.EndpointSettings) (string, error) {
	return n.s.Resolve(ctx, ref, mode, others, ask)
}

func (n containerNetworks) Connect(ctx context.Context, req containers.SandboxRequest, ref string, ask *networktypes.EndpointSettings) (network.Change, error) {
	return n.s.Connect(ctx, networks.SandboxRequest(req), ref, ask)
}

func (n containerNetworks) Disconnect(ctx context.Context, req containers.SandboxRequest, ref string) (network.Change, error) {
	return n.s.Disconnect(ctx, networks.SandboxRequest(req), ref)
}

func (n containerNetworks) HandOver(ctx context.Context, fromID, toID string) (from, to network.Attachment, err error) {
	return n.s.HandOver(ctx, fromID, toID)
}

func (n containerNetworks) Rename(ctx context.Context, req containers.SandboxRequest) (network.Attachment, error) {
	return n.s.Rename(ctx, networks.SandboxRequest(req))
}

func (n containerNetworks) Settings(id string) *containertypes.NetworkSettings {
	return n.s.Settings(id)
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
