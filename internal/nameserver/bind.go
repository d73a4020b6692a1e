package nameserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/nameserver/table"
)

// backlog of a relay's listening socket; the kernel caps it at somaxconn.
const backlog = 4096

// portKey identifies a published port. It is numbers without a gap and no
// string, because a thousand ports are looked up thousands of times in one
// change: port, protocol, whether the address is of IPv4, and its zone stand in
// the last one.
type portKey struct{ high, low, rest uint64 }

func keyOf(p table.Port) portKey { return key(protocols[p.Proto], p.HostIP, p.HostPort) }

func key(proto uint8, addr netip.Addr, port uint16) portKey {
	raw := addr.As16()
	k := portKey{
		high: binary.BigEndian.Uint64(raw[:8]), low: binary.BigEndian.Uint64(raw[8:]),
		rest: uint64(port) | uint64(proto)<<16 | zone(addr)<<32,
	}
	if addr.Is4() {
		k.rest |= 1 << 24
	}
	return k
}

// zone of a link-local address is the interface's number; 0 is none.
func zone(a netip.Addr) uint64 {
	if a.Zone() == "" {
		return 0
	}
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return n
}

// protocols by the name that the table has for them.
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// reservation is a socket that is to be made: for one port of the table, or
// for one on every IPv6 address together with its like on every IPv4 address.
type reservation struct {
	owner string
	port  table.Port
	four  *table.Port
}

// reservations decides which sockets a list of ports takes. The ports on
// 0.0.0.0 and [::] share one: a published port is usually on both, and a socket
// costs as much as everything else that is done for it.
func reservations(owner string, ports []table.Port) []reservation {
	number := func(p *table.Port) uint32 { return uint32(protocols[p.Proto])<<16 | uint32(p.HostPort) }
	shared := make(map[uint32]int, len(ports)/2)
	for i := range ports {
		if p := &ports[i]; p.Relay && p.Proto != "sctp" && p.HostIP == netip.IPv6Unspecified() {
			shared[number(p)] = i
		}
	}
	fours, with := make([]*table.Port, len(ports)), make([]bool, len(ports))
	for i := range ports {
		p := &ports[i]
		if p.Relay || p.HostIP != netip.IPv4Unspecified() {
			continue
		}
		if six, ok := shared[number(p)]; ok && fours[six] == nil {
			fours[six], with[i] = p, true
		}
	}
	out := make([]reservation, 0, len(ports))
	for i := range ports {
		if !with[i] {
			out = append(out, reservation{owner: owner, port: ports[i], four: fours[i]})
		}
	}
	return out
}

// bindAll makes the sockets, several at a time. When one is refused none is
// left, and the first of the list that was refused is the error.
func bindAll(list []reservation) ([]*port, error) {
	workers := min(runtime.GOMAXPROCS(0), (len(list)+bindChunk-1)/bindChunk)
	made := make([][]*port, len(list))
	errs := make([]error, len(list))
	var next, failed atomic.Int64
	failed.Store(int64(len(list)))
	work := func() {
		for {
			last := next.Add(bindChunk)
			for i := last - bindChunk; i < min(last, int64(len(list))); i++ {
				if i > failed.Load() {
					return
				}
				if made[i], errs[i] = list[i].bind(); errs[i] == nil {
					continue
				}
				for at := failed.Load(); i < at && !failed.CompareAndSwap(at, i); at = failed.Load() {
				}
			}
			if last >= int64(len(list)) {
				return
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	out := make([]*port, 0, len(list))
	for _, ports := range made {
		out = append(out, ports...)
	}
	if at := failed.Load(); at < int64(len(list)) {
		for _, p := range out {
			unix.Close(p.fd)
		}
		return nil, errs[at]
	}
	return out, nil
}

// bindChunk is how many sockets a worker makes in a row: about 0.1 ms.
const bindChunk = 16

// bind makes the socket of a reservation; two, when somebody else's socket
// stands in the way of a shared one, to learn whose port it is.
func (r reservation) bind() ([]*port, error) {
	if r.four == nil {
		fd, err := bind(r.port, false)
		if err != nil {
			return nil, busyError{r.port, err}
		}
		return []*port{newPort(r.port, r.owner, fd)}, nil
	}
	fd, err := bind(r.port, true)
	if err == nil {
		p := newPort(r.port, r.owner, fd)
		p.dual = true
		return []*port{p}, nil
	}
	four, err := reservation{owner: r.owner, port: *r.four}.bind()
	if err != nil {
		return nil, err
	}
	six, err := reservation{owner: r.owner, port: r.port}.bind()
	if err != nil {
		unix.Close(four[0].fd)
		return nil, err
	}
	return append(four, six...), nil
}

// bind takes a port of the host. What is made is a socket that is bound and
// neither listens nor shares: nobody else can bind the port, and connections
// that nothing translates are refused as if there were no server. A relay's
// socket begins to listen later; see port.listen. A dual socket of [::] takes
// the port of 0.0.0.0 too.
func bind(p table.Port, dual bool) (int, error) {
	fd, err := bindSocket(p, false, dual)
	switch {
	case err == nil && p.Proto == "udp" && !p.Relay:
		if err = deaf(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	case p.Proto != "tcp" || !errors.Is(err, unix.EADDRINUSE):
		return fd, err
	}
	// An old connection in TIME_WAIT stands in the way of a socket that does
	// not share. A server would set SO_REUSEADDR; so do we, and listen, which
	// fails if anybody else listens. A relay stays like that. Otherwise we stop
	// listening (connecting to AF_UNSPEC, see connect(2)) and stop sharing.
	fd, err = bindSocket(p, true, dual)
	if err != nil {
		return -1, err
	}
	err = unix.Listen(fd, 0)
	if err == nil && !p.Relay {
		err = disconnect(fd)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bindSocket binds; a dual socket of [::] has 0.0.0.0 too.
func bindSocket(p table.Port, reuse, dual bool) (int, error) {
	family := unix.AF_INET
	if p.HostIP.Is6() {
		family = unix.AF_INET6
	}
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch p.Proto {
	case "tcp":
	case "udp":
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		proto = unix.IPPROTO_SCTP
	default:
		return -1, fmt.Errorf("protocol %s: %w", p.Proto, unix.EPROTONOSUPPORT)
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		only := 1
		if dual {
			only = 0
		}
		// Asking is five times cheaper than setting, which takes the socket's lock.
		if is, ask := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); ask != nil || is != only {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		}
	}
	if err == nil && reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(p.HostIP, p.HostPort)))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// listen makes a relay's socket ready. Nobody can have taken the port in the
// meantime, so this does not fail but for want of memory; it may be repeated.
func (p *port) listen() error {
	switch {
	case p.number == unix.IPPROTO_TCP:
		// Connections that are carried are told to share the port, or they, and
		// what they leave in TIME_WAIT, would keep the next relay out.
		return errors.Join(unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Listen(p.fd, backlog))
	case p.addr.Addr().Is6():
		return unix.SetsockoptInt(p.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(p.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// disconnect dissolves a socket's association; it stays bound.
func disconnect(fd int) error {
	raw := unix.RawSockaddrUnix{Family: unix.AF_UNSPEC}
	return rawConnect(fd, &raw)
}

// deaf makes the kernel drop whatever arrives at a socket, so that datagrams
// which nothing translated do not pile up in its buffer.
func deaf(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone(a.Addr()))}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
