// Package rtnl configures interfaces, addresses and routes by NETLINK_ROUTE
// (rtnetlink(7)). Messages are composed so that one request does what ip(8)
// needs three for: a veth is made with its peer inside the other namespace,
// with its bridge, its MTU and up.
//
// Entry point: Open, which binds the connection to the network namespace of
// the calling thread for good.
//
// Lock order: Conn.mu only; it covers one request and its answer.
package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// timeout of one answer in seconds; the kernel answers at once unless another
// caller holds its rtnl lock, which removing interfaces does for 30 ms each.
const timeout = 30

// Conn is one NETLINK_ROUTE socket. It is safe for concurrent use; requests
// wait for each other, so what may take long has a connection of its own.
type Conn struct {
	mu     sync.Mutex
	socket *nl.SocketHandle
}

// Open connects in the network namespace of the calling thread.
func Open() (*Conn, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	tv := unix.Timeval{Sec: timeout}
	if err := errors.Join(s.SetSendTimeout(&tv), s.SetReceiveTimeout(&tv)); err != nil {
		s.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &Conn{socket: &nl.SocketHandle{Socket: s}}, nil
}

// Close ends the connection.
func (c *Conn) Close() { c.socket.Close() }

// request sends and returns the answers of type answer (0: an acknowledgement).
func (c *Conn) request(proto, flags int, answer uint16, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.execute(proto, flags, answer, parts)
}

// strictly is request for a list of which the kernel is to leave out what does
// not match the message's header. Where it does not know how, it lists all.
func (c *Conn) strictly(proto, flags int, answer uint16, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.socket.Socket.GetFd()
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err == nil {
		// Not for other requests: they say more than a strict kernel takes.
		defer func() { _ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 0) }()
	}
	return c.execute(proto, flags, answer, parts)
}

// execute is called with mu held.
func (c *Conn) execute(proto, flags int, answer uint16, parts []nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(proto, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.socket}
	for _, p := range parts {
		req.AddData(p)
	}
	for again := 0; ; again++ {
		out, err := req.Execute(unix.NETLINK_ROUTE, answer)
		// Something changed while the kernel listed it (netlink(7),
		// NLM_F_DUMP_INTR): the list may lack what was there all the time.
		if !errors.Is(err, nl.ErrDumpInterrupted) || again == dumpAgain {
			return out, err
		}
	}
}

// dumpAgain bounds how often a list is asked for that changed meanwhile.
const dumpAgain = 100

// skipStats is RTEXT_FILTER_SKIP_STATS: links are listed without counters.
const skipStats = 1 << 3

// IsGone reports whether err says that an interface does not exist.
func IsGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}

// Link is an interface as the kernel lists it.
type Link struct {
	Index, Master int
	Name, Kind    string
	MTU           int
	Up            bool
	// Oper is the state that decides whether packets pass (RFC 2863), 6 is up.
	Oper uint8
	// PortState of a bridge's port (linux/if_bridge.h), 3 is forwarding.
	PortState uint8
	// Isolated and Hairpin are flags of a bridge's port, see SetPort.
	Isolated, Hairpin bool
	Addr              net.HardwareAddr
}

// operUp is IF_OPER_UP, forwarding BR_STATE_FORWARDING.
const (
	operUp     = 6
	forwarding = 3
)

// Passing reports whether the kernel lets packets pass the interface. A bridge
// that never had a port is in state unknown and passes.
func (l Link) Passing() bool {
	const unknown = 0 // IF_OPER_UNKNOWN
	if l.Kind == "bridge" && l.Oper == unknown {
		return true
	}
	return l.Oper == operUp && (l.Master == 0 || l.PortState == forwarding)
}

func parseLink(data []byte) (Link, error) {
	msg := nl.DeserializeIfInfomsg(data)
	l := Link{Index: int(msg.Index), Up: msg.Flags&unix.IFF_UP != 0}
	attrs, err := nl.ParseRouteAttr(data[msg.Len():])
	if err != nil {
		return Link{}, fmt.Errorf("parse link: %w", err)
	}
	for _, a := range attrs {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case unix.IFLA_IFNAME:
			l.Name = strings.TrimRight(string(a.Value), "\x00")
		case unix.IFLA_MTU:
			l.MTU = int(nl.NativeEndian().Uint32(a.Value))
		case unix.IFLA_MASTER:
			l.Master = int(nl.NativeEndian().Uint32(a.Value))
		case unix.IFLA_OPERSTATE:
			l.Oper = a.Value[0]
		case unix.IFLA_ADDRESS:
			l.Addr = net.HardwareAddr(a.Value)
		case unix.IFLA_LINKINFO:
			infos, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return Link{}, fmt.Errorf("parse link: %w", err)
			}
			for _, i := range infos {
				switch i.Attr.Type &^ unix.NLA_F_NESTED {
				case nl.IFLA_INFO_KIND:
					l.Kind = strings.TrimRight(string(i.Value), "\x00")
				case nl.IFLA_INFO_SLAVE_DATA:
					port, err := nl.ParseRouteAttr(i.Value)
					if err != nil {
						return Link{}, fmt.Errorf("parse link: %w", err)
					}
					for _, p := range port {
						switch p.Attr.Type {
						case nl.IFLA_BRPORT_STATE:
							l.PortState = p.Value[0]
						case nl.IFLA_BRPORT_ISOLATED:
							l.Isolated = p.Value[0] != 0
						case nl.IFLA_BRPORT_MODE:
							l.Hairpin = p.Value[0] != 0
						}
					}
				}
			}
		}
	}
	return l, nil
}

// Link finds an interface by name. IsGone when there is none.
func (c *Conn) Link(name string) (Link, error) {
	out, err := c.request(unix.RTM_GETLINK, unix.NLM_F_ACK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	if len(out) == 0 {
		return Link{}, fmt.Errorf("find link %s: %w", name, unix.ENODEV)
	}
	return parseLink(out[0])
}

// Links lists all interfaces. With a thousand of them that takes the kernel 10
// ms, and much longer while others come and go; Ports lists those of one bridge.
func (c *Conn) Links() ([]Link, error) { return c.links() }

// Ports lists the interfaces that are ports of a bridge. The kernel picks them
// (IFLA_MASTER in the request, since Linux 4.4), so it costs what these do.
func (c *Conn) Ports(bridge int) ([]Link, error) {
	all, err := c.links(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	return slices.DeleteFunc(all, func(l Link) bool { return l.Master != bridge }), err
}

func (c *Conn) links(pick ...nl.NetlinkRequestData) ([]Link, error) {
	out, err := c.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.RTM_NEWLINK, append([]nl.NetlinkRequestData{
		nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)),
	}, pick...)...)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]Link, 0, len(out))
	for _, m := range out {
		l, err := parseLink(m)
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// info is a message about an interface, to switch it on or to leave it as it is.
func info(index int, up bool) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	if up {
		msg.Change, msg.Flags = unix.IFF_UP, unix.IFF_UP
	}
	return msg
}

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK

// AddBridge makes a bridge that is up. Its MAC address is fixed: a bridge
// without one takes the lowest of its ports' and so changes its own whenever a
// container comes or goes.
func (c *Conn) AddBridge(name string, mac net.HardwareAddr, mtu int) error {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	_, err := c.request(unix.RTM_NEWLINK, create, 0, info(0, true),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))), kind)
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nil
}

// Veth describes a pair of interfaces.
type Veth struct {
	// Name is this end, in the connection's namespace: up, a port of Master.
	Name   string
	Master int
	MTU    int
	// Peer is the other end, born inside the namespace PeerNS (moving it there
	// afterwards would take 18 ms). It is down.
	Peer    string
	PeerMAC net.HardwareAddr
	PeerNS  uintptr
}

// AddVeth makes a pair in one request.
func (c *Conn) AddVeth(v Veth) error {
	mtu := nl.Uint32Attr(uint32(v.MTU))
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := kind.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	peer.AddChild(info(0, false))
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Peer))
	peer.AddRtAttr(unix.IFLA_MTU, mtu)
	if v.PeerMAC != nil {
		peer.AddRtAttr(unix.IFLA_ADDRESS, v.PeerMAC)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.PeerNS)))
	parts := []nl.NetlinkRequestData{
		info(0, true),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Name)),
		nl.NewRtAttr(unix.IFLA_MTU, mtu), kind,
	}
	if v.Master != 0 {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(v.Master))))
	}
	if _, err := c.request(unix.RTM_NEWLINK, create, 0, parts...); err != nil {
		return fmt.Errorf("add veth %s: %w", v.Name, err)
	}
	return nil
}

// SetUp switches an interface on.
func (c *Conn) SetUp(index int) error {
	if _, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, info(index, true)); err != nil {
		return fmt.Errorf("set link %d up: %w", index, err)
	}
	return nil
}

// WaitUp returns when packets pass an interface whose other end was switched on
// just now, or after a twentieth of a second. The kernel notices the carrier in
// a worker of its own; until then a bridge does not forward to the port and
// what is sent is lost, for example the first ARP request, which is repeated a
// second later. Since Linux 6.8 asking for the link makes the kernel catch up at
// once; older ones need some hundred microseconds.
func (c *Conn) WaitUp(name string) error {
	const pause = 200 * time.Microsecond
	for range 50 * time.Millisecond / pause {
		l, err := c.Link(name)
		if err != nil {
			return err
		}
		if l.Passing() {
			return nil
		}
		time.Sleep(pause)
	}
	return nil
}

// SetMTU changes an interface's MTU.
func (c *Conn) SetMTU(index, mtu int) error {
	if _, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, info(index, false), nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))); err != nil {
		return fmt.Errorf("set mtu of link %d: %w", index, err)
	}
	return nil
}

// SetPort sets two flags of a bridge port, by the interface's name (bridge(8)).
// Nothing passes between two isolated ports (Linux 4.18); a hairpin port gets
// back what it sent, if the bridge says that its destination is behind it.
func (c *Conn) SetPort(name string, isolated, hairpin bool) error {
	return c.port(name, func(data *nl.RtAttr) {
		data.AddRtAttr(nl.IFLA_BRPORT_MODE, flag(hairpin))
		data.AddRtAttr(nl.IFLA_BRPORT_ISOLATED, flag(isolated))
	})
}

// DisablePort cuts a bridge port off at once: nothing goes in or out any more,
// and the bridge forgets which addresses were behind it. Taking the interface
// out of the bridge, or down, makes the kernel wait for all its processors.
// IsGone when there is no such interface.
func (c *Conn) DisablePort(name string) error {
	link, err := c.Link(name)
	if err != nil {
		return err
	}
	// Not through SetPort's kind of message: what that changes is announced in
	// a way that has the bridge enable the port again.
	const disabled = 0 // BR_STATE_DISABLED
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(link.Index)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{disabled})
	port.AddRtAttr(nl.IFLA_BRPORT_FLUSH, nil)
	if _, err := c.request(unix.RTM_SETLINK, unix.NLM_F_ACK, 0, msg, port); err != nil {
		return fmt.Errorf("disable bridge port %s: %w", name, err)
	}
	return nil
}

func flag(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}

func (c *Conn) port(name string, fill func(*nl.RtAttr)) error {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	fill(kind.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil))
	_, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), kind)
	if err != nil {
		return fmt.Errorf("set up bridge port %s: %w", name, err)
	}
	return nil
}

// SetMaster makes an interface a port of a bridge. IsGone when there is no such
// interface.
func (c *Conn) SetMaster(name string, bridge int) error {
	_, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	if err != nil {
		return fmt.Errorf("make %s a port of bridge %d: %w", name, bridge, err)
	}
	return nil
}

// Delete removes an interface by name. IsGone when there is none.
func (c *Conn) Delete(name string) error {
	if _, err := c.request(unix.RTM_DELLINK, unix.NLM_F_ACK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))); err != nil {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addrParts(index int, p netip.Prefix) []nl.NetlinkRequestData {
	msg := nl.NewIfAddrmsg(family(p.Addr()))
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	raw := p.Addr().AsSlice()
	parts := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.IFA_LOCAL, raw), nl.NewRtAttr(unix.IFA_ADDRESS, raw)}
	if p.Addr().Is6() {
		// The address is ours by decision: no duplicate detection, which would
		// keep it unusable for a second.
		parts = append(parts, nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if p.Bits() < 31 {
		b := p.Masked().Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, b[:]))
	}
	return parts
}

// AddAddr gives an interface an address; one that it has already is no error.
func (c *Conn) AddAddr(index int, p netip.Prefix) error {
	if _, err := c.request(unix.RTM_NEWADDR, create, 0, addrParts(index, p)...); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to link %d: %w", p, index, err)
	}
	return nil
}

// DelAddr takes an address away; one that it has not is no error.
func (c *Conn) DelAddr(index int, p netip.Prefix) error {
	if _, err := c.request(unix.RTM_DELADDR, unix.NLM_F_ACK, 0, addrParts(index, p)...); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address %s of link %d: %w", p, index, err)
	}
	return nil
}

// Addr is an address of an interface.
type Addr struct {
	Index  int
	Prefix netip.Prefix
}

// Addrs lists the addresses of every interface.
func (c *Conn) Addrs() ([]Addr, error) { return c.addrs(0) }

// AddrsOf lists the addresses of one interface. The kernel picks them, as long
// as it is asked strictly (NETLINK_GET_STRICT_CHK, since Linux 4.20).
func (c *Conn) AddrsOf(index int) ([]Addr, error) {
	all, err := c.addrs(index)
	return slices.DeleteFunc(all, func(a Addr) bool { return a.Index != index }), err
}

func (c *Conn) addrs(index int) ([]Addr, error) {
	msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	msg.Index = uint32(index)
	ask := c.request
	if index != 0 {
		ask = c.strictly
	}
	out, err := ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.RTM_NEWADDR, msg)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Addr
	for _, m := range out {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("parse address: %w", err)
		}
		var local, addr netip.Addr
		for _, a := range attrs {
			ip, ok := netip.AddrFromSlice(a.Value)
			switch {
			case !ok:
			case a.Attr.Type == unix.IFA_LOCAL:
				local = ip
			case a.Attr.Type == unix.IFA_ADDRESS:
				addr = ip
			}
		}
		if local.IsValid() { // on point-to-point links IFA_ADDRESS is the peer
			addr = local
		}
		if addr.IsValid() {
			addrs = append(addrs, Addr{Index: int(msg.Index), Prefix: netip.PrefixFrom(addr, int(msg.Prefixlen))})
		}
	}
	return addrs, nil
}

// AddDefaultRoute sends everything to a gateway, or, when gateway is invalid,
// whatever has the family of ipv6 to the link itself. One that is there already
// is no error.
func (c *Conn) AddDefaultRoute(ipv6 bool, index int, gateway netip.Addr) error {
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	if ipv6 {
		msg.Family = unix.AF_INET6
	}
	parts := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index)))}
	if gateway.IsValid() {
		parts = append(parts, nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()))
	} else {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if _, err := c.request(unix.RTM_NEWROUTE, create, 0, parts...); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add default route by %s: %w", gateway, err)
	}
	return nil
}

// AddRoute adds a route by a link, on the link itself when via is invalid. One
// that is there already is no error.
func (c *Conn) AddRoute(index int, to netip.Prefix, via netip.Addr) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(family(to.Addr())), uint8(to.Bits())
	parts := []nl.NetlinkRequestData{
		msg, nl.NewRtAttr(unix.RTA_DST, to.Masked().Addr().AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))),
	}
	if via.IsValid() {
		parts = append(parts, nl.NewRtAttr(unix.RTA_GATEWAY, via.AsSlice()))
	} else {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if _, err := c.request(unix.RTM_NEWROUTE, create, 0, parts...); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route to %s: %w", to, err)
	}
	return nil
}

// SetDefaultRoute makes this the only default route of its family in the main
// table; index 0 is none, an invalid gateway the link itself.
func (c *Conn) SetDefaultRoute(ipv6 bool, index int, gateway netip.Addr) error {
	fam := uint8(unix.AF_INET)
	if ipv6 {
		fam = unix.AF_INET6
	}
	ask := nl.NewRtMsg()
	ask.Family = fam
	out, err := c.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RTM_NEWROUTE, ask)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	there := false
	for _, m := range out {
		msg := nl.DeserializeRtMsg(m)
		if msg.Family != fam || msg.Dst_len != 0 || msg.Type != unix.RTN_UNICAST || msg.Table != unix.RT_TABLE_MAIN {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return fmt.Errorf("parse route: %w", err)
		}
		var via netip.Addr
		oif := 0
		// What identifies the route is sent back as it came.
		parts := []nl.NetlinkRequestData{msg}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.RTA_GATEWAY:
				via, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_OIF:
				oif = int(nl.NativeEndian().Uint32(a.Value))
			case unix.RTA_PRIORITY:
			default:
				continue
			}
			parts = append(parts, nl.NewRtAttr(int(a.Attr.Type), a.Value))
		}
		if index != 0 && oif == index && via == gateway {
			there = true
			continue
		}
		if _, err := c.request(unix.RTM_DELROUTE, unix.NLM_F_ACK, 0, parts...); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete default route by %s: %w", via, err)
		}
	}
	if there || index == 0 {
		return nil
	}
	return c.AddDefaultRoute(ipv6, index, gateway)
}

// Move brings an interface into another network namespace, under another name.
// It is switched off by that. IsGone when there is no such interface.
func (c *Conn) Move(name, newName string, ns uintptr) error {
	link, err := c.Link(name)
	if err != nil {
		return err
	}
	off := info(link.Index, false)
	off.Change = unix.IFF_UP
	_, err = c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, off)
	if err == nil {
		_, err = c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, info(link.Index, false),
			nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(newName)), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns))))
	}
	if err != nil {
		return fmt.Errorf("move link %s: %w", name, err)
	}
	return nil
}

// SetMAC changes an interface's hardware address.
func (c *Conn) SetMAC(index int, mac net.HardwareAddr) error {
	if _, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, info(index, false), nl.NewRtAttr(unix.IFLA_ADDRESS, mac)); err != nil {
		return fmt.Errorf("set address of link %d: %w", index, err)
	}
	return nil
}

// Routes lists the destinations of all unicast routes of the main table, the
// default routes as 0.0.0.0/0 and ::/0.
func (c *Conn) Routes() ([]netip.Prefix, error) {
	out, err := c.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RTM_NEWROUTE, nl.NewRtMsg())
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var routes []netip.Prefix
	for _, m := range out {
		msg := nl.DeserializeRtMsg(m)
		if msg.Type != unix.RTN_UNICAST || msg.Table != unix.RT_TABLE_MAIN {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("parse route: %w", err)
		}
		dst := netip.IPv4Unspecified()
		if msg.Family == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
		for _, a := range attrs {
			if ip, ok := netip.AddrFromSlice(a.Value); ok && a.Attr.Type == unix.RTA_DST {
				dst = ip
			}
		}
		routes = append(routes, netip.PrefixFrom(dst, int(msg.Dst_len)))
	}
	return routes, nil
}

// SetNeighbor tells the host which MAC address an address behind an interface
// has. What waits for that address is sent at once; the kernel verifies the
// entry as it does every one (state STALE).
func (c *Conn) SetNeighbor(index int, addr netip.Addr, mac net.HardwareAddr) error {
	msg := &netlink.Ndmsg{Family: uint8(family(addr)), Index: uint32(index), State: unix.NUD_STALE}
	_, err := c.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, 0, msg,
		nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac))
	if err != nil {
		return fmt.Errorf("set neighbor %s: %w", addr, err)
	}
	return nil
}

// AddVLAN makes a sub-interface of parent for frames with an 802.1q tag, and
// switches it on.
func (c *Conn) AddVLAN(name string, parent int, id uint16) error {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vlan"))
	kind.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(id))
	return c.add(name, "vlan", kind, nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))))
}

// AddDummy makes an interface that leads nowhere, and switches it on.
func (c *Conn) AddDummy(name string) error {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("dummy"))
	return c.add(name, "dummy", kind)
}

func (c *Conn) add(name, kind string, parts ...nl.NetlinkRequestData) error {
	parts = append([]nl.NetlinkRequestData{info(0, true), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))}, parts...)
	if _, err := c.request(unix.RTM_NEWLINK, create, 0, parts...); err != nil {
		return fmt.Errorf("add %s %s: %w", kind, name, err)
	}
	return nil
}

// Sub describes an interface that shares another one's wire.
type Sub struct {
	// Kind is "macvlan" or "ipvlan".
	Kind string
	Name string
	// Parent is the other one's index.
	Parent int
	// Mode is bridge, private, vepa, passthru; or l2, l3, l3s with the flag
	// bridge, private, vepa.
	Mode, Flag string
	// MAC of a macvlan; nil has the kernel draw one.
	MAC net.HardwareAddr
	// MTU in bytes; 0 is the parent's.
	MTU int
	// NS is the namespace it is born in, switched off; nil is the connection's.
	NS *uintptr
}

// Modes of macvlan and ipvlan (linux/if_link.h).
var (
	macvlanModes = map[string]uint32{"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
	ipvlanModes  = map[string]uint16{"l2": 0, "l3": 1, "l3s": 2}
	ipvlanFlags  = map[string]uint16{"bridge": 0, "private": 1, "vepa": 2}
)

// AddSub makes such an interface. unix.EINVAL or unix.EBUSY where the parent
// has interfaces of the other kind.
func (c *Conn) AddSub(s Sub) error {
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(s.Kind))
	data := kind.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	if s.Kind == "ipvlan" {
		data.AddRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(ipvlanModes[s.Mode]))
		data.AddRtAttr(nl.IFLA_IPVLAN_FLAG, nl.Uint16Attr(ipvlanFlags[s.Flag]))
	} else {
		data.AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(macvlanModes[s.Mode]))
	}
	parts := []nl.NetlinkRequestData{
		info(0, false),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(s.Name)),
		nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(s.Parent))), kind,
	}
	if s.MAC != nil {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_ADDRESS, s.MAC))
	}
	if s.MTU > 0 {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(s.MTU))))
	}
	if s.NS != nil {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(*s.NS))))
	}
	if _, err := c.request(unix.RTM_NEWLINK, create, 0, parts...); err != nil {
		return fmt.Errorf("add %s %s: %w", s.Kind, s.Name, err)
	}
	return nil
}

// DelRoute removes the route that AddRoute made on the link itself; one that is
// not there is no error.
func (c *Conn) DelRoute(index int, to netip.Prefix) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len, msg.Scope = uint8(family(to.Addr())), uint8(to.Bits()), unix.RT_SCOPE_LINK
	_, err := c.request(unix.RTM_DELROUTE, unix.NLM_F_ACK, 0, msg,
		nl.NewRtAttr(unix.RTA_DST, to.Masked().Addr().AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route to %s: %w", to, err)
	}
	return nil
}
