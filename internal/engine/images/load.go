package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// maxEntries bounds the files of an archive; each costs a little memory.
const maxEntries = 1 << 20

// Load reads the images of an archive: Docker's (manifest.json), an OCI layout
// (index.json) or both in one, plain or compressed. Names are set when every
// image of the archive is unpacked; an archive that is broken changes nothing.
// ErrInvalidArgument says what is wrong with it.
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions) error {
	ctx, report := s.reporter(s.context(ctx), opts.Progress)
	defer report.close()
	ctx, end, err := s.cfg.Lease(ctx, "load-"+s.cfg.NewID())
	if err != nil {
		return err
	}
	err = s.load(ctx, r, opts, report)
	return errors.Join(cause(ctx, err), end())
}

func (s *Service) load(ctx context.Context, r io.Reader, opts LoadOptions, report *reporter) error {
	plain, err := s.cfg.Layers.Decompress(r)
	if err != nil {
		return badArchive(err)
	}
	defer plain.Close()
	a, err := s.readArchive(ctx, plain)
	if err != nil {
		return err
	}
	loaded, err := s.archiveImages(ctx, a)
	if err != nil {
		return err
	}
	if len(opts.Platforms) > 0 {
		if loaded = ofPlatforms(loaded, opts.Platforms); len(loaded) == 0 {
			return errdefs.ErrNotFound.WithMessage("the archive has no image for the requested platform")
		}
	}
	for _, l := range loaded {
		if os := l.bundle.platform().OS; os != s.cfg.Platform.OS {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("cannot load %s image on %s", os, s.cfg.Platform.OS))
		}
		if err := s.unpackLoaded(ctx, l.bundle, opts.Quiet, report); err != nil {
			return err
		}
		if err := s.linkManifest(ctx, l.bundle); err != nil {
			return err
		}
	}
	return s.nameLoaded(ctx, loaded, report)
}

func badArchive(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errdefs.ErrInvalidArgument.WithMessage("invalid archive: " + err.Error())
}

// archive is what was found in an archive, its contents in the content store.
type archive struct {
	// files by cleaned path; links point at other paths.
	files map[string]ocispec.Descriptor
	links map[string]string
}

// lookup follows the links of old archives (layers that appear twice).
func (a *archive) lookup(name string) (ocispec.Descriptor, bool) {
	name = clean(name)
	for range 8 {
		if desc, ok := a.files[name]; ok {
			return desc, true
		}
		target, ok := a.links[name]
		if !ok {
			break
		}
		name = target
	}
	return ocispec.Descriptor{}, false
}

// clean is a path inside the archive: it cannot lead out of it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// readArchive writes every file of the archive into the content store, where
// its digest names it; what no image refers to is collected again.
func (s *Service) readArchive(ctx context.Context, r io.Reader) (*archive, error) {
	a := &archive{files: map[string]ocispec.Descriptor{}, links: map[string]string{}}
	reader := tar.NewReader(r)
	for count := 0; ; count++ {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		header, err := reader.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, badArchive(err)
		}
		if count > maxEntries {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: too many files")
		}
		name := clean(header.Name)
		switch header.Typeflag {
		case tar.TypeReg:
			desc, err := s.ingest(ctx, reader, header.Size, expectedDigest(name))
			if err != nil {
				return nil, err
			}
			a.files[name] = desc
		case tar.TypeSymlink:
			a.links[name] = clean(path.Join(path.Dir(name), header.Linkname))
		case tar.TypeLink:
			a.links[name] = clean(header.Linkname)
		}
	}
}

// expectedDigest is what a file of an OCI layout must have, empty for others.
func expectedDigest(name string) digest.Digest {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return ""
	}
	algorithm, hex, ok := strings.Cut(rest, "/")
	if !ok {
		return ""
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if d.Validate() != nil {
		return ""
	}
	return d
}

// ingest writes size bytes (-1: all) of r into the content store.
func (s *Service) ingest(ctx context.Context, r io.Reader, size int64, expected digest.Digest) (ocispec.Descriptor, error) {
	ref := "ingest-" + s.cfg.NewID()
	w, err := content.OpenWriter(ctx, s.cfg.Content, content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("store archive: %w", err)
	}
	defer w.Close()
	digester := digest.Canonical.Digester()
	if expected != "" {
		digester = expected.Algorithm().Digester()
	}
	counter := &count{}
	buf := make([]byte, 256<<10)
	_, err = io.CopyBuffer(io.MultiWriter(w, digester.Hash(), counter), readerOnly{r}, buf)
	got := digester.Digest()
	switch {
	case err != nil:
		err = badArchive(err)
	case size >= 0 && counter.n != size:
		err = badArchive(io.ErrUnexpectedEOF)
	case expected != "" && got != expected:
		err = errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid archive: blob %s has digest %s", expected, got))
	}
	if err != nil {
		return ocispec.Descriptor{}, errors.Join(err, s.abort(ctx, w, ref))
	}
	err = w.Commit(ctx, counter.n, got)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, fmt.Errorf("store archive: %w", err)
	}
	return ocispec.Descriptor{Digest: got, Size: counter.n}, nil
}

func (s *Service) abort(ctx context.Context, w content.Writer, ref string) error {
	err := errors.Join(w.Close(), s.cfg.Content.Abort(context.WithoutCancel(ctx), ref))
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// readerOnly hides WriteTo, with which a tar reader would skip the buffer.
type readerOnly struct{ io.Reader }

type count struct{ n int64 }

func (c *count) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// loadedImage is one image of an archive.
type loadedImage struct {
	bundle *bundle
	tags   []reference.NamedTagged
}

// manifestItem is an entry of Docker's manifest.json.
type manifestItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// archiveImages reads what the archive says about itself.
func (s *Service) archiveImages(ctx context.Context, a *archive) ([]loadedImage, error) {
	layout, err := s.layoutImages(ctx, a)
	if err != nil {
		return nil, err
	}
	desc, ok := a.lookup("manifest.json")
	if !ok {
		if layout == nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: does not contain a manifest.json")
		}
		return layout, nil
	}
	var items []manifestItem
	if err := s.document(ctx, desc, &items); err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: failed to decode manifest.json: " + err.Error())
	}
	if items == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid manifest, manifest cannot be null (but can be [])")
	}
	var loaded []loadedImage
	for _, item := range items {
		tags, err := parseTags(item.RepoTags)
		if err != nil {
			return nil, err
		}
		b, err := s.itemBundle(ctx, a, item, layout)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, loadedImage{bundle: b, tags: tags})
	}
	return loaded, nil
}

func parseTags(names []string) ([]reference.NamedTagged, error) {
	var tags []reference.NamedTagged
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
		tagged, ok := named.(reference.NamedTagged)
		if !ok {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid tag %q", name))
		}
		tags = append(tags, tagged)
	}
	return tags, nil
}

// itemBundle is the image of an entry of manifest.json: with the manifest that
// the archive's OCI layout has for it, else with one made for it.
func (s *Service) itemBundle(ctx context.Context, a *archive, item manifestItem, layout []loadedImage) (*bundle, error) {
	config, ok := a.lookup(item.Config)
	if !ok {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid archive: does not contain %q", item.Config))
	}
	for _, l := range layout {
		if l.bundle.id == config.Digest && len(l.bundle.layers) == len(item.Layers) {
			return l.bundle, nil
		}
	}
	config.MediaType = c8dimages.MediaTypeDockerSchema2Config
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: c8dimages.MediaTypeDockerSchema2Manifest, Config: config,
	}
	for _, name := range item.Layers {
		layer, ok := a.lookup(name)
		if !ok {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid archive: does not contain %q", name))
		}
		mediaType, err := s.layerType(ctx, layer)
		if err != nil {
			return nil, err
		}
		layer.MediaType = mediaType
		manifest.Layers = append(manifest.Layers, layer)
	}
	return s.makeImage(ctx, manifest)
}

// makeImage stores a manifest that we made.
func (s *Service) makeImage(ctx context.Context, manifest ocispec.Manifest) (*bundle, error) {
	data, err := json.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("make manifest: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := writeBlob(ctx, s.cfg.Content, desc, data); err != nil {
		return nil, err
	}
	return s.openManifest(ctx, desc)
}

// layerType looks at the first bytes of a layer.
func (s *Service) layerType(ctx context.Context, desc ocispec.Descriptor) (string, error) {
	blob, err := s.cfg.Content.ReaderAt(ctx, desc)
	if err != nil {
		return "", fmt.Errorf("read layer %s: %w", desc.Digest, err)
	}
	defer blob.Close()
	head := make([]byte, 4)
	n, err := blob.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read layer %s: %w", desc.Digest, err)
	}
	switch {
	case strings.HasPrefix(string(head[:n]), "\x1f\x8b"):
		return c8dimages.MediaTypeDockerSchema2LayerGzip, nil
	case strings.HasPrefix(string(head[:n]), "\x28\xb5\x2f\xfd"):
		return c8dimages.MediaTypeDockerSchema2LayerZstd, nil
	}
	return c8dimages.MediaTypeDockerSchema2Layer, nil
}

// layoutImages are the images of an OCI layout; nil when the archive is none.
func (s *Service) layoutImages(ctx context.Context, a *archive) ([]loadedImage, error) {
	desc, ok := a.lookup(ocispec.ImageIndexFile)
	if !ok {
		return nil, nil
	}
	desc.MediaType = ocispec.MediaTypeImageIndex
	var index ocispec.Index
	if err := s.document(ctx, desc, &index); err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: failed to decode index.json: " + err.Error())
	}
	loaded := []loadedImage{}
	byManifest := map[digest.Digest]int{}
	for _, entry := range index.Manifests {
		var tags []reference.NamedTagged
		name := entry.Annotations[c8dimages.AnnotationImageName]
		if name == "" && strings.ContainsAny(entry.Annotations[ocispec.AnnotationRefName], ":/") {
			name = entry.Annotations[ocispec.AnnotationRefName]
		}
		if name != "" {
			named, err := reference.ParseNormalizedNamed(name)
			if err != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
			}
			if tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged); ok {
				tags = append(tags, tagged)
			}
		}
		manifests := []ocispec.Descriptor{entry}
		if c8dimages.IsIndexType(entry.MediaType) {
			var err error
			if manifests, err = s.children(ctx, entry); err != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: " + err.Error())
			}
		}
		found, err := s.bestOf(ctx, manifests)
		if err != nil {
			return nil, err
		}
		if found == nil {
			continue
		}
		if at, seen := byManifest[found.manifest.Digest]; seen {
			loaded[at].tags = append(loaded[at].tags, tags...)
			continue
		}
		byManifest[found.manifest.Digest] = len(loaded)
		loaded = append(loaded, loadedImage{bundle: found, tags: tags})
	}
	return loaded, nil
}

// bestOf opens the manifest that fits this host best and whose blobs all came
// with the archive; nil when there is none.
func (s *Service) bestOf(ctx context.Context, manifests []ocispec.Descriptor) (*bundle, error) {
	var candidates []*bundle
	for _, desc := range manifests {
		if !c8dimages.IsManifestType(desc.MediaType) || desc.Platform != nil && desc.Platform.OS == "unknown" {
			continue
		}
		b, err := s.openManifest(ctx, desc)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid archive: " + err.Error())
		}
		complete := true
		for _, layer := range b.layers {
			if _, err := s.cfg.Content.Info(ctx, layer.Digest); err != nil {
				complete = false
			}
		}
		if complete {
			candidates = append(candidates, b)
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	for _, b := range candidates {
		if fits(s.cfg.Platform, b.platform()) {
			return b, nil
		}
	}
	return candidates[0], nil
}

func ofPlatforms(loaded []loadedImage, wanted []ocispec.Platform) []loadedImage {
	var kept []loadedImage
	for _, l := range loaded {
		for _, want := range wanted {
			if fits(want, l.bundle.platform()) {
				kept = append(kept, l)
				break
			}
		}
	}
	return kept
}

func (s *Service) unpackLoaded(ctx context.Context, b *bundle, quiet bool, report *reporter) error {
	layers := make([]image.Layer, len(b.layers))
	for i, blob := range b.layers {
		layers[i] = image.Layer{Blob: blob, DiffID: b.image.RootFS.DiffIDs[i]}
	}
	_, err := s.cfg.Layers.Unpack(ctx, layers, func(i int, phase image.Phase, current, total int64) {
		if !quiet && phase == image.PhaseExtracting {
			report.layer(image.ShortID(layers[i].DiffID.String()), "Loading layer", current, total)
		}
	})
	return err
}

func (s *Service) nameLoaded(ctx context.Context, loaded []loadedImage, report *reporter) error {
	all, err := s.records(ctx)
	if err != nil {
		return err
	}
	before := map[string]digest.Digest{}
	for _, r := range all {
		before[r.stored.Name] = r.id
	}
	var namings []naming
	for _, l := range loaded {
		for _, tag := range l.tags {
			namings = append(namings, naming{name: tag.String(), target: l.bundle.manifest, bundle: l.bundle})
		}
		if len(l.tags) == 0 && len(references(all, l.bundle.id)) == 0 {
			namings = append(namings, naming{name: image.UntaggedName(l.bundle.id), target: l.bundle.manifest, bundle: l.bundle})
		}
	}
	if err := s.setNames(ctx, namings...); err != nil {
		return err
	}
	tagged := false
	for _, l := range loaded {
		for _, tag := range l.tags {
			if old := before[tag.String()]; old != "" && old != l.bundle.id {
				report.stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n", reference.FamiliarString(tag), old))
			}
			report.stream("Loaded image: " + reference.FamiliarString(tag) + "\n")
			tagged = true
		}
		s.publish(events.ActionLoad, l.bundle.id.String(), l.bundle.id.String(), l.bundle.image.Config.Labels)
	}
	if !tagged {
		for _, l := range loaded {
			report.stream("Loaded image ID: " + l.bundle.id.String() + "\n")
		}
	}
	return nil
}
