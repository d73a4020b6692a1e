// Package version holds what the build says about itself. The variables are
// set by the linker (-X) and nowhere else.
package version

// Version, Commit and Built identify the build; Built is RFC 3339 in UTC.
var (
	Version = "unknown"
	Commit  = "unknown"
	Built   = "unknown"
)

// API versions of the Engine API that every program of ours speaks.
const (
	// MaxAPI is the newest version of the Engine API that the daemon answers.
	MaxAPI = "1.56"
	// MinAPI is the oldest one.
	MinAPI = "1.24"
)
