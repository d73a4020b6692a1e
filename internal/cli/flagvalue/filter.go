package flagvalue

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/moby/moby/client"
)

// Filter is the repeated --filter KEY=VALUE. The values of one key are alternatives, different keys must all match;
// the daemon decides which keys exist.
type Filter struct{ values client.Filters }

// Set adds one KEY=VALUE; an empty value is ignored.
func (f *Filter) Set(value string) error {
	if value == "" {
		return nil
	}
	key, val, ok := strings.Cut(value, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	if f.values == nil {
		f.values = client.Filters{}
	}
	f.values.Add(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(val))
	return nil
}

// String is the API's JSON form, empty when no filter was given.
func (f *Filter) String() string {
	if len(f.values) == 0 {
		return ""
	}
	text, err := json.Marshal(f.values)
	if err != nil {
		return "invalid filters"
	}
	return string(text)
}

// Type is "filter".
func (*Filter) Type() string { return "filter" }

// Value returns the filters, never nil; the caller may add to its copy.
func (f *Filter) Value() client.Filters {
	if f.values == nil {
		return client.Filters{}
	}
	return f.values.Clone()
}
