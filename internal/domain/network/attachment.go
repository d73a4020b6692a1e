package network

import "net/netip"

// Attachment is a running container's place in the networks: one sandbox (a
// network namespace) with any number of endpoints. It is written beside the
// container's run state and is enough, together with the kernel, to take the
// sandbox over after a restart of the daemon.
type Attachment struct {
	ContainerID string `json:"containerId"`
	// SandboxID names the sandbox in inspect; a new one every start.
	SandboxID string `json:"sandboxId,omitempty"`
	// Name of the container when it was started.
	Name string `json:"name,omitempty"`
	// Mode is "bridge", "host", "none", "container:<id>" or a network's name.
	Mode      string     `json:"mode"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Ports     []Binding  `json:"ports,omitempty"`
	// DNS: netd answers on 127.0.0.11 in the sandbox, asking Upstream.
	DNS      bool       `json:"dns,omitempty"`
	Upstream []Upstream `json:"upstream,omitempty"`
	// OwnRoot: names without a dot are not passed on (Resolver.OwnRoot).
	OwnRoot bool `json:"ownRoot,omitempty"`
	// Exposed lists ports as "80/tcp" that inspect shows without a binding.
	Exposed []string `json:"exposed,omitempty"`
	// Changing: connecting or disconnecting had begun when this was recorded, so
	// the default routes may be those of before or after.
	Changing bool `json:"changing,omitempty"`
}

// Change is what connecting or disconnecting a running container changed.
type Change struct {
	Attachment Attachment
	// Removed and Added are addresses that its /etc/hosts names; HostName is
	// what it is called there.
	Removed, Added []netip.Addr
	HostName       string
	// ResolvConf replaces /etc/resolv.conf if that is still ResolvConfBefore:
	// nobody has edited it. nil leaves it.
	ResolvConf, ResolvConfBefore []byte
}

// Addrs are the addresses of all endpoints, in their order.
func (a Attachment) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, ep := range a.Endpoints {
		for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if p.IsValid() {
				out = append(out, p.Addr())
			}
		}
	}
	return out
}

// Plain reports whether the sandbox has no interface but lo.
func (a Attachment) Plain() bool {
	for _, ep := range a.Endpoints {
		if ep.HostLink != "" {
			return false
		}
	}
	return true
}

// Endpoint is one interface of a sandbox on one network.
type Endpoint struct {
	ID          string `json:"id"`
	NetworkID   string `json:"networkId"`
	NetworkName string `json:"networkName"`
	// HostLink is the name of the veth's end in the host, InnerLink in the sandbox.
	HostLink  string       `json:"hostLink"`
	InnerLink string       `json:"innerLink"`
	MAC       string       `json:"mac"`
	IPv4      netip.Prefix `json:"ipv4"`
	IPv6      netip.Prefix `json:"ipv6"`
	Gateway4  netip.Addr   `json:"gateway4"`
	Gateway6  netip.Addr   `json:"gateway6"`
	Aliases   []string     `json:"aliases,omitempty"`
	// DNSNames are all names the name server knows the endpoint by.
	DNSNames []string `json:"dnsNames,omitempty"`
	// Links are names that only this container knows others of the network by,
	// as alias and name (--link).
	Links map[string]string `json:"links,omitempty"`
	// Kind of the interface (Interface.Kind); empty is Veth.
	Kind string `json:"kind,omitempty"`
	// Driver of the network, for events after it is gone.
	Driver string `json:"driver,omitempty"`
	// Priority decides who has the default route: the highest, then the first
	// name (GwPriority of the API).
	Priority int `json:"priority,omitempty"`
	// LinkLocal are further addresses of the interface (--link-local-ip).
	LinkLocal []netip.Addr `json:"linkLocal,omitempty"`
	// Routes beside the default one, of drivers that name some.
	Routes []Route `json:"routes,omitempty"`
	// Options of the endpoint (--driver-opt).
	Options map[string]string `json:"options,omitempty"`
	// NoGateway: the network offers no way out (--internal, isolated).
	NoGateway bool `json:"noGateway,omitempty"`
	// OnLink4 and OnLink6: the default route leads to the link itself.
	OnLink4 bool `json:"onLink4,omitempty"`
	OnLink6 bool `json:"onLink6,omitempty"`
	// Default4 and Default6 mark the endpoint with the default route of a family.
	Default4 bool `json:"default4,omitempty"`
	Default6 bool `json:"default6,omitempty"`
}

// Route is a route of a sandbox. Without Via the destination is on the link.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"`
}

// Binding is one published port.
type Binding struct {
	// Proto is "tcp", "udp" or "sctp".
	Proto string `json:"proto"`
	// HostIP unspecified (0.0.0.0 or ::) is every address of that family.
	HostIP        netip.Addr `json:"hostIp"`
	HostPort      uint16     `json:"hostPort"`
	ContainerIP   netip.Addr `json:"containerIp"`
	ContainerPort uint16     `json:"containerPort"`
	// Direct: the port may also be reached by the container's own address.
	Direct bool `json:"direct,omitempty"`
	// ObeysInput: the host's input rules decide about connections (InputObey).
	ObeysInput bool `json:"obeysInput,omitempty"`
}
