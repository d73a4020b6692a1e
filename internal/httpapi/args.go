package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parseForm reads the query (and a form in the body). A body of another kind is
// no error: every POST of this API may come without a content type.
func (r *request) parseForm() error {
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return r.tooLarge(tooLarge)
	}
	if _, _, mimeErr := mime.ParseMediaType(r.Header.Get("Content-Type")); mimeErr != nil && r.Header.Get("Content-Type") != "" {
		return nil
	}
	return invalid(err.Error())
}

func (r *request) tooLarge(err *http.MaxBytesError) error {
	return fmt.Errorf("request body is too large: %s %s takes at most %d bytes: %w", r.Method, r.route.Path, err.Limit, err)
}

// query is the first value of a query parameter.
func (r *request) query(key string) string { return r.Form.Get(key) }

// flag reads a boolean as Docker does: empty, 0, no, false and none are false,
// everything else is true.
func (r *request) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.Form.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag for parameters that have a default.
func (r *request) flagOr(key string, byDefault bool) bool {
	if _, ok := r.Form[key]; !ok {
		return byDefault
	}
	return r.flag(key)
}

// seconds reads an optional whole number; nil when it is not given.
func (r *request) seconds(key string) (*int, error) {
	s := r.query(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, invalid(err.Error())
	}
	return &n, nil
}

// size reads a required number of terminal rows or columns.
func (r *request) size(key, what string) (uint32, error) {
	s := r.query(key)
	digits, negative := strings.CutPrefix(s, "-")
	cause := strconv.ErrSyntax
	if digits != "" && digits[0] != '+' {
		n, err := strconv.ParseUint(digits, 10, 32)
		switch {
		case err != nil:
			cause = errors.Unwrap(err)
		case negative:
			cause = strconv.ErrRange
		default:
			return uint32(n), nil
		}
	}
	return 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid resize %s %q: %v", what, s, cause))
}

// filters reads the JSON of a filters parameter into key → values. Docker sends
// {"label":{"a":true}}; clients of API 1.21 sent {"label":["a"]}, and both are
// still understood. A value that is set to false does not filter.
func (r *request) filters() (map[string][]string, error) {
	raw := r.query("filters")
	out := map[string][]string{}
	if raw == "" {
		return out, nil
	}
	var sets map[string]map[string]bool
	if json.Unmarshal([]byte(raw), &sets) == nil {
		for key, set := range sets {
			out[key] = []string{}
			for value := range set {
				out[key] = append(out[key], value)
			}
		}
		return out, nil
	}
	if json.Unmarshal([]byte(raw), &out) == nil && out != nil {
		return out, nil
	}
	return nil, invalid("invalid filter")
}

// timestamp reads "seconds" or "seconds.nanoseconds" since 1970; the zero time
// when it is not given.
func (r *request) timestamp(key, quote string) (time.Time, error) {
	s := r.query(key)
	if s == "" {
		return time.Time{}, nil
	}
	refuse := func(cause string) (time.Time, error) {
		return time.Time{}, invalid(fmt.Sprintf("invalid value for %s%s%s: invalid timestamp %q: %s", quote, key, quote, s, cause))
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return refuse(fmt.Sprintf("invalid seconds %q: %v", whole, errors.Unwrap(err)))
	}
	if len(fraction) > 20 {
		return refuse(fmt.Sprintf("invalid nanoseconds: length %d exceeds maximum 20", len(fraction)))
	}
	for i := range len(fraction) {
		if c := fraction[i]; c < '0' || c > '9' {
			return refuse(fmt.Sprintf("invalid nanoseconds: invalid character %q at position %d", c, i))
		}
	}
	nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return refuse(err.Error())
	}
	return time.Unix(sec, nanos).UTC(), nil
}

// platform reads a platform written as os/arch/variant; nil when not given.
func (r *request) platform() (*ocispec.Platform, error) {
	s := r.query("platform")
	if s == "" {
		return nil, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, invalid(err.Error())
	}
	return &p, nil
}

// platformJSON reads platforms written as JSON objects, as the image operations
// take them since API 1.48.
func platformJSON(values []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range values {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return nil, invalid("failed to parse platform: " + err.Error())
		}
		if p.OS == "" && p.Architecture == "" && (p.Variant != "" || p.OSVersion != "" || len(p.OSFeatures) > 0) {
			return nil, invalid("optional platform fields provided, but OS and Architecture are missing")
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, invalid("both OS and Architecture must be provided")
		}
		out = append(out, p)
	}
	return out, nil
}

// imagePlatform reads at most one JSON platform; nil when not given.
func (r *request) imagePlatform() (*ocispec.Platform, error) {
	s := r.query("platform")
	if s == "" {
		return nil, nil
	}
	list, err := platformJSON([]string{s})
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// checkJSON refuses a body that does not call itself JSON. A missing content
// type is fine as long as there is no body.
func (r *request) checkJSON() error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && (r.Body == nil || r.ContentLength == 0) {
		return nil
	}
	kind, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return invalid(fmt.Sprintf("malformed Content-Type header (%s): %v", ct, err))
	}
	if kind != "application/json" {
		return invalid(fmt.Sprintf("unsupported Content-Type header (%s): must be 'application/json'", ct))
	}
	return nil
}

// json decodes the one JSON document of the body into out; an absent body
// leaves out as it is.
func (r *request) json(out any) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(out); err != nil {
		return r.badJSON(err)
	}
	if dec.More() {
		return invalid("unexpected content after JSON")
	}
	return nil
}

func (r *request) badJSON(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return r.tooLarge(tooLarge)
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return invalid("invalid JSON: " + err.Error())
}
