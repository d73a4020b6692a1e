//go:build unix

package endpoint

import (
	"os/exec"
	"syscall"
)

// detach puts the child into a session of its own, so that Ctrl-C reaches the command and not its connection.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
