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

// usualSignals are those that people, shells and service managers send. SIGPIPE is among them although it stays here: it
// must not end this process when whoever reads its output goes away.
func usualSignals() []os.Signal {
	return []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH, unix.SIGPIPE,
	}
}
