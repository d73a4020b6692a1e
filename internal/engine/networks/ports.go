package networks

import (
	"context"
	"net/netip"

	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/network"
)

// Handle is an open network namespace.
type Handle = network.Handle

// Driver makes bridges and sandboxes in the kernel. Methods are safe for
// concurrent use and may be repeated.
type Driver interface {
	// EnsureBridge brings a device to the wanted state. ErrNotFound for a
	// foreign device that does not exist.
	EnsureBridge(ctx context.Context, bridge network.Bridge) error
	// BridgeAddrs are the addresses of a device; none when it does not exist.
	BridgeAddrs(ctx context.Context, device string) ([]netip.Prefix, error)
	// RemoveBridge removes a device; one that is not there is no error.
	RemoveBridge(ctx context.Context, device string) error
	// OpenSandbox makes a network namespace. On failure nothing is left of it.
	OpenSandbox(ctx context.Context, plan network.SandboxPlan) (network.Handle, error)
	// Links lists the names of the container interfaces on a device.
	Links(ctx context.Context, device string) ([]string, error)
	// RemoveLink removes an interface; one that is not there is no error. It
	// takes the kernel 10 to 30 ms.
	RemoveLink(ctx context.Context, name string) error
	// CutLink stops all traffic of an interface at once; one that is not there
	// is no error.
	CutLink(ctx context.Context, name string) error
	// WatchLinks calls removed with the name of every interface that the
	// kernel removes, and with "" when some may have been missed, until ctx is
	// done.
	WatchLinks(ctx context.Context, removed func(name string)) error
}

// Firewall owns one table of rules in the kernel.
type Firewall interface {
	// Apply makes the table equal to the ruleset in one transaction, and
	// returns what it had to do ("" for nothing). foreign is DropForeign as it
	// was found: it is kept over a restart of the daemon.
	Apply(ctx context.Context, rules network.Ruleset) (plan string, err error)
	// DropsForeign reports whether the table in the kernel has that rule.
	DropsForeign(ctx context.Context) (bool, error)
	// Publish adds bindings in one transaction, Unpublish removes them; a
	// binding that is there already (or gone) is no error.
	Publish(ctx context.Context, ports []network.Binding) error
	Unpublish(ctx context.Context, ports []network.Binding) error
	// Remove deletes the table.
	Remove(ctx context.Context) error
}

// Nameserver is netd: it answers names, relays and reserves ports, and goes on
// when the daemon is gone.
type Nameserver interface {
	// Ensure makes netd run and serve exactly these sandboxes. It starts one,
	// takes over the one that runs, or replaces it when it is another build.
	Ensure(ctx context.Context, all []network.Names) error
	// Put serves and reserves for one sandbox and returns when that is in
	// force. It fails with network.PortBusy and changes nothing when a port is
	// bound by another program. ns is the sandbox; nil when names.Pid is set
	// or nothing inside it is needed.
	Put(ctx context.Context, names network.Names, ns network.Handle) error
	// Drop ends what Put began. Its effect comes before that of any later Put.
	Drop(ctx context.Context, containerID string) error
	// Quit ends netd.
	Quit(ctx context.Context) error
	// Run keeps netd running until ctx is done; it does not end it then.
	Run(ctx context.Context) error
}

// Host answers questions about the machine's own network.
type Host interface {
	// ResolvConf and Hosts are the machine's files; missing ones are empty.
	ResolvConf() ([]byte, error)
	Hosts() ([]byte, error)
	Hostname() string
	// Prefixes lists subnets that are in use by interfaces and routes.
	Prefixes(ctx context.Context) ([]netip.Prefix, error)
	// IPv6 reports whether the machine has it.
	IPv6() bool
	// PortRange is the range of ephemeral ports, and those the kernel is told
	// to leave out.
	PortRange() (first, last uint16, excluded []uint16)
	// EnableForwarding switches packet forwarding on; changed when it was off.
	EnableForwarding(ctx context.Context, ipv6 bool) (changed bool, err error)
}

// Store keeps the records of networks.
type Store interface {
	Load(ctx context.Context) ([]network.Record, error)
	Save(ctx context.Context, rec network.Record) error
	// Delete may be repeated.
	Delete(ctx context.Context, id string) error
}

// Publisher takes events; it never blocks for long and never fails.
type Publisher interface {
	Publish(events.Message)
}
