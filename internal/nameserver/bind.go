package nameserver

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/nameserver/table"
)

// backlog of a relay's listening socket; the kernel caps it at somaxconn.
const backlog = 4096

// portKey identifies a published port.
type portKey struct {
	proto string
	addr  netip.AddrPort
}

func keyOf(p table.Port) portKey {
	return portKey{p.Proto, netip.AddrPortFrom(p.HostIP, p.HostPort)}
}

// bind takes a port of the host. A reservation is a socket that is bound and
// neither listens nor shares: nobody else can bind the port, and connections
// that nothing translates are refused as if there were no server. A relay's
// socket listens.
func bind(p table.Port) (int, error) {
	if p.Relay {
		return bindRelay(p)
	}
	fd, err := bindSocket(p, false)
	if p.Proto != "tcp" || !errors.Is(err, unix.EADDRINUSE) {
		if err == nil && p.Proto == "udp" {
			if err = deaf(fd); err != nil {
				unix.Close(fd)
				return -1, err
			}
		}
		return fd, err
	}
	// An old connection in TIME_WAIT stands in the way of a socket that does
	// not share. A server would set SO_REUSEADDR; so do we, and listen, which
	// fails if anybody else listens. Then we stop listening (connecting to
	// AF_UNSPEC, see connect(2)) and stop sharing.
	fd, err = bindSocket(p, true)
	if err != nil {
		return -1, err
	}
	err = unix.Listen(fd, 0)
	if err == nil {
		err = disconnect(fd)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bindSocket(p table.Port, reuse bool) (int, error) {
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
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
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

func bindRelay(p table.Port) (int, error) {
	if p.Proto == "sctp" {
		return bindSocket(p, false) // reserved; there is no relay for SCTP
	}
	// Connections that were carried leave TIME_WAIT behind; a server in LISTEN
	// still keeps everybody else out.
	fd, err := bindSocket(p, p.Proto == "tcp")
	if err != nil {
		return -1, err
	}
	if p.Proto == "tcp" {
		err = unix.Listen(fd, backlog)
	} else if p.HostIP.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
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
	// The zone of a link-local address is kept as the interface's number.
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
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
