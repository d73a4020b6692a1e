package lifecycle

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/netdev"
	"github.com/orlop/orlop/internal/runtime/bundle"
)

// netDevices moves network devices of the host into the container's namespace
// (runtime-spec config-linux.md, "Network Devices"). When the creation fails they
// come back; at the container's end the kernel does with them what it does.
func (k *creation) netDevices(context.Context) error {
	if len(k.Spec.Linux.NetDevices) == 0 {
		return nil
	}
	// A child that joins a namespace may not have come there yet.
	path := "/proc/" + strconv.Itoa(k.proc.Pid) + "/ns/net"
	if _, joined := bundle.Namespace(k.Spec, specs.NetworkNamespace); joined != "" {
		path = joined
	} else if k.NetNS != nil {
		path = "/proc/self/fd/" + strconv.Itoa(int(k.NetNS.Fd()))
	}
	there, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace of the container: %w", err)
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		_ = there.Close()
		return fmt.Errorf("open network namespace: %w", err)
	}
	names := make([]string, 0, len(k.Spec.Linux.NetDevices))
	for name := range k.Spec.Linux.NetDevices {
		names = append(names, name)
	}
	slices.Sort(names)
	moved := make(map[string]string, len(names)) // name inside → name here
	k.undos = append(k.undos, func() {
		for inside, name := range moved {
			_ = netdev.Return(inside, name, there, here)
		}
		_ = there.Close()
		_ = here.Close()
	})
	for _, name := range names {
		inside, err := netdev.Move(name, k.Spec.Linux.NetDevices[name].Name, there)
		if err != nil {
			return fmt.Errorf("move network device %s into the container: %w", name, err)
		}
		moved[inside] = name
	}
	return nil
}
