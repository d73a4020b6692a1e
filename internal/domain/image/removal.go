package image

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// ContainerUse is a container that stands on an image.
type ContainerUse struct {
	ContainerID string
	Running     bool
}

// RemovalRequest is what is known when a user asks for the removal of an image.
type RemovalRequest struct {
	// Asked is the word the user gave; Name is what it was found as, nil when
	// it was an id.
	Asked string
	Name  reference.Named
	ID    digest.Digest
	// References are all that point at the image.
	References []reference.Named
	Uses       []ContainerUse
	Force      bool
}

// Removal is what has to be done.
type Removal struct {
	// Untag lists the references that go, in order.
	Untag []reference.Named
	// Delete: the image itself goes.
	Delete bool
}

// String lists the steps, for tests and logs.
func (r Removal) String() string {
	var b strings.Builder
	for _, ref := range r.Untag {
		fmt.Fprintf(&b, "untag %s\n", reference.FamiliarString(ref))
	}
	if r.Delete {
		b.WriteString("delete\n")
	}
	return b.String()
}

// PlanRemoval decides as Docker does. A name is untagged, and the image goes
// with its last name unless a container uses it; an id stands for the image,
// whose names must then all be in one repository (or force). It fails with
// ErrConflict and Docker's words.
func PlanRemoval(r RemovalRequest) (Removal, error) {
	if r.Name == nil {
		return r.byID()
	}
	return r.byName()
}

func (r RemovalRequest) byName() (Removal, error) {
	if !r.Force && oneRepository(r.References) && len(r.Uses) > 0 {
		return Removal{}, errdefs.ErrConflict.WithMessage(fmt.Sprintf(
			"conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			r.Asked, ShortID(r.Uses[0].ContainerID), ShortID(r.ID.String())))
	}
	plan := Removal{Untag: []reference.Named{r.Name}}
	var rest []reference.Named
	tagged := false
	for _, ref := range r.References {
		if ref.String() == r.Name.String() {
			continue
		}
		rest = append(rest, ref)
		if !isCanonical(ref) && ref.Name() == r.Name.Name() {
			tagged = true
		}
	}
	// The digests of a repository mean nothing without one of its tags.
	if !isCanonical(r.Name) && !tagged {
		var others []reference.Named
		for _, ref := range rest {
			if isCanonical(ref) && ref.Name() == r.Name.Name() {
				plan.Untag = append(plan.Untag, ref)
			} else {
				others = append(others, ref)
			}
		}
		rest = others
	}
	if len(rest) > 0 {
		return plan, nil
	}
	// The image stays, without a name, for a container that uses it.
	plan.Delete = r.conflict(nil, !r.Force) == nil
	return plan, nil
}

func (r RemovalRequest) byID() (Removal, error) {
	references := r.References
	if oneRepository(references) {
		references = nil
	}
	if err := r.conflict(references, !r.Force); err != nil {
		return Removal{}, err
	}
	return Removal{Untag: r.References, Delete: true}, nil
}

// conflict returns why the image with these references must stay; soft
// conflicts are those that force overcomes.
func (r RemovalRequest) conflict(references []reference.Named, soft bool) error {
	unable := func(how, why string) error {
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("conflict: unable to delete %s (%s) - %s", ShortID(r.ID.String()), how, why))
	}
	for _, use := range r.Uses {
		if use.Running {
			return unable("cannot be forced", "image is being used by running container "+ShortID(use.ContainerID))
		}
	}
	if !soft {
		return nil
	}
	if len(references) > 0 {
		return unable("must be forced", "image is referenced in multiple repositories")
	}
	if len(r.Uses) > 0 {
		return unable("must be forced", "image is being used by stopped container "+ShortID(r.Uses[0].ContainerID))
	}
	return nil
}

func isCanonical(ref reference.Named) bool {
	_, ok := ref.(reference.Canonical)
	return ok
}

// oneRepository: there is at most one tag, and every digest is of its
// repository. False when there are no references.
func oneRepository(refs []reference.Named) bool {
	if len(refs) <= 1 {
		return len(refs) == 1
	}
	repositories := map[string]bool{}
	tags := 0
	for _, ref := range refs {
		repositories[ref.Name()] = true
		if !isCanonical(ref) {
			tags++
		}
	}
	return tags <= 1 && len(repositories) == 1
}
