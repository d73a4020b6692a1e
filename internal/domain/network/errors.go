package network

import (
	"errors"

	"github.com/containerd/errdefs"
)

// PortBusy is the error of a host port that another program has bound. Docker
// answers it with 500 and this text.
type PortBusy struct {
	Binding Binding
	// Cause is the text of the system's error.
	Cause string
}

func (e PortBusy) Error() string {
	return "failed to bind host port " + e.Binding.String() + ": " + e.Cause
}

// Unwrap gives the error its class.
func (PortBusy) Unwrap() error { return errdefs.ErrInternal }

// IsPortBusy finds the binding that somebody else holds, if that is what err
// is about.
func IsPortBusy(err error) (Binding, bool) {
	var busy PortBusy
	if errors.As(err, &busy) {
		return busy.Binding, true
	}
	return Binding{}, false
}
