// Command orlop is the client of the Orlop container platform: Docker's command line, spoken to any Engine API. Linked
// or copied to the name docker it is docker. See internal/cli.
package main

import (
	"context"
	"os"

	"github.com/orlop/orlop/internal/cli"
)

// Set by the linker (-X main.version=… main.commit=… main.buildTime=…).
var version, commit, buildTime string

func main() {
	os.Exit(cli.Main(context.Background(), cli.Config{
		Args:    os.Args,
		Version: version, Commit: commit, BuildTime: buildTime,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
