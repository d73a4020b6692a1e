package networks

import (
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
)

// netState is one network. Everything but the addresses is immutable.
type netState struct {
	rec  network.Record
	mtu  int
	icc  bool
	masq bool
	// bridgeAddrs are the addresses of the device; the gateways are the same
	// unless the configuration names others.
	bridgeAddrs        []netip.Prefix
	gateway4, gateway6 netip.Addr

	mu sync.Mutex
	// addr4 and addr6 are nil when the family is off.
	addr4, addr6 *network.Addresses
	// chosenMAC: there was an endpoint whose MAC address does not follow from
	// its address, so neighbors may remember another one for it.
	chosenMAC bool
	// freed is closed and replaced when the kernel has freed an address.
	freed chan struct{}
}

// allocate takes an address of each family that the network has; n.mu is held.
// Nothing is taken when it fails.
func (n *netState) allocate(want4, want6 netip.Addr) (addr4, addr6 netip.Addr, err error) {
	one := func(a *network.Addresses, want netip.Addr) (netip.Addr, error) {
		switch {
		case a == nil:
			return netip.Addr{}, nil
		case want.IsValid():
			return want, a.Take(want)
		}
		return a.Allocate()
	}
	if addr4, err = one(n.addr4, want4); err != nil {
		return netip.Addr{}, netip.Addr{}, err
	}
	if addr6, err = one(n.addr6, want6); err != nil {
		if n.addr4 != nil {
			n.addr4.Release(addr4)
		}
		return netip.Addr{}, netip.Addr{}, err
	}
	return addr4, addr6, nil
}

// contains reports whether a belongs to a subnet of the network.
func (n *netState) contains(a netip.Addr) bool {
	return n.addr4 != nil && n.addr4.Subnet().Contains(a) || n.addr6 != nil && n.addr6.Subnet().Contains(a)
}

// findLocked resolves a network by id, name or unambiguous prefix of an id;
// Service.mu is held. ErrNotFound with Docker's text.
func (s *Service) findLocked(ref string) (*netState, error) {
	if n := s.networks[ref]; n != nil {
		return n, nil
	}
	var byPrefix *netState
	matches := 0
	for id, n := range s.networks {
		if n.rec.Name == ref {
			return n, nil
		}
		if len(ref) > 0 && len(ref) < len(id) && id[:len(ref)] == ref {
			byPrefix, matches = n, matches+1
		}
	}
	switch matches {
	case 1:
		return byPrefix, nil
	case 0:
		return nil, errdefs.ErrNotFound.WithMessage("network " + ref + " not found")
	}
	return nil, errdefs.ErrInvalidArgument.WithMessage("network " + ref + " is ambiguous (" + "multiple networks found by id prefix)")
}

// release gives an endpoint's addresses back: at once, or, when drain is true,
// as soon as its link is gone.
func (s *Service) release(ep network.Endpoint, drain bool) {
	s.mu.Lock()
	n := s.networks[ep.NetworkID]
	s.mu.Unlock()
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range []struct {
		pool *network.Addresses
		addr netip.Prefix
	}{{n.addr4, ep.IPv4}, {n.addr6, ep.IPv6}} {
		if a.pool == nil || !a.addr.IsValid() {
			continue
		}
		if drain {
			a.pool.Drain(a.addr.Addr())
		} else {
			a.pool.Release(a.addr.Addr())
		}
	}
	if !drain {
		close(n.freed)
		n.freed = make(chan struct{})
	}
}

// adopt marks the addresses of an endpoint that runs as taken.
func (n *netState) adopt(ep network.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.chosenMAC = n.chosenMAC || !derivedMAC(ep)
	if n.addr4 != nil && ep.IPv4.IsValid() {
		if err := n.addr4.Take(ep.IPv4.Addr()); err != nil {
			return err
		}
	}
	if n.addr6 != nil && ep.IPv6.IsValid() {
		return n.addr6.Take(ep.IPv6.Addr())
	}
	return nil
}

// derivedMAC reports whether the MAC address follows from the address.
func derivedMAC(ep network.Endpoint) bool {
	if ep.IPv4.IsValid() {
		return ep.MAC == network.MAC(ep.IPv4.Addr())
	}
	return ep.MAC == network.MAC(ep.IPv6.Addr())
}
