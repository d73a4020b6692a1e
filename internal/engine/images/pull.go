package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/domain/image"
)

// leaseExpire is containerd's label for the moment from which a lease protects
// nothing any more (RFC 3339).
const leaseExpire = "containerd.io/gc.expire"

// Pull brings an image (or with All and no tag every image of a repository)
// from its registry, extracting layers while others still arrive. A failed or
// canceled pull changes no name; what it brought is kept for a day and the
// next pull goes on from there. Errors have Docker's words: ErrNotFound,
// ErrInvalidArgument, ErrUnauthenticated; everything before the first message
// of Progress is about the request as a whole.
func (s *Service) Pull(ctx context.Context, opts PullOptions) error {
	ctx = s.context(ctx)
	named, err := image.Parse(opts.Ref, opts.Tag)
	if err != nil {
		return err
	}
	repo, err := s.cfg.Registry(ctx, named, image.Access{Auth: opts.Auth, Headers: opts.Headers})
	if err != nil {
		return err
	}
	ctx, report := s.reporter(ctx, opts.Progress)
	defer report.close()
	if !reference.IsNameOnly(named) || !opts.All {
		return s.pull(ctx, repo, reference.TagNameOnly(named), opts.Platform, report)
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		ref, err := reference.WithTag(named, tag)
		if err != nil {
			s.cfg.Logger.WarnContext(ctx, "registry has a tag that is none", "repository", named.Name(), "tag", tag)
			continue
		}
		if err := s.pull(ctx, repo, ref, opts.Platform, report); err != nil {
			return fmt.Errorf("error pulling %s: %w", reference.FamiliarString(ref), err)
		}
	}
	return nil
}

func (s *Service) pull(ctx context.Context, repo Repository, ref reference.Named, want *ocispec.Platform, report *reporter) error {
	platform := s.platformOr(want)
	unlock, err := s.onePull(ctx, ref.String()+" "+platforms.FormatAll(platform))
	if err != nil {
		return err
	}
	defer unlock()

	target, body, err := repo.Resolve(ctx, ref)
	if err != nil {
		return cause(ctx, err)
	}
	report.message(tagOrDigest(ref), "Pulling from "+reference.Path(ref))

	p := &puller{Service: s, repo: repo, ref: ref, report: report, platform: platform}
	ctx, err = p.begin(ctx)
	if err != nil {
		return err
	}
	b, newer, err := p.bring(ctx, target, body)
	if err != nil {
		return cause(ctx, err)
	}
	if err := p.done(ctx); err != nil {
		return err
	}
	report.message("", "Digest: "+target.Digest.String())
	status := "Status: Image is up to date for "
	if newer {
		status = "Status: Downloaded newer image for "
	}
	report.message("", status+reference.FamiliarString(ref))
	s.publish(events.ActionPull, reference.FamiliarString(ref), reference.FamiliarName(ref), b.image.Config.Labels)
	return nil
}

// cause prefers why the context was canceled over that it was.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && errors.Is(err, context.Canceled) {
		return why
	}
	return err
}

func tagOrDigest(ref reference.Named) string {
	switch r := ref.(type) {
	case reference.Digested:
		return r.Digest().String()
	case reference.Tagged:
		return r.Tag()
	}
	return ""
}

// onePull makes pulls of the same thing wait for each other: the second finds
// what the first has brought.
func (s *Service) onePull(ctx context.Context, key string) (unlock func(), err error) {
	for {
		s.mu.Lock()
		running := s.pulling[key]
		if running == nil {
			mine := make(chan struct{})
			s.pulling[key] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.pulling, key)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// puller is one pull of one reference.
type puller struct {
	*Service
	repo     Repository
	ref      reference.Named
	platform ocispec.Platform
	report   *reporter
	lease    leases.Lease
}

// begin puts everything that is brought under a lease with the name of what is
// pulled. A pull that fails, and a daemon that dies, leaves the lease until it
// expires; so the next try of the same finds the blobs, whole and partial, and
// the layers.
func (p *puller) begin(ctx context.Context) (context.Context, error) {
	p.lease = leases.Lease{ID: "pull-" + digest.FromString(p.ref.String()+" "+platforms.FormatAll(p.platform)).Encoded()}
	expire := p.cfg.Now().Add(p.cfg.PartialFor).UTC().Format(time.RFC3339)
	err := p.cfg.Tx(ctx, func(ctx context.Context) error {
		kept, err := p.cfg.Leases.ListResources(ctx, p.lease)
		if err == nil {
			err = p.cfg.Leases.Delete(ctx, p.lease)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if _, err := p.cfg.Leases.Create(ctx, leases.WithID(p.lease.ID), leases.WithLabel(leaseExpire, expire)); err != nil {
			return err
		}
		for _, resource := range kept {
			if err := p.cfg.Leases.AddResource(ctx, p.lease, resource); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lease for pulling %s: %w", reference.FamiliarString(p.ref), err)
	}
	return leases.WithLease(ctx, p.lease.ID), nil
}

func (p *puller) done(ctx context.Context) error {
	err := p.cfg.Leases.Delete(context.WithoutCancel(ctx), p.lease)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("end lease of pulling %s: %w", reference.FamiliarString(p.ref), err)
	}
	return nil
}

// bring downloads and unpacks what target has for the platform and names it.
func (p *puller) bring(ctx context.Context, target ocispec.Descriptor, body []byte) (b *bundle, newer bool, err error) {
	if err := p.store(ctx, target, body); err != nil {
		return nil, false, err
	}
	manifest, path, err := p.choose(ctx, target)
	if err != nil {
		return nil, false, err
	}
	data, err := p.blob(ctx, manifest)
	if err != nil {
		return nil, false, err
	}
	parsed, err := parseManifest(manifest, data)
	if err != nil {
		return nil, false, err
	}
	if parsed.Config.Size > maxDocument {
		return nil, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("image configuration %s is too large: %d bytes", parsed.Config.Digest, parsed.Config.Size))
	}
	if err := p.repo.Fetch(ctx, parsed.Config, p.cfg.Content, image.FetchOptions{}); err != nil {
		return nil, false, err
	}
	if b, err = p.openManifest(ctx, manifest); err != nil {
		return nil, false, err
	}
	if os := b.platform().OS; os != p.cfg.Platform.OS {
		return nil, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("image operating system %q cannot be used on this platform", os))
	}
	same, err := p.upToDate(ctx, target, b)
	if err != nil || same {
		return b, false, err
	}
	if err := p.layers(ctx, b); err != nil {
		return nil, false, err
	}
	if err := p.link(ctx, b, path); err != nil {
		return nil, false, err
	}
	return b, true, p.name(ctx, target, b)
}

// store writes a document that is in memory.
func (p *puller) store(ctx context.Context, desc ocispec.Descriptor, body []byte) error {
	return writeBlob(ctx, p.cfg.Content, desc, body)
}

// step is an index and the position in it of what was chosen.
type step struct {
	index    ocispec.Descriptor
	position int
	child    ocispec.Descriptor
}

// choose goes from an index to the manifest of the platform, fetching on the way.
func (p *puller) choose(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, []step, error) {
	const maxDepth = 4
	var path []step
	for c8dimages.IsIndexType(desc.MediaType) {
		if len(path) == maxDepth {
			return desc, nil, errdefs.ErrInvalidArgument.WithMessage("index of indexes is too deep")
		}
		var index ocispec.Index
		if err := p.document(ctx, desc, &index); err != nil {
			return desc, nil, err
		}
		position := bestManifest(index.Manifests, p.platform)
		if position < 0 {
			return desc, nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf(
				"no matching manifest for %s in the manifest list entries", platforms.FormatAll(p.platform)))
		}
		child := index.Manifests[position]
		if err := child.Digest.Validate(); err != nil || child.Size <= 0 || child.Size > maxDocument {
			return desc, nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("bad descriptor %q in index %s", child.Digest, desc.Digest))
		}
		if err := p.repo.Fetch(ctx, child, p.cfg.Content, image.FetchOptions{}); err != nil {
			return desc, nil, err
		}
		path = append(path, step{index: desc, position: position, child: child})
		desc = child
	}
	return desc, path, nil
}

// bestManifest is the index of the entry that fits the platform best, -1 if
// none does.
func bestManifest(entries []ocispec.Descriptor, want ocispec.Platform) int {
	matcher := platforms.Only(want)
	best := -1
	for i, entry := range entries {
		if !c8dimages.IsManifestType(entry.MediaType) && !c8dimages.IsIndexType(entry.MediaType) {
			continue
		}
		if entry.Platform == nil {
			// An index of one image need not say for what it is.
			if len(entries) == 1 {
				return 0
			}
			continue
		}
		if !matcher.Match(*entry.Platform) {
			continue
		}
		if best < 0 || matcher.Less(*entry.Platform, *entries[best].Platform) {
			best = i
		}
	}
	return best
}

// upToDate reports whether the reference stands for this image already and
// everything of it is there.
func (p *puller) upToDate(ctx context.Context, target ocispec.Descriptor, b *bundle) (bool, error) {
	stored, err := p.cfg.Images.Get(ctx, p.ref.String())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up image %s: %w", reference.FamiliarString(p.ref), err)
	}
	r := newRecord(stored)
	if r.id != b.id || r.stored.Target.Digest != target.Digest || r.manifest() != b.manifest.Digest {
		return false, nil
	}
	for _, layer := range b.layers {
		if _, err := p.cfg.Content.Info(ctx, layer.Digest); errdefs.IsNotFound(err) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("look up blob %s: %w", layer.Digest, err)
		}
	}
	return p.cfg.Layers.Has(ctx, b.chain())
}

// layers downloads the layers, three at a time in the whole engine, and
// unpacks each as soon as it and those below are there.
func (p *puller) layers(ctx context.Context, b *bundle) error {
	group, ctx := errgroup.WithContext(ctx)
	arrivals := map[digest.Digest]*arrival{}
	var missing []*arrival
	layers := make([]image.Layer, len(b.layers))
	for i, blob := range b.layers {
		a := arrivals[blob.Digest]
		if a == nil {
			a = &arrival{blob: blob, id: image.ShortID(blob.Digest.String()), arrived: make(chan struct{})}
			arrivals[blob.Digest] = a
			has, err := p.hold(ctx, blob)
			if err != nil {
				return err
			}
			if a.present = has; !has {
				p.report.phase(a.id, image.PhaseQueued, 0, 0)
				missing = append(missing, a)
			}
		}
		layers[i] = image.Layer{Blob: blob, DiffID: b.image.RootFS.DiffIDs[i], Ready: a.wait}
		if a.present {
			layers[i].Ready = nil
		}
	}
	group.Go(func() error {
		// In the order of the manifest: what is extracted first comes first.
		for i, a := range missing {
			downloads := p.downloads.Load()
			if !downloads.TryAcquire(1) {
				for _, later := range missing[i:] {
					p.report.phase(later.id, image.PhaseWaiting, 0, 0)
				}
				if err := downloads.Acquire(ctx, 1); err != nil {
					return err
				}
			}
			group.Go(func() error {
				defer downloads.Release(1)
				return p.download(ctx, a)
			})
		}
		return nil
	})
	group.Go(func() error {
		_, err := p.cfg.Layers.Unpack(ctx, layers, func(i int, phase image.Phase, current, total int64) {
			a := arrivals[b.layers[i].Digest]
			if phase == image.PhaseExists && !a.present {
				// Its files are there, its blob is still on the way.
				return
			}
			p.report.phase(a.id, phase, current, total)
		})
		return err
	})
	return group.Wait()
}

// arrival is a blob on its way.
type arrival struct {
	blob    ocispec.Descriptor
	id      string
	present bool
	arrived chan struct{}
}

func (a *arrival) wait(ctx context.Context) error {
	select {
	case <-a.arrived:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold puts a blob that is there under the lease.
func (p *puller) hold(ctx context.Context, blob ocispec.Descriptor) (bool, error) {
	if _, err := p.cfg.Content.Info(ctx, blob.Digest); errdefs.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look up blob %s: %w", blob.Digest, err)
	}
	err := p.cfg.Leases.AddResource(ctx, p.lease, leases.Resource{ID: blob.Digest.String(), Type: "content"})
	if err != nil {
		return false, fmt.Errorf("hold blob %s: %w", blob.Digest, err)
	}
	// It may have gone between the look and the hold.
	_, err = p.cfg.Content.Info(ctx, blob.Digest)
	return err == nil, nil
}

func (p *puller) download(ctx context.Context, a *arrival) error {
	err := p.repo.Fetch(ctx, a.blob, p.cfg.Content, image.FetchOptions{
		Progress: func(done int64) { p.report.phase(a.id, image.PhaseDownloading, done, a.blob.Size) },
		Verifying: func() {
			p.report.phase(a.id, image.PhaseVerifying, 0, 0)
		},
		Retry: func(seconds int, why error) {
			p.cfg.Logger.InfoContext(ctx, "download failed, retrying", "blob", a.blob.Digest, "error", why, "seconds", seconds)
			unit := "seconds"
			if seconds == 1 {
				unit = "second"
			}
			p.report.layer(a.id, fmt.Sprintf("Retrying in %d %s", seconds, unit), 0, 0)
		},
	})
	if err != nil {
		return err
	}
	p.report.phase(a.id, image.PhaseDownloaded, 0, 0)
	close(a.arrived)
	return nil
}

// link tells garbage collection what belongs to what: an index to the manifest
// that was chosen, a manifest to its parts, a configuration to its layers'
// files.
func (p *puller) link(ctx context.Context, b *bundle, path []step) error {
	for _, s := range path {
		label := fmt.Sprintf("containerd.io/gc.ref.content.m.%d", s.position)
		if err := p.label(ctx, s.index.Digest, map[string]string{label: s.child.Digest.String()}); err != nil {
			return err
		}
	}
	return p.linkManifest(ctx, b)
}

func (s *Service) linkManifest(ctx context.Context, b *bundle) error {
	parts := map[string]string{"containerd.io/gc.ref.content.config": b.config.Digest.String()}
	for i, layer := range b.layers {
		parts[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = layer.Digest.String()
	}
	if err := s.label(ctx, b.manifest.Digest, parts); err != nil {
		return err
	}
	if b.chain() == "" {
		return nil
	}
	name, value := s.cfg.Layers.Label(b.chain())
	return s.label(ctx, b.config.Digest, map[string]string{name: value})
}

func (s *Service) label(ctx context.Context, blob digest.Digest, labels map[string]string) error {
	var fields []string
	for name := range labels {
		fields = append(fields, "labels."+name)
	}
	if _, err := s.cfg.Content.Update(ctx, content.Info{Digest: blob, Labels: labels}, fields...); err != nil {
		return fmt.Errorf("label blob %s: %w", blob, err)
	}
	return nil
}

// name sets the reference, and for a tag also the digest it had in the
// registry, as Docker keeps both.
func (p *puller) name(ctx context.Context, target ocispec.Descriptor, b *bundle) error {
	namings := []naming{{name: p.ref.String(), target: target, bundle: b}}
	if _, digested := p.ref.(reference.Digested); !digested {
		canonical, err := reference.WithDigest(reference.TrimNamed(p.ref), target.Digest)
		if err != nil {
			return fmt.Errorf("name image %s: %w", p.ref, err)
		}
		namings = append(namings, naming{name: canonical.String(), target: target, bundle: b})
	}
	return p.setNames(ctx, namings...)
}

// writeBlob stores data that is in memory; data that is there is no error.
func writeBlob(ctx context.Context, store content.Store, desc ocispec.Descriptor, data []byte) error {
	if desc.Digest == "" {
		desc.Digest = digest.FromBytes(data)
	}
	desc.Size = int64(len(data))
	err := content.WriteBlob(ctx, store, "write-"+desc.Digest.String(), bytes.NewReader(data), desc)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("store %s %s: %w", desc.MediaType, desc.Digest, err)
	}
	return nil
}
