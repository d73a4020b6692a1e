// Package flagvalue holds the flag types of Docker's command line: each turns what a user typed after a flag into a
// value of the Engine API, refuses it with Docker's words, and shows in help texts under Docker's type name.
//
// Every type implements pflag.Value, so the entry points are the New functions (or the zero value where it is usable)
// together with pflag.FlagSet.Var. Nothing here talks to a daemon; some types read the environment (Env) or files
// (ReadPairs), because that is what the flag means. There are no locks: a flag is set by one goroutine.
package flagvalue

import (
	"fmt"
	"slices"
	"strings"
)

// Check accepts one value of a repeated flag, possibly in a normalized form, or says why it is refused.
type Check func(string) (string, error)

// List is a flag that may be given any number of times; the values stay in the order they came.
type List struct {
	values []string
	check  Check
}

// NewList returns an empty list whose values go through check; nil takes everything as it is.
func NewList(check Check) *List { return &List{check: check} }

// Set appends a value.
func (l *List) Set(value string) error {
	if l.check != nil {
		checked, err := l.check(value)
		if err != nil {
			return err
		}
		value = checked
	}
	l.values = append(l.values, value)
	return nil
}

// String shows the list as Go prints a slice; an empty list is the empty string, so that help hides the default.
func (l *List) String() string {
	if len(l.values) == 0 {
		return ""
	}
	return fmt.Sprint(l.values)
}

// Type is "list".
func (*List) Type() string { return "list" }

// Values returns what was given, nil when nothing was.
func (l *List) Values() []string { return l.values }

// ValuesOrEmpty is Values with an empty slice in place of nil, for fields that older clients always sent as [].
func (l *List) ValuesOrEmpty() []string {
	if l.values == nil {
		return []string{}
	}
	return l.values
}

// Has reports whether value was given.
func (l *List) Has(value string) bool { return slices.Contains(l.values, value) }

// Map is a repeated KEY=VALUE flag; the last value of a key wins.
type Map struct {
	values map[string]string
	check  Check
}

// NewMap returns an empty map whose entries go through check; nil takes everything.
func NewMap(check Check) *Map { return &Map{values: map[string]string{}, check: check} }

// Set stores one KEY=VALUE; without "=" the value is empty.
func (m *Map) Set(value string) error {
	if m.check != nil {
		checked, err := m.check(value)
		if err != nil {
			return err
		}
		value = checked
	}
	k, v, _ := strings.Cut(value, "=")
	m.values[k] = v
	return nil
}

// String is Go's form of the map ("map[]" when empty, which help shows as the default, as Docker's does).
func (m *Map) String() string { return fmt.Sprint(m.values) }

// Type is "map".
func (*Map) Type() string { return "map" }

// Values returns the map; never nil.
func (m *Map) Values() map[string]string { return m.values }
