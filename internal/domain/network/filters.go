package network

import (
	"slices"
	"time"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/image"
)

// CheckFilters validates the filters of a list request. ErrInvalidArgument with
// Docker's text.
func CheckFilters(filters map[string][]string) error {
	if err := container.Filters(filters).Validate("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return err
	}
	if values := filters["dangling"]; len(values) > 1 {
		return invalid(`got more than one value for filter key "dangling"`)
	} else if len(values) == 1 && !slices.Contains([]string{"0", "false", "1", "true"}, values[0]) {
		return invalid(`invalid value for filter 'dangling': must be "true" (or "1"), or "false" (or "0")`)
	}
	for _, t := range filters["type"] {
		if t != "custom" && t != "builtin" {
			return invalid("invalid value for filter 'type': must be 'builtin' or 'custom'")
		}
	}
	return nil
}

// PruneFilters validates those of a prune request and returns the moment of
// "until", zero when there is none.
func PruneFilters(filters map[string][]string, now time.Time) (time.Time, error) {
	if err := container.Filters(filters).Validate("label", "label!", "until"); err != nil {
		return time.Time{}, err
	}
	if len(filters["until"]) > 1 {
		return time.Time{}, invalid("invalid filter: 'until' cannot be specified more than once")
	}
	return image.Filters(filters).Until(now)
}

// Passes reports whether a network passes every filter of a list request. used
// tells that it has endpoints.
func Passes(rec Record, used bool, filters map[string][]string) bool {
	f := container.Filters(filters)
	if v := f["dangling"]; len(v) == 1 {
		dangling := !rec.Predefined() && !used
		if dangling != (v[0] == "1" || v[0] == "true") {
			return false
		}
	}
	if types := f["type"]; len(types) > 0 {
		kind := "custom"
		if rec.Predefined() {
			kind = "builtin"
		}
		if types[0] != kind && !slices.Contains(types, kind) {
			return false
		}
	}
	return f.Exact("driver", rec.Driver) && f.Pattern("name", rec.Name) && f.Pattern("id", rec.ID) &&
		f.Labels("label", rec.Labels) && (len(f["label!"]) == 0 || !f.Labels("label!", rec.Labels)) &&
		f.Exact("scope", rec.Network().Scope)
}
