package images

import (
	"context"
	"fmt"
	"strings"
	"time"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect tells everything about one image. ErrNotFound, ErrInvalidArgument.
func (s *Service) Inspect(ctx context.Context, ref string, opts InspectOptions) (imagetypes.InspectResponse, error) {
	ctx = s.context(ctx)
	r, b, err := s.resolve(ctx, ref, opts.Platform)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	all, err := s.records(ctx)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	sizes, err := s.cfg.Layers.Sizes(ctx, b.chain())
	if err != nil {
		return imagetypes.InspectResponse{}, fmt.Errorf("inspect image %s: %w", ref, err)
	}
	dirs, err := s.cfg.Layers.Dirs(ctx, b.chain())
	if err != nil {
		return imagetypes.InspectResponse{}, fmt.Errorf("inspect image %s: %w", ref, err)
	}
	it := &item{bundle: b, record: r, refs: references(all, r.id)}
	for _, other := range all {
		if other.id == r.id && other.stored.UpdatedAt.After(it.tagged) {
			it.tagged = other.stored.UpdatedAt
		}
	}
	tags, digests := familiar(it.refs)
	config := b.image.Config
	target := r.stored.Target
	response := imagetypes.InspectResponse{
		ID: b.id.String(), RepoTags: tags, RepoDigests: digests,
		Comment: comment(b), Author: b.image.Author, Config: &config,
		Architecture: b.image.Architecture, Variant: b.image.Variant, Os: b.platform().OS, OsVersion: b.image.OSVersion,
		Size:        sum(sizes),
		GraphDriver: &storage.DriverData{Name: s.cfg.Driver, Data: driverData(dirs)},
		RootFS:      imagetypes.RootFS{Type: b.image.RootFS.Type},
		Metadata:    imagetypes.Metadata{LastTagTime: it.tagged},
		Descriptor:  &target,
	}
	if b.image.Created != nil {
		response.Created = b.image.Created.Format(time.RFC3339Nano)
	}
	for _, id := range b.image.RootFS.DiffIDs {
		response.RootFS.Layers = append(response.RootFS.Layers, id.String())
	}
	if opts.Manifests {
		if response.Manifests, err = s.manifests(ctx, it); err != nil {
			return imagetypes.InspectResponse{}, err
		}
	}
	return response, nil
}

func comment(b *bundle) string {
	if b.comment == "" && len(b.image.History) > 0 {
		return b.image.History[len(b.image.History)-1].Comment
	}
	return b.comment
}

// driverData is what Docker's overlay2 driver shows of an image: the topmost
// layer and those below.
func driverData(dirs []string) map[string]string {
	data := map[string]string{}
	if len(dirs) > 0 {
		data["UpperDir"] = dirs[0]
	}
	if len(dirs) > 1 {
		data["LowerDir"] = strings.Join(dirs[1:], ":")
	}
	return data
}

// History lists how the image was built, the newest step first. ErrNotFound.
func (s *Service) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	ctx = s.context(ctx)
	r, b, err := s.resolve(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	sizes, err := s.cfg.Layers.Sizes(ctx, b.chain())
	if err != nil {
		return nil, fmt.Errorf("history of image %s: %w", ref, err)
	}
	all, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	steps := b.image.History
	items := make([]imagetypes.HistoryResponseItem, len(steps))
	layer := 0
	for i, step := range steps {
		item := imagetypes.HistoryResponseItem{ID: "<missing>", CreatedBy: step.CreatedBy, Comment: step.Comment}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer {
			if layer >= len(sizes) {
				return nil, fmt.Errorf("history of image %s: too many non-empty layers in History section", ref)
			}
			item.Size = sizes[layer]
			layer++
		}
		items[len(steps)-1-i] = item
	}
	if len(items) > 0 {
		items[0].ID = b.id.String()
		items[0].Tags, _ = familiar(references(all, r.id))
	}
	return items, nil
}
