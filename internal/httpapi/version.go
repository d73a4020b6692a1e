package httpapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Version is a version of the Engine API, comparable with <. The zero value is
// no version.
type Version uint64

// The versions this package speaks.
const (
	OldestVersion = Version(1<<32 | 24<<16)
	NewestVersion = Version(1<<32 | 56<<16)
)

// one is version 1.minor: there has never been another major version.
func one(minor int) Version { return Version(1<<32 | uint64(minor)<<16) }

func (v Version) less(o Version) bool { return v < o }

// String is "major.minor"; a third number, which Docker accepts and ignores in
// all but comparisons, is not printed.
func (v Version) String() string {
	return fmt.Sprintf("%d.%d", uint64(v)>>32, uint64(v)>>16&0xffff)
}

// parseVersion reads digits separated by points, as Docker compares them: a
// missing or unreadable number is 0. Numbers beyond 65535 count as 65535.
func parseVersion(s string) Version {
	var part [3]uint64
	for i, field := range strings.SplitN(s, ".", 4) {
		if i == len(part) {
			break
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil && n == 0 {
			continue
		}
		part[i] = min(n, 0xffff)
	}
	return Version(part[0]<<32 | part[1]<<16 | part[2])
}

// splitVersion takes the prefix "/v1.44" off a path: it returns "1.44" and the
// rest, or "" and the whole path when there is no such prefix.
func splitVersion(path string) (version, rest string) {
	tail, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return "", path
	}
	slash := strings.IndexByte(tail, '/')
	if slash <= 0 || strings.Trim(tail[:slash], "0123456789.") != "" {
		return "", path
	}
	return tail[:slash], tail[slash:]
}

// ValidateMinVersion checks a configured lowest API version (Docker's
// min-api-version and DOCKER_MIN_API_VERSION). It fails with ErrInvalidArgument.
func ValidateMinVersion(s string) (Version, error) {
	v := parseVersion(s)
	switch {
	case s == "":
		return 0, errdefs.ErrInvalidArgument.WithMessage("value is empty")
	case strings.EqualFold(s[:1], "v"):
		return 0, errdefs.ErrInvalidArgument.WithMessage(`API version must be provided without "v" prefix`)
	case v.less(OldestVersion):
		return 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("minimum supported API version is %s: %s", OldestVersion, s))
	case NewestVersion.less(v):
		return 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("maximum supported API version is %s: %s", NewestVersion, s))
	}
	return v, nil
}
