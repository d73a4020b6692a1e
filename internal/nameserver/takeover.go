package nameserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

// handOver gives every socket to a successor and reports whether it took them;
// then this process only finishes what it has begun. While the sockets are
// under way nobody reads from them: questions and connections wait in the
// kernel for one or two milliseconds, none is lost. When the successor fails
// before it says that it is ready, this process goes on.
func (s *Server) handOver(c *table.Conn) bool {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	s.reactor.pause()
	// Nor does anybody accept here any more: the control socket is the
	// successor's too.
	if err := s.control.SetDeadline(time.Unix(1, 0)); err != nil {
		s.log.Warn("stop accepting", "error", err)
	}
	// A successor that gets stuck must not keep us silent for long.
	err := c.SetDeadline(time.Now().Add(readyTimeout))
	if err == nil {
		err = s.sendSockets(c)
	}
	if err == nil {
		var req table.Request
		var fds []int
		fds, err = c.Receive(&req)
		closeAll(fds)
		if err == nil && req.Op != table.OpReady {
			err = fmt.Errorf("the successor says %q", req.Op)
		}
	}
	if err != nil {
		s.log.Error("hand over to successor", "error", err)
		s.reactor.unpause()
		if err := s.control.SetDeadline(time.Time{}); err != nil {
			s.log.Warn("accept again", "error", err)
		}
		s.accepting <- struct{}{}
		return false
	}
	s.log.Info("handed over to successor")
	s.quit()
	return true
}

// sendSockets sends the inventory in messages that carry not too many
// descriptors.
func (s *Server) sendSockets(c *table.Conn) error {
	control, err := s.control.File()
	if err != nil {
		return err
	}
	defer control.Close()
	items := []table.Item{{Kind: table.ItemControl}}
	fds := []int{int(control.Fd())}
	add := func(item table.Item, fd int) {
		items = append(items, item)
		fds = append(fds, fd)
	}
	s.sessionsMu.Lock()
	s.mu.Lock()
	for key, p := range s.ports {
		if p.key != key {
			continue // the other half of a shared socket
		}
		tp := p.record()
		add(table.Item{Kind: table.ItemPort, Sandbox: p.owner, Port: &tp, Dual: p.dual}, p.fd)
		for key, ses := range p.sessions {
			add(table.Item{
				Kind: table.ItemSession, Port: &table.Port{Proto: tp.Proto, HostIP: tp.HostIP, HostPort: tp.HostPort},
				Client: key.client.String(), Local: key.local.String(),
			}, ses.fd)
		}
	}
	for id, sb := range s.sandboxes {
		if sb.serving() {
			add(table.Item{Kind: table.ItemNetNS, Sandbox: id}, int(sb.ns.Fd()))
			add(table.Item{Kind: table.ItemDNSUDP, Sandbox: id}, sb.udp)
			add(table.Item{Kind: table.ItemDNSTCP, Sandbox: id}, sb.tcp)
		}
	}
	s.mu.Unlock()
	s.sessionsMu.Unlock()
	for len(items) > 0 {
		n := min(len(items), table.MaxFiles)
		if err := c.Send(table.Reply{Items: items[:n], More: n < len(items)}, fds[:n]...); err != nil {
			return err
		}
		items, fds = items[n:], fds[n:]
	}
	return nil
}

// takeOver gets the sockets of the netd that runs, if one does, for the
// sandboxes that are known. The connection is returned: the predecessor waits on
// it to hear that we are ready.
func (s *Server) takeOver(known map[string]table.Sandbox) (*table.Conn, error) {
	c, err := table.Dial(s.cfg.Socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		// One that was killed a moment ago may still be closing its sockets: the
		// ports are bound until its last one is.
		if err := s.endPredecessor(takeOverTimeout); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("it is not known whether another netd is ending", "error", err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	got, err := receiveSockets(c)
	if err != nil {
		c.Close()
		got.close()
		patience := time.Duration(0)
		if isEOF(err) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
			patience = takeOverTimeout // it is ending
			s.log.Warn("the running netd ended before it handed over", "error", err)
		} else {
			s.log.Error("the running netd does not hand over; end it", "error", err)
		}
		if err := s.endPredecessor(patience); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if err := s.inherit(got, known); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// replacePredecessor tells the predecessor that everything is served and waits
// until it lets go. One that has lost its patience by then has gone on, and says
// so by any answer: then it is not replaced.
func replacePredecessor(c *table.Conn) error {
	defer c.Close()
	if err := errors.Join(c.SetDeadline(time.Now().Add(takeOverTimeout)), c.Send(table.Request{Op: table.OpReady})); err != nil {
		return err
	}
	var reply table.Reply
	fds, err := c.Receive(&reply)
	closeAll(fds)
	if err == nil {
		return fmt.Errorf("it has gone on by itself: %s", reply.Error)
	}
	if !errors.Is(err, net.ErrClosed) && !isEOF(err) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}

// receiveSockets asks the predecessor for everything. A predecessor that is
// stuck gets a few seconds.
func receiveSockets(c *table.Conn) (got inherited, err error) {
	if err := c.SetDeadline(time.Now().Add(takeOverTimeout)); err != nil {
		return got, err
	}
	if err := c.Send(table.Request{Op: table.OpTakeOver}); err != nil {
		return got, err
	}
	for {
		var reply table.Reply
		fds, err := c.Receive(&reply)
		if err == nil && len(fds) != len(reply.Items) {
			err = fmt.Errorf("%d sockets for %d items", len(fds), len(reply.Items))
		}
		if err == nil && len(reply.Items) == 0 {
			err = fmt.Errorf("no sockets: %s", reply.Error)
		}
		if err != nil {
			closeAll(fds)
			return got, err
		}
		for i, item := range reply.Items {
			got.add(item, fds[i])
		}
		if !reply.More {
			return got, nil
		}
	}
}

// readyTimeout is how long a successor may take to serve the table.
const readyTimeout = 10 * time.Second

// takeOverTimeout is far more than the two milliseconds that handing over
// takes; the daemon waits longer than that for us.
const takeOverTimeout = 5 * time.Second

// pidFile tells who listens on the socket: its number and start time. The
// socket itself does not: it names the process that made it, which may be a
// predecessor of the predecessor.
func (s *Server) pidFile() string { return s.cfg.Socket + ".pid" }

func (s *Server) writePid() error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	return os.WriteFile(s.pidFile(), fmt.Appendf(nil, "%d %d\n", os.Getpid(), start), 0o600)
}

// dropPid tells that this netd, which may have to finish what it has begun, has
// let go of its sockets. The number of a successor stays.
func (s *Server) dropPid() error {
	pid, _, err := s.readPid()
	if err != nil || pid != os.Getpid() {
		return err
	}
	return os.Remove(s.pidFile())
}

func (s *Server) readPid() (pid int, start uint64, err error) {
	data, err := os.ReadFile(s.pidFile())
	if err == nil {
		_, err = fmt.Sscan(string(data), &pid, &start)
	}
	return pid, start, err
}

// endPredecessor waits until the netd that listened on our socket has let go of
// all it had open, and kills it when it takes longer than patience.
// os.ErrNotExist when none has left its number.
func (s *Server) endPredecessor(patience time.Duration) error {
	pid, start, err := s.readPid()
	if err != nil {
		return fmt.Errorf("find the netd that is stuck: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end netd %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if now, err := startTime(pid); err != nil || now != start {
		return nil // the number belongs to another process by now
	}
	for end := time.Now().Add(patience); ; {
		ended, err := endsWithin(fd, min(patience, 20*time.Millisecond))
		if ended || err != nil {
			return err
		}
		if now, _, err := s.readPid(); errors.Is(err, os.ErrNotExist) || err == nil && now != pid {
			return nil
		}
		if !time.Now().Before(end) {
			break
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end netd %d: %w", pid, err)
	}
	_, err = endsWithin(fd, takeOverTimeout)
	return err
}

// endsWithin waits for the end of a process: a pidfd is readable only when its
// files are closed (pidfd_open(2)).
func endsWithin(pidfd int, most time.Duration) (bool, error) {
	for end := time.Now().Add(most); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(max(0, time.Until(end))/time.Millisecond))
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// inherited are the sockets of a predecessor.
type inherited struct {
	control  int
	ports    map[portKey]heir
	sessions map[portKey][]heir
	servers  map[string]*[3]int // namespace, udp, tcp
}

func (g inherited) close() {
	if g.ports == nil {
		return
	}
	unix.Close(g.control)
	for _, h := range g.ports {
		unix.Close(h.fd)
	}
	for _, list := range g.sessions {
		for _, h := range list {
			unix.Close(h.fd)
		}
	}
	for _, fds := range g.servers {
		closeAll(valid(fds[:]...))
	}
}

type heir struct {
	item table.Item
	fd   int
}

func (g *inherited) add(item table.Item, fd int) {
	if g.ports == nil {
		g.control = -1
		g.ports, g.sessions, g.servers = map[portKey]heir{}, map[portKey][]heir{}, map[string]*[3]int{}
	}
	server := func(i int) {
		if g.servers[item.Sandbox] == nil {
			g.servers[item.Sandbox] = &[3]int{-1, -1, -1}
		}
		g.servers[item.Sandbox][i] = fd
	}
	switch item.Kind {
	case table.ItemControl:
		g.control = fd
	case table.ItemPort:
		g.ports[keyOf(*item.Port)] = heir{item, fd}
	case table.ItemSession:
		g.sessions[keyOf(*item.Port)] = append(g.sessions[keyOf(*item.Port)], heir{item, fd})
	case table.ItemNetNS:
		server(0)
	case table.ItemDNSUDP:
		server(1)
	case table.ItemDNSTCP:
		server(2)
	default: // of a newer release: not needed by us
		unix.Close(fd)
	}
}

// inherit serves on the sockets of a predecessor; the table, read afterwards,
// adds what is new and removes what is gone.
func (s *Server) inherit(g inherited, known map[string]table.Sandbox) error {
	f := os.NewFile(uintptr(g.control), "control")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	control, ok := l.(*net.UnixListener)
	if !ok {
		return errors.New("control socket: it is not a unix socket")
	}
	control.SetUnlinkOnClose(false)
	s.control = control
	for key, h := range g.ports {
		p := newPort(*h.item.Port, h.item.Sandbox, h.fd)
		p.dual = h.item.Dual
		s.mu.Lock()
		for _, k := range p.keys() {
			s.ports[k] = p
			s.owned[p.owner] = append(s.owned[p.owner], k)
		}
		s.mu.Unlock()
		if err := s.open(p); err != nil {
			return err
		}
		s.sessionsMu.Lock()
		for _, hs := range g.sessions[key] {
			client, err1 := netip.ParseAddrPort(hs.item.Client)
			local, err2 := netip.ParseAddrPort(hs.item.Local)
			err := errors.Join(err1, err2)
			if err == nil {
				err = s.addSession(p, &session{key: sessionKey{client, local}, fd: hs.fd, used: s.now()})
			}
			if err != nil {
				unix.Close(hs.fd)
				s.log.Warn("take over UDP client", "error", err)
			}
		}
		s.sessionsMu.Unlock()
	}
	for id, fds := range g.servers {
		rec, ok := known[id]
		if !ok { // it is younger than what was read
			var err error
			rec, err = s.dir.Read(id)
			ok = err == nil
		}
		if !ok || len(valid(fds[:]...)) != 3 {
			closeAll(valid(fds[:]...))
			continue // the table, or a new server, decides
		}
		sb := &sandbox{udp: -1, tcp: -1, pidfd: -1}
		sb.set(rec)
		s.mu.Lock()
		s.sandboxes[id] = sb
		s.mu.Unlock()
		if err := s.serveSockets(sb, netns.FromFd(uintptr(fds[0])), fds[1], fds[2]); err != nil {
			return err
		}
	}
	return nil
}
