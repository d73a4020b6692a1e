package container

import (
	"strings"

	"github.com/containerd/errdefs"
)

const (
	idChars   = "0123456789abcdef"
	nameChars = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
)

// ParseName checks the name of a container and returns it without the leading
// slash that clients may give it. ErrInvalidArgument.
func ParseName(raw string) (string, error) {
	name := strings.TrimPrefix(raw, "/")
	if !validName(name) {
		return "", withTextf(errdefs.ErrInvalidArgument, "Invalid container name (%s), only %s are allowed", raw, nameChars)
	}
	return name, nil
}

func validName(name string) bool {
	// The pattern asks for two characters at least.
	if len(name) < 2 {
		return false
	}
	for i, r := range []byte(name) {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return true
}

// ShortID is the form of an id that people read: its first 12 digits.
func ShortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	return id[:min(len(id), 12)]
}

// LooksLikeID reports whether ref can be the beginning of an id.
func LooksLikeID(ref string) bool {
	return ref != "" && len(ref) <= 64 && strings.Trim(ref, idChars) == ""
}

// NotFound is Docker's answer to a container that is not there.
func NotFound(ref string) error {
	return withTextf(errdefs.ErrNotFound, "No such container: %s", ref)
}

// NameConflict is Docker's answer to a name that another container has.
func NameConflict(name, id string) error {
	return withTextf(errdefs.ErrConflict,
		"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
		"/"+name, id)
}
