package container

import "fmt"

// classified is an error whose whole text is what the user reads, and whose
// class is known where the cause was known.
type classified struct {
	class error
	text  string
}

func (e classified) Error() string { return e.text }
func (e classified) Unwrap() error { return e.class }

// withText gives Docker's exact wording a class of errdefs.
func withText(class error, text string) error { return classified{class: class, text: text} }

// withTextf is withText with a format.
func withTextf(class error, format string, args ...any) error {
	return classified{class: class, text: fmt.Sprintf(format, args...)}
}
