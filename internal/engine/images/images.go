// Package images holds the use cases about images: pull, push, load, save,
// import, tag, list, inspect, remove, history and prune.
//
// The entry point is [New]. An image is identified by the digest of its
// configuration, as Docker's classic store and its clients do
// (docs/decisions/0041); a reference (name:tag or name@digest) is one record of
// containerd's image store that points at a manifest or an index.
//
// Lock order: [Service].names (one change of references at a time) before
// [Service].mu (the cache of resolved targets). Neither is held over the
// network or over extraction; names is held over transactions of the store.
package images

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Publisher takes the events of images; it never blocks for long.
type Publisher interface {
	Publish(events.Message)
}

// OpenRepository opens a session with the registry that ref names. It does no
// network traffic itself. It fails with ErrInvalidArgument for a name no
// registry can have.
type OpenRepository func(ctx context.Context, ref reference.Named, access image.Access) (Repository, error)

// Repository is a session with one repository of a registry. Its errors have
// Docker's words and classes: ErrNotFound for what does not exist or may not
// be seen, ErrUnauthenticated, ErrPermissionDenied, ErrUnavailable.
type Repository interface {
	// Resolve returns the descriptor of the manifest or index that ref (a tag
	// or a digest of this repository) names, and its bytes, verified.
	Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error)
	// Tags lists every tag of the repository.
	Tags(ctx context.Context) ([]string, error)
	// Fetch brings a blob or manifest into dst, verified. What arrived before
	// a failure stays in dst's ingest and a later call goes on from there. An
	// already present blob is no error. Progress may be nil; it is called with
	// the bytes present so far, starting with those found. Transient failures
	// are retried; retry (may be nil) is told before each wait.
	Fetch(ctx context.Context, desc ocispec.Descriptor, dst content.Store, opts FetchOptions) error
	// Push uploads one blob or manifest. It returns true when the registry
	// already had it (or could mount it from another repository). A manifest
	// is stored under tag when that is not empty.
	Push(ctx context.Context, desc ocispec.Descriptor, tag string, src content.Provider, progress func(done int64)) (existed bool, err error)
}

// FetchOptions of Repository.Fetch.
type FetchOptions = image.FetchOptions

// Layers keeps the unpacked layers.
type Layers interface {
	// Unpack makes the chain of snapshots of the layers (bottom first) and
	// returns its chain id, empty for no layers. Layers that are there are
	// not extracted again. On failure the layers below the failed one stay
	// and nothing of it is left; the call may be repeated.
	Unpack(ctx context.Context, layers []image.Layer, report image.LayerReport) (digest.Digest, error)
	// Has reports whether the chain is unpacked.
	Has(ctx context.Context, chain digest.Digest) (bool, error)
	// Size in bytes of each layer of the chain, bottom first. ErrNotFound.
	Sizes(ctx context.Context, chain digest.Digest) ([]int64, error)
	// Dirs are the folders of the chain, the topmost first. ErrNotFound.
	Dirs(ctx context.Context, chain digest.Digest) ([]string, error)
	// Decompress returns the tar inside r, whatever it is compressed with.
	// The caller closes it; r stays its own.
	Decompress(r io.Reader) (io.ReadCloser, error)
	// Label is the name and value of the label that keeps the chain alive for
	// as long as the content it is set on.
	Label(chain digest.Digest) (name, value string)
}

// Use is a container that stands on an image.
type Use = image.ContainerUse

// Image is a resolved image: one platform of a reference's target.
type Image struct {
	// ID is the digest of the configuration.
	ID digest.Digest
	// Name is the reference it was found by, in Docker's familiar form, or
	// the id when it was found by that.
	Name string
	// Target is what the reference points at: a manifest or an index.
	Target ocispec.Descriptor
	// Manifest of the platform; Target itself when that is no index.
	Manifest ocispec.Descriptor
	// ChainID names the unpacked layers; empty for an image without layers.
	ChainID digest.Digest
	Config  dockerspec.DockerOCIImage
	// Size in bytes of the unpacked layers.
	Size int64
}

// PullOptions of Service.Pull.
type PullOptions struct {
	// Ref is a name in any form that Docker takes; Tag, when not empty, is a
	// tag or a digest that replaces what Ref has (API parameter "tag").
	Ref, Tag string
	// All pulls every tag of the repository when Ref has none.
	All bool
	// Platform nil is this host's.
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	Headers  map[string][]string
	// Progress takes the messages of Docker's stream; an error ends the pull.
	Progress func(jsonstream.Message) error
}

// PushOptions of Service.Push.
type PushOptions struct {
	// Ref without a tag pushes all of the repository's tags.
	Ref, Tag string
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	Headers  map[string][]string
	Progress func(jsonstream.Message) error
}

// LoadOptions of Service.Load.
type LoadOptions struct {
	// Quiet leaves out the progress of layers.
	Quiet     bool
	Platforms []ocispec.Platform
	Progress  func(jsonstream.Message) error
}

// SaveOptions of Service.Save.
type SaveOptions struct {
	Platforms []ocispec.Platform
}

// ImportOptions of Service.Import.
type ImportOptions struct {
	// Source is a tar of a root file system, plain or compressed.
	Source io.Reader
	// Repo and Tag name the image; both empty leaves it without a name.
	Repo, Tag string
	Message   string
	// Changes are Dockerfile instructions (CMD, ENV, …).
	Changes  []string
	Platform *ocispec.Platform
	Progress func(jsonstream.Message) error
}

// ListOptions of Service.List.
type ListOptions struct {
	// All also lists intermediate images.
	All        bool
	Filters    image.Filters
	SharedSize bool
	Manifests  bool
}

// InspectOptions of Service.Inspect.
type InspectOptions struct {
	Platform  *ocispec.Platform
	Manifests bool
}

// RemoveOptions of Service.Remove.
type RemoveOptions struct {
	Force bool
	// PruneChildren also removes untagged parents that nothing else uses.
	PruneChildren bool
	Platforms     []ocispec.Platform
}
