package image

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Phase is what happens to a layer on its way into the store. The texts are
// those Docker's clients show.
type Phase string

// The phases, in the order in which a layer that is pulled goes through them.
const (
	PhaseQueued      Phase = "Pulling fs layer"
	PhaseWaiting     Phase = "Waiting"
	PhaseDownloading Phase = "Downloading"
	PhaseVerifying   Phase = "Verifying Checksum"
	PhaseDownloaded  Phase = "Download complete"
	PhaseExtracting  Phase = "Extracting"
	PhaseComplete    Phase = "Pull complete"
	PhaseExists      Phase = "Already exists"
)

// Layer is one layer of an image that is unpacked.
type Layer struct {
	// Blob is the layer as it is transported: a tar, mostly compressed.
	Blob ocispec.Descriptor
	// DiffID is the digest of the tar without compression.
	DiffID digest.Digest
	// Ready blocks until the blob is in the content store; nil means it is.
	// It is asked only when the layer has to be extracted, so that layers the
	// store already has are never fetched for their own sake.
	Ready func(ctx context.Context) error
}

// LayerReport tells how far a layer is. Calls for one layer come one after the
// other, calls for different layers at the same time.
type LayerReport func(layer int, phase Phase, current, total int64)

// FetchOptions tells how a blob is brought from a registry.
type FetchOptions struct {
	// Progress may be nil; it gets the bytes that are present so far.
	Progress func(done int64)
	// Verifying may be nil; it is called once when all bytes are there and
	// the digest is checked.
	Verifying func()
	// Retry may be nil; it is called with the seconds that are left before
	// the next attempt, once a second.
	Retry func(seconds int, cause error)
}
