package container

import (
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Filters are the filters of a list request: values by key. A key that is not
// there filters nothing; of several values one must match, of several labels
// every one.
type Filters map[string][]string

// Has reports whether key is there, with or without values.
func (f Filters) Has(key string) bool {
	_, ok := f[key]
	return ok
}

// Validate refuses keys that are not in accepted. ErrInvalidArgument.
func (f Filters) Validate(accepted ...string) error {
	for key := range f {
		if !slices.Contains(accepted, key) {
			return withTextf(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	return nil
}

// Exact reports whether s is one of the values.
func (f Filters) Exact(key, s string) bool {
	return len(f[key]) == 0 || slices.Contains(f[key], s)
}

// Prefix reports whether a value is s or its beginning.
func (f Filters) Prefix(key, s string) bool {
	return f.Exact(key, s) || slices.ContainsFunc(f[key], func(v string) bool { return strings.HasPrefix(s, v) })
}

// Pattern reports whether a value is s or a regular expression found in it. An
// expression that is none matches nothing.
func (f Filters) Pattern(key, s string) bool {
	if f.Exact(key, s) {
		return true
	}
	for _, v := range f[key] {
		if re, err := regexp.Compile(v); err == nil && re.MatchString(s) {
			return true
		}
	}
	return false
}

// Labels reports whether every value, "key" or "key=value", is in labels.
func (f Filters) Labels(key string, labels map[string]string) bool {
	for _, want := range f[key] {
		k, v, hasValue := strings.Cut(want, "=")
		have, ok := labels[k]
		if !ok || hasValue && have != v {
			return false
		}
	}
	return true
}

// Bool reads a filter that is true or false; def when it is not there.
// ErrInvalidArgument.
func (f Filters) Bool(key string, def bool) (bool, error) {
	values, ok := f[key]
	if !ok {
		return def, nil
	}
	yes := slices.Contains(values, "1") || slices.Contains(values, "true")
	no := slices.Contains(values, "0") || slices.Contains(values, "false")
	if yes == no {
		return def, withTextf(errdefs.ErrInvalidArgument, "invalid filter '%s=%v'", key, values)
	}
	return yes, nil
}
