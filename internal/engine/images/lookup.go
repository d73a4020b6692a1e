package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Labels of a stored reference: which image of its target it stands for. A
// target can be an index of many; Docker's references mean the one that was
// pulled.
const (
	labelID       = "io.orlop.image.id"
	labelManifest = "io.orlop.image.manifest"
)

// maxDocument bounds configurations and manifests, which are read into memory.
const maxDocument = 8 << 20

// record is one reference (or one image without a reference) of the store.
type record struct {
	stored c8dimages.Image
	// ref is nil for an image without a reference.
	ref reference.Named
	id  digest.Digest
}

func newRecord(stored c8dimages.Image) record {
	r := record{stored: stored, id: digest.Digest(stored.Labels[labelID])}
	r.ref, _ = image.ParseStored(stored.Name)
	return r
}

func (r record) manifest() digest.Digest { return digest.Digest(r.stored.Labels[labelManifest]) }

// bundle is an image as its documents tell it; it never changes.
type bundle struct {
	id       digest.Digest
	manifest ocispec.Descriptor
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	chains   []digest.Digest
	image    dockerspec.DockerOCIImage
	// comment is what older builders wrote beside the OCI fields.
	comment string
}

func (b *bundle) chain() digest.Digest {
	if len(b.chains) == 0 {
		return ""
	}
	return b.chains[len(b.chains)-1]
}

func (b *bundle) platform() ocispec.Platform { return platforms.Normalize(b.image.Platform) }

func (b *bundle) created() time.Time {
	if b.image.Created == nil {
		return time.Time{}
	}
	return *b.image.Created
}

// records lists the store.
func (s *Service) records(ctx context.Context) ([]record, error) {
	stored, err := s.cfg.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	all := make([]record, 0, len(stored))
	for _, one := range stored {
		r := newRecord(one)
		if r.id == "" {
			// Written by another tool of the same store: the image is the one
			// for this host.
			b, err := s.openTarget(ctx, one.Target, platforms.Only(s.cfg.Platform))
			if err != nil {
				s.cfg.Logger.WarnContext(ctx, "image cannot be read", "name", one.Name, "error", err)
				continue
			}
			r.id = b.id
			r.stored.Labels = map[string]string{labelID: b.id.String(), labelManifest: b.manifest.Digest.String()}
		}
		all = append(all, r)
	}
	return all, nil
}

// find returns a record that word names, and whether it was found by id.
func (s *Service) find(ctx context.Context, word string) (r record, byID bool, err error) {
	q, err := image.ParseQuery(word)
	if err != nil {
		return record{}, false, err
	}
	if q.Name != nil {
		stored, err := s.cfg.Images.Get(ctx, q.Name.String())
		if err == nil {
			r := newRecord(stored)
			if r.id != "" {
				return r, false, nil
			}
		} else if !errdefs.IsNotFound(err) {
			return record{}, false, fmt.Errorf("look up image %s: %w", word, err)
		}
	}
	all, err := s.records(ctx)
	if err != nil {
		return record{}, false, err
	}
	if q.Name != nil {
		for _, r := range all {
			if r.stored.Name == q.Name.String() {
				return r, false, nil
			}
		}
	}
	var found *record
	for _, r := range all {
		match := q.ID != "" && r.id == q.ID || q.Prefix != "" && strings.HasPrefix(r.id.Encoded(), q.Prefix)
		if !match {
			continue
		}
		if found != nil && found.id != r.id {
			// An ambiguous beginning names nothing.
			return record{}, false, q.NotFound()
		}
		if found == nil || found.ref == nil {
			found = &r
		}
	}
	if found == nil {
		return record{}, false, q.NotFound()
	}
	return *found, true, nil
}

// open reads the image that a record stands for.
func (s *Service) open(ctx context.Context, r record) (*bundle, error) {
	want := r.manifest()
	s.mu.Lock()
	b := s.opened[want]
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	desc := r.stored.Target
	for depth := 0; desc.Digest != want; depth++ {
		children, err := s.children(ctx, desc)
		if err != nil {
			return nil, err
		}
		index := slices.IndexFunc(children, func(d ocispec.Descriptor) bool { return d.Digest == want })
		if index < 0 {
			return nil, fmt.Errorf("image %s: its index has no manifest %s: %w", r.stored.Name, want, errdefs.ErrNotFound)
		}
		desc = children[index]
	}
	return s.openManifest(ctx, desc)
}

// children lists the manifests of an index and of the indexes inside it.
func (s *Service) children(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	const maxDepth = 4
	var all []ocispec.Descriptor
	var walk func(desc ocispec.Descriptor, depth int) error
	walk = func(desc ocispec.Descriptor, depth int) error {
		if !c8dimages.IsIndexType(desc.MediaType) || depth > maxDepth {
			return nil
		}
		var index ocispec.Index
		if err := s.document(ctx, desc, &index); err != nil {
			return err
		}
		for _, child := range index.Manifests {
			all = append(all, child)
			if err := walk(child, depth+1); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	}
	return all, walk(desc, 0)
}

// document reads a JSON document of the content store.
func (s *Service) document(ctx context.Context, desc ocispec.Descriptor, into any) error {
	data, err := s.blob(ctx, desc)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s %s: %w: %w", desc.MediaType, desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (s *Service) blob(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s %s is too large: %d bytes", desc.MediaType, desc.Digest, desc.Size))
	}
	data, err := content.ReadBlob(ctx, s.cfg.Content, desc)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", desc.MediaType, desc.Digest, err)
	}
	return data, nil
}

// openTarget reads the image of a target that fits best and whose documents
// are there.
func (s *Service) openTarget(ctx context.Context, target ocispec.Descriptor, fits platforms.MatchComparer) (*bundle, error) {
	if !c8dimages.IsIndexType(target.MediaType) {
		return s.openManifest(ctx, target)
	}
	children, err := s.children(ctx, target)
	if err != nil {
		return nil, err
	}
	var best *bundle
	for _, child := range children {
		if !c8dimages.IsManifestType(child.MediaType) || child.Platform != nil && child.Platform.OS == "unknown" {
			continue
		}
		b, err := s.openManifest(ctx, child)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !fits.Match(b.platform()) {
			continue
		}
		if best == nil || fits.Less(b.platform(), best.platform()) {
			best = b
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%s has no image for this platform: %w", target.Digest, errdefs.ErrNotFound)
	}
	return best, nil
}

func (s *Service) openManifest(ctx context.Context, desc ocispec.Descriptor) (*bundle, error) {
	s.mu.Lock()
	b := s.opened[desc.Digest]
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	data, err := s.blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	manifest, err := parseManifest(desc, data)
	if err != nil {
		return nil, err
	}
	config, err := s.blob(ctx, manifest.Config)
	if err != nil {
		return nil, err
	}
	b, err = newBundle(desc, manifest, config)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[desc.Digest] = b
	return b, nil
}

func parseManifest(desc ocispec.Descriptor, data []byte) (ocispec.Manifest, error) {
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return manifest, fmt.Errorf("read manifest %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	for _, part := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		if err := part.Digest.Validate(); err != nil || part.Size < 0 {
			return manifest, fmt.Errorf("read manifest %s: bad descriptor %q: %w", desc.Digest, part.Digest, errors.Join(err, errdefs.ErrInvalidArgument))
		}
	}
	return manifest, nil
}

// imageConfigTypes are the media types of configurations that describe an
// image one can run. Old registries say octet-stream or text.
var imageConfigTypes = []string{
	c8dimages.MediaTypeDockerSchema2Config, ocispec.MediaTypeImageConfig, dockerspec.DockerOCIImageMediaType,
	"application/octet-stream", "application/json", "text/html", "",
}

// newBundle checks that configuration and manifest belong together.
func newBundle(desc ocispec.Descriptor, manifest ocispec.Manifest, config []byte) (*bundle, error) {
	if !slices.Contains(imageConfigTypes, manifest.Config.MediaType) {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("Encountered remote %q(unknown) when fetching", manifest.Config.MediaType))
	}
	b := &bundle{id: manifest.Config.Digest, manifest: desc, config: manifest.Config, layers: manifest.Layers}
	if err := json.Unmarshal(config, &b.image); err != nil {
		return nil, fmt.Errorf("read image configuration %s: %w: %w", b.id, err, errdefs.ErrInvalidArgument)
	}
	var more struct {
		Comment string `json:"comment"`
	}
	if json.Unmarshal(config, &more) == nil {
		b.comment = more.Comment
	}
	diffIDs := b.image.RootFS.DiffIDs
	if len(diffIDs) != len(manifest.Layers) {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"invalid manifest, layers length mismatch: expected %d, got %d", len(diffIDs), len(manifest.Layers)))
	}
	for _, id := range diffIDs {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("read image configuration %s: diff id %q: %w: %w", b.id, id, err, errdefs.ErrInvalidArgument)
		}
	}
	b.chains = identity.ChainIDs(slices.Clone(diffIDs))
	return b, nil
}

// Resolve finds an image by name, name:tag, name@digest, id or the beginning
// of an id, for the platform asked for or as it was pulled. ErrNotFound with
// Docker's text `No such image: x:latest`, ErrInvalidArgument for a word that
// cannot be a name.
func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	ctx = s.context(ctx)
	r, b, err := s.resolve(ctx, ref, platform)
	if err != nil {
		return Image{}, err
	}
	sizes, err := s.cfg.Layers.Sizes(ctx, b.chain())
	if err != nil {
		return Image{}, fmt.Errorf("size of image %s: %w", ref, err)
	}
	found := Image{
		ID: b.id, Name: b.id.String(), Target: r.stored.Target, Manifest: b.manifest, ChainID: b.chain(), Config: b.image, Size: sum(sizes),
	}
	if r.ref != nil {
		found.Name = reference.FamiliarString(r.ref)
	}
	return found, nil
}

func sum(sizes []int64) (total int64) {
	for _, size := range sizes {
		total += size
	}
	return total
}

// resolve returns the record and its image for a platform; nil is the one that
// the reference stands for.
func (s *Service) resolve(ctx context.Context, word string, platform *ocispec.Platform) (record, *bundle, error) {
	r, _, err := s.find(ctx, word)
	if err != nil {
		return record{}, nil, err
	}
	b, err := s.open(ctx, r)
	if err != nil {
		return record{}, nil, fmt.Errorf("image %s: %w", word, err)
	}
	if platform == nil || fits(*platform, b.platform()) {
		return r, b, nil
	}
	other, err := s.openTarget(ctx, r.stored.Target, platforms.Only(*platform))
	if err == nil && fits(*platform, other.platform()) { // a target that is no index has one platform only
		has, herr := s.cfg.Layers.Has(ctx, other.chain())
		if herr != nil {
			return record{}, nil, herr
		}
		if has {
			return r, other, nil
		}
	} else if err != nil && !errdefs.IsNotFound(err) {
		return record{}, nil, err
	}
	return record{}, nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf(
		"image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
		word, platforms.FormatAll(b.platform()), platforms.FormatAll(*platform)))
}

// fits reports whether an image of platform have runs where want is asked
// for. Configurations often lack the variant, which then matches any.
func fits(want, have ocispec.Platform) bool {
	if platforms.Only(want).Match(have) {
		return true
	}
	normal := platforms.Normalize(want)
	return have.Variant == "" && normal.OS == have.OS && normal.Architecture == have.Architecture
}

// naming gives a name to an image.
type naming struct {
	name   string
	target ocispec.Descriptor
	bundle *bundle
}

// setNames makes or moves references in one transaction. An image that loses
// its last reference by it stays, untagged, as Docker keeps it.
func (s *Service) setNames(ctx context.Context, namings ...naming) error {
	s.names.Lock()
	defer s.names.Unlock()
	return s.cfg.Tx(ctx, func(ctx context.Context) error {
		lost := map[digest.Digest]record{}
		for _, n := range namings {
			before, err := s.setName(ctx, n)
			if err != nil {
				return fmt.Errorf("name image %s: %w", n.name, err)
			}
			if before != nil && before.id != n.bundle.id {
				lost[before.id] = *before
			}
		}
		return s.keepUntagged(ctx, lost)
	})
}

// setName returns the record that had the name before.
func (s *Service) setName(ctx context.Context, n naming) (*record, error) {
	wanted := c8dimages.Image{
		Name: n.name, Target: n.target,
		Labels: map[string]string{labelID: n.bundle.id.String(), labelManifest: n.bundle.manifest.Digest.String()},
	}
	stored, err := s.cfg.Images.Get(ctx, n.name)
	if errdefs.IsNotFound(err) {
		_, err := s.cfg.Images.Create(ctx, wanted)
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	before := newRecord(stored)
	_, err = s.cfg.Images.Update(ctx, wanted, "target", "labels")
	return &before, err
}

// keepUntagged gives the images in lost a place in the store if no reference
// is left to them, and removes the place of those that have one.
func (s *Service) keepUntagged(ctx context.Context, lost map[digest.Digest]record) error {
	stored, err := s.cfg.Images.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	named := map[digest.Digest]bool{}
	for _, one := range stored {
		if r := newRecord(one); r.ref != nil {
			named[r.id] = true
		}
	}
	for _, one := range stored {
		if r := newRecord(one); r.ref == nil && named[r.id] {
			if err := s.cfg.Images.Delete(ctx, one.Name); err != nil {
				return fmt.Errorf("name image %s: %w", r.id, err)
			}
		}
	}
	for id, r := range lost {
		if named[id] || id == "" {
			continue
		}
		_, err := s.cfg.Images.Create(ctx, c8dimages.Image{Name: image.UntaggedName(id), Target: r.stored.Target, Labels: r.stored.Labels})
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("keep image %s: %w", id, err)
		}
	}
	return nil
}

// references lists everything that points at the image, in a stable order.
func references(all []record, id digest.Digest) []reference.Named {
	var refs []reference.Named
	for _, r := range all {
		if r.id == id && r.ref != nil {
			refs = append(refs, r.ref)
		}
	}
	slices.SortFunc(refs, func(a, b reference.Named) int { return strings.Compare(a.String(), b.String()) })
	return refs
}

// familiar splits references into what Docker shows as tags and digests;
// neither is nil.
func familiar(refs []reference.Named) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, ref := range refs {
		switch ref.(type) {
		case reference.NamedTagged:
			tags = append(tags, reference.FamiliarString(ref))
		case reference.Canonical:
			digests = append(digests, reference.FamiliarString(ref))
		}
	}
	return tags, digests
}
