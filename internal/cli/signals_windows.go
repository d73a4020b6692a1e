package cli

import "os"

// stays is false for all: Windows delivers only what a user meant.
func stays(os.Signal) bool { return false }
