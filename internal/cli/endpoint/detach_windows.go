package endpoint

import "os/exec"

// detach does nothing: a console's Ctrl-C handling is per process here.
func detach(*exec.Cmd) {}
