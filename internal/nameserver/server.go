// Package nameserver is netd: it answers names on 127.0.0.11 in every sandbox
// that asks for it, reserves published ports, and relays what the kernel
// cannot translate ([::1], IPv6 to IPv4). It reads the table that the daemon
// writes and goes on when the daemon is gone; a successor takes its sockets
// over, so an upgrade fails no look-up and no connection.
//
// Entry point: New and Server.Run. Its parts are the reactor (one goroutine
// for all sockets), ports (bind.go, relay.go), names (names.go, dns.go,
// upstream.go, cache.go) and the control socket (control.go, takeover.go).
//
// Lock order: Server.applyMu (one change at a time; held over bind(2) and the
// set-up of a sandbox), Server.sessionsMu (UDP clients), Server.mu (maps);
// port.mu, cache.mu, Server.askMu and
// reactor.mu are leaves.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/nameserver/table"
)

// Config of a Server.
type Config struct {
	// Table is the folder that the daemon writes, Socket where it talks to us.
	Table, Socket string
	// Version is shown to the daemon.
	Version string
	Logger  *slog.Logger
	Now     func() time.Time
	// Ready is called when everything in the table is served.
	Ready func()
}

// Server is one netd.
type Server struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	dir     table.Dir
	reactor *reactor
	cache   *cache

	applyMu sync.Mutex

	mu        sync.Mutex
	sandboxes map[string]*sandbox
	ports     map[portKey]*port
	owned     map[string][]portKey // by sandbox
	names     *names

	sessionsMu sync.Mutex
	datagram   []byte // one datagram; guarded by sessionsMu
	sweep      chan struct{}

	relays, sessions, queries, tcpClients atomic.Int64
	// busy counts what goes on after the sockets were handed over: relayed
	// connections and questions that wait for an upstream server.
	busy sync.WaitGroup

	// What the reactor works with.
	batch *batch
	query query
	addrs []netip.Addr // guarded by mu

	askMu sync.Mutex
	// asked are the questions that wait for an upstream server, by the key of
	// the cache, with the clients that wait; waiting counts these.
	asked   map[string][]func([]byte)
	waiting int

	control *net.UnixListener
	// accepting has the control socket accepted from again, when handing it
	// over failed.
	accepting chan struct{}
	quit      context.CancelFunc
}

// New prepares a server; it opens nothing outside.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		return nil, errors.New("nameserver: no clock")
	}
	r, err := newReactor()
	if err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, dir: table.Dir(cfg.Table), reactor: r, cache: newCache(cfg.Now),
		sandboxes: map[string]*sandbox{}, ports: map[portKey]*port{}, owned: map[string][]portKey{}, names: newNames(),
		datagram: make([]byte, maxDatagram), sweep: make(chan struct{}, 1), accepting: make(chan struct{}, 1),
		batch: newBatch(), asked: map[string][]func([]byte){},
	}, nil
}

// Run takes over from a predecessor, if there is one, serves the table and
// returns when it was told to quit, was taken over, or ctx is done.
func (s *Server) Run(ctx context.Context) error {
	ctx, s.quit = context.WithCancel(ctx)
	defer s.quit()
	defer func() { _ = s.reactor.close() }() // two descriptors that nothing is written to

	known := s.learnNames()
	pred, err := s.takeOver(known)
	if err != nil {
		return fmt.Errorf("take over from the running netd: %w", err)
	}
	if s.control == nil {
		if err := s.listen(); err != nil {
			if pred != nil {
				pred.Close()
			}
			return err
		}
	}
	if err := s.writePid(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	// Sockets that were taken over are read from now on: what else is to be
	// done for hundreds of sandboxes takes longer than their queues are long.
	g.Go(func() error { return s.reactor.run(gctx) })
	s.loadTable()
	if pred != nil {
		if err := replacePredecessor(pred); err != nil {
			s.quit()
			s.release()
			return errors.Join(fmt.Errorf("take over from the running netd: %w", err), g.Wait())
		}
	}
	g.Go(func() error { return s.sweepSessions(gctx) })
	g.Go(func() error { return s.serveControl(gctx) })
	g.Go(func() error {
		<-gctx.Done()
		return s.control.Close()
	})
	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}
	err = g.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.release()
	if err := s.dropPid(); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("remove file", "error", err)
	}
	s.busy.Wait()
	return err
}

// listen makes the control socket. A file left by a netd that was killed is
// replaced; nobody answered on it, or we would have taken over.
func (s *Server) listen() error {
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("listen on %s: %w", s.cfg.Socket, err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.cfg.Socket, Net: "unixpacket"})
	if err != nil {
		return err
	}
	if err := os.Chmod(s.cfg.Socket, 0o600); err != nil {
		_ = l.Close()
		return err
	}
	// A successor has the socket too; only a quit removes the file.
	l.SetUnlinkOnClose(false)
	s.control = l
	return nil
}

// learnNames enters the names of the whole table and returns what it has read.
// It comes before anything else: who asks for a name that is known only later
// would be sent to another server, and while sockets are handed over nobody
// reads from them. What cannot be read, or changes meanwhile, is loadTable's.
func (s *Server) learnNames() map[string]table.Sandbox {
	known := map[string]table.Sandbox{}
	ids, err := s.dir.List()
	if err != nil {
		return known
	}
	for _, id := range ids {
		if rec, err := s.dir.Read(id); err == nil {
			known[id] = rec
			s.mu.Lock()
			s.names.set(rec)
			s.mu.Unlock()
		}
	}
	return known
}

// startAtOnce is how many sandboxes get their servers at the same time when
// all of them need some: most of it is waiting for the kernel.
const startAtOnce = 16

// loadTable serves every sandbox of the table. One that cannot be served
// (its port was taken while nobody held it) is reported and left out.
func (s *Server) loadTable() {
	ids, err := s.dir.List()
	if err != nil {
		s.log.Error("read table", "error", err)
		return
	}
	report := func(id string, err error) {
		switch {
		case errors.Is(err, errNoNamespace):
			s.log.Info("serve sandbox later", "container", id, "reason", err)
		case err != nil:
			s.log.Error("serve sandbox", "container", id, "error", err)
		}
	}
	known := map[string]bool{}
	s.applyMu.Lock()
	var servers errgroup.Group
	servers.SetLimit(startAtOnce)
	for _, id := range ids {
		known[id] = true
		wanted, fresh, _, err := s.swapAll([]string{id})
		if err == nil {
			s.openAll(fresh)
			err = s.swapSandbox(id, wanted[id], nil, func(sb *sandbox, ns *netns.NS) error {
				servers.Go(func() error {
					report(id, s.startServers(sb, ns))
					return nil
				})
				return nil
			})
		} else {
			s.mu.Lock()
			s.names.remove(id)
			s.mu.Unlock()
		}
		report(id, err)
	}
	_ = servers.Wait() // each reports by itself
	s.applyMu.Unlock()
	// What was taken over but is not in the table any more.
	s.mu.Lock()
	var gone []string
	for id := range s.sandboxes {
		if !known[id] {
			gone = append(gone, id)
		}
	}
	for id := range s.owned {
		if !known[id] && s.sandboxes[id] == nil {
			gone = append(gone, id)
		}
	}
	for id := range s.names.records {
		if !known[id] {
			s.names.remove(id)
		}
	}
	s.mu.Unlock()
	if len(gone) > 0 {
		if _, err := s.change(gone, "", -1); err != nil {
			s.log.Error("let go of sandboxes", "error", err)
		}
	}
}

// release closes every socket that is still ours.
func (s *Server) release() {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	s.mu.Lock()
	sandboxes, ports := s.sandboxes, s.ports
	s.sandboxes, s.ports, s.owned = map[string]*sandbox{}, map[portKey]*port{}, map[string][]portKey{}
	s.mu.Unlock()
	for _, sb := range sandboxes {
		s.stopServing(sb)
	}
	s.close(slices.Collect(maps.Values(ports)))
}

// status are the numbers for tests and `info`.
func (s *Server) status() *table.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &table.Status{
		Sandboxes: len(s.sandboxes), Ports: len(s.ports), Relays: int(s.relays.Load()),
		Sessions: int(s.sessions.Load()), Queries: int(s.queries.Load()), Cached: s.cache.len(),
	}
	for _, sb := range s.sandboxes {
		if sb.serving() {
			st.Servers++
		}
	}
	return st
}
