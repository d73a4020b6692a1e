package networks

import (
	"context"
	"net/netip"

	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/network"
)

// Handle is an open network namespace.
type Handle = network.Handle

// Driver is one kind of network: bridge, macvlan, a plugin's. It decides how an
// endpoint is connected and makes what a network needs on the host; Sandboxes
// carries out what it says. It keeps nothing that does not follow from records
// and endpoints, so a restart of the daemon needs no restoring of its own.
//
// Methods are safe for concurrent use. A driver that hangs holds up its own
// networks only: it is never called under a lock.
type Driver interface {
	// Capabilities of its networks; asked for once per network.
	Capabilities(ctx context.Context) (network.Capabilities, error)
	// Prepare checks options and completes the record (device, made) before its
	// addresses are decided. It changes nothing on the host.
	// ErrInvalidArgument with Docker's text for an option that makes no sense.
	Prepare(ctx context.Context, rec *network.Record) (network.Wants, error)
	// Ensure makes the network on the host what the record says; live are its
	// endpoints in running containers. It is called after the record was saved
	// and at every start of the daemon, and may be repeated.
	Ensure(ctx context.Context, rec network.Record, live []network.Endpoint) error
	// Remove undoes Ensure; what is not there is no error.
	Remove(ctx context.Context, rec network.Record) error
	// Join gives an endpoint its place and says which interface the sandbox
	// gets. It may change the endpoint: MAC address, gateways, routes, links.
	// Addresses and routes of the interface are filled in from the endpoint
	// afterwards. Interfaces that it makes itself are gone when it fails.
	Join(ctx context.Context, join network.Join) (network.Interface, error)
	// Leave undoes Join, after the sandbox has let go of the interface or
	// before it ever had it. It may be repeated.
	Leave(ctx context.Context, rec network.Record, ep network.Endpoint) error
	// Links lists interfaces on the host that belong to endpoints of the
	// network, so that those of nobody can be removed.
	Links(ctx context.Context, rec network.Record) ([]string, error)
}

// IPAMDriver decides addresses instead of the engine (--ipam-driver). Methods
// are safe for concurrent use and are never called under a lock.
type IPAMDriver interface {
	// RequestPool sets a subnet aside: subnet, or one of its own choice when
	// that is invalid. rng is the part that addresses are drawn from.
	RequestPool(ctx context.Context, subnet, rng netip.Prefix, options map[string]string, ipv6 bool) (id string, pool network.Allocation, err error)
	ReleasePool(ctx context.Context, id string) error
	// RequestAddress takes an address of a pool, any one when addr is invalid.
	// options tell what for: RequestAddressType is "com.docker.network.gateway"
	// for gateways, MacAddress the endpoint's.
	RequestAddress(ctx context.Context, id string, addr netip.Addr, options map[string]string) (network.Allocation, error)
	// ReleaseAddress may be repeated.
	ReleaseAddress(ctx context.Context, id string, addr netip.Addr) error
}

// Plugins finds drivers that are not part of the engine, by name. ErrNotFound
// when there is none.
type Plugins interface {
	NetworkDriver(ctx context.Context, name string) (Driver, error)
	IPAMDriver(ctx context.Context, name string) (IPAMDriver, error)
	// NetworkDriverLater and IPAMDriverLater ask nobody before they are used:
	// the plugin of a network that was made earlier may start after the daemon,
	// or hang.
	NetworkDriverLater(name string) Driver
	IPAMDriverLater(name string) IPAMDriver
}

// Sandboxes makes network namespaces and interfaces in them. Methods are safe
// for concurrent use.
type Sandboxes interface {
	// Open makes a network namespace. On failure nothing is left of it. It may
	// give interfaces other names on the host than the plan says; then it changes
	// the plan's HostLink.
	Open(ctx context.Context, plan network.SandboxPlan) (network.Handle, error)
	// Run makes sandboxes ready for networks that are in use, until ctx is done;
	// Forget gives up those of a device that is about to be removed.
	Run(ctx context.Context) error
	Forget(ctx context.Context, device string) error
	// Enter opens the namespace of a process. ErrNotFound when it is gone.
	Enter(ctx context.Context, pid int) (network.Handle, error)
	// Attach adds an interface to a sandbox. On failure it is not there.
	Attach(ctx context.Context, ns network.Handle, itf network.Interface) error
	// Detach removes an interface; one that is not there is no error. A moved
	// one gets its name on the host back.
	Detach(ctx context.Context, ns network.Handle, innerLink, hostLink string) error
	// SetDefault makes these the default routes of a sandbox.
	SetDefault(ctx context.Context, ns network.Handle, want network.Default) error
	// RemoveLink removes an interface of the host; one that is not there is no
	// error. It takes the kernel 10 to 30 ms.
	RemoveLink(ctx context.Context, name string) error
	// CutLink stops all traffic of a bridge's port at once; one that is not
	// there is no error.
	CutLink(ctx context.Context, name string) error
	// WatchLinks calls removed with the name of every interface that the
	// kernel removes, and with "" when some may have been missed, until ctx is
	// done.
	WatchLinks(ctx context.Context, removed func(name string)) error
}

// Firewall owns one table of rules in the kernel.
type Firewall interface {
	// Apply makes the table equal to the ruleset in one transaction, and
	// returns what it had to do ("" for nothing). Ports of the ruleset count
	// at the first call only; after that Publish and Unpublish say what is
	// published, so a network can be added while a container starts.
	Apply(ctx context.Context, rules network.Ruleset) (plan string, err error)
	// DropsForeign reports whether the table in the kernel has that rule.
	DropsForeign(ctx context.Context) (bool, error)
	// Publish adds bindings in one transaction, Unpublish removes them; a
	// binding that is there already (or gone) is no error.
	Publish(ctx context.Context, ports []network.Binding) error
	Unpublish(ctx context.Context, ports []network.Binding) error
	// Redirect replaces bindings by others in one transaction.
	Redirect(ctx context.Context, from, to []network.Binding) error
	// SetBridge makes the rules of one network these; DropBridge takes them
	// away. Both may be repeated. Rules that are gone altogether come with the
	// next Apply.
	SetBridge(ctx context.Context, rules network.BridgeRules) error
	DropBridge(ctx context.Context, rules network.BridgeRules) error
	// Remove deletes the table.
	Remove(ctx context.Context) error
	// Run brings back what others remove from the ruleset, until ctx is done.
	Run(ctx context.Context) error
	// Warnings name other tables that drop packets of containers.
	Warnings() []string
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
	// Settle returns when the ports of every Put so far are not only reserved
	// but served.
	Settle(ctx context.Context) error
	// Move replaces what two sandboxes have in one change: a port goes from one
	// to the other without ever being free. On failure nothing has changed.
	Move(ctx context.Context, from, to network.Names) error
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
	// source is the path of the first.
	ResolvConf() (data []byte, source string, err error)
	Hosts() ([]byte, error)
	Hostname() string
	// Prefixes lists subnets that are in use by interfaces and routes.
	Prefixes(ctx context.Context) ([]netip.Prefix, error)
	// Addrs are the addresses of a device; none when it does not exist.
	Addrs(ctx context.Context, device string) ([]netip.Prefix, error)
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
