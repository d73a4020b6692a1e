package nameserver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ttl of our own answers in seconds, as Docker's.
	ttl = 600
	// tcpIdle is how long a TCP client may be silent.
	tcpIdle = 10 * time.Second
	// maxTCP bounds the TCP clients of all sandboxes together, maxTCPEach those
	// of one.
	maxTCP, maxTCPEach = 1024, 128
	// turns of batchSize questions keep one busy sandbox from starving the
	// others.
	turns = 2
	// maxDatagramAnswer bounds what is sent by UDP, whatever a client takes.
	maxDatagramAnswer = 16 << 10
)

// readQuestions answers the UDP questions that wait; what has to be asked
// upstream goes on in the background. Only the reactor calls it.
func (s *Server) readQuestions(sb *sandbox, fd int) {
	b := s.batch
	for range turns {
		n := b.receive(fd)
		for i := range n {
			raw, ok := b.datagram(i)
			if !ok || len(raw) < headerSize {
				continue
			}
			q := &s.query
			out, forward := s.answer(sb, q, raw, b.out[i], false)
			if forward && !s.forwardUDP(sb, fd, q, &b.names[i]) {
				out = q.failure(b.out[i], rcodeFailure)
			}
			b.reply(i, out)
		}
		b.send(fd)
		if n < batchSize {
			return
		}
	}
}

// forwardUDP has an upstream server asked for a client; false when that is not
// possible.
func (s *Server) forwardUDP(sb *sandbox, fd int, q *query, from *unix.RawSockaddrInet4) bool {
	// The socket may be closed, and its number reused, before the answer
	// comes: a copy is not.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	own, to := q.clone(), *from
	limit := min(own.size, maxDatagramAnswer)
	started := s.ask(sb, own, func(resp []byte) {
		_ = sendTo(dup, own.adaptOrFail(resp, limit), &to)
		unix.Close(dup)
	})
	if !started {
		unix.Close(dup)
	}
	return started
}

// clone copies a query out of the buffers that are used again.
func (q *query) clone() *query {
	own := *q
	own.raw, own.name, own.key = slices.Clone(q.raw), slices.Clone(q.name), slices.Clone(q.key)
	return &own
}

// adaptOrFail makes the answer of an upstream response; nil is none.
func (q *query) adaptOrFail(resp []byte, limit int) []byte {
	if resp == nil {
		return q.failure(nil, rcodeFailure)
	}
	return q.adapt(nil, resp, 0, limit)
}

// answer answers from the table or the cache; forward tells that somebody else
// has to be asked. An answer of nil is none. Over UDP it is bounded by what the
// query says.
func (s *Server) answer(sb *sandbox, q *query, raw, buf []byte, tcp bool) (out []byte, forward bool) {
	err := q.parse(raw)
	if errors.Is(err, errNoQuestion) {
		return nil, false
	}
	s.queries.Add(1)
	switch {
	case err != nil:
		return q.failure(buf, rcodeFormat), false
	case q.opcode != 0:
		return q.failure(buf, rcodeNotImplemented), false
	case q.edns && q.version != 0:
		return q.failure(buf, rcodeVersion), false
	}
	limit := maxMessage
	if !tcp {
		limit = min(q.size, maxDatagramAnswer)
	}
	ours := q.class == classINET || q.class == classANY
	s.mu.Lock()
	conf := sb.rec.DNS
	if conf == nil {
		s.mu.Unlock()
		return q.failure(buf, rcodeFailure), false
	}
	if ours && q.plain {
		if q.kind == typePTR {
			if addr, ok := parseReverse(q.name); ok {
				if name, known := s.names.name(conf.Networks, addr); known {
					s.mu.Unlock()
					return q.pointer(buf, limit, name), false
				}
			}
		} else if addrs, known := s.names.addrs(s.addrs[:0], conf.Networks, conf.Links, q.name); known {
			s.addrs = addrs
			out := q.addresses(buf, limit, addrs)
			s.mu.Unlock()
			return out, false
		}
	}
	servers, nobody := sb.servers, len(sb.upstream) == 0
	alone := conf.OwnRoot && ours && (q.kind == typeA || q.kind == typeAAAA) && !slices.Contains(q.name, '.')
	s.mu.Unlock()
	switch {
	case alone:
		// The resolver is to try its search domains (ndots was set): an empty
		// answer makes it do so, as Docker's does.
		return q.failure(buf, rcodeSuccess), false
	case nobody:
		return q.failure(buf, rcodeFailure), false
	}
	q.key = q.cacheKey(q.key, servers)
	if msg, age, ok := s.cache.get(q.key); ok {
		return q.adapt(buf, msg, age, limit), false
	}
	return nil, true
}

// acceptQuestions serves TCP clients, each with a goroutine of its own.
func (s *Server) acceptQuestions(sb *sandbox, fd int) {
	for range acceptsPerTurn {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		all, own := s.tcpClients.Add(1), sb.tcpClients.Add(1)
		done := func() {
			s.tcpClients.Add(-1)
			sb.tcpClients.Add(-1)
		}
		if all > maxTCP || own > maxTCPEach {
			done()
			unix.Close(c)
			continue
		}
		s.busy.Add(1)
		go func() {
			defer s.busy.Done()
			defer done()
			conn, err := tcpConn(c)
			if err != nil {
				return
			}
			defer conn.Close()
			s.serveTCP(sb, conn)
		}()
	}
}

func (s *Server) serveTCP(sb *sandbox, conn net.Conn) {
	var q query
	var raw, out []byte
	var length [2]byte
	for {
		if conn.SetDeadline(time.Now().Add(tcpIdle)) != nil {
			return
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		raw = slices.Grow(raw[:0], n)[:n]
		if _, err := io.ReadFull(conn, raw); err != nil {
			return
		}
		var forward bool
		if out, forward = s.answer(sb, &q, raw, out, true); forward {
			answered := make(chan []byte, 1)
			if s.ask(sb, q.clone(), func(resp []byte) { answered <- q.adaptOrFail(resp, maxMessage) }) {
				out = <-answered
			} else {
				out = q.failure(out, rcodeFailure)
			}
		}
		if out == nil || conn.SetDeadline(time.Now().Add(tcpIdle)) != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// parseReverse reads a name below in-addr.arpa or ip6.arpa.
func parseReverse(lowered []byte) (netip.Addr, bool) {
	name := string(lowered)
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	if labels, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		parts := strings.Split(labels, ".")
		if len(parts) != 32 {
			return netip.Addr{}, false
		}
		var b [16]byte
		for i, p := range parts {
			v, err := strconv.ParseUint(p, 16, 4)
			if err != nil || len(p) != 1 {
				return netip.Addr{}, false
			}
			at := 31 - i
			b[at/2] |= byte(v) << (4 * (1 - at%2))
		}
		return netip.AddrFrom16(b), true
	}
	return netip.Addr{}, false
}
