package images

import (
	"context"
	"fmt"
	"io"

	c8darchive "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Save writes images as one archive that is both Docker's and an OCI layout. A
// name without a tag stands for all tags of its repository. Everything is
// looked up before the first byte is written. ErrNotFound.
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, opts SaveOptions) error {
	ctx = s.context(ctx)
	if len(opts.Platforms) > 1 {
		return errdefs.ErrInvalidArgument.WithMessage("multiple platforms is not supported")
	}
	var platform *ocispec.Platform
	if len(opts.Platforms) == 1 {
		platform = &opts.Platforms[0]
	}
	ctx, end, err := s.cfg.Lease(ctx, "save-"+s.cfg.NewID())
	if err != nil {
		return err
	}
	err = s.save(ctx, refs, platform, w)
	if eerr := end(); err == nil {
		err = eerr
	}
	return err
}

// saved is one image with the names it is saved under.
type saved struct {
	bundle *bundle
	names  []string
}

func (s *Service) save(ctx context.Context, refs []string, platform *ocispec.Platform, w io.Writer) error {
	var order []digest.Digest
	chosen := map[digest.Digest]*saved{}
	add := func(b *bundle, ref reference.Named) {
		one := chosen[b.manifest.Digest]
		if one == nil {
			one = &saved{bundle: b}
			chosen[b.manifest.Digest] = one
			order = append(order, b.manifest.Digest)
		}
		if tagged, ok := ref.(reference.NamedTagged); ok {
			for _, name := range one.names {
				if name == tagged.String() {
					return
				}
			}
			one.names = append(one.names, tagged.String())
		}
	}
	for _, word := range refs {
		if err := s.chooseSaved(ctx, word, platform, add); err != nil {
			return err
		}
	}
	var opts []c8darchive.ExportOpt
	for _, id := range order {
		one := chosen[id]
		for _, part := range append([]ocispec.Descriptor{one.bundle.config}, one.bundle.layers...) {
			if _, err := s.cfg.Content.Info(ctx, part.Digest); err != nil {
				return fmt.Errorf("save image %s: %w", image.ShortID(one.bundle.id.String()), err)
			}
		}
		opts = append(opts, c8darchive.WithManifest(one.bundle.manifest, one.names...))
	}
	if err := c8darchive.Export(ctx, s.cfg.Content, w, opts...); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	for _, id := range order {
		b := chosen[id].bundle
		s.publish(events.ActionSave, b.id.String(), b.id.String(), b.image.Config.Labels)
	}
	return nil
}

func (s *Service) chooseSaved(ctx context.Context, word string, platform *ocispec.Platform, add func(*bundle, reference.Named)) error {
	named, err := reference.ParseNormalizedNamed(word)
	if err == nil && reference.IsNameOnly(named) {
		all, err := s.records(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, r := range all {
			tagged, ok := r.ref.(reference.NamedTagged)
			if !ok || tagged.Name() != named.Name() {
				continue
			}
			_, b, err := s.resolve(ctx, tagged.String(), platform)
			if err != nil {
				return err
			}
			add(b, tagged)
			found = true
		}
		if found {
			return nil
		}
	}
	r, byID, err := s.find(ctx, word)
	if err != nil {
		return err
	}
	_, b, err := s.resolve(ctx, word, platform)
	if err != nil {
		return err
	}
	if byID {
		add(b, nil)
	} else {
		add(b, r.ref)
	}
	return nil
}
