package container

import (
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// ImageUse names the image whose layers a container stands on, for the store:
// one shared read-only view and one lease per image in use.
type ImageUse struct {
	// ID is the image's id (its target digest); Manifest the digest of the
	// platform's manifest; ChainID the chain of its layers, empty for an image
	// without layers.
	ID       digest.Digest `json:"id"`
	Manifest digest.Digest `json:"manifest,omitempty"`
	ChainID  digest.Digest `json:"chainId,omitempty"`
}

// NameTaken is returned by a store when a name belongs to another container.
// Its class is errdefs.ErrAlreadyExists.
type NameTaken struct {
	// Name without the leading slash, and the ID of the container that has it.
	Name, ID string
}

func (e NameTaken) Error() string {
	return "name " + e.Name + " is already used by container " + e.ID
}

// Unwrap gives the error its class.
func (NameTaken) Unwrap() error { return errdefs.ErrAlreadyExists }
