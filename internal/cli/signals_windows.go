package cli

import (
	"os"
	"syscall"
)

// stays is false for all: Windows delivers only what a user meant.
func stays(os.Signal) bool { return false }

// usualSignals are all that Go delivers here.
func usualSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }
