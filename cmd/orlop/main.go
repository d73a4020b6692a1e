// Command orlop is the client of the Orlop container platform: Docker's command line, spoken to any Engine API. Linked
// or copied to the name docker it is docker. See internal/cli.
package main

import (
	"context"
	"os"

	"github.com/orlop/orlop/internal/cli"
	"github.com/orlop/orlop/internal/domain/version"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Config{
		Args:    os.Args,
		Version: version.Version, Commit: version.Commit, BuildTime: version.Built,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
