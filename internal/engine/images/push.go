package images

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/domain/image"
)

// Push uploads the image of a tag, or of every tag of a repository when there
// is none. An index is pushed as such when everything of it is here, else the
// manifest of the image that the reference stands for. ErrNotFound with
// Docker's words, errors of the registry.
func (s *Service) Push(ctx context.Context, opts PushOptions) error {
	ctx = s.context(ctx)
	named, err := image.Parse(opts.Ref, opts.Tag)
	if err != nil {
		return err
	}
	if _, digested := named.(reference.Digested); digested {
		return errdefs.ErrInvalidArgument.WithMessage("cannot push a digest reference")
	}
	repo, err := s.cfg.Registry(ctx, named, image.Access{Auth: opts.Auth, Headers: opts.Headers})
	if err != nil {
		return err
	}
	ctx, report := s.reporter(ctx, opts.Progress)
	defer report.close()
	report.message("", fmt.Sprintf("The push refers to repository [%s]", named.Name()))
	tags, err := s.pushTags(ctx, named)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := s.push(ctx, repo, tag, opts.Platform, report); err != nil {
			return cause(ctx, err)
		}
	}
	return nil
}

func (s *Service) pushTags(ctx context.Context, named reference.Named) ([]reference.NamedTagged, error) {
	missing := errdefs.ErrNotFound.WithMessage("An image does not exist locally with the tag: " + reference.FamiliarName(named))
	if tagged, ok := named.(reference.NamedTagged); ok {
		if _, err := s.cfg.Images.Get(ctx, tagged.String()); errdefs.IsNotFound(err) {
			return nil, errdefs.ErrNotFound.WithMessage("tag does not exist: " + reference.FamiliarString(tagged))
		} else if err != nil {
			return nil, fmt.Errorf("push %s: %w", reference.FamiliarString(tagged), err)
		}
		return []reference.NamedTagged{tagged}, nil
	}
	all, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	var tags []reference.NamedTagged
	for _, r := range all {
		if tagged, ok := r.ref.(reference.NamedTagged); ok && tagged.Name() == named.Name() {
			tags = append(tags, tagged)
		}
	}
	if len(tags) == 0 {
		return nil, missing
	}
	return tags, nil
}

func (s *Service) push(ctx context.Context, repo Repository, tag reference.NamedTagged, platform *ocispec.Platform, report *reporter) error {
	r, b, err := s.resolve(ctx, tag.String(), platform)
	if err != nil {
		return err
	}
	target, bundles := b.manifest, []*bundle{b}
	if platform == nil && c8dimages.IsIndexType(r.stored.Target.MediaType) {
		if whole := s.wholeIndex(ctx, r.stored.Target); whole != nil {
			target, bundles = r.stored.Target, whole
		}
	}
	for _, one := range bundles {
		if err := s.pushBlobs(ctx, repo, one, report); err != nil {
			return err
		}
	}
	for _, one := range bundles {
		if one.manifest.Digest == target.Digest {
			continue
		}
		if _, err := repo.Push(ctx, one.manifest, "", s.cfg.Content, nil); err != nil {
			return err
		}
	}
	if _, err := repo.Push(ctx, target, tag.Tag(), s.cfg.Content, nil); err != nil {
		return err
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(tag), target.Digest)
	if err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	if err := s.setNames(ctx, naming{name: canonical.String(), target: r.stored.Target, bundle: b}); err != nil {
		return err
	}
	report.message("", fmt.Sprintf("%s: digest: %s size: %d", tag.Tag(), target.Digest, target.Size))
	aux, err := json.Marshal(struct {
		Tag    string
		Digest string
		Size   int64
	}{tag.Tag(), target.Digest.String(), target.Size})
	if err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	raw := json.RawMessage(aux)
	report.mu.Lock()
	report.deliver(jsonstream.Message{Aux: &raw})
	report.mu.Unlock()
	s.publish(events.ActionPush, reference.FamiliarString(tag), reference.FamiliarName(tag), b.image.Config.Labels)
	return nil
}

// wholeIndex returns every image of an index when all of it is here, else nil.
func (s *Service) wholeIndex(ctx context.Context, target ocispec.Descriptor) []*bundle {
	children, err := s.children(ctx, target)
	if err != nil {
		return nil
	}
	var bundles []*bundle
	for _, child := range children {
		b, err := s.openManifest(ctx, child)
		if err != nil {
			return nil
		}
		for _, layer := range b.layers {
			if _, err := s.cfg.Content.Info(ctx, layer.Digest); err != nil {
				return nil
			}
		}
		bundles = append(bundles, b)
	}
	return bundles
}

func (s *Service) pushBlobs(ctx context.Context, repo Repository, b *bundle, report *reporter) error {
	group, gctx := errgroup.WithContext(ctx)
	var pushed []string
	for i, layer := range b.layers {
		id := image.ShortID(b.image.RootFS.DiffIDs[i].String())
		report.layer(id, "Preparing", 0, 0)
		if slices.Contains(pushed, layer.Digest.String()) {
			continue
		}
		pushed = append(pushed, layer.Digest.String())
		group.Go(func() error {
			uploads := s.uploads.Load()
			if !uploads.TryAcquire(1) {
				report.layer(id, "Waiting", 0, 0)
				if err := uploads.Acquire(gctx, 1); err != nil {
					return err
				}
			}
			defer uploads.Release(1)
			existed, err := repo.Push(gctx, layer, "", s.cfg.Content, func(done int64) { report.layer(id, "Pushing", done, layer.Size) })
			if err != nil {
				return err
			}
			if existed {
				report.layer(id, "Layer already exists", 0, 0)
			} else {
				report.layer(id, "Pushed", 0, 0)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err := repo.Push(ctx, b.config, "", s.cfg.Content, nil)
	return err
}
