package lifecycle

import (
	"encoding/json"
	"fmt"
	"net"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.ListenerPath, Net: "unix"})
	if err != nil {
		return fmt.Errorf("send seccomp listener: %w", err)
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix(body, unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("send seccomp listener: %w", err)
	}
	return nil
}
