package network

import (
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Pool is a block of addresses that is split into subnets of one size.
type Pool struct {
	// Base is the whole block, Size the prefix length of the subnets.
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

// DefaultPools are the blocks of Docker's built-in value (172.17.0.0/16 …
// 172.31.0.0/16 and 192.168.0.0/16), cut smaller: a /16 for the first network,
// which is the default bridge, then 3,840 networks of 253 containers each, where
// Docker has 30 (docs/decisions/0078).
func DefaultPools() []Pool {
	return []Pool{
		{Base: netip.MustParsePrefix("172.17.0.0/16"), Size: 16},
		{Base: netip.MustParsePrefix("172.18.0.0/15"), Size: 24},
		{Base: netip.MustParsePrefix("172.20.0.0/14"), Size: 24},
		{Base: netip.MustParsePrefix("172.24.0.0/13"), Size: 24},
		{Base: netip.MustParsePrefix("192.168.0.0/16"), Size: 24},
	}
}

// ULAPool is the block that an engine's IPv6 subnets are taken from when none
// is configured: a /48 of unique local addresses (RFC 4193) that follows from
// the engine's id, as Docker's does from its own.
func ULAPool(engineID string) Pool {
	sum := sha256.Sum256([]byte(engineID))
	b := [16]byte{0: 0xfd}
	copy(b[1:6], sum[:5])
	return Pool{Base: netip.PrefixFrom(netip.AddrFrom16(b), 48), Size: 64}
}

// WithIPv6 are the pools with ula at their end, unless one of them is IPv6.
func WithIPv6(pools []Pool, ula Pool) []Pool {
	if slices.ContainsFunc(pools, func(p Pool) bool { return p.Base.Addr().Is6() }) {
		return pools
	}
	return append(slices.Clone(pools), ula)
}

// ErrNoMoreSubnets is returned when every subnet of every pool overlaps with
// one in use.
var ErrNoMoreSubnets = errdefs.ErrInvalidArgument.WithMessage("all predefined address pools have been fully subnetted")

// ChooseSubnet returns the first subnet of the pools, in their order, that
// overlaps with none of used: the subnets of other networks, the addresses of
// the host's interfaces and its routes (a default route is not one of them).
// size, when not 0, replaces the pools' own.
func ChooseSubnet(pools []Pool, family6 bool, size int, used []netip.Prefix) (netip.Prefix, error) {
	taken := make([]netip.Prefix, 0, len(used))
	for _, p := range used {
		if p.IsValid() && p.Bits() > 0 {
			taken = append(taken, p.Masked())
		}
	}
	slices.SortFunc(taken, netip.Prefix.Compare)
	for _, pool := range pools {
		if pool.Base.Addr().Is6() != family6 {
			continue
		}
		bits := pool.Size
		if size != 0 {
			bits = size
		}
		if bits < pool.Base.Bits() || bits > pool.Base.Addr().BitLen() {
			continue
		}
		if sub, ok := firstFree(pool.Base.Masked(), bits, taken); ok {
			return sub, nil
		}
	}
	return netip.Prefix{}, ErrNoMoreSubnets
}

// firstFree walks the subnets of base, jumping over whatever is taken, so that
// one big neighbor costs one step and not one per subnet.
func firstFree(base netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, bool) {
	next := netip.PrefixFrom(base.Addr(), bits)
	i := 0
	for base.Contains(next.Addr()) {
		// taken is in order: what ends before next is of no interest any more,
		// and if the first of the others is free of it, all are.
		for i < len(taken) && (taken[i].Addr().BitLen() != base.Addr().BitLen() || LastAddr(taken[i]).Less(next.Addr())) {
			i++
		}
		if i == len(taken) || !taken[i].Overlaps(next) {
			return next, true
		}
		last := LastAddr(taken[i])
		if l := LastAddr(next); last.Less(l) {
			last = l
		}
		after := last.Next()
		if !after.IsValid() {
			return netip.Prefix{}, false
		}
		aligned := netip.PrefixFrom(after, bits).Masked()
		if aligned.Addr().Less(after) { // inside a subnet that is partly taken
			after = LastAddr(aligned).Next()
			if !after.IsValid() {
				return netip.Prefix{}, false
			}
			aligned = netip.PrefixFrom(after, bits)
		}
		next = aligned
	}
	return netip.Prefix{}, false
}

// LastAddr is the highest address of p: the broadcast address for IPv4.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
