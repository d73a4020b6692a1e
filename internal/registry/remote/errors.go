package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// The codes of the distribution spec that Docker treats by name.
const (
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeDenied          = "DENIED"
	codeUnauthorized    = "UNAUTHORIZED"
	codeTooMany         = "TOOMANYREQUESTS"
)

// statusError is an answer that is no success.
type statusError struct {
	status  int
	line    string
	code    string
	message string
	detail  any
}

// Error is the text that the registry client of Docker makes of it.
func (e *statusError) Error() string {
	if e.code == "" {
		return "received unexpected HTTP status: " + e.line
	}
	text := strings.ToLower(strings.ReplaceAll(e.code, "_", " ")) + ": " + e.message
	if detail, ok := e.detail.(string); ok && detail != "" {
		text += " - " + detail
	}
	return text
}

// Is gives the error its class when nothing more is known about the act.
func (e *statusError) Is(target error) bool {
	switch {
	case e.status == http.StatusNotFound:
		return target == errdefs.ErrNotFound
	case e.status == http.StatusTooManyRequests || e.code == codeTooMany:
		return target == errdefs.ErrResourceExhausted
	case e.status == http.StatusUnauthorized:
		return target == errdefs.ErrUnauthenticated
	case e.status == http.StatusForbidden:
		return target == errdefs.ErrPermissionDenied
	}
	return target == errdefs.ErrUnknown
}

// transient: the same request may succeed in a moment.
func (e *statusError) transient() bool {
	return e.status >= 500 || e.status == http.StatusRequestTimeout
}

// statusError reads the error inside a response; it does not close it.
func (r *Repository) statusError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return &transportError{err}
	}
	return newStatusError(resp.StatusCode, resp.Status, body)
}

func newStatusError(status int, line string, body []byte) error {
	e := &statusError{status: status, line: line}
	var parsed struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Detail  any    `json:"detail"`
		} `json:"errors"`
		// Token servers and old registries answer with one of these.
		Details string `json:"details"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &parsed) == nil {
		switch {
		case len(parsed.Errors) > 0:
			first := parsed.Errors[0]
			e.code, e.message, e.detail = first.Code, first.Message, first.Detail
			if e.message == "" {
				e.message = strings.ToLower(strings.ReplaceAll(e.code, "_", " "))
			}
		case parsed.Details != "":
			e.message = parsed.Details
		default:
			e.message = parsed.Message
		}
	}
	if e.code == "" {
		switch status {
		case http.StatusUnauthorized:
			e.code = codeUnauthorized
			if e.message == "" {
				e.message = "authentication required"
			}
		case http.StatusForbidden:
			e.code = codeDenied
			if e.message == "" {
				e.message = "requested access to the resource is denied"
			}
		case http.StatusTooManyRequests:
			e.code = codeTooMany
			if e.message == "" {
				e.message = "too many requests"
			}
		}
	}
	return e
}

// authError is the failure to get a token for req.
func (r *Repository) authError(req *http.Request, err error) error {
	var unexpected remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		return newStatusError(unexpected.StatusCode, unexpected.Status, unexpected.Body)
	}
	if req.Context().Err() != nil {
		return req.Context().Err()
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		// Docker's words for a registry that wants a password.
		return errdefs.ErrUnknown.WithMessage(fmt.Sprintf("%s %q: no basic auth credentials", method(req.Method), req.URL.Redacted()))
	}
	return &transportError{fmt.Errorf("%s %q: %w", method(req.Method), req.URL.Redacted(), err)}
}

// method as net/http writes it in its errors.
func method(m string) string {
	if m == "" {
		return "Get"
	}
	return m[:1] + strings.ToLower(m[1:])
}

// pullError gives the failure of a pull Docker's words and class.
func (r *Repository) pullError(ref reference.Named, err error) error {
	var e *statusError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.code == codeUnauthorized && r.hasCredentials():
		return errdefs.ErrUnauthenticated.WithMessage(e.Error())
	case e.code == codeUnauthorized:
		// Anonymous: registries do not tell a missing repository from a private one.
		return errdefs.ErrNotFound.WithMessage(accessDenied("pull", r.name) + ": denied: requested access to the resource is denied")
	case e.code == codeDenied:
		return errdefs.ErrNotFound.WithMessage(accessDenied("pull", r.name) + ": " + e.Error())
	case e.code == codeManifestUnknown:
		return errdefs.ErrNotFound.WithMessage("manifest for " + reference.FamiliarString(ref) + " not found: " + e.Error())
	case e.code == codeNameUnknown:
		return errdefs.ErrNotFound.WithMessage("repository " + reference.FamiliarName(ref) + " not found: " + e.Error())
	case e.status == http.StatusNotFound && e.code == "":
		return errdefs.ErrNotFound.WithMessage("manifest for " + reference.FamiliarString(ref) + " not found: manifest unknown: manifest unknown")
	}
	return err
}

func accessDenied(act string, name reference.Named) string {
	return act + " access denied for " + reference.FamiliarName(name) + ", repository does not exist or may require 'docker login'"
}

// pushError gives the failure of a push Docker's words and class.
func (r *Repository) pushError(err error) error {
	var e *statusError
	if !errors.As(err, &e) {
		return err
	}
	switch e.code {
	case codeUnauthorized, codeDenied:
		return errdefs.ErrPermissionDenied.WithMessage(e.Error())
	}
	return err
}

func (r *Repository) hasCredentials() bool {
	for _, c := range r.candidates {
		if c.creds != (creds{}) {
			return true
		}
	}
	return false
}

// retryable reports whether the same act may succeed in a moment.
func retryable(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.transient()
	}
	var transport *transportError
	return errors.As(err, &transport) || errors.Is(err, io.ErrUnexpectedEOF)
}
