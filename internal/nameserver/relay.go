package nameserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// dialTimeout bounds the wait for a container to answer.
	dialTimeout = 10 * time.Second
	// sessionIdle is how long a UDP client is remembered without traffic, as
	// long as Docker's proxy does.
	sessionIdle = 90 * time.Second
	// maxSessions of one port; the one that was idle longest makes room.
	maxSessions = 4096
	// maxDatagram of UDP.
	maxDatagram = 64 << 10
	// acceptsPerTurn keeps one busy port from starving the others.
	acceptsPerTurn = 32
)

// port is a socket that holds a published port. Guarded by Server.mu but for
// the sessions, which only the reactor touches.
type port struct {
	// These never change. A dual port is [::] and has
	// 0.0.0.0 too: what the kernel does not translate there is relayed.
	key         portKey
	number      uint8 // of the protocol
	addr        netip.AddrPort
	relay, dual bool
	fd          int
	proto       string
	owner       string
	// target is read by handlers.
	mu       sync.Mutex
	target   netip.AddrPort
	sessions map[sessionKey]*session
	// former are sessions with the target before: their answers are still
	// passed on, new datagrams go elsewhere.
	former map[*session]bool
	closed bool // guarded by Server.sessionsMu
}

// setTarget reports whether that is another one than before.
func (p *port) setTarget(t netip.AddrPort) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, p.target = p.target != t, t
	return changed
}

func (p *port) getTarget() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

func newPort(tp table.Port, owner string, fd int) *port {
	return &port{key: keyOf(tp), number: protocols[tp.Proto], addr: netip.AddrPortFrom(tp.HostIP, tp.HostPort), proto: tp.Proto, relay: tp.Relay, fd: fd, owner: owner, target: tp.Target}
}

// keys of the ports that the socket holds.
func (p *port) keys() []portKey {
	if p.dual {
		return []portKey{p.key, key(p.number, netip.IPv4Unspecified(), p.addr.Port())}
	}
	return []portKey{p.key}
}

// record is the table's form of the port.
func (p *port) record() table.Port {
	return table.Port{
		Proto: p.proto, HostIP: p.addr.Addr(), HostPort: p.addr.Port(), Target: p.getTarget(), Relay: p.relay,
	}
}

// open starts to serve a port whose socket is bound. There is no relay for
// SCTP: it is reserved only.
func (s *Server) open(p *port) error {
	if !p.relay || p.number == unix.IPPROTO_SCTP {
		return nil
	}
	if err := p.listen(); err != nil {
		return err
	}
	if p.number == unix.IPPROTO_TCP {
		return s.reactor.add(p.fd, func() { s.accept(p) })
	}
	if p.sessions == nil {
		p.sessions = map[sessionKey]*session{}
	}
	return s.reactor.add(p.fd, func() { s.fromClients(p) })
}

// close gives ports back; it may be repeated. Connections that are being carried go on.
func (s *Server) close(ports []*port) {
	var fds []int
	s.sessionsMu.Lock()
	for _, p := range ports {
		if p.closed { // a shared socket stands in the list for each of its ports
			continue
		}
		fds = append(fds, p.fd)
		p.closed = true
		for _, ses := range p.sessions {
			s.endSession(p, ses)
		}
		for ses := range p.former {
			s.endSession(p, ses)
		}
	}
	s.sessionsMu.Unlock()
	s.reactor.closeFDs(fds...)
}

// accept takes waiting connections of a TCP relay.
func (s *Server) accept(p *port) {
	for range acceptsPerTurn {
		fd, _, err := unix.Accept4(p.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EBADF) {
				s.log.Warn("accept connection of a published port", "port", p.addr, "error", err)
			}
			return
		}
		target := p.getTarget()
		s.relays.Add(1)
		s.busy.Add(1)
		go func() {
			defer s.relays.Add(-1)
			defer s.busy.Done()
			if err := carry(fd, target); err != nil {
				s.log.Debug("relay", "target", target, "error", err)
			}
		}()
	}
}

// carry moves bytes between an accepted connection and the container until
// both directions have ended.
func carry(fd int, target netip.AddrPort) error {
	client, err := tcpConn(fd)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		// The client learns that nobody is there, as without a relay.
		_ = client.SetLinger(0)
		return err
	}
	backend := conn.(*net.TCPConn)
	defer backend.Close()
	var wg sync.WaitGroup
	wg.Add(2)
	copyHalf := func(dst, src *net.TCPConn) {
		defer wg.Done()
		_, err := io.Copy(dst, src) // splice(2) underneath
		if err != nil && errors.Is(err, unix.ECONNRESET) {
			_ = dst.SetLinger(0)
			dst.Close()
			src.Close()
			return
		}
		_ = dst.CloseWrite()
		_ = src.CloseRead()
	}
	go copyHalf(backend, client)
	go copyHalf(client, backend)
	wg.Wait()
	return nil
}

func tcpConn(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "relay")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take connection: %w", err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.New("take connection: it is not TCP")
	}
	return tcp, nil
}

// sessionKey is a UDP client and the address of ours that it talks to.
type sessionKey struct {
	client, local netip.AddrPort
}

// session is a UDP client's own socket towards the container, so that answers
// find their way back.
type session struct {
	key  sessionKey
	fd   int
	used time.Time
}

// fromClients passes datagrams of clients on.
func (s *Server) fromClients(p *port) {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if p.closed {
		return
	}
	var oob [64]byte
	for range acceptsPerTurn {
		n, oobn, _, from, err := unix.Recvmsg(p.fd, s.datagram, oob[:], unix.MSG_DONTWAIT)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) { // ICMP for an answer of ours
				continue
			}
			return
		}
		key := sessionKey{client: addrPort(from), local: netip.AddrPortFrom(localAddr(oob[:oobn]), p.addr.Port())}
		ses := p.sessions[key]
		if ses == nil {
			if ses, err = s.newSession(p, key); err != nil {
				s.log.Debug("relay datagram", "target", p.getTarget(), "error", err)
				continue
			}
		}
		ses.used = s.now()
		// Errors are the container's: a datagram may get lost.
		_ = unix.Send(ses.fd, s.datagram[:n], unix.MSG_DONTWAIT)
	}
}

func (s *Server) newSession(p *port, key sessionKey) (*session, error) {
	if len(p.sessions) >= maxSessions {
		var oldest *session
		for _, ses := range p.sessions {
			if oldest == nil || ses.used.Before(oldest.used) {
				oldest = ses
			}
		}
		s.endSession(p, oldest)
	}
	target := p.getTarget()
	family := unix.AF_INET
	if target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr(target)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	ses := &session{key: key, fd: fd, used: s.now()}
	if err := s.addSession(p, ses); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return ses, nil
}

// addSession is called with sessionsMu held.
func (s *Server) addSession(p *port, ses *session) error {
	if err := s.reactor.add(ses.fd, func() { s.fromContainer(p, ses) }); err != nil {
		return err
	}
	p.sessions[ses.key] = ses
	if s.sessions.Add(1) == 1 {
		select {
		case s.sweep <- struct{}{}:
		default:
		}
	}
	return nil
}

// turn has UDP clients begin anew, with another target. Answers of the former
// one that are under way still arrive.
func (s *Server) turn(p *port) {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if p.former == nil {
		p.former = map[*session]bool{}
	}
	for ses := range p.former {
		if len(p.former)+len(p.sessions) <= maxSessions {
			break
		}
		s.endSession(p, ses)
	}
	for key, ses := range p.sessions {
		p.former[ses] = true
		delete(p.sessions, key)
	}
}

// endSession is called with sessionsMu held.
func (s *Server) endSession(p *port, ses *session) {
	switch {
	case p.former[ses]:
		delete(p.former, ses)
	case p.sessions[ses.key] == ses:
		delete(p.sessions, ses.key)
	default:
		return
	}
	s.reactor.remove(ses.fd)
	unix.Close(ses.fd)
	s.sessions.Add(-1)
}

// fromContainer passes answers back to the client, from the address it wrote to.
func (s *Server) fromContainer(p *port, ses *session) {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	if p.sessions[ses.key] != ses && !p.former[ses] {
		return
	}
	oob := sourceAddr(ses.key.local.Addr())
	for range acceptsPerTurn {
		n, _, err := unix.Recvfrom(ses.fd, s.datagram, unix.MSG_DONTWAIT)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) {
				continue
			}
			return
		}
		ses.used = s.now()
		_ = unix.Sendmsg(p.fd, s.datagram[:n], oob, sockaddr(ses.key.client), unix.MSG_DONTWAIT)
	}
}

// sweepSessions forgets idle UDP clients; it sleeps while there are none.
func (s *Server) sweepSessions(ctx context.Context) error {
	for {
		var tick <-chan time.Time
		if s.sessions.Load() > 0 {
			tick = time.After(sessionIdle / 3)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.sweep:
			continue
		case <-tick:
		}
		s.mu.Lock()
		var ports []*port
		for _, p := range s.ports {
			if p.number == unix.IPPROTO_UDP && p.relay {
				ports = append(ports, p)
			}
		}
		s.mu.Unlock()
		now := s.now()
		s.sessionsMu.Lock()
		for _, p := range ports {
			for _, ses := range p.sessions {
				if now.Sub(ses.used) > sessionIdle {
					s.endSession(p, ses)
				}
			}
			for ses := range p.former {
				if now.Sub(ses.used) > sessionIdle/3 {
					s.endSession(p, ses)
				}
			}
		}
		s.sessionsMu.Unlock()
	}
}

// localAddr reads the destination of a datagram from its control message.
func localAddr(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}

// sourceAddr is the control message that has a datagram sent from an address.
func sourceAddr(a netip.Addr) []byte {
	switch {
	case a.Is6():
		info := unix.Inet6Pktinfo{Addr: a.As16()}
		return unix.PktInfo6(&info)
	case a.Is4():
		info := unix.Inet4Pktinfo{Spec_dst: a.As4()}
		return unix.PktInfo4(&info)
	}
	return nil
}
