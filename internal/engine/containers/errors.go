package containers

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// classified is an error whose whole text is what the user reads.
type classified struct {
	class, cause error
	text         string
}

func (e classified) Error() string { return e.text }

func (e classified) Unwrap() []error {
	if e.cause == nil {
		return []error{e.class}
	}
	return []error{e.class, e.cause}
}

// withText gives Docker's exact wording a class of errdefs.
func withText(class error, format string, args ...any) error {
	return classified{class: class, text: fmt.Sprintf(format, args...)}
}

// conflict makes an ErrConflict with exactly this text.
func conflict(format string, args ...any) error {
	return withText(errdefs.ErrConflict, format, args...)
}
