// Package networks gives containers their place in the networks: it decides
// addresses and published ports, and has bridge, firewall and name server
// carry the decisions out.
//
// Entry point: New, then Restore once, then Run; Open, Started and Close per
// container. Every decision (an address, a host port, a name) is made under a
// lock and is pure; the kernel, netd and children are called without one.
//
// Locks: Service.mu (the maps of networks and sandboxes), netState.mu (the
// addresses of one network), Service.portsMu (host ports), Service.drainMu
// (links to reap). None is taken while another one is held. Service.rulesMu
// comes before Service.mu; it covers a transaction of the firewall.
package networks

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
)

// SandboxRequest is everything the networks have to know about a container.
type SandboxRequest struct {
	ContainerID, Name, Hostname, Domainname string
	// Mode is "default", "bridge", "host", "none", "container:<id>" or a name;
	// empty is "default".
	Mode       string
	MacAddress string
	// Endpoints are the networks it is on, by name; nil is that of its mode.
	Endpoints map[string]*networktypes.EndpointSettings
	// Previous are the addresses of its last run: taken again if they are free.
	Previous   []netip.Addr
	Exposed    networktypes.PortSet
	Bindings   networktypes.PortMap
	PublishAll bool
	// Publish are the labels of the create request that say how ports are
	// published (network.PublishLabels).
	Publish    map[string]string
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string
	// Remapped containers are in a user namespace, which owns their network: a
	// new one, or that of another container at UserNSPath.
	Remapped   bool
	UserNSPath string
	// Join finds the process whose network is shared ("container:<id>").
	Join func(id string) (pid int, ok bool)
	// Commit records the attachment of a running container while it is being
	// changed; nil records nothing.
	Commit func(network.Attachment) error
}

// Sandbox is a network namespace with its endpoints.
type Sandbox struct {
	// Handle is nil when the namespace is the host's or another container's.
	Handle container.Handle
	// Path of the namespace to join, for "container:<id>".
	Path       string
	Attachment network.Attachment
	// Hosts, ResolvConf and Hostname are the contents of the three files in
	// /etc; nil leaves the image's own (for "container:<id>": those of the
	// container that is joined).
	Hosts, ResolvConf, Hostname []byte
	// Release closes the daemon's handle; the namespace lives on with the
	// container. It may be repeated and is never nil.
	Release func()
}

// LiveSandbox is a sandbox that was found running.
type LiveSandbox struct {
	Attachment network.Attachment
	Pid        int
	Name       string
}

// Config is what a Service is made of.
type Config struct {
	// Default describes the default bridge network.
	Default network.DefaultBridge
	// Pools are split into subnets of networks that name none; nil is
	// network.DefaultPools.
	Pools []network.Pool
	// EngineID is what IPv6 subnets follow from when no pool has any.
	EngineID string
	// DriverOptions are options of networks that name none, by driver (dockerd
	// --default-network-opt).
	DriverOptions map[string]map[string]string
	// DNS, DNSSearch and DNSOptions are the daemon's defaults for containers
	// that set none (dockerd --dns, --dns-search, --dns-opt).
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	// HostGateway replaces "host-gateway" in extra hosts; empty is the
	// gateway of the default bridge (dockerd --host-gateway-ip).
	HostGateway []netip.Addr
	// KeepForwarding leaves the host's packet forwarding as it is
	// (dockerd --ip-forward=false).
	KeepForwarding bool
	// PublishInput says who decides about connections to published ports where
	// neither container nor network does; empty is network.InputBypass.
	PublishInput network.Input

	// Drivers by name; "host" and "null" need none. Plugins finds others; nil
	// is none.
	Drivers    map[string]Driver
	Plugins    Plugins
	Sandboxes  Sandboxes
	Firewall   Firewall
	Nameserver Nameserver
	Host       Host
	Store      Store
	Events     Publisher
	Logger     *slog.Logger
	Now        func() time.Time
	NewID      func() string
}

// ListOptions selects networks; Filters as the API has them: driver, id,
// label, name, scope, type, dangling.
type ListOptions struct {
	Filters map[string][]string
}

// Service is safe for concurrent use.
type Service struct {
	cfg Config
	// ipv6: the host has it.
	ipv6 bool

	pruning atomic.Bool
	// forward6: IPv6 packets are forwarded.
	forward6 atomic.Bool

	// rulesMu: what is in the firewall and what this service knows of it change
	// together.
	rulesMu sync.Mutex

	mu        sync.Mutex
	networks  map[string]*netState // by id
	sandboxes map[string]*sandbox  // by container id
	// closing are the sandboxes that Close has begun with.
	closing map[*sandbox]chan struct{} // closed at its end

	portsMu sync.Mutex
	ports   *network.PortTable

	drainMu  sync.Mutex
	draining map[string]drained // by the link's name
	// wake tells Run that there is something to reap.
	wake chan struct{}
}

// New makes a service; it does nothing before Restore.
func New(cfg Config) (*Service, error) {
	if cfg.Drivers[network.DriverBridge] == nil || cfg.Sandboxes == nil || cfg.Firewall == nil || cfg.Nameserver == nil || cfg.Host == nil || cfg.Store == nil ||
		cfg.Events == nil || cfg.Now == nil || cfg.NewID == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("networks: incomplete configuration")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	first, last, excluded := cfg.Host.PortRange()
	return &Service{
		cfg: cfg, ipv6: cfg.Host.IPv6(), networks: map[string]*netState{}, sandboxes: map[string]*sandbox{}, closing: map[*sandbox]chan struct{}{},
		ports: network.NewPortTable(first, last, excluded...), draining: map[string]drained{}, wake: make(chan struct{}, 1),
	}, nil
}

// Warnings are what a user should know about the host's firewall before he
// wonders why containers are not reached.
func (s *Service) Warnings() []string { return s.cfg.Firewall.Warnings() }
