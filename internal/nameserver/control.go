package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	defer s.applyMu.Unlock()
	var given *netns.NS
	if ns >= 0 {
		given = netns.FromFd(uintptr(ns))
		defer func() {
			if given != nil {
				given.Close()
			}
		}()
	}
	wanted := map[string]*table.Sandbox{}
	for _, id := range ids {
		rec, err := s.dir.Read(id)
		switch {
		case err == nil:
			wanted[id] = &rec
		case errors.Is(err, os.ErrNotExist):
			wanted[id] = nil
		default:
			return table.Reply{}, err
		}
	}
	bound, err := s.bindNew(wanted)
	if err != nil {
		var busy busyError
		if errors.As(err, &busy) {
			return table.Reply{Busy: &busy.port}, err
		}
		return table.Reply{}, err
	}
	s.swapPorts(wanted, bound)
	var errs []error
	for id, rec := range wanted {
		var own *netns.NS
		if id == nsID {
			own, given = given, nil
		}
		errs = append(errs, s.swapSandbox(id, rec, own))
	}
	return table.Reply{}, errors.Join(errs...)
}

// busyError is a port that could not be bound.
type busyError struct {
	port table.Port
	err  error
}

func (e busyError) Error() string { return e.err.Error() }

// bindNew binds the ports that nobody of ours holds yet. A port may move from
// one of the wanted sandboxes to another; its socket stays.
func (s *Server) bindNew(wanted map[string]*table.Sandbox) (bound map[portKey]*port, err error) {
	bound = map[portKey]*port{}
	defer func() {
		if err != nil {
			for _, p := range bound {
				unix.Close(p.fd)
			}
		}
	}()
	for id, rec := range wanted {
		if rec == nil {
			continue
		}
		for _, tp := range rec.Ports {
			key := keyOf(tp)
			s.mu.Lock()
			have := s.ports[key]
			s.mu.Unlock()
			if have != nil && have.relay == tp.Relay {
				if _, moves := wanted[have.owner]; have.owner != id && !moves {
					return nil, busyError{tp, errors.New("port is already allocated")}
				}
				continue
			}
			fd, err := bind(tp)
			if err != nil {
				return nil, busyError{tp, err}
			}
			bound[key] = newPort(tp, id, fd)
		}
	}
	return bound, nil
}

// swapPorts makes what was bound serve, and lets go of what is not wanted.
func (s *Server) swapPorts(wanted map[string]*table.Sandbox, bound map[portKey]*port) {
	keep := map[portKey]bool{}
	for _, rec := range wanted {
		if rec == nil {
			continue
		}
		for _, tp := range rec.Ports {
			keep[keyOf(tp)] = true
		}
	}
	var closing []*port
	s.mu.Lock()
	for id := range wanted {
		for key := range s.owned[id] {
			if !keep[key] || bound[key] != nil {
				closing = append(closing, s.ports[key])
				delete(s.ports, key)
			}
		}
		delete(s.owned, id)
	}
	for key, p := range bound {
		s.ports[key] = p
	}
	for id, rec := range wanted {
		if rec == nil {
			continue
		}
		for _, tp := range rec.Ports {
			key := keyOf(tp)
			p := s.ports[key]
			p.owner = id
			p.setTarget(tp.Target)
			s.own(id, key)
		}
	}
	s.mu.Unlock()
	s.close(closing)
	for _, p := range bound {
		if err := s.open(p); err != nil {
			s.log.Error("relay published port", "port", p.key.addr, "error", err)
		}
	}
}

// own enters a port under its sandbox; s.mu is held.
func (s *Server) own(id string, key portKey) {
	if s.owned[id] == nil {
		s.owned[id] = map[portKey]bool{}
	}
	s.owned[id][key] = true
}
