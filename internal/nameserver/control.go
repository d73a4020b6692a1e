package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

// serveControl accepts connections of the daemon and of a successor.
func (s *Server) serveControl(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := s.control.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) { // the sockets are being handed over
			select {
			case <-s.accepting:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.serveConn(table.NewConn(c))
		}()
	}
}

func (s *Server) serveConn(c *table.Conn) {
	for {
		var req table.Request
		fds, err := c.Receive(&req)
		if err != nil {
			closeAll(fds)
			if !errors.Is(err, net.ErrClosed) && !isEOF(err) {
				s.log.Warn("control connection", "error", err)
			}
			return
		}
		if req.Op == table.OpTakeOver {
			closeAll(fds)
			if s.handOver(c) {
				return
			}
			continue
		}
		reply := s.serve(req, fds)
		if err := c.Send(reply); err != nil {
			s.log.Warn("control connection", "error", err)
			return
		}
		if req.Op == table.OpQuit {
			for _, f := range []string{s.cfg.Socket, s.pidFile()} {
				if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
					s.log.Warn("remove file", "error", err)
				}
			}
			s.quit()
			return
		}
	}
}

func (s *Server) serve(req table.Request, fds []int) table.Reply {
	ns := -1
	if req.Op == table.OpChanged && req.NS != "" && len(fds) == 1 {
		ns = fds[0]
	} else {
		closeAll(fds)
	}
	switch req.Op {
	case table.OpHello:
		return table.Reply{Protocol: table.Protocol, Pid: os.Getpid(), Program: Program(), Version: s.cfg.Version}
	case table.OpChanged:
		reply, err := s.change(req.IDs, req.NS, ns)
		if err != nil {
			reply.Error = err.Error()
		}
		return reply
	case table.OpSettle:
		s.settle()
		return table.Reply{}
	case table.OpStatus:
		return table.Reply{Status: s.status()}
	case table.OpQuit:
		return table.Reply{}
	}
	return table.Reply{Error: "unknown operation " + req.Op}
}

// Program identifies the file of the running executable.
func Program() string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// change brings some sandboxes to what their files say, all of them or, when a
// port is busy, none. ns is the namespace of the sandbox nsID, or -1.
func (s *Server) change(ids []string, nsID string, ns int) (table.Reply, error) {
	s.applyMu.Lock()
	unlock := s.applyMu.Unlock
	defer func() { unlock() }()
	var given *netns.NS
	if ns >= 0 {
		given = netns.FromFd(uintptr(ns))
		defer func() {
			if given != nil {
				given.Close()
			}
		}()
	}
	wanted, fresh, reply, err := s.swapAll(ids)
	if err != nil {
		return reply, err
	}
	var errs []error
	for id, rec := range wanted {
		var own *netns.NS
		if id == nsID {
			own, given = given, nil
		}
		errs = append(errs, s.swapSandbox(id, rec, own, s.startServers))
	}
	if len(fresh) <= table.FewPorts {
		s.openAll(fresh)
		return table.Reply{}, errors.Join(errs...)
	}
	// That they are reserved is what the daemon waits for; the container that
	// serves them is yet to be made. Other changes, and OpSettle, wait.
	unlock = func() {}
	s.busy.Add(1)
	go func() {
		defer s.busy.Done()
		defer s.applyMu.Unlock()
		s.openAll(fresh)
	}()
	return table.Reply{}, errors.Join(errs...)
}

// swapAll reads what sandboxes are to be (nil: gone) and swaps their ports; the
// relays in fresh are to be opened. s.applyMu is held.
func (s *Server) swapAll(ids []string) (wanted map[string]*table.Sandbox, fresh []*port, reply table.Reply, err error) {
	wanted = make(map[string]*table.Sandbox, len(ids))
	for _, id := range ids {
		rec, err := s.dir.Read(id)
		switch {
		case err == nil:
			wanted[id] = &rec
		case errors.Is(err, os.ErrNotExist):
			wanted[id] = nil
		default:
			return nil, nil, reply, err
		}
	}
	bound, err := s.bindNew(wanted)
	if err != nil {
		var busy busyError
		if errors.As(err, &busy) {
			reply.Busy = &busy.port
		}
		return nil, nil, reply, err
	}
	return wanted, s.swapPorts(wanted, bound), reply, nil
}

// busyError is a port that could not be bound.
type busyError struct {
	port table.Port
	err  error
}

func (e busyError) Error() string { return e.err.Error() }

// bindNew binds the ports that nobody of ours holds yet. A port may move from
// one of the wanted sandboxes to another; its socket stays.
func (s *Server) bindNew(wanted map[string]*table.Sandbox) ([]*port, error) {
	var list []reservation
	for id, rec := range wanted {
		if rec == nil {
			continue
		}
		var missing []table.Port
		s.mu.Lock()
		for _, tp := range rec.Ports {
			have := s.ports[keyOf(tp)]
			if have == nil || !have.serves(tp) {
				missing = append(missing, tp)
				continue
			}
			if _, moves := wanted[have.owner]; have.owner != id && !moves {
				s.mu.Unlock()
				return nil, busyError{tp, errors.New("port is already allocated")}
			}
		}
		s.mu.Unlock()
		list = append(list, reservations(id, missing)...)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return bindAll(list)
}

// serves reports whether the socket does what a line of the table wants.
func (p *port) serves(tp table.Port) bool {
	return p.relay == tp.Relay || p.dual && tp.HostIP.Is4()
}

// swapPorts makes what was bound serve, and lets go of what is not wanted.
// The relays that it returns are to be opened.
func (s *Server) swapPorts(wanted map[string]*table.Sandbox, bound []*port) []*port {
	type line struct {
		key   portKey
		owner string
		port  *table.Port
	}
	lines := make([]line, 0, 2*len(bound))
	for id, rec := range wanted {
		if rec == nil {
			continue
		}
		for i := range rec.Ports {
			lines = append(lines, line{keyOf(rec.Ports[i]), id, &rec.Ports[i]})
		}
	}
	var closing []*port
	var halves []reservation // of a shared socket of which only one port is wanted
	s.mu.Lock()
	for _, p := range bound {
		for _, key := range p.keys() {
			if old := s.ports[key]; old != nil { // it does something else
				closing = append(closing, old)
				for _, k := range old.keys() {
					delete(s.ports, k)
				}
			}
			s.ports[key] = p
		}
	}
	var keep map[portKey]line // wanted; a new sandbox has nothing that could be
	for id := range wanted {
		if len(s.owned[id]) > 0 && keep == nil {
			keep = make(map[portKey]line, len(lines))
			for _, l := range lines {
				keep[l.key] = l
			}
		}
		for _, key := range s.owned[id] {
			p := s.ports[key]
			if p == nil || p.key != key || slices.Contains(bound, p) {
				continue // the other half of a shared socket decides for both
			}
			var kept []portKey
			for _, k := range p.keys() {
				if _, ok := keep[k]; ok {
					kept = append(kept, k)
				}
			}
			if len(kept) == len(p.keys()) {
				continue
			}
			closing = append(closing, p)
			for _, k := range p.keys() {
				delete(s.ports, k)
			}
			for _, k := range kept {
				halves = append(halves, reservation{owner: keep[k].owner, port: *keep[k].port})
			}
		}
		delete(s.owned, id)
	}
	s.mu.Unlock()
	s.close(closing)
	if len(halves) > 0 {
		alone, err := bindAll(halves)
		if err != nil {
			s.log.Error("keep published port", "error", err)
		}
		bound = append(bound, alone...)
		s.mu.Lock()
		for _, p := range alone {
			s.ports[p.key] = p
		}
		s.mu.Unlock()
	}
	var turned []*port
	s.mu.Lock()
	for _, l := range lines {
		p := s.ports[l.key]
		if p == nil {
			continue
		}
		p.owner = l.owner
		if p.key == l.key && p.setTarget(l.port.Target) && p.relay {
			turned = append(turned, p)
		}
		s.owned[l.owner] = append(s.owned[l.owner], l.key)
	}
	s.mu.Unlock()
	for _, p := range turned {
		s.turn(p)
	}
	return slices.DeleteFunc(bound, func(p *port) bool { return !p.relay })
}

func (s *Server) openAll(ports []*port) {
	for _, p := range ports {
		if err := s.open(p); err != nil {
			s.log.Error("relay published port", "port", p.addr, "error", err)
		}
	}
}

// settle returns when every relay of the changes so far is open.
func (s *Server) settle() {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
}
