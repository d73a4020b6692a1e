package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networktypes "github.com/moby/moby/api/types/network"
)

// Bridge is the wanted state of a bridge device.
type Bridge struct {
	Device  string
	Foreign bool
	// Addrs are its addresses with prefix; others of the same family that are
	// not link-local are removed.
	Addrs []netip.Prefix
	MTU   int
	// IPv6 leaves it enabled on the device.
	IPv6 bool
	// Isolated: its containers do not reach each other (icc off).
	Isolated bool
	// Ports are interfaces of running containers that belong to it; they are
	// put back when somebody removed the device.
	Ports []string
	// Localnet lets packets of 127.0.0.1 through to published ports.
	Localnet bool
}

// Kinds of interfaces.
const (
	// Veth is a pair: one end is a port of Bridge, the other in the sandbox.
	Veth = "veth"
	// Macvlan and Ipvlan share the interface Parent.
	Macvlan = "macvlan"
	Ipvlan  = "ipvlan"
	// Moved exists on the host under the name HostLink and is moved: somebody
	// else has made it.
	Moved = "moved"
)

// Interface is one interface of a sandbox.
type Interface struct {
	// Kind is one of the above; empty is Veth.
	Kind string
	// HostLink and InnerLink are the names on the host (the veth's other end)
	// and in the sandbox.
	HostLink, InnerLink string
	Bridge              string
	// Parent, Mode and Flag of a macvlan (bridge, private, vepa, passthru) or
	// ipvlan (l2, l3, l3s; bridge, private, vepa).
	Parent, Mode, Flag string
	// MAC is empty where the kernel's own choice stays.
	MAC string
	// MTU in bytes; 0 leaves the kernel's choice.
	MTU   int
	Addrs []netip.Prefix
	// Gateway4 and Gateway6 are default routes; invalid for none. OnLink4 and
	// OnLink6: the default route leads to the link itself.
	Gateway4, Gateway6 netip.Addr
	OnLink4, OnLink6   bool
	Routes             []Route
	// Sysctls are written in the sandbox when the interface is there; IFNAME
	// in a key stands for its name.
	Sysctls []Sysctl
	// Isolated: the containers of the network do not reach each other.
	Isolated bool
	// Announce the MAC address: somebody may know another one for the address.
	Announce bool
}

// Sysctl is a setting of a network namespace, e.g.
// net.ipv4.conf.IFNAME.log_martians=1.
type Sysctl struct {
	Key, Value string
}

// Default names the interfaces and gateways of a sandbox's default routes; ""
// is none.
type Default struct {
	Link4, Link6       string
	Gateway4, Gateway6 netip.Addr
}

// SandboxPlan is the wanted state of a new network namespace.
type SandboxPlan struct {
	Interfaces []Interface
	// Remapped gives the namespace to a user namespace: the one at UserNSPath,
	// or a new one with the id maps of the engine.
	Remapped   bool
	UserNSPath string
}

// Handle is an open network namespace.
type Handle interface {
	// Fd is the descriptor; it stays open until Close.
	Fd() uintptr
	// Close may be repeated.
	Close() error
}

// MAC derives a locally administered address from an IPv4 address: the same
// address always comes with the same MAC, so no neighbour's ARP cache is ever
// wrong about an address that was used before.
func MAC(addr netip.Addr) string {
	if addr.Is4() {
		b := addr.As4()
		return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
	}
	b := addr.As16()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[12], b[13], b[14], b[15])
}

// Ruleset is everything the firewall of an engine lets through and
// translates. It is complete: what is not in it, is not in the kernel.
type Ruleset struct {
	Bridges []BridgeRules
	Ports   []Binding
	// Forwarding was off before this engine switched it on: packets between
	// interfaces that are not bridges stay as blocked as they were.
	DropForeign bool
}

// BridgeRules are the rules of one network.
type BridgeRules struct {
	Device  string
	Subnets []netip.Prefix
	// ICC: containers of the network may talk to each other.
	ICC bool
	// Masquerade packets that leave to anywhere but the engine's bridges.
	Masquerade bool
	// Internal: nothing enters or leaves.
	Internal bool
	// Mode4 and Mode6 say how it is reached; empty is GatewayNAT.
	Mode4, Mode6 GatewayMode
	// Source4 and Source6, when valid, are what masquerading hides behind.
	Source4, Source6 netip.Addr
	// Trusted interfaces may send to published ports by the containers' own
	// addresses.
	Trusted []string
	// Egress bounds connections to what is outside.
	Egress Egress
}

// String lists a ruleset in a fixed order, one line each.
func (r Ruleset) String() string {
	var lines []string
	for _, b := range r.Bridges {
		line := "bridge " + b.Device
		for _, p := range b.Subnets {
			line += " " + p.String()
		}
		for _, f := range []struct {
			on   bool
			name string
		}{{b.ICC, "icc"}, {b.Masquerade, "masquerade"}, {b.Internal, "internal"}} {
			if f.on {
				line += " " + f.name
			}
		}
		for _, f := range []struct{ name, value string }{
			{"mode4", string(b.Mode4)}, {"mode6", string(b.Mode6)}, {"trusted", strings.Join(b.Trusted, ",")},
		} {
			if f.value != "" {
				line += " " + f.name + "=" + f.value
			}
		}
		if text := b.Egress.String(); text != "" {
			line += " egress " + text
		}
		for _, a := range []netip.Addr{b.Source4, b.Source6} {
			if a.IsValid() {
				line += " as " + a.String()
			}
		}
		lines = append(lines, line)
	}
	for _, p := range r.Ports {
		lines = append(lines, fmt.Sprintf("port %s -> %s", p, netip.AddrPortFrom(p.ContainerIP, p.ContainerPort)))
	}
	slices.Sort(lines)
	if r.DropForeign {
		lines = append(lines, "drop what is forwarded between interfaces that are not bridges")
	}
	return strings.Join(lines, "\n") + "\n"
}

// Names is what the name server does for one sandbox.
type Names struct {
	ContainerID string
	// Pid is 0 before the container was started.
	Pid int
	// DNS: the sandbox has a server on 127.0.0.11.
	DNS      bool
	Upstream []Upstream
	OwnRoot  bool
	// Forward questions the table does not answer; false on internal networks.
	Forward bool
	// Known lists names by network; the sandbox may ask for names of the
	// networks it has an endpoint on.
	Known []NetworkNames
	Ports []Binding
}

// Empty reports whether the name server has nothing to do for the sandbox.
func (n Names) Empty() bool { return !n.DNS && len(n.Known) == 0 && len(n.Ports) == 0 }

// NetworkNames are a sandbox's names on one network.
type NetworkNames struct {
	NetworkID, NetworkName string
	// Names, the container's own first.
	Names []string
	// Links are names of others that only this sandbox uses: alias and name.
	Links map[string]string
	Addrs []netip.Addr
}

// EndpointSettings is an endpoint as inspect shows it; asked is what the
// request said about it (nil for nothing).
func (e Endpoint) EndpointSettings(asked *networktypes.EndpointSettings) (*networktypes.EndpointSettings, error) {
	s := asked.Copy()
	if s == nil {
		s = &networktypes.EndpointSettings{}
	}
	s.NetworkID, s.EndpointID = e.NetworkID, e.ID
	s.Gateway, s.IPv6Gateway = e.Gateway4, e.Gateway6
	s.IPAddress, s.IPPrefixLen = netip.Addr{}, 0
	if e.IPv4.IsValid() {
		s.IPAddress, s.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
	}
	s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = netip.Addr{}, 0
	if e.IPv6.IsValid() {
		s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
	}
	s.MacAddress = nil
	if e.MAC != "" {
		if err := s.MacAddress.UnmarshalText([]byte(e.MAC)); err != nil {
			return nil, err
		}
	}
	return s, nil
}
