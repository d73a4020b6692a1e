package images

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// item is an image with everything that points at it.
type item struct {
	bundle *bundle
	record record
	refs   []reference.Named
	sizes  []int64
	tagged time.Time
}

// items lists the images of the store once each. One that cannot be read is
// left out and logged.
func (s *Service) items(ctx context.Context) ([]*item, error) {
	all, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[digest.Digest]*item{}
	var items []*item
	for _, r := range all {
		it := byID[r.id]
		if it == nil {
			b, err := s.open(ctx, r)
			var sizes []int64
			if err == nil {
				sizes, err = s.cfg.Layers.Sizes(ctx, b.chain())
			}
			if err != nil {
				s.cfg.Logger.WarnContext(ctx, "image cannot be read", "name", r.stored.Name, "error", err)
				continue
			}
			it = &item{bundle: b, record: r, sizes: sizes, refs: references(all, r.id)}
			byID[r.id] = it
			items = append(items, it)
		}
		if r.stored.UpdatedAt.After(it.tagged) {
			it.tagged = r.stored.UpdatedAt
		}
	}
	return items, nil
}

// List returns the images that match, the newest first. Filters: dangling,
// label, label!, before, since, reference, until. ErrInvalidArgument,
// ErrNotFound (an image that before or since names).
func (s *Service) List(ctx context.Context, opts ListOptions) ([]imagetypes.Summary, error) {
	ctx = s.context(ctx)
	keep, err := s.listFilter(ctx, opts.Filters)
	if err != nil {
		return nil, err
	}
	items, err := s.items(ctx)
	if err != nil {
		return nil, err
	}
	uses := map[digest.Digest]int{}
	for _, it := range items {
		for _, chain := range it.bundle.chains {
			uses[chain]++
		}
	}
	summaries := []imagetypes.Summary{}
	for _, it := range items {
		refs, ok := keep(it)
		if !ok {
			continue
		}
		summary := s.summary(it, refs)
		if opts.SharedSize {
			summary.SharedSize = 0
			for i, chain := range it.bundle.chains {
				if uses[chain] > 1 {
					summary.SharedSize += it.sizes[i]
				}
			}
		}
		if opts.Manifests {
			if summary.Manifests, err = s.manifests(ctx, it); err != nil {
				return nil, err
			}
		}
		summaries = append(summaries, summary)
	}
	sort.SliceStable(summaries, func(i, j int) bool { return summaries[i].Created > summaries[j].Created })
	return summaries, nil
}

func (s *Service) summary(it *item, refs []reference.Named) imagetypes.Summary {
	tags, digests := familiar(refs)
	var created int64
	if at := it.bundle.created(); !at.IsZero() {
		created = at.Unix()
	}
	target := it.record.stored.Target
	return imagetypes.Summary{
		ID: it.bundle.id.String(), RepoTags: tags, RepoDigests: digests, Created: created,
		Size: sum(it.sizes), SharedSize: -1, Labels: it.bundle.image.Config.Labels,
		Containers: int64(len(s.cfg.InUse(it.bundle.id))), Descriptor: &target,
	}
}

// listFilter reads the filters once; the function it returns says whether an
// image is listed and with which references.
func (s *Service) listFilter(ctx context.Context, filters image.Filters) (func(*item) ([]reference.Named, bool), error) {
	if err := filters.Check("dangling", "label", "label!", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	dangling, err := filters.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	_, askedDangling := filters["dangling"]
	before, err := filters.Until(s.cfg.Now())
	if err != nil {
		return nil, err
	}
	var since time.Time
	for _, word := range filters["before"] {
		_, b, err := s.resolve(ctx, word, nil)
		if err != nil {
			return nil, err
		}
		if at := b.created(); !at.IsZero() && (before.IsZero() || at.Before(before)) {
			before = at
		}
	}
	for _, word := range filters["since"] {
		_, b, err := s.resolve(ctx, word, nil)
		if err != nil {
			return nil, err
		}
		if at := b.created(); at.After(since) {
			since = at
		}
	}
	return func(it *item) ([]reference.Named, bool) {
		created := it.bundle.created()
		if !before.IsZero() && (created.IsZero() || !created.Before(before)) ||
			!since.IsZero() && !created.After(since) ||
			!filters.MatchLabels(it.bundle.image.Config.Labels) {
			return nil, false
		}
		refs := it.refs
		if len(filters["reference"]) > 0 {
			refs = slices.DeleteFunc(slices.Clone(refs), func(ref reference.Named) bool { return !filters.MatchReference(ref) })
			if len(refs) == 0 {
				return nil, false
			}
		}
		if askedDangling && dangling != isDangling(it.refs) {
			return nil, false
		}
		return refs, true
	}, nil
}

// isDangling: the image has no tag.
func isDangling(refs []reference.Named) bool {
	return !slices.ContainsFunc(refs, func(ref reference.Named) bool {
		_, tagged := ref.(reference.NamedTagged)
		return tagged
	})
}

// manifests describes every manifest of the target that could be here.
func (s *Service) manifests(ctx context.Context, it *item) ([]imagetypes.ManifestSummary, error) {
	target := it.record.stored.Target
	all := []ocispec.Descriptor{target}
	if c8dimages.IsIndexType(target.MediaType) {
		var err error
		if all, err = s.children(ctx, target); err != nil {
			return nil, err
		}
	}
	var out []imagetypes.ManifestSummary
	for _, desc := range all {
		if !c8dimages.IsManifestType(desc.MediaType) {
			continue
		}
		summary, err := s.manifestSummary(ctx, desc)
		if err != nil {
			return nil, err
		}
		out = append(out, summary)
	}
	return out, nil
}

func (s *Service) manifestSummary(ctx context.Context, desc ocispec.Descriptor) (imagetypes.ManifestSummary, error) {
	summary := imagetypes.ManifestSummary{ID: desc.Digest.String(), Descriptor: desc, Kind: imagetypes.ManifestKindUnknown}
	if desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		summary.Kind = imagetypes.ManifestKindAttestation
		summary.AttestationData = &imagetypes.AttestationProperties{For: digest.Digest(desc.Annotations["vnd.docker.reference.digest"])}
		return summary, nil
	}
	summary.Kind = imagetypes.ManifestKindImage
	properties := &imagetypes.ImageProperties{Containers: []string{}}
	summary.ImageData = properties
	if desc.Platform != nil {
		properties.Platform = *desc.Platform
	}
	b, err := s.openManifest(ctx, desc)
	if err != nil {
		// The manifests of other platforms are not here.
		return summary, nil
	}
	properties.Platform = b.platform()
	summary.Available = true
	for _, part := range append([]ocispec.Descriptor{b.manifest, b.config}, b.layers...) {
		if _, err := s.cfg.Content.Info(ctx, part.Digest); err != nil {
			summary.Available = false
			continue
		}
		summary.Size.Content += part.Size
	}
	if has, err := s.cfg.Layers.Has(ctx, b.chain()); err != nil {
		return summary, err
	} else if has {
		sizes, err := s.cfg.Layers.Sizes(ctx, b.chain())
		if err != nil {
			return summary, fmt.Errorf("size of image %s: %w", b.id, err)
		}
		properties.Size.Unpacked = sum(sizes)
	}
	for _, use := range s.cfg.InUse(b.id) {
		properties.Containers = append(properties.Containers, use.ContainerID)
	}
	summary.Size.Total = summary.Size.Content + properties.Size.Unpacked
	return summary, nil
}

// Count is the number of images.
func (s *Service) Count(ctx context.Context) (int, error) {
	all, err := s.records(s.context(ctx))
	if err != nil {
		return 0, err
	}
	ids := map[digest.Digest]struct{}{}
	for _, r := range all {
		ids[r.id] = struct{}{}
	}
	return len(ids), nil
}
