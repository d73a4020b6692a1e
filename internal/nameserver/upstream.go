package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// maxUpstream bounds the questions that wait for an answer at a time, and
	// maxWaiting the clients that wait for them.
	maxUpstream, maxWaiting = 1024, 4096
	// resend is when a datagram counts as lost, tryTimeout when a server does, and
	// onlyTimeout when the only one there is does (as long as Docker waits). A stub
	// resolver (glibc) gives up on us after five seconds.
	resend      = 1200 * time.Millisecond
	tryTimeout  = 2500 * time.Millisecond
	onlyTimeout = 4 * time.Second
	// maxServers that are asked one after the other.
	maxServers = 3
)

// errNoUpstream: there is nobody to ask, or nobody knows.
var errNoUpstream = errors.New("no upstream server answered")

// errOther: the answer is to another question.
var errOther = errors.New("the answer is to another question")

// question is a query and whom to ask.
type question struct {
	*query
	servers []table.Upstream
	// ns is a copy of the sandbox's namespace, for asking from inside.
	ns *netns.NS
}

// patience is how long one server is waited for.
func (q question) patience() time.Duration {
	if len(q.servers) == 1 {
		return onlyTimeout
	}
	return tryTimeout
}

// ask has an upstream server answer, in the background, and calls done exactly
// once with a response that the caller must not change, nil when nobody
// answered; false, and no call, when too many wait already. Clients with the
// same question wait for the same answer. q belongs to ask.
func (s *Server) ask(sb *sandbox, q *query, done func(resp []byte)) bool {
	key := string(q.key)
	s.askMu.Lock()
	if s.waiting >= maxWaiting {
		s.askMu.Unlock()
		return false
	}
	if others, ok := s.asked[key]; ok {
		s.asked[key] = append(others, done)
		s.waiting++
		s.askMu.Unlock()
		return true
	}
	if len(s.asked) >= maxUpstream {
		s.askMu.Unlock()
		return false
	}
	s.asked[key] = []func([]byte){done}
	s.waiting++
	s.askMu.Unlock()

	s.mu.Lock()
	task := question{query: q, servers: sb.upstream}
	var err error
	if sb.ns != nil && slices.ContainsFunc(task.servers, func(up table.Upstream) bool { return !up.Host }) {
		task.ns, err = duplicate(sb.ns)
	}
	s.mu.Unlock()
	s.busy.Add(1)
	go func() {
		defer s.busy.Done()
		var resp []byte
		if err == nil {
			resp, err = task.forward()
		}
		if task.ns != nil {
			task.ns.Close()
		}
		if err != nil {
			s.log.Debug("ask upstream", "name", string(q.name), "error", err)
		} else {
			s.cache.put(key, resp, q.end)
		}
		s.askMu.Lock()
		waiters := s.asked[key]
		delete(s.asked, key)
		s.waiting -= len(waiters)
		s.askMu.Unlock()
		for _, done := range waiters {
			done(resp)
		}
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

// serversOf are the servers that a sandbox's questions go to. On internal
// networks nobody is asked from the host, so that no name leads outside; a
// server of --dns is, from inside, if it can be reached there (as Docker).
func serversOf(conf *table.DNS) (list []table.Upstream, key string) {
	if conf == nil {
		return nil, ""
	}
	for _, up := range conf.Upstream {
		own := up.Addr.Addr() == netip.AddrFrom4(resolver) && !up.Host
		if own || up.Host && !conf.Forward || len(list) == maxServers {
			continue
		}
		list = append(list, up)
		key += fmt.Sprintf(" %s %t", up.Addr, up.Host)
	}
	return list, key
}

// forward asks the servers in their order. A server that answers SERVFAIL or
// REFUSED, or not at all, is passed over.
func (q question) forward() ([]byte, error) {
	errs := []error{errNoUpstream}
	for _, up := range q.servers {
		resp, err := q.exchange(up)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", up.Addr, err))
			continue
		}
		const rcodeRefused = 5
		if rcode := resp[3] & maskRcode; rcode == rcodeFailure || rcode == rcodeRefused {
			errs = append(errs, fmt.Errorf("%s: code %d", up.Addr, rcode))
			continue
		}
		return resp, nil
	}
	return nil, errors.Join(errs...)
}

// exchange asks one server by UDP, and by TCP when its answer was cut.
func (q question) exchange(up table.Upstream) ([]byte, error) {
	out := slices.Clone(q.raw)
	binary.BigEndian.PutUint16(out, uint16(rand.Uint32())) // nobody inside or outside can guess it
	resp, err := q.exchangeUDP(up, out)
	if err != nil {
		return nil, err
	}
	if resp[2]&bitTruncated != 0 {
		if full, err := q.exchangeTCP(up, out); err == nil {
			resp = full
		}
	}
	return resp, nil
}

// dial connects from the namespace that the server means something in.
func (q question) dial(up table.Upstream, proto string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), q.patience())
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

func (q question) exchangeUDP(up table.Upstream, out []byte) ([]byte, error) {
	conn, err := q.dial(up, "udp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, max(q.size, 4096)) // some servers send more than they were told to
	until := time.Now().Add(q.patience())
	for sent := 0; ; {
		deadline := until
		if sent < 2 {
			if _, err := conn.Write(out); err != nil {
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
		resp, err := q.readUDP(conn, buf, out)
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
func (q question) readUDP(conn net.Conn, buf, out []byte) ([]byte, error) {
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if q.isAnswer(buf[:n], out) {
			return slices.Clone(buf[:n]), nil
		}
	}
}

func (q question) isAnswer(resp, out []byte) bool {
	return len(resp) >= q.end && resp[0] == out[0] && resp[1] == out[1] && sameQuestion(resp, out, q.end)
}

func (q question) exchangeTCP(up table.Upstream, out []byte) ([]byte, error) {
	conn, err := q.dial(up, "tcp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(q.patience())); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	resp := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, resp); err != nil {
		return nil, err
	}
	if !q.isAnswer(resp, out) {
		return nil, errOther
	}
	return resp, nil
}
