// Package conntrack forgets connections that the kernel tracks. Entry points:
// ForgetUDP and MoveUDP. It keeps no state and has no locks.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ForgetUDP deletes the entries of UDP flows that were sent to one of the
// destinations, or are answered by one of the sources. UDP has no end, so
// without this a client that keeps sending reaches the container that had the
// port before, or nothing, for as long as it sends.
//
// An address that is unspecified stands for every address of its family.
func ForgetUDP(destinations, sources []netip.AddrPort) error {
	_, err := remove(destinations, sources, func(f flow) verdict {
		if fits(destinations, f.destination) || fits(sources, f.source) {
			return forget
		}
		return keep
	})
	return err
}

// MoveUDP is ForgetUDP for destinations that lead from some sources to others
// now: flows that the latter answer stay. A question that one of the former has
// not answered yet is left alone for as long as patience, so that its answer
// still finds its way; only what follows an answer cannot be told from silence.
func MoveUDP(destinations, from, to []netip.AddrPort, patience time.Duration) error {
	const pause = 2 * time.Millisecond
	for start := time.Now(); ; time.Sleep(pause) {
		last := time.Since(start) >= patience
		left, err := remove(destinations, from, func(f flow) verdict {
			switch {
			case !fits(destinations, f.destination) || fits(to, f.source):
				return keep
			case !f.answered && fits(from, f.source) && !last:
				return wait
			}
			return forget
		})
		if err != nil || left == 0 {
			return err
		}
	}
}

// verdict is what becomes of a flow.
type verdict int

const (
	keep verdict = iota
	forget
	// wait counts it.
	wait
)

// flow is one entry of the kernel's table.
type flow struct {
	// destination is what the client sends to, source who answers.
	destination, source netip.AddrPort
	// answered: there was an answer (IPS_SEEN_REPLY).
	answered bool
	// entry is the entry as the kernel told it, which names it to the kernel.
	entry []byte
}

// remove deletes the UDP flows that decide says to forget, in the families of
// the addresses, and counts those that are to be waited for.
func remove(destinations, sources []netip.AddrPort, decide func(flow) verdict) (waiting int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if !some(family, destinations) && !some(family, sources) {
			continue
		}
		flows, err := list(family)
		if err != nil {
			return waiting, fmt.Errorf("list conntrack entries: %w", err)
		}
		for _, f := range flows {
			switch decide(f) {
			case wait:
				waiting++
			case forget:
				req := request(family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
				req.AddRawData(f.entry)
				if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
					return waiting, fmt.Errorf("delete conntrack entry: %w", err)
				}
			}
		}
	}
	return waiting, nil
}

func some(family uint8, list []netip.AddrPort) bool {
	for _, a := range list {
		if a.Addr().Is4() == (family == unix.AF_INET) {
			return true
		}
	}
	return false
}

func request(family uint8, operation, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_internals.h
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterProtocol     = 1 << 3
	statusSeenReply    = 1 << 1
)

// list returns the UDP flows of a family. Since Linux 5.8 the kernel leaves out
// the others; an older one ignores the request to.
func list(family uint8) ([]flow, error) {
	req := request(family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
	req.AddData(tuple)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(filterProtocol))
	req.AddData(filter)
	out, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	// Interrupted: the table grew meanwhile. What had to be found was there
	// before and is among the rest.
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, err
	}
	var flows []flow
	for _, m := range out {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		f, udp, err := parse(m[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		if udp {
			flows = append(flows, f)
		}
	}
	return flows, nil
}

func parse(entry []byte) (f flow, udp bool, err error) {
	f.entry = entry
	attrs, err := nl.ParseRouteAttr(entry)
	for _, a := range attrs {
		if err != nil {
			break
		}
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case nl.CTA_TUPLE_ORIG:
			_, f.destination, udp, err = parseTuple(a.Value)
		case nl.CTA_TUPLE_REPLY:
			f.source, _, _, err = parseTuple(a.Value)
		case nl.CTA_STATUS:
			if len(a.Value) == 4 {
				f.answered = a.Value[3]&statusSeenReply != 0 // in network order
			}
		}
	}
	return f, udp, err
}

func parseTuple(data []byte) (src, dst netip.AddrPort, udp bool, err error) {
	var from, to netip.Addr
	var sport, dport uint16
	attrs, err := nl.ParseRouteAttr(data)
	for _, a := range attrs {
		kind := a.Attr.Type & nl.NLA_TYPE_MASK
		if kind != nl.CTA_TUPLE_IP && kind != nl.CTA_TUPLE_PROTO {
			continue
		}
		inner, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return src, dst, false, err
		}
		for _, i := range inner {
			switch t := i.Attr.Type & nl.NLA_TYPE_MASK; {
			case kind == nl.CTA_TUPLE_IP && (t == nl.CTA_IP_V4_SRC || t == nl.CTA_IP_V6_SRC):
				from, _ = netip.AddrFromSlice(i.Value)
			case kind == nl.CTA_TUPLE_IP && (t == nl.CTA_IP_V4_DST || t == nl.CTA_IP_V6_DST):
				to, _ = netip.AddrFromSlice(i.Value)
			case kind == nl.CTA_TUPLE_PROTO && t == nl.CTA_PROTO_NUM && len(i.Value) > 0:
				udp = i.Value[0] == unix.IPPROTO_UDP
			case kind == nl.CTA_TUPLE_PROTO && t == nl.CTA_PROTO_SRC_PORT && len(i.Value) == 2:
				sport = uint16(i.Value[0])<<8 | uint16(i.Value[1])
			case kind == nl.CTA_TUPLE_PROTO && t == nl.CTA_PROTO_DST_PORT && len(i.Value) == 2:
				dport = uint16(i.Value[0])<<8 | uint16(i.Value[1])
			}
		}
	}
	return netip.AddrPortFrom(from, sport), netip.AddrPortFrom(to, dport), udp, err
}

func fits(list []netip.AddrPort, at netip.AddrPort) bool {
	for _, a := range list {
		if a.Port() == at.Port() && (a == at || a.Addr().IsUnspecified() && a.Addr().Is4() == at.Addr().Is4()) {
			return true
		}
	}
	return false
}
