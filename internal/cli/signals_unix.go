//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// stays reports whether a signal is this process's own affair. Go sends SIGURG to itself to preempt goroutines.
func stays(sig os.Signal) bool {
	return sig == unix.SIGCHLD || sig == unix.SIGPIPE || sig == unix.SIGURG
}
