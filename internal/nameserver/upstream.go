package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// maxUpstream bounds the questions that wait for an answer at a time.
	maxUpstream = 1024
	// resend is when a datagram counts as lost, tryTimeout when a server does.
	// A stub resolver (glibc) gives up on us after five seconds.
	resend     = 1200 * time.Millisecond
	tryTimeout = 2500 * time.Millisecond
	// maxServers that are asked one after the other.
	maxServers = 3
)

// ask has an upstream server answer, in the background, and calls done exactly
// once; false when too many questions wait already.
func (s *Server) ask(sb *sandbox, query *dns.Msg, done func(*dns.Msg)) bool {
	s.mu.Lock()
	conf := sb.rec.DNS
	var ns *netns.NS
	var err error
	if conf != nil && sb.ns != nil {
		ns, err = duplicate(sb.ns)
	}
	s.mu.Unlock()
	if conf == nil || err != nil {
		return false
	}
	release := func() {
		if ns != nil {
			ns.Close()
		}
	}
	key := cacheKey(query, conf.Upstream)
	if resp := s.cache.get(key, query); resp != nil {
		release()
		done(resp)
		return true
	}
	select {
	case s.upstream <- struct{}{}:
	default:
		release()
		return false
	}
	s.busy.Add(1)
	go func() {
		defer s.busy.Done()
		defer func() { <-s.upstream }()
		defer release()
		resp, err := forward(question{msg: query, conf: *conf, ns: ns})
		if err != nil {
			s.log.Debug("ask upstream", "name", query.Question[0].Name, "error", err)
			done(failure(query, dns.RcodeServerFailure))
			return
		}
		s.cache.put(key, resp)
		done(resp)
	}()
	return true
}

func duplicate(ns *netns.NS) (*netns.NS, error) {
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return netns.FromFd(uintptr(fd)), nil
}

// forward asks the servers in their order. A server that answers SERVFAIL or
// REFUSED, or not at all, is passed over; if none did better, the last failure
// is the answer.
func forward(q question) (*dns.Msg, error) {
	var last *dns.Msg
	errs := []error{errNoUpstream}
	for i, up := range q.conf.Upstream {
		if i == maxServers {
			break
		}
		resp, err := exchange(q, up)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", up.Addr, err))
			continue
		}
		if resp.Rcode == dns.RcodeServerFailure || resp.Rcode == dns.RcodeRefused {
			last = resp
			continue
		}
		return resp, nil
	}
	if last != nil {
		return last, nil
	}
	return nil, errors.Join(errs...)
}

// exchange asks one server by UDP, and by TCP when its answer was cut.
func exchange(q question, up table.Upstream) (*dns.Msg, error) {
	out := q.msg.Copy()
	out.Id = dns.Id() // nobody inside or outside can guess it
	packed, err := out.Pack()
	if err != nil {
		return nil, err
	}
	resp, err := exchangeUDP(q, up, out, packed)
	if err == nil && resp.Truncated {
		if full, tcpErr := exchangeTCP(q, up, out, packed); tcpErr == nil {
			resp = full
		}
	}
	if err != nil {
		return nil, err
	}
	resp.Id = q.msg.Id
	return resp, nil
}

// dial connects from the namespace that the server means something in.
func dial(q question, up table.Upstream, proto string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	connect := func() error {
		var d net.Dialer
		c, err := d.DialContext(ctx, proto, netip.AddrPortFrom(up.Addr.Addr(), port53(up.Addr.Port())).String())
		conn = c
		return err
	}
	if up.Host || q.ns == nil {
		err = connect()
	} else {
		err = q.ns.Do(connect)
	}
	return conn, err
}

func port53(port uint16) uint16 {
	if port == 0 {
		return 53
	}
	return port
}

func exchangeUDP(q question, up table.Upstream, out *dns.Msg, packed []byte) (*dns.Msg, error) {
	conn, err := dial(q, up, "udp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, 8192)
	until := time.Now().Add(tryTimeout)
	for sent := 0; ; {
		deadline := until
		if sent < 2 {
			if _, err := conn.Write(packed); err != nil {
				return nil, err
			}
			sent++
			if again := time.Now().Add(resend); sent < 2 && again.Before(until) {
				deadline = again
			}
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		resp, err := readUDP(conn, buf, out)
		var timeout net.Error
		switch {
		case err == nil:
			return resp, nil
		case errors.As(err, &timeout) && timeout.Timeout() && deadline.Before(until):
			continue
		}
		return nil, err
	}
}

// readUDP passes over datagrams that are not the answer to out.
func readUDP(conn net.Conn, buf []byte, out *dns.Msg) (*dns.Msg, error) {
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		resp := new(dns.Msg)
		if resp.Unpack(buf[:n]) == nil && answers(resp, out) {
			return resp, nil
		}
	}
}

func answers(resp, out *dns.Msg) bool {
	return resp.Response && resp.Id == out.Id && len(resp.Question) == 1 && resp.Question[0] == out.Question[0]
}

func exchangeTCP(q question, up table.Upstream, out *dns.Msg, packed []byte) (*dns.Msg, error) {
	conn, err := dial(q, up, "tcp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(tryTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, raw); err != nil {
		return nil, err
	}
	resp := new(dns.Msg)
	if err := resp.Unpack(raw); err != nil {
		return nil, err
	}
	if !answers(resp, out) {
		return nil, errors.New("the answer is to another question")
	}
	return resp, nil
}
