package networks

import (
	"net/netip"

	"github.com/orlop/orlop/internal/domain/network"
)

// lead is where the published ports of a sandbox lead to: the addresses of the
// endpoints with the default routes, where their networks can do that.
type lead struct {
	addr4, addr6 netip.Addr
	mode4, mode6 network.GatewayMode
	// direct4 and direct6: the ports may also be reached by these addresses.
	direct4, direct6 bool
	// bind is the host address of ports that name none; invalid for the
	// daemon's.
	bind netip.Addr
	// input4 and input6 are what the networks say about published ports.
	input4, input6 network.Input
}

func (s *Service) leadOf(eps []network.Endpoint) (lead, bool) {
	var l lead
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ep := range eps {
		n := s.networks[ep.NetworkID]
		if n == nil || !n.caps.Ports || !ep.Default4 && !ep.Default6 {
			continue
		}
		// The options were checked when the network was made.
		o, _ := network.ParseBridgeOptions(n.rec.Options)
		if ep.Default4 {
			l.addr4, l.mode4, l.input4 = ep.IPv4.Addr(), o.Mode4, o.Input
			l.direct4 = o.Mode4 == network.GatewayRouted || len(o.Trusted) > 0
			if n.rec.Name != network.BridgeName {
				l.bind = o.BindIP
			}
		}
		if ep.Default6 {
			l.addr6, l.mode6, l.input6 = ep.IPv6.Addr(), o.Mode6, o.Input
			l.direct6 = o.Mode6 == network.GatewayRouted || len(o.Trusted) > 0
		}
	}
	return l, l.addr4.IsValid() || l.addr6.IsValid()
}

// target is where a port on a host address leads to, and whether by a port of
// the host (not on routed networks).
func (l lead) target(host netip.Addr) (to netip.Addr, direct, reserved bool) {
	if l.by6(host) {
		return l.addr6, l.direct6, l.mode6 != network.GatewayRouted
	}
	return l.addr4, l.direct4, l.mode4 != network.GatewayRouted
}

// by6 reports whether a port on a host address leads to the IPv6 address.
func (l lead) by6(host netip.Addr) bool {
	return host.Is6() && l.addr6.IsValid() || !l.addr4.IsValid()
}

// input is what the network says about a port on a host address.
func (l lead) input(host netip.Addr) network.Input {
	if l.by6(host) {
		return l.input6
	}
	return l.input4
}
