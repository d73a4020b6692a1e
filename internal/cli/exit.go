package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// statusError ends the process with a status of its own. Without text and cause nothing is printed.
type statusError struct {
	code  int
	text  string
	cause error
}

func (e *statusError) Error() string {
	if e.text == "" && e.cause != nil {
		return e.cause.Error()
	}
	return e.text
}

func (e *statusError) Unwrap() error { return e.cause }

// exitWith is the status of a process that was waited for; nil for 0.
func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return &statusError{code: code}
}

// flagError is what a wrong flag says and does: 125.
func flagError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &statusError{code: 125, cause: err, text: fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, cmd.UseLine(), cmd.CommandPath())}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

// wrongArgs words the refusal of a number of arguments; verb opens the closing line, where Docker has two.
func wrongArgs(cmd *cobra.Command, what, verb string) error {
	path := cmd.CommandPath()
	return fmt.Errorf("%s: '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information", cmd.Root().Name(), path, what, cmd.UseLine(), verb, path)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("%[1]s: unknown command: %[2]s %[3]s\n\nUsage:  %[4]s\n\nRun '%[2]s --help' for more information",
			cmd.Root().Name(), cmd.CommandPath(), args[0], cmd.UseLine())
	}
	return wrongArgs(cmd, "accepts no arguments", "Run")
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at least %d %s", n, plural(n)), "See")
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at most %d %s", n, plural(n)), "Run")
	}
}

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires at least %d and at most %d %s", low, high, plural(high)), "Run")
	}
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("requires %d %s", n, plural(n)), "Run")
	}
}
