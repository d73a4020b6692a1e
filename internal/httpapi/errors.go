package httpapi

import (
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
)

// errorBody is what every refused request is answered with.
type errorBody struct {
	Message string `json:"message"`
}

// statusOf is the only place where an error becomes an HTTP status. The
// outermost class in the chain counts, so that a use case can re-class what its
// store found. An error without a class is a fault of ours: 500.
func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	switch class := errdefs.Resolve(err); {
	case errdefs.IsNotFound(class):
		return http.StatusNotFound
	case errdefs.IsInvalidArgument(class), errdefs.IsFailedPrecondition(class), errdefs.IsOutOfRange(class):
		return http.StatusBadRequest
	case errdefs.IsConflict(class), errdefs.IsAlreadyExists(class):
		return http.StatusConflict
	case errdefs.IsUnauthorized(class):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(class):
		return http.StatusForbidden
	case errdefs.IsNotModified(class):
		return http.StatusNotModified
	case errdefs.IsNotImplemented(class):
		return http.StatusNotImplemented
	case errdefs.IsResourceExhausted(class):
		return http.StatusTooManyRequests
	case errdefs.IsUnavailable(class):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// invalid is a refusal of what the client sent.
func invalid(text string) error { return errdefs.ErrInvalidArgument.WithMessage(text) }

func notFound(text string) error { return errdefs.ErrNotFound.WithMessage(text) }

func notImplemented(text string) error { return errdefs.ErrNotImplemented.WithMessage(text) }
