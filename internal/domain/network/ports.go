package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
)

// WantedPort is one line of a request to publish: a container port on one or
// more host addresses, all of which must get the same host port.
type WantedPort struct {
	Proto         string
	ContainerPort uint16
	// First and Last bound the host port; both 0 is any ephemeral one.
	First, Last uint16
	HostIPs     []netip.Addr
	// Input is what the container's labels say; empty for nothing.
	Input Input
}

// WantedPorts reads Docker's three fields (ExposedPorts, PortBindings,
// PublishAllPorts) as dockerd does. hostIP replaces a missing address; when it
// is 0.0.0.0 and host6 is true the port is published on [::] too.
// ErrInvalidArgument for what is not a port.
func WantedPorts(exposed networktypes.PortSet, bindings networktypes.PortMap, publishAll bool, hostIP netip.Addr, host6 bool) ([]WantedPort, error) {
	if !hostIP.IsValid() {
		hostIP = netip.IPv4Unspecified()
	}
	ports := slices.Collect(maps.Keys(bindings))
	if publishAll {
		for p := range exposed {
			if _, ok := bindings[p]; !ok {
				ports = append(ports, p)
			}
		}
	}
	slices.SortFunc(ports, func(a, b networktypes.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	wanted := slices.Grow([]WantedPort(nil), len(ports))
	// Who names no address: lines share it, and are told to grow by copying.
	everywhere := []netip.Addr{hostIP.Unmap()}
	if hostIP == netip.IPv4Unspecified() && host6 {
		everywhere = append(everywhere, netip.IPv6Unspecified())
	}
	for _, p := range ports {
		switch p.Proto() {
		case networktypes.TCP, networktypes.UDP, networktypes.SCTP:
		default:
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid protocol: " + string(p.Proto()))
		}
		list := bindings[p]
		if len(list) == 0 && publishAll {
			list = []networktypes.PortBinding{{}}
		}
		first := len(wanted)
		for _, b := range list {
			w := WantedPort{Proto: string(p.Proto()), ContainerPort: p.Num()}
			if b.HostPort != "" {
				r, err := networktypes.ParsePortRange(b.HostPort)
				if err != nil {
					return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("error parsing HostPort value(%s):%v", b.HostPort, err))
				}
				w.First, w.Last = r.Start(), r.End()
			}
			if ip := b.HostIP; ip.IsValid() {
				w.HostIPs = []netip.Addr{ip.Unmap().WithZone("")}
			} else {
				w.HostIPs = slices.Clip(everywhere)
			}
			wanted = mergeWanted(wanted, first, w)
		}
	}
	return wanted, nil
}

// mergeWanted adds a line to those of its port, which begin at first, or to one
// of them that differs only in the host address: Docker gives them the same host
// port, so a client may use any of the addresses. A port asked for twice with
// one address stays two lines.
func mergeWanted(all []WantedPort, first int, w WantedPort) []WantedPort {
	for i := first; i < len(all); i++ {
		o := &all[i]
		if o.First == w.First && o.Last == w.Last && !slices.ContainsFunc(w.HostIPs, func(ip netip.Addr) bool { return slices.Contains(o.HostIPs, ip) }) {
			o.HostIPs = append(o.HostIPs, w.HostIPs...)
			return all
		}
	}
	return append(all, w)
}

// PortTaken is the error of a host port that another container of this engine
// has. Docker answers it with 500 and this text.
type PortTaken struct {
	HostIP netip.Addr
	Port   uint16
}

func (e PortTaken) Error() string {
	return fmt.Sprintf("Bind for %s:%d failed: port is already allocated", e.HostIP, e.Port)
}

// Unwrap gives the error its class: dockerd answers with 500.
func (PortTaken) Unwrap() error { return errdefs.ErrInternal }

// ErrAllPortsAllocated is returned when no port of a range is free.
var ErrAllPortsAllocated = errdefs.ErrInternal.WithMessage("all ports are allocated")

// PortTable knows which host ports this engine has given out. A value of
// decisions, not safe for concurrent use.
type PortTable struct {
	first, last uint16
	excluded    map[uint16]bool
	used        map[portKey][]netip.Addr
	// next remembers where the search for a free port of a range goes on, so
	// that a port just given back is the last one to be used again.
	next map[rangeKey]uint16
}

type portKey struct {
	proto string
	port  uint16
}

type rangeKey struct {
	proto       string
	ip          netip.Addr
	first, last uint16
}

// NewPortTable draws ephemeral ports from first to last, both included: the
// kernel's ip_local_port_range, or 49153–65535 when that cannot be read. The
// kernel's ip_local_reserved_ports are left out.
func NewPortTable(first, last uint16, excluded ...uint16) *PortTable {
	t := &PortTable{first: first, last: last, excluded: map[uint16]bool{}, used: map[portKey][]netip.Addr{}, next: map[rangeKey]uint16{}}
	for _, p := range excluded {
		t.excluded[p] = true
	}
	return t
}

// conflict finds who stands in the way of ip: the address itself, or for (and
// from) an unspecified address everything of its family.
func (t *PortTable) conflict(proto string, port uint16, ip netip.Addr) (netip.Addr, bool) {
	var at netip.Addr
	for _, other := range t.used[portKey{proto, port}] {
		if other == ip || other.Is4() == ip.Is4() && (other.IsUnspecified() || ip.IsUnspecified()) {
			if !at.IsValid() || other.Less(at) {
				at = other
			}
		}
	}
	return at, at.IsValid()
}

// Take finds one host port for all addresses of w and takes it. Ports in skip
// are passed over: those that turned out to be bound by somebody else. It
// changes nothing when it fails with PortTaken or ErrAllPortsAllocated.
func (t *PortTable) Take(w WantedPort, skip map[uint16]bool) (uint16, error) {
	if w.First != 0 && w.First == w.Last {
		for _, ip := range w.HostIPs {
			if at, taken := t.conflict(w.Proto, w.First, ip); taken {
				return 0, PortTaken{HostIP: at, Port: w.First}
			}
		}
		t.Add(w.Proto, w.First, w.HostIPs...)
		return w.First, nil
	}
	first, last, anywhere := w.First, w.Last, false
	if first == 0 {
		first, last, anywhere = t.first, t.last, true
	}
	key := rangeKey{proto: w.Proto, ip: w.HostIPs[0], first: first, last: last}
	port, ok := t.next[key]
	if !ok {
		port = first
	}
	for range int(last) - int(first) + 1 {
		if port < first || port > last {
			port = first
		}
		free := !skip[port] && !(anywhere && t.excluded[port])
		for _, ip := range w.HostIPs {
			if _, taken := t.conflict(w.Proto, port, ip); taken {
				free = false
			}
		}
		if free {
			t.Add(w.Proto, port, w.HostIPs...)
			t.next[key] = port + 1
			return port, nil
		}
		port++
	}
	return 0, ErrAllPortsAllocated
}

// Add marks a port as taken without asking: for sandboxes that are taken over.
func (t *PortTable) Add(proto string, port uint16, ips ...netip.Addr) {
	key := portKey{proto, port}
	have := t.used[key]
	for _, ip := range ips {
		if !slices.Contains(have, ip) {
			have = append(have, ip)
		}
	}
	if len(have) > 0 {
		t.used[key] = have
	}
}

// Release makes a port free again; it may be repeated.
func (t *PortTable) Release(proto string, port uint16, ips ...netip.Addr) {
	key := portKey{proto, port}
	have := slices.DeleteFunc(t.used[key], func(ip netip.Addr) bool { return slices.Contains(ips, ip) })
	if len(have) > 0 {
		t.used[key] = have
	} else {
		delete(t.used, key)
	}
}

// Len counts the (protocol, address, port) triples that are taken.
func (t *PortTable) Len() int {
	n := 0
	for _, ips := range t.used {
		n += len(ips)
	}
	return n
}

// PortMap is how inspect and `docker port` show bindings; exposed ports that
// are not published have a nil list.
func PortMap(exposed networktypes.PortSet, bindings []Binding) networktypes.PortMap {
	m := networktypes.PortMap{}
	for p := range exposed {
		m[p] = nil
	}
	for _, b := range bindings {
		p, ok := networktypes.PortFrom(b.ContainerPort, networktypes.IPProtocol(b.Proto))
		if !ok {
			continue
		}
		shown := networktypes.PortBinding{HostIP: b.HostIP}
		if b.HostPort != 0 {
			shown.HostPort = fmt.Sprint(b.HostPort)
		}
		m[p] = append(m[p], shown)
	}
	return m
}

// Reserved are the bindings that have a port of the host: on routed networks
// there is none.
func Reserved(bindings []Binding) []Binding {
	return slices.DeleteFunc(slices.Clone(bindings), func(b Binding) bool { return b.HostPort == 0 })
}

// Relayed reports whether connections are (also) carried by netd, because the
// kernel cannot translate them: the families differ, or the host address
// includes [::1] (IPv6 has no route_localnet); or because it must not.
func (b Binding) Relayed() bool {
	return b.HostPort != 0 && (b.ObeysInput || b.HostIP.Is4() != b.ContainerIP.Is4() || b.HostIP.Is6() && (b.HostIP.IsUnspecified() || b.HostIP.IsLoopback()))
}

// Translated reports whether the firewall translates the binding.
func (b Binding) Translated() bool {
	return b.HostPort != 0 && !b.ObeysInput && b.HostIP.Is4() == b.ContainerIP.Is4() && !(b.HostIP.Is6() && b.HostIP.IsLoopback())
}

// String is the binding as Docker writes it in errors.
func (b Binding) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(b.HostIP, b.HostPort), b.Proto)
}
