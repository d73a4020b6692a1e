package image

import (
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// invalid gives a parser's error Docker's class and keeps its words.
func invalid(err error) error { return errdefs.ErrInvalidArgument.WithMessage(err.Error()) }

// Parse reads the name of an image as users write it ("redis", "redis:7",
// "host:5000/a/b@sha256:…"); tag, when not empty, is a tag or a digest that
// replaces what name has. The result has neither when none was given.
// ErrInvalidArgument with Docker's text.
func Parse(name, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, invalid(err)
	}
	if tag != "" {
		if dgst, derr := digest.Parse(tag); derr == nil {
			named, err = reference.WithDigest(reference.TrimNamed(named), dgst)
		} else {
			named, err = reference.WithTag(reference.TrimNamed(named), tag)
		}
		if err != nil {
			return nil, invalid(err)
		}
	}
	if reference.FamiliarName(named) == "scratch" {
		return nil, errdefs.ErrPermissionDenied.WithMessage("'scratch' is a reserved name")
	}
	return Exact(named), nil
}

// Exact drops the tag of a reference that has a digest, too: the digest is
// what counts.
func Exact(named reference.Named) reference.Named {
	digested, ok := named.(reference.Digested)
	if !ok {
		return named
	}
	exact, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	if err != nil {
		return named
	}
	return exact
}

// ParseTag reads the new name of an image that is tagged, imported or
// committed; an empty repo is no name (nil). ErrInvalidArgument.
func ParseTag(repo, tag string) (reference.NamedTagged, error) {
	if repo == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, invalid(err)
	}
	if _, digested := named.(reference.Digested); digested {
		return nil, errdefs.ErrInvalidArgument.WithMessage("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			return nil, invalid(err)
		}
		return tagged, nil
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	return tagged, nil
}

// Query is what a user may mean by a word that names an image.
type Query struct {
	// Name, with the tag latest when it had none; nil when the word can only be
	// an id.
	Name reference.Named
	// ID is a complete id; empty when the word is none.
	ID digest.Digest
	// Prefix is the beginning of an id, hexadecimal digits only; empty when
	// the word cannot be one.
	Prefix string
	// Shown is the word as Docker repeats it in errors.
	Shown string
}

// ParseQuery reads a word that names an image. ErrInvalidArgument.
func ParseQuery(word string) (Query, error) {
	ref, err := reference.ParseAnyReference(word)
	if err != nil {
		return Query{}, invalid(err)
	}
	var q Query
	named, ok := ref.(reference.Named)
	if !ok {
		digested, ok := ref.(reference.Digested)
		if !ok {
			return Query{}, errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
		}
		q.ID, q.Shown = digested.Digest(), digested.Digest().String()
		return q, nil
	}
	q.Name = Exact(reference.TagNameOnly(named))
	q.Shown = reference.FamiliarString(reference.TagNameOnly(named))
	if hex := strings.TrimPrefix(word, "sha256:"); isHex(hex) {
		q.Prefix = hex
	}
	return q, nil
}

func isHex(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// NotFound is Docker's error for an image that is not there.
func (q Query) NotFound() error {
	return errdefs.ErrNotFound.WithMessage("No such image: " + q.Shown)
}

// ShortID is the first 12 hexadecimal digits of an id.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// untagged begins the store's name of an image that has no reference left.
// No reference of a user can look like it: it has no normalized domain.
const untagged = "untagged@"

// UntaggedName is the name under which the store keeps an image without a
// reference.
func UntaggedName(id digest.Digest) string { return untagged + id.String() }

// ParseStored reads a name of the store; ok is false for images without a
// reference.
func ParseStored(name string) (ref reference.Named, ok bool) {
	if strings.HasPrefix(name, untagged) {
		return nil, false
	}
	named, err := reference.ParseNormalizedNamed(name)
	return named, err == nil
}
