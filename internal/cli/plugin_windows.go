package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// become runs the program with our streams and ends as it ends; Windows cannot replace a process.
func (a *app) become(ctx context.Context, path string, args, env []string) error {
	cmd := exec.CommandContext(ctx, path)
	cmd.Args, cmd.Env = args, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitWith(exit.ExitCode())
	}
	return err
}
