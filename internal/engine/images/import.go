package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Import makes an image of one layer from the tar of a root file system and
// returns its id, which it also sends as the last message. A tar that is
// broken changes nothing. ErrInvalidArgument.
func (s *Service) Import(ctx context.Context, opts ImportOptions) (digest.Digest, error) {
	tag, err := image.ParseTag(opts.Repo, opts.Tag)
	if err != nil {
		return "", err
	}
	platform := s.platformOr(opts.Platform)
	if platform.OS != s.cfg.Platform.OS {
		return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("operating system is not supported: %s", platforms.FormatAll(platform)))
	}
	var config dockerspec.DockerOCIImageConfig
	if err := ApplyChanges(&config, opts.Changes); err != nil {
		return "", err
	}
	ctx, report := s.reporter(s.context(ctx), opts.Progress)
	defer report.close()
	ctx, end, err := s.cfg.Lease(ctx, "import-"+s.cfg.NewID())
	if err != nil {
		return "", err
	}
	b, err := s.importLayer(ctx, opts, platform, config)
	if err == nil {
		err = s.nameImported(ctx, b, tag)
	}
	if err = errors.Join(cause(ctx, err), end()); err != nil {
		return "", err
	}
	report.message("", b.id.String())
	s.publish(events.ActionImport, b.id.String(), b.id.String(), b.image.Config.Labels)
	return b.id, nil
}

func (s *Service) nameImported(ctx context.Context, b *bundle, tag reference.NamedTagged) error {
	name := image.UntaggedName(b.id)
	if tag != nil {
		name = tag.String()
	}
	if err := s.setNames(ctx, naming{name: name, target: b.manifest, bundle: b}); err != nil {
		return err
	}
	if tag != nil {
		s.publish(events.ActionTag, b.id.String(), reference.FamiliarString(tag), b.image.Config.Labels)
	}
	return nil
}

func (s *Service) importLayer(ctx context.Context, opts ImportOptions, platform ocispec.Platform, config dockerspec.DockerOCIImageConfig) (*bundle, error) {
	layer, err := s.ingest(ctx, opts.Source, -1, "")
	if err != nil {
		return nil, err
	}
	if layer.MediaType, err = s.layerType(ctx, layer); err != nil {
		return nil, err
	}
	diffID, err := s.diffID(ctx, layer)
	if err != nil {
		return nil, err
	}
	created := s.cfg.Now().UTC()
	doc := struct {
		dockerspec.DockerOCIImage
		Comment string `json:"comment,omitempty"`
	}{Comment: opts.Message}
	doc.Platform = ocispec.Platform{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant}
	doc.Created = &created
	doc.Config = config
	doc.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	doc.History = []ocispec.History{{Created: &created, Comment: opts.Message}}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	configDesc := ocispec.Descriptor{MediaType: c8dimages.MediaTypeDockerSchema2Config, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := writeBlob(ctx, s.cfg.Content, configDesc, data); err != nil {
		return nil, err
	}
	b, err := s.makeImage(ctx, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: c8dimages.MediaTypeDockerSchema2Manifest,
		Config: configDesc, Layers: []ocispec.Descriptor{layer},
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Layers.Unpack(ctx, []image.Layer{{Blob: layer, DiffID: diffID}}, nil); err != nil {
		return nil, err
	}
	return b, s.linkManifest(ctx, b)
}

// diffID is the digest of the tar inside a layer.
func (s *Service) diffID(ctx context.Context, layer ocispec.Descriptor) (digest.Digest, error) {
	blob, err := s.cfg.Content.ReaderAt(ctx, layer)
	if err != nil {
		return "", fmt.Errorf("read layer %s: %w", layer.Digest, err)
	}
	defer blob.Close()
	plain, err := s.cfg.Layers.Decompress(content.NewReader(blob))
	if err != nil {
		return "", badArchive(err)
	}
	defer plain.Close()
	digester := digest.Canonical.Digester()
	if _, err := io.Copy(digester.Hash(), plain); err != nil {
		return "", badArchive(err)
	}
	return digester.Digest(), nil
}
