// Package portmap turns published ports into elements of the firewall's maps:
// one element per binding, so publishing a port costs the same with one port
// as with ten thousand. A lookup in the kernel is a hash of the packet's
// protocol and port.
//
// Entry points: Sets, Maps and Forget. No state, no locks.
package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/conntrack"
	"github.com/orlop/orlop/internal/linux/nft"
)

// Names of the maps. "any" holds ports published on every address of the host,
// "addr" those on one address.
const (
	Any4  = "published_any4"
	Any6  = "published_any6"
	Addr4 = "published_addr4"
	Addr6 = "published_addr6"
	// Direct4 and Direct6 hold published ports by the containers' own addresses,
	// for networks that are reached by those.
	Direct4 = "direct4"
	Direct6 = "direct6"
)

// Sets declares the maps and puts the bindings into them.
func Sets(bindings []network.Binding) []nft.Set {
	sets := Maps(bindings)
	return []nft.Set{sets[Any4], sets[Any6], sets[Addr4], sets[Addr6], sets[Direct4], sets[Direct6]}
}

// Maps returns every map with the elements that the bindings are.
func Maps(bindings []network.Binding) map[string]nft.Set {
	four, six := []nftables.SetDatatype{nft.TypeIPv4, nft.TypeService}, []nftables.SetDatatype{nft.TypeIPv6, nft.TypeService}
	sets := map[string]nft.Set{
		Any4:  {Name: Any4, Key: []nftables.SetDatatype{nft.TypeProto, nft.TypeService}, Value: four},
		Any6:  {Name: Any6, Key: []nftables.SetDatatype{nft.TypeProto, nft.TypeService}, Value: six},
		Addr4: {Name: Addr4, Key: []nftables.SetDatatype{nft.TypeIPv4, nft.TypeProto, nft.TypeService}, Value: four},
		Addr6: {Name: Addr6, Key: []nftables.SetDatatype{nft.TypeIPv6, nft.TypeProto, nft.TypeService}, Value: six},

		Direct4: {Name: Direct4, Key: []nftables.SetDatatype{nft.TypeIPv4, nft.TypeProto, nft.TypeService}},
		Direct6: {Name: Direct6, Key: []nftables.SetDatatype{nft.TypeIPv6, nft.TypeProto, nft.TypeService}},
	}
	elements := map[string]*[]nft.Element{}
	for name := range sets {
		elements[name] = new([]nft.Element)
	}
	seen := map[string]bool{}
	any4 := elements[Any4]
	*any4 = make([]nft.Element, 0, len(bindings)/2) // most are for both families, and the other one is carried
	for _, b := range bindings {
		if b.Direct {
			name := Direct4
			if b.ContainerIP.Is6() {
				name = Direct6
			}
			list := elements[name]
			key := nft.Concat(b.ContainerIP.AsSlice(), protocol(b), binary.BigEndian.AppendUint16(nil, b.ContainerPort))
			if direct := name + string(key); !seen[direct] { // published by several addresses
				seen[direct] = true
				*list = append(*list, nft.Element{Key: key})
			}
		}
		if !b.Translated() {
			continue // netd carries it
		}
		list := any4
		switch {
		case b.HostIP.Is4() && !b.HostIP.IsUnspecified():
			list = elements[Addr4]
		case b.HostIP.Is6() && b.HostIP.IsUnspecified():
			list = elements[Any6]
		case b.HostIP.Is6():
			list = elements[Addr6]
		}
		*list = append(*list, element(b))
	}
	for name, s := range sets {
		s.Elements = *elements[name]
		sets[name] = s
	}
	return sets
}

func protocol(b network.Binding) []byte {
	switch b.Proto {
	case "tcp":
		return []byte{unix.IPPROTO_TCP}
	case "udp":
		return []byte{unix.IPPROTO_UDP}
	case "sctp":
		return []byte{unix.IPPROTO_SCTP}
	}
	return []byte{0}
}

func element(b network.Binding) nft.Element {
	proto := protocol(b)
	port := binary.BigEndian.AppendUint16(nil, b.HostPort)
	key := nft.Concat(proto, port)
	if !b.HostIP.IsUnspecified() {
		key = nft.Concat(b.HostIP.AsSlice(), proto, port)
	}
	return nft.Element{Key: key, Value: nft.Concat(b.ContainerIP.AsSlice(), binary.BigEndian.AppendUint16(nil, b.ContainerPort))}
}

// Forget makes the kernel forget UDP flows of bindings that were just added or
// removed.
func Forget(bindings []network.Binding) error {
	destinations, sources := flows(bindings)
	if len(destinations) == 0 {
		return nil
	}
	return conntrack.ForgetUDP(destinations, sources)
}

// inFlight is how long an answer of a container that had a port may take to pass
// the change that gave the port to another one.
const inFlight = 250 * time.Millisecond

// Move makes the kernel forget the UDP flows of bindings that were replaced by
// others, but for questions that are just being answered.
func Move(from, to []network.Binding) error {
	destinations, before := flows(from)
	_, now := flows(to)
	if len(destinations) == 0 {
		return nil
	}
	return conntrack.MoveUDP(destinations, before, now, inFlight)
}

// flows are what clients send to, and who answers, of bindings by UDP.
func flows(bindings []network.Binding) (destinations, sources []netip.AddrPort) {
	for _, b := range bindings {
		if b.Proto == "udp" {
			destinations = append(destinations, netip.AddrPortFrom(b.HostIP, b.HostPort))
			sources = append(sources, netip.AddrPortFrom(b.ContainerIP, b.ContainerPort))
		}
	}
	return destinations, sources
}
