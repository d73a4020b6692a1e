//go:build unix

package cli

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// become replaces this process with the program.
func (a *app) become(_ context.Context, path string, args, env []string) error {
	return fmt.Errorf("run plugin %s: %w", path, unix.Exec(path, args, env))
}
