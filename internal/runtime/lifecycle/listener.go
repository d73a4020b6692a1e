package lifecycle

import (
	"encoding/json"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/pty"
)

// sendListener passes a seccomp listener to the agent at the profile's
// listenerPath, with the container's state (runtime-spec config-linux.md, "The
// Container Process State").
func sendListener(p *specs.LinuxSeccomp, f *os.File, state *specs.State) error {
	msg := specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: state.Pid, Metadata: p.ListenerMetadata, State: *state,
	}
	body, err := json.Marshal(&msg)
	if err != nil {
		return fmt.Errorf("send seccomp listener: %w", err)
	}
	if err := pty.SendFile(p.ListenerPath, body, f); err != nil {
		return fmt.Errorf("send seccomp listener to %s: %w", p.ListenerPath, err)
	}
	return nil
}
