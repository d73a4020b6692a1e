package network

import (
	"math"
	"net/netip"

	"github.com/containerd/errdefs"
)

// Texts and classes are those of Docker's default IPAM driver.
var (
	ErrNoAddresses      = errdefs.ErrUnavailable.WithMessage("no available addresses on this pool")
	ErrAddressTaken     = errdefs.ErrPermissionDenied.WithMessage("Address already in use")
	ErrAddressOutside   = errdefs.ErrInvalidArgument.WithMessage("requested address is out of range")
	ErrAddressesDrained = errdefs.ErrUnavailable.WithMessage("no available addresses on this pool: those that were given back are still in use by the kernel")
)

// use says what an address of a subnet is used for.
type use uint8

const (
	// reserved: network and broadcast address, gateway, auxiliary addresses.
	reserved use = iota + 1
	// held: an endpoint has it, or a stopped container keeps it.
	held
	// draining: its endpoint is closed, but the kernel has not yet removed the
	// link, so a packet for the old container could still reach it.
	draining
)

// Addresses gives out the addresses of one subnet: always the lowest free one,
// as Docker does. It is a value of decisions, not safe for concurrent use.
type Addresses struct {
	subnet, rng netip.Prefix
	used        map[netip.Addr]use
	// low: every address of rng below it is in use. It makes Allocate cost the
	// same with one container as with a thousand.
	low      netip.Addr
	draining int
}

// NewAddresses prepares a subnet. rng, when valid, is the part of it that
// addresses are drawn from (--ip-range, --fixed-cidr). The addresses in
// reserve are never given out.
func NewAddresses(subnet, rng netip.Prefix, reserve ...netip.Addr) *Addresses {
	subnet = subnet.Masked()
	if !rng.IsValid() {
		rng = subnet
	}
	a := &Addresses{subnet: subnet, rng: rng.Masked(), used: map[netip.Addr]use{}, low: rng.Masked().Addr()}
	// A /31, /32, /127 and /128 has no network and broadcast address (RFC 3021).
	if subnet.Addr().BitLen()-subnet.Bits() > 1 {
		a.used[subnet.Addr()] = reserved
		if subnet.Addr().Is4() {
			a.used[LastAddr(subnet)] = reserved
		}
	}
	for _, r := range reserve {
		if r.IsValid() {
			a.used[r] = reserved
		}
	}
	return a
}

// Subnet returns the subnet the addresses belong to.
func (a *Addresses) Subnet() netip.Prefix { return a.subnet }

// Range is the part of the subnet that Allocate draws from.
func (a *Addresses) Range() netip.Prefix { return a.rng }

// Allocate takes the lowest free address. ErrNoAddresses; ErrAddressesDrained
// when waiting for the kernel would free some.
func (a *Addresses) Allocate() (netip.Addr, error) {
	for addr := a.low; addr.IsValid() && a.rng.Contains(addr); addr = addr.Next() {
		if a.used[addr] == 0 {
			a.used[addr] = held
			a.low = addr.Next()
			return addr, nil
		}
	}
	if a.draining > 0 {
		return netip.Addr{}, ErrAddressesDrained
	}
	return netip.Addr{}, ErrNoAddresses
}

// Take takes one particular address. ErrAddressOutside, ErrAddressTaken;
// ErrAddressesDrained when the kernel is about to free it.
func (a *Addresses) Take(addr netip.Addr) error {
	if !a.subnet.Contains(addr) {
		return ErrAddressOutside
	}
	switch a.used[addr] {
	case 0:
		a.used[addr] = held
		return nil
	case draining:
		return ErrAddressesDrained
	}
	return ErrAddressTaken
}

// Drain gives an address back as soon as Release says that its link is gone.
func (a *Addresses) Drain(addr netip.Addr) {
	if a.used[addr] == held {
		a.used[addr] = draining
		a.draining++
	}
}

// Reclaim takes an address back that is draining, for the container that had
// it; false when it is not draining any more.
func (a *Addresses) Reclaim(addr netip.Addr) bool {
	if a.used[addr] != draining {
		return false
	}
	a.used[addr] = held
	a.draining--
	return true
}

// Release makes an address free. Reserved addresses stay; releasing one that
// is free is no error, so undoing may be repeated.
func (a *Addresses) Release(addr netip.Addr) {
	switch a.used[addr] {
	case draining:
		a.draining--
	case held:
	default:
		return
	}
	delete(a.used, addr)
	if a.rng.Contains(addr) && (!a.low.IsValid() || addr.Less(a.low)) {
		a.low = addr
	}
}

// Available counts the addresses that Allocate could give out, at most 2⁶⁴-1.
func (a *Addresses) Available() uint64 {
	bits := a.rng.Addr().BitLen() - a.rng.Bits()
	all := uint64(math.MaxUint64)
	if bits < 64 {
		all = 1 << bits
	}
	for addr := range a.used {
		if a.rng.Contains(addr) {
			all--
		}
	}
	return all
}

// InUse counts the addresses that cannot be given out, the reserved ones too.
func (a *Addresses) InUse() int { return len(a.used) }
