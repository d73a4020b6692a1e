package lifecycle

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/pty"
)

// agent connects to the seccomp agent at the profile's listenerPath and makes
// the message that it will get with the listener: the state of the process pid
// (runtime-spec config-linux.md, "The Container Process State"). Nil when the
// profile notifies nobody. The stage sends both itself, because by then we may
// have ended, and because the filter may forbid it to speak with us.
func agent(p *specs.LinuxSeccomp, pid int, state *specs.State) (conn *os.File, msg []byte, err error) {
	if !notifies(p) {
		return nil, nil, nil
	}
	if p.ListenerPath == "" {
		return nil, nil, errdefs.ErrInvalidArgument.WithMessage("seccomp: " + string(specs.ActNotify) + " needs a listenerPath")
	}
	msg, err = json.Marshal(&specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: p.ListenerMetadata, State: *state,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to seccomp agent: %w", err)
	}
	if conn, err = pty.Dial(p.ListenerPath); err != nil {
		return nil, nil, fmt.Errorf("connect to seccomp agent %s: %w", p.ListenerPath, err)
	}
	return conn, msg, nil
}

// notifies reports whether a rule of the profile asks an agent.
func notifies(p *specs.LinuxSeccomp) bool {
	return p != nil && slices.ContainsFunc(p.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify })
}
