// Package conntrack forgets connections that the kernel tracks. Entry point:
// ForgetUDP. It keeps no state and has no locks.
package conntrack

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ForgetUDP deletes the entries of UDP flows that were sent to one of the
// destinations, or are answered by one of the sources. UDP has no end, so
// without this a client that keeps sending reaches the container that had the
// port before, or nothing, for as long as it sends.
//
// An address that is unspecified stands for every address of its family.
func ForgetUDP(destinations, sources []netip.AddrPort) error {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		f := udpFilter{}
		f.dst, f.src = of(family, destinations), of(family, sources)
		if len(f.dst)+len(f.src) == 0 {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			return fmt.Errorf("delete conntrack entries: %w", err)
		}
	}
	return nil
}

func of(family netlink.InetFamily, in []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range in {
		if a.Addr().Is4() == (family == unix.AF_INET) {
			out = append(out, a)
		}
	}
	return out
}

type udpFilter struct {
	dst, src []netip.AddrPort
}

// MatchConntrackFlow implements the library's filter.
func (f udpFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	src, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return fits(f.dst, dst.Unmap(), flow.Forward.DstPort) || fits(f.src, src.Unmap(), flow.Reverse.SrcPort)
}

func fits(list []netip.AddrPort, addr netip.Addr, port uint16) bool {
	for _, a := range list {
		if a.Port() == port && (a.Addr().IsUnspecified() || a.Addr() == addr) {
			return true
		}
	}
	return false
}
