package nameserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/nameserver/table"
)

// sandbox is one container that netd answers names for, or about. Guarded by
// Server.mu; the descriptors are changed under applyMu only.
type sandbox struct {
	rec table.Sandbox
	// upstream is whom questions are passed on to; servers is the same as a
	// part of the cache's keys.
	upstream []table.Upstream
	servers  string
	// tcpClients that are being served.
	tcpClients atomic.Int64
	// ns, udp and tcp are set while a server runs inside. They keep the
	// namespace alive, so they are let go when the container's process ends.
	ns       *netns.NS
	udp, tcp int
	pidfd    int
	dead     bool
}

func (sb *sandbox) serving() bool { return sb.udp >= 0 }

func (sb *sandbox) set(rec table.Sandbox) {
	sb.rec = rec
	sb.upstream, sb.servers = serversOf(rec.DNS)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// starter makes the servers of a sandbox; ns is consumed.
type starter func(sb *sandbox, ns *netns.NS) error

// swapSandbox brings one sandbox to its record; nil takes it away. ns is
// consumed.
func (s *Server) swapSandbox(id string, rec *table.Sandbox, ns *netns.NS, start starter) error {
	s.mu.Lock()
	sb := s.sandboxes[id]
	s.mu.Unlock()
	if rec == nil || rec.DNS == nil && len(rec.Names) == 0 {
		if ns != nil {
			ns.Close()
		}
		if sb != nil {
			s.mu.Lock()
			delete(s.sandboxes, id)
			s.names.remove(id)
			s.mu.Unlock()
			s.stopServing(sb)
		}
		return nil
	}
	if sb == nil {
		sb = &sandbox{udp: -1, tcp: -1, pidfd: -1}
	}
	s.mu.Lock()
	s.sandboxes[id] = sb
	sb.set(*rec)
	if !sb.dead {
		s.names.set(*rec)
	}
	s.mu.Unlock()

	if rec.Pid > 0 && sb.pidfd < 0 && !sb.dead {
		if err := s.watch(id, sb); err != nil {
			if ns != nil {
				ns.Close()
			}
			if errors.Is(err, errEnded) {
				s.ended(id, sb)
				return nil
			}
			return err
		}
	}
	switch {
	case rec.DNS == nil || sb.dead || sb.serving():
		if ns != nil {
			ns.Close()
		}
		if rec.DNS == nil && sb.serving() {
			s.stopServers(sb)
		}
		return nil
	case ns == nil && rec.Pid > 0:
		var err error
		if ns, err = netns.OfPid(rec.Pid); err != nil {
			return err
		}
	case ns == nil:
		return fmt.Errorf("sandbox %s: %w", id, errNoNamespace)
	}
	return start(sb, ns)
}

// errNoNamespace: the container was not started yet when its record was
// written; the daemon has the namespace and sends it.
var errNoNamespace = errors.New("it has neither a namespace nor a process yet")

// errEnded: the process of a record is not there any more.
var errEnded = errors.New("the container's process has ended")

// watch has the end of the container's process let go of its namespace.
func (s *Server) watch(id string, sb *sandbox) error {
	fd, err := unix.PidfdOpen(sb.rec.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return errEnded
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", sb.rec.Pid, err)
	}
	// The number may belong to another process by now.
	if start, err := startTime(sb.rec.Pid); sb.rec.PidStart != 0 && (err != nil || start != sb.rec.PidStart) {
		unix.Close(fd)
		return errEnded
	}
	sb.pidfd = fd
	return s.reactor.add(fd, func() {
		// The reactor must not wait for applyMu.
		s.reactor.remove(fd)
		s.busy.Add(1)
		go func() {
			defer s.busy.Done()
			s.applyMu.Lock()
			defer s.applyMu.Unlock()
			s.mu.Lock()
			current := s.sandboxes[id] == sb && sb.pidfd == fd
			s.mu.Unlock()
			if current {
				s.ended(id, sb)
			}
		}()
	})
}

// ended: the container is gone, so are its names; its ports stay reserved
// until the daemon says otherwise, because it may be about to start it again.
func (s *Server) ended(id string, sb *sandbox) {
	s.mu.Lock()
	sb.dead = true
	s.names.remove(id)
	s.mu.Unlock()
	s.stopServing(sb)
}

// startTime is field 22 of /proc/<pid>/stat.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is the command's name in parentheses and may hold both.
	rest := data[bytes.LastIndexByte(data, ')')+1:]
	fields := bytes.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: too few fields", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// startServers makes the two sockets inside and has port 53 lead to them. ns is
// consumed.
func (s *Server) startServers(sb *sandbox, ns *netns.NS) error {
	udp, tcp := -1, -1
	err := ns.Do(func() error {
		var err error
		if udp, tcp, err = listenDNS(); err != nil {
			return err
		}
		return redirect(portOf(udp), portOf(tcp))
	})
	if err != nil {
		closeAll(valid(udp, tcp))
		ns.Close()
		return fmt.Errorf("serve names in sandbox %s: %w", sb.rec.ID, err)
	}
	return s.serveSockets(sb, ns, udp, tcp)
}

// serveSockets serves on sockets that were made or taken over.
func (s *Server) serveSockets(sb *sandbox, ns *netns.NS, udp, tcp int) error {
	s.mu.Lock()
	sb.ns, sb.udp, sb.tcp = ns, udp, tcp
	s.mu.Unlock()
	return errors.Join(
		s.reactor.add(udp, func() { s.readQuestions(sb, udp) }),
		s.reactor.add(tcp, func() { s.acceptQuestions(sb, tcp) }),
	)
}

func valid(fds ...int) []int {
	var out []int
	for _, fd := range fds {
		if fd >= 0 {
			out = append(out, fd)
		}
	}
	return out
}

// stopServing lets go of everything that is inside the sandbox.
func (s *Server) stopServing(sb *sandbox) {
	s.stopServers(sb)
	s.mu.Lock()
	fd := sb.pidfd
	sb.pidfd = -1
	s.mu.Unlock()
	if fd >= 0 {
		s.reactor.closeFDs(fd)
	}
}

func (s *Server) stopServers(sb *sandbox) {
	s.mu.Lock()
	ns, udp, tcp := sb.ns, sb.udp, sb.tcp
	sb.ns, sb.udp, sb.tcp = nil, -1, -1
	s.mu.Unlock()
	s.reactor.closeFDs(valid(udp, tcp)...)
	if ns != nil {
		if err := ns.Close(); err != nil {
			s.log.Warn("let go of sandbox", "container", sb.rec.ID, "error", err)
		}
	}
}

// resolver is the address inside the sandbox; 53 leads to a port the kernel
// chooses, so that a DNS server in the container can have its own port 53.
var resolver = [4]byte{127, 0, 0, 11}

func listenDNS() (udp, tcp int, err error) {
	open := func(kind int) (int, error) {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1, err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: resolver}); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	if udp, err = open(unix.SOCK_DGRAM); err != nil {
		return -1, -1, err
	}
	if tcp, err = open(unix.SOCK_STREAM); err == nil {
		err = unix.Listen(tcp, 128)
	}
	if err != nil {
		closeAll(valid(udp, tcp))
		return -1, -1, err
	}
	return udp, tcp, nil
}

func portOf(fd int) uint16 {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0
	}
	return addrPort(sa).Port()
}

// redirectTable is the table inside a sandbox.
const redirectTable = "orlop-resolver"

// redirect has 127.0.0.11:53 lead to our sockets, in the namespace of the
// calling thread. Of the table of an earlier netd only the rules are replaced:
// the kernel would be waited for 15 ms if the whole table were removed, or if it
// were tried first whether there is one. The table of an earlier release, whose
// chain was of another type, is removed.
func redirect(udp, tcp uint16) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Transact(func(n *nftables.Conn) error { return setRedirect(n, udp, tcp) })
	if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return c.Transact(func(n *nftables.Conn) error {
		n.DelTable(&nftables.Table{Name: redirectTable, Family: nftables.TableFamilyIPv4})
		return setRedirect(n, udp, tcp)
	})
}

// setRedirect writes ports into packets, both ways, instead of translating
// addresses: translation would bring connection tracking to everything else that
// the container sends and receives. Where the container tracks connections
// itself it sees those to and from port 53: answers are written before its hooks,
// questions after them and after its filters.
func setRedirect(n *nftables.Conn, udp, tcp uint16) error {
	accept := nftables.ChainPolicyAccept
	t := n.AddTable(&nftables.Table{Name: redirectTable, Family: nftables.TableFamilyIPv4})
	const source, destination = 0, 2 // of ports in the header of TCP and UDP
	dns := []byte{0, 53}
	for _, way := range []struct {
		chain    string
		priority nftables.ChainPriority
		address  uint32 // where it stands in the IPv4 header
		port     uint32
		question bool
	}{
		{"output", *nftables.ChainPriorityRef(50), 16, destination, true},
		{"answers", *nftables.ChainPriorityRaw, 12, source, false},
	} {
		ch := n.AddChain(&nftables.Chain{
			Name: way.chain, Table: t, Type: nftables.ChainTypeFilter, Policy: &accept,
			Hooknum: nftables.ChainHookOutput, Priority: &way.priority,
		})
		n.FlushChain(ch)
		for _, p := range []struct {
			number byte
			port   uint16
			sum    uint32 // where the checksum stands
		}{{unix.IPPROTO_UDP, udp, 6}, {unix.IPPROTO_TCP, tcp, 16}} {
			from, to := dns, binary.BigEndian.AppendUint16(nil, p.port)
			if !way.question {
				from, to = to, from
			}
			n.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: way.address, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: resolver[:]},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p.number}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: way.port, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from},
				&expr.Immediate{Register: 1, Data: to},
				&expr.Payload{
					OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: way.port, Len: 2,
					CsumType: expr.CsumTypeInet, CsumOffset: p.sum,
				},
			}})
		}
		if !way.question {
			n.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: refusal(udp)})
		}
	}
	return nil
}

// refusal has "port unreachable" about a question, which quotes it with the port
// that was written into it, quote 53: who asked while no netd runs learns it at
// once.
func refusal(udp uint16) []expr.Any {
	// In the ICMP header: its type, and the quoted IPv4 header of 20 bytes, then
	// the port.
	const kind, quote, port, sum = 0, 8, 8 + 20 + 2, 2
	inner := func(offset, length uint32) expr.Any {
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
	}
	is := func(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, is(resolver[:]...),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, is(unix.IPPROTO_ICMP),
		inner(kind, 1), is(3), // destination unreachable
		inner(quote, 1), is(0x45), inner(quote+9, 1), is(unix.IPPROTO_UDP), inner(quote+16, 4), is(resolver[:]...),
		inner(port, 2), is(byte(udp>>8), byte(udp)),
		&expr.Immediate{Register: 1, Data: []byte{0, 53}},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: sum,
		},
	}
}
