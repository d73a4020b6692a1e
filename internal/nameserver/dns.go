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
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// ttl of our own answers in seconds, as Docker's.
	ttl = 600
	// tcpIdle is how long a TCP client may be silent.
	tcpIdle = 10 * time.Second
	// maxTCP bounds the TCP clients of all sandboxes together.
	maxTCP = 1024
	// questionsPerTurn keeps one busy sandbox from starving the others.
	questionsPerTurn = 64
)

// question is a query and whom to ask.
type question struct {
	msg  *dns.Msg
	conf table.DNS
	// ns is a copy of the sandbox's namespace, for asking from inside.
	ns *netns.NS
}

// readQuestions answers the UDP questions that wait; what has to be asked
// upstream goes on in the background.
func (s *Server) readQuestions(sb *sandbox, fd int) {
	buf := make([]byte, 4096)
	for range questionsPerTurn {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(buf[:n]) != nil || query.Response {
			continue // not a question: nobody expects an answer
		}
		resp, forward := s.local(sb, query)
		if !forward {
			sendUDP(fd, from, query, resp)
			continue
		}
		// The socket may be closed, and its number reused, before the answer
		// comes: a copy is not.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			sendUDP(fd, from, query, failure(query, dns.RcodeServerFailure))
			continue
		}
		started := s.ask(sb, query, func(resp *dns.Msg) {
			sendUDP(dup, from, query, resp)
			unix.Close(dup)
		})
		if !started {
			sendUDP(fd, from, query, failure(query, dns.RcodeServerFailure))
			unix.Close(dup)
		}
	}
}

// sendUDP sends an answer that fits into what the client takes; a longer one
// is cut and marked, so that the client asks again by TCP.
func sendUDP(fd int, to unix.Sockaddr, query, resp *dns.Msg) {
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
	}
	resp.Truncate(size)
	out, err := resp.Pack()
	if err != nil {
		if out, err = failure(query, dns.RcodeServerFailure).Pack(); err != nil {
			return
		}
	}
	_ = unix.Sendto(fd, out, unix.MSG_DONTWAIT, to)
}

// acceptQuestions serves TCP clients, each with a goroutine of its own.
func (s *Server) acceptQuestions(sb *sandbox, fd int) {
	for range acceptsPerTurn {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		if s.tcpClients.Add(1) > maxTCP {
			s.tcpClients.Add(-1)
			unix.Close(c)
			continue
		}
		s.busy.Add(1)
		go func() {
			defer s.busy.Done()
			defer s.tcpClients.Add(-1)
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
	var length [2]byte
	for {
		if conn.SetDeadline(time.Now().Add(tcpIdle)) != nil {
			return
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		raw := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, raw); err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(raw) != nil || query.Response {
			return
		}
		resp, forward := s.local(sb, query)
		if forward {
			var wg sync.WaitGroup
			wg.Add(1)
			if s.ask(sb, query, func(r *dns.Msg) { resp = r; wg.Done() }) {
				wg.Wait()
			} else {
				resp = failure(query, dns.RcodeServerFailure)
			}
		}
		out, err := resp.Pack()
		if err != nil || len(out) > 0xffff {
			if out, err = failure(query, dns.RcodeServerFailure).Pack(); err != nil {
				return
			}
		}
		if conn.SetDeadline(time.Now().Add(tcpIdle)) != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// local answers from the table; forward tells that somebody else has to.
func (s *Server) local(sb *sandbox, query *dns.Msg) (resp *dns.Msg, forward bool) {
	s.queries.Add(1)
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 {
		return failure(query, dns.RcodeNotImplemented), false
	}
	q := query.Question[0]
	s.mu.Lock()
	conf := sb.rec.DNS
	if conf == nil {
		s.mu.Unlock()
		return failure(query, dns.RcodeServerFailure), false
	}
	var addrs []netip.Addr
	var reverse string
	var known, isReverse bool
	if q.Qtype == dns.TypePTR {
		if addr, ok := parseReverse(q.Name); ok {
			reverse, isReverse = s.names.name(conf.Networks, addr)
		}
	} else {
		addrs, known = s.names.addrs(conf.Networks, q.Name)
	}
	forwards := conf.Forward
	s.mu.Unlock()

	switch {
	case q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY:
	case isReverse:
		resp := answer(query)
		resp.Answer = []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(reverse)}}
		return resp, false
	case known:
		resp := answer(query)
		for _, a := range addrs {
			switch {
			case a.Is4() && q.Qtype == dns.TypeA:
				resp.Answer = append(resp.Answer, &dns.A{Hdr: header(q.Name, dns.TypeA), A: a.AsSlice()})
			case a.Is6() && q.Qtype == dns.TypeAAAA:
				resp.Answer = append(resp.Answer, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
			}
		}
		return resp, false // an answer without records: the name has no such address
	}
	if !forwards {
		return failure(query, dns.RcodeRefused), false
	}
	return nil, true
}

func header(name string, rr uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rr, Class: dns.ClassINET, Ttl: ttl}
}

func answer(query *dns.Msg) *dns.Msg {
	resp := new(dns.Msg).SetReply(query)
	resp.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		resp.SetEdns0(1232, opt.Do())
	}
	return resp
}

func failure(query *dns.Msg, rcode int) *dns.Msg {
	resp := answer(query)
	resp.Rcode = rcode
	return resp
}

// parseReverse reads a name below in-addr.arpa or ip6.arpa.
func parseReverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
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

// errNoUpstream: there is nobody to ask.
var errNoUpstream = errors.New("no upstream server answered")
