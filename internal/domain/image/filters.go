package image

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Filters are the conditions of a list or prune request, by key. Several
// values of one key are alternatives, except for labels, which must all match.
type Filters map[string][]string

// Check fails with ErrInvalidArgument for a key that is not accepted.
func (f Filters) Check(accepted ...string) error {
	for key := range f {
		if !slices.Contains(accepted, key) {
			return errdefs.ErrInvalidArgument.WithMessage("invalid filter '" + key + "'")
		}
	}
	return nil
}

// Bool reads a condition that is true or false. ErrInvalidArgument.
func (f Filters) Bool(key string, missing bool) (bool, error) {
	values, given := f[key]
	if !given {
		return missing, nil
	}
	yes := slices.Contains(values, "1") || slices.Contains(values, "true")
	no := slices.Contains(values, "0") || slices.Contains(values, "false")
	if yes == no {
		return false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter '%s=%s'", key, values))
	}
	return yes, nil
}

// MatchLabels reports whether labels have every label of "label" and none of
// "label!" ("key", "key=value", "key!=value").
func (f Filters) MatchLabels(labels map[string]string) bool {
	for _, condition := range f["label"] {
		if !hasLabel(labels, condition) {
			return false
		}
	}
	for _, condition := range f["label!"] {
		if hasLabel(labels, condition) {
			return false
		}
	}
	return true
}

func hasLabel(labels map[string]string, condition string) bool {
	key, value, exact := strings.Cut(condition, "=")
	if negated, ok := strings.CutSuffix(key, "!"); ok && exact {
		return labels[negated] != value
	}
	got, ok := labels[key]
	return ok && (!exact || got == value)
}

// MatchReference reports whether one of the patterns of "reference" (as
// path.Match reads them) matches the reference in one of the ways a user may
// write it.
func (f Filters) MatchReference(ref reference.Named) bool {
	ways := []string{
		reference.FamiliarString(ref), reference.FamiliarName(ref), reference.TagNameOnly(ref).String(), ref.Name(),
	}
	for _, pattern := range f["reference"] {
		for _, way := range ways {
			if matched, err := path.Match(pattern, way); err == nil && matched {
				return true
			}
		}
	}
	return false
}

// Until reads the moments of "until": a duration before now ("10m"), a date
// or time (in now's zone when it names none), or seconds since 1970. It returns
// the earliest, zero when none was given. ErrInvalidArgument.
func (f Filters) Until(now time.Time) (time.Time, error) {
	var earliest time.Time
	for _, value := range f["until"] {
		moment, err := parseMoment(value, now)
		if err != nil {
			return time.Time{}, errdefs.ErrInvalidArgument.WithMessage("invalid value for 'until' filter: " + err.Error())
		}
		if earliest.IsZero() || moment.Before(earliest) {
			earliest = moment
		}
	}
	return earliest, nil
}

var zonedLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00"}
var localLayouts = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"}

func parseMoment(value string, now time.Time) (time.Time, error) {
	if duration, err := time.ParseDuration(value); err == nil && value != "0" {
		return now.Add(-duration), nil
	}
	for _, layout := range zonedLayouts {
		if moment, err := time.Parse(layout, value); err == nil {
			return moment, nil
		}
	}
	for _, layout := range localLayouts {
		if moment, err := time.ParseInLocation(layout, value, now.Location()); err == nil {
			return moment, nil
		}
	}
	seconds, fraction, _ := strings.Cut(value, ".")
	whole, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("failed to parse value as time or duration: %q", value)
	}
	nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("failed to parse value as time or duration: %q", value)
	}
	return time.Unix(whole, nanos), nil
}
