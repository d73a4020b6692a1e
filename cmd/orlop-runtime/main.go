// Command orlop-runtime is the OCI runtime and the monitor of a container. Its
// start must cost little, because every container pays it twice: it links
// nothing of the daemon, and the stages are found before anything else runs.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/orlop/orlop/internal/monitor/monitorside"
	"github.com/orlop/orlop/internal/runtime/command"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case initproc.Arg:
			os.Exit(initproc.Main(os.Args[2:]))
		case "monitor":
			os.Exit(monitorside.Main(os.Args[2:]))
		}
	}
	os.Exit(command.Main(os.Args))
}
