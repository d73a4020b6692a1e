package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
)

// netState is one network. Its record is replaced, never changed in place, and
// only while the network is made.
type netState struct {
	rec network.Record
	// driver is nil for host, null and configuration networks; ipam is nil
	// where the engine decides addresses itself.
	driver Driver
	ipam   IPAMDriver
	caps   network.Capabilities
	pools  []*pool
	// broken tells why the network could not be set up at the daemon's start.
	broken error

	// making and removing: it is being made or removed; nobody finds it, but
	// its name and subnets are taken. joining counts endpoints being made.
	// Guarded by Service.mu.
	making, removing bool
	joining          int
	// ruled: it is in the firewall though nobody finds it.
	ruled bool

	mu sync.Mutex
	// chosenMAC: there was an endpoint whose MAC address does not follow from
	// its address, so neighbors may remember another one for it.
	chosenMAC bool
	// freed is closed and replaced when the kernel has freed an address.
	freed chan struct{}
}

// pool is one subnet of a network.
type pool struct {
	subnet  netip.Prefix
	gateway netip.Addr
	// addrs is nil where an IPAM driver decides; id is the driver's.
	addrs *network.Addresses
	id    string
}

func (p *pool) ipv6() bool { return p.subnet.Addr().Is6() }

// newState is the state of a network whose addresses are decided.
func newState(rec network.Record, driver Driver, caps network.Capabilities, ipam IPAMDriver) *netState {
	n := &netState{rec: rec, driver: driver, caps: caps, ipam: ipam, freed: make(chan struct{})}
	for i, c := range rec.IPAM.Config {
		if !c.Subnet.IsValid() {
			continue
		}
		p := &pool{subnet: c.Subnet.Masked(), gateway: c.Gateway}
		if i < len(rec.Pools) {
			p.id = rec.Pools[i]
		}
		if ipam == nil {
			reserve := []netip.Addr{c.Gateway, rec.BridgeAddr4, rec.BridgeAddr6}
			for _, a := range c.AuxAddress {
				reserve = append(reserve, a.Unmap())
			}
			p.addrs = network.NewAddresses(c.Subnet, c.IPRange, reserve...)
		}
		n.pools = append(n.pools, p)
	}
	return n
}

// allocate takes an address of each family that the network has, want4 and
// want6 where they are valid. When a subnet is full of addresses that the
// kernel has not freed yet, it waits for them. Nothing is taken when it fails.
func (n *netState) allocate(ctx context.Context, want4, want6 netip.Addr, mac string) (addr4, addr6 netip.Prefix, err error) {
	deadline := time.NewTimer(drainWait)
	defer deadline.Stop()
	one := func(ipv6 bool, want netip.Addr) (netip.Prefix, error) {
		for {
			addr, freed, err := n.try(ctx, ipv6, want, mac)
			if !errors.Is(err, network.ErrAddressesDrained) {
				return addr, err
			}
			select {
			case <-freed:
			case <-deadline.C:
				if want.IsValid() {
					return netip.Prefix{}, network.ErrAddressTaken
				}
				return netip.Prefix{}, n.full(ipv6)
			case <-ctx.Done():
				return netip.Prefix{}, ctx.Err()
			}
		}
	}
	if n.rec.EnableIPv4 {
		if addr4, err = one(false, want4); err != nil {
			return netip.Prefix{}, netip.Prefix{}, err
		}
	}
	if n.rec.EnableIPv6 {
		if addr6, err = one(true, want6); err != nil {
			n.free(ctx, addr4, false)
			return netip.Prefix{}, netip.Prefix{}, err
		}
	}
	return addr4, addr6, nil
}

// try asks every subnet of a family once.
func (n *netState) try(ctx context.Context, ipv6 bool, want netip.Addr, mac string) (netip.Prefix, <-chan struct{}, error) {
	n.mu.Lock()
	freed := n.freed
	n.mu.Unlock()
	drained, some := false, false
	for _, p := range n.pools {
		if p.ipv6() != ipv6 || want.IsValid() && !p.subnet.Contains(want) {
			continue
		}
		some = true
		addr, err := n.take(ctx, p, want, mac)
		switch {
		case err == nil:
			return addr, nil, nil
		case errors.Is(err, network.ErrAddressesDrained):
			drained = true
		case errdefs.IsUnavailable(err):
		default:
			return netip.Prefix{}, nil, err
		}
	}
	switch {
	case drained:
		return netip.Prefix{}, freed, network.ErrAddressesDrained
	case !some && want.IsValid():
		return netip.Prefix{}, nil, errdefs.ErrInvalidArgument.WithMessage(
			fmt.Sprintf("invalid address %s: It does not belong to any of this network's subnets", want))
	case !some:
		return netip.Prefix{}, nil, nil // the network has no subnet of this family
	}
	return netip.Prefix{}, nil, n.full(ipv6)
}

func (n *netState) full(ipv6 bool) error {
	version := 4
	if ipv6 {
		version = 6
	}
	return errdefs.ErrInternal.WithMessage(fmt.Sprintf("no available IPv%d addresses on this network's address pools: %s (%s)", version, n.rec.Name, n.rec.ID))
}

func (n *netState) take(ctx context.Context, p *pool, want netip.Addr, mac string) (netip.Prefix, error) {
	if p.addrs == nil {
		options := map[string]string{}
		if mac != "" {
			options[network.OptEndpointMAC] = mac
		}
		got, err := n.ipam.RequestAddress(ctx, p.id, want, options)
		return got.Prefix, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	addr := want
	var err error
	if want.IsValid() {
		err = p.addrs.Take(want)
	} else {
		addr, err = p.addrs.Allocate()
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr, p.subnet.Bits()), nil
}

// prefer takes an address if it is free, without an error if it is not.
func (n *netState) prefer(addr netip.Addr) (netip.Prefix, bool) {
	p := n.poolOf(addr)
	if p == nil || p.addrs == nil {
		return netip.Prefix{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.addrs.Take(addr) != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, p.subnet.Bits()), true
}

// previous takes the addresses of an earlier run, all or none.
func (n *netState) previous(addrs []netip.Addr) (addr4, addr6 netip.Prefix, ok bool) {
	for _, a := range addrs {
		got, free := netip.Prefix{}, false
		if n.inRange(a) {
			got, free = n.prefer(a)
		}
		switch {
		case !free:
		case a.Is6():
			addr6 = got
		default:
			addr4 = got
		}
	}
	if addr4.IsValid() == n.rec.EnableIPv4 && addr6.IsValid() == n.rec.EnableIPv6 {
		return addr4, addr6, true
	}
	for _, a := range []netip.Prefix{addr4, addr6} {
		if a.IsValid() {
			n.free(context.Background(), a, false)
		}
	}
	return netip.Prefix{}, netip.Prefix{}, false
}

// inRange reports whether an address is one that is given out to who asks for
// none.
func (n *netState) inRange(a netip.Addr) bool {
	p := n.poolOf(a)
	return p != nil && p.addrs != nil && p.addrs.Range().Contains(a)
}

// poolOf is the subnet that an address belongs to; nil for none.
func (n *netState) poolOf(a netip.Addr) *pool {
	for _, p := range n.pools {
		if a.IsValid() && p.subnet.Contains(a) {
			return p
		}
	}
	return nil
}

// gatewayOf is the router of an address; invalid for none.
func (n *netState) gatewayOf(a netip.Prefix) netip.Addr {
	if p := n.poolOf(a.Addr()); p != nil {
		return p.gateway
	}
	return netip.Addr{}
}

// free gives an address back: at once, or, when drain is true, as soon as its
// link is gone.
func (n *netState) free(ctx context.Context, addr netip.Prefix, drain bool) {
	p := n.poolOf(addr.Addr())
	switch {
	case p == nil:
	case p.addrs == nil:
		if !drain {
			// What cannot be told to the IPAM driver is the driver's loss.
			_ = n.ipam.ReleaseAddress(context.WithoutCancel(ctx), p.id, addr.Addr())
		}
	default:
		n.mu.Lock()
		defer n.mu.Unlock()
		if drain {
			p.addrs.Drain(addr.Addr())
			return
		}
		p.addrs.Release(addr.Addr())
		close(n.freed)
		n.freed = make(chan struct{})
	}
}

// findLocked resolves a network by id, name or unambiguous prefix of an id;
// Service.mu is held. ErrNotFound with Docker's text.
func (s *Service) findLocked(ref string) (*netState, error) {
	if n := s.networks[ref]; n != nil && n.visible() {
		return n, nil
	}
	var byPrefix *netState
	matches := 0
	for id, n := range s.networks {
		if !n.visible() {
			continue
		}
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
	return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%d matches found based on ID prefix: network %s is ambiguous", matches, ref))
}

func (n *netState) visible() bool { return !n.making && !n.removing }

func (s *Service) network(id string) *netState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.networks[id]
}

// release gives an endpoint's addresses back: at once, or, when drain is true,
// as soon as its link is gone.
func (s *Service) release(ctx context.Context, ep network.Endpoint, drain bool) {
	n := s.network(ep.NetworkID)
	if n == nil {
		return
	}
	n.free(ctx, ep.IPv4, drain)
	n.free(ctx, ep.IPv6, drain)
}

// adopt marks the addresses of an endpoint that runs as taken.
func (n *netState) adopt(ep network.Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.chosenMAC = n.chosenMAC || !derivedMAC(ep)
	var errs []error
	for _, a := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if !a.IsValid() {
			continue
		}
		if p := n.poolOf(a.Addr()); p != nil && p.addrs != nil {
			errs = append(errs, p.addrs.Take(a.Addr()))
		}
	}
	return errors.Join(errs...)
}

// derivedMAC reports whether the MAC address follows from the address.
func derivedMAC(ep network.Endpoint) bool {
	if ep.IPv4.IsValid() {
		return ep.MAC == network.MAC(ep.IPv4.Addr())
	}
	return !ep.IPv6.IsValid() || ep.MAC == network.MAC(ep.IPv6.Addr())
}
