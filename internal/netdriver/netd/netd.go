// Package netd is the daemon's side of orlop-netd: it starts the process,
// writes the table, tells what changed, and starts it again when it died.
//
// Entry points: New, Client.Ensure once, then Put and Drop; Run supervises.
//
// Lock order: Client.mu covers one exchange with netd (about 0.1 ms for a
// port) and its start; what netd answers for one container never waits for the
// kernel's slow acts.
package netd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/nameserver/table"
)

const (
	// startTimeout bounds the start of a netd until it serves the table.
	startTimeout = 20 * time.Second
	// answerTimeout bounds one exchange.
	answerTimeout = 15 * time.Second
	// minPause and maxPause lie between two starts of a netd that keeps dying.
	minPause = 50 * time.Millisecond
	maxPause = 10 * time.Second
	// maxLog is the size at which netd's log is begun anew.
	maxLog = 1 << 20
)

// Config of a Client.
type Config struct {
	// Program is the path of orlop-netd.
	Program string
	// Dir is the folder <exec-root>/netd: table, socket and log.
	Dir    string
	Debug  bool
	Logger *slog.Logger
}

// Client is safe for concurrent use.
type Client struct {
	cfg Config
	dir table.Dir

	mu   sync.Mutex
	conn *table.Conn
	// lost is closed when the connection of this moment has failed.
	lost chan struct{}
	// handles are namespaces of sandboxes whose process is not known yet: a
	// netd that is started anew cannot find them by itself.
	handles map[string]network.Handle
	quit    bool
	// unsettled: netd may still be opening relays.
	unsettled bool
}

// New touches nothing; Ensure starts netd.
func New(cfg Config) *Client {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, dir: table.Dir(filepath.Join(cfg.Dir, "table")), handles: map[string]network.Handle{}}
}

func (c *Client) socket() string { return filepath.Join(c.cfg.Dir, "netd.sock") }

// Ensure makes netd run and serve exactly these sandboxes.
func (c *Client) Ensure(ctx context.Context, all []network.Names) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quit = false
	if err := os.MkdirAll(string(c.dir), 0o700); err != nil {
		return fmt.Errorf("prepare netd: %w", err)
	}
	stale, err := c.dir.List()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	changed := []string{}
	for _, n := range all {
		wanted[n.ContainerID] = true
		changed = append(changed, n.ContainerID)
		if err := c.dir.Write(record(n)); err != nil {
			return err
		}
	}
	for _, id := range stale {
		if !wanted[id] {
			changed = append(changed, id)
			if err := c.dir.Remove(id); err != nil {
				return err
			}
		}
	}
	for try := 1; ; try++ {
		fresh, err := c.connect(ctx)
		if err != nil || fresh {
			return err // a new one has just read all of it
		}
		if err = c.tellAll(changed); err == nil || try == tries {
			return err
		}
		c.cfg.Logger.Warn("netd is gone; start another one", "error", err)
	}
}

// tries is how many netds Ensure talks to: one may die just then.
const tries = 2

func (c *Client) tellAll(ids []string) error {
	for part := range slices.Chunk(ids, atOnce) {
		if err := c.tell(part); err != nil {
			return err
		}
	}
	return nil
}

// atOnce is how many sandboxes netd is told about in one message.
const atOnce = 100

// tell has netd look at sandboxes again. A port that is lost must not stop the
// others, so those of a change that failed are named one by one.
func (c *Client) tell(ids []string) error {
	reply, err := c.exchange(table.Request{Op: table.OpChanged, IDs: ids})
	if err != nil || reply.Error == "" {
		return err
	}
	if len(ids) == 1 {
		c.cfg.Logger.Error("netd cannot serve a container", "container", ids[0], "error", reply.Error)
		return nil
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, c.tell([]string{id}))
	}
	return errors.Join(errs...)
}

// connect finds the netd that runs, or starts one: when there is none, and
// when the one that runs is another program or speaks another protocol; then
// the new one takes its sockets. fresh tells that it has just read the table.
func (c *Client) connect(ctx context.Context) (fresh bool, err error) {
	c.disconnect()
	if conn, err := table.Dial(c.socket()); err == nil {
		c.adopt(conn)
		reply, err := c.exchange(table.Request{Op: table.OpHello})
		if err == nil && reply.Protocol == table.Protocol && reply.Program == c.program() {
			return false, nil
		}
		c.cfg.Logger.Info("replace the running netd", "pid", reply.Pid, "version", reply.Version, "error", err)
		c.disconnect()
	}
	if err := c.start(ctx); err != nil {
		return false, fmt.Errorf("start netd: %w", err)
	}
	conn, err := table.Dial(c.socket())
	if err != nil {
		return false, fmt.Errorf("connect to netd: %w", err)
	}
	c.adopt(conn)
	return true, nil
}

func (c *Client) adopt(conn *table.Conn) {
	c.conn, c.lost = conn, make(chan struct{})
}

func (c *Client) disconnect() {
	if c.conn != nil {
		// Shut down, not only closed: the supervisor has a copy of it.
		_ = c.conn.CloseRead()
		_ = c.conn.CloseWrite()
		c.conn.Close()
		c.conn = nil
		close(c.lost)
	}
}

// program identifies the file of the netd that we would start.
func (c *Client) program() string {
	path, err := exec.LookPath(c.cfg.Program)
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// start runs netd in a session of its own, so that it outlives the daemon, and
// waits until it serves the table.
func (c *Client) start(ctx context.Context) error {
	logPath := filepath.Join(c.cfg.Dir, "netd.log")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if st, err := os.Stat(logPath); err == nil && st.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(logPath, flags, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := []string{"--table", string(c.dir), "--socket", c.socket()}
	if c.cfg.Debug {
		args = append(args, "--debug")
	}
	// It outlives the context; waiting for it to serve is what ctx bounds.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), c.cfg.Program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = readyWrite, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	readyWrite.Close()
	if err != nil {
		return err
	}
	// The only thing left to do for the child is to reap it; it may outlive us.
	go func() {
		if err := cmd.Wait(); err != nil {
			c.cfg.Logger.Warn("netd ended", "error", err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		if err := ready.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	line, err := bufio.NewReader(ready).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		return fmt.Errorf("it does not get ready (see %s): %w", logPath, err)
	}
	return nil
}

// exchange sends a request and returns the answer; c.mu is held.
func (c *Client) exchange(req table.Request, fds ...int) (table.Reply, error) {
	if c.conn == nil {
		return table.Reply{}, errors.New("netd does not run")
	}
	var reply table.Reply
	err := c.conn.SetDeadline(time.Now().Add(answerTimeout))
	if err == nil {
		err = c.conn.Send(req, fds...)
	}
	if err == nil {
		var got []int
		got, err = c.conn.Receive(&reply)
		for _, fd := range got {
			unix.Close(fd)
		}
	}
	if err != nil {
		c.disconnect()
		return table.Reply{}, fmt.Errorf("talk to netd: %w", err)
	}
	return reply, nil
}

// changed tells netd about one sandbox. A netd that died is started again
// first, and has read the change by itself then.
func (c *Client) changed(ctx context.Context, id string, handle network.Handle) (table.Reply, error) {
	req := table.Request{Op: table.OpChanged, IDs: []string{id}}
	var fds []int
	if handle != nil {
		req.NS, fds = id, []int{int(handle.Fd())}
	}
	if c.conn != nil {
		reply, err := c.exchange(req, fds...)
		if err == nil {
			return reply, nil
		}
		c.cfg.Logger.Warn("netd is gone; start another one", "error", err)
	}
	if err := c.revive(ctx); err != nil {
		return table.Reply{}, err
	}
	return c.exchange(req, fds...)
}

// revive starts a netd and gives it the namespaces that it cannot find.
func (c *Client) revive(ctx context.Context) error {
	if _, err := c.connect(ctx); err != nil {
		return err
	}
	for id, h := range c.handles {
		if reply, err := c.exchange(table.Request{Op: table.OpChanged, IDs: []string{id}, NS: id}, int(h.Fd())); err != nil {
			return err
		} else if reply.Error != "" {
			c.cfg.Logger.Error("netd cannot serve a container", "container", id, "error", reply.Error)
		}
	}
	return nil
}

// Put serves and reserves for one sandbox and returns when that is in force.
// network.PortBusy when another program has a port; nothing has changed then.
func (c *Client) Put(ctx context.Context, names network.Names, ns network.Handle) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := names.ContainerID
	rec := record(names)
	if names.DNS && names.Pid == 0 && ns == nil {
		// Only the ports for now: the namespace is made when they are ours.
		rec.DNS = nil
	}
	if names.Pid > 0 {
		delete(c.handles, id)
	} else if ns != nil {
		c.handles[id] = ns
	}
	before, readErr := c.dir.Read(id)
	if err := c.dir.Write(rec); err != nil {
		return err
	}
	reply, err := c.changed(ctx, id, ns)
	if err == nil && reply.Error == "" {
		c.unsettled = c.unsettled || len(rec.Ports) > table.FewPorts
		return nil
	}
	// Back to what netd still does.
	delete(c.handles, id)
	if readErr == nil {
		err = errors.Join(err, c.dir.Write(before))
	} else {
		err = errors.Join(err, c.dir.Remove(id))
	}
	if reply.Busy != nil {
		return errors.Join(err, network.PortBusy{Binding: binding(*reply.Busy), Cause: reply.Error})
	}
	if reply.Error != "" {
		err = errors.Join(err, errors.New(reply.Error))
	}
	return fmt.Errorf("serve names and ports of container %s: %w", id, err)
}

// Move replaces what two sandboxes have in one change. On failure nothing has
// changed.
func (c *Client) Move(ctx context.Context, from, to network.Names) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	req := table.Request{Op: table.OpChanged}
	var back []func() error
	var err error
	for _, n := range []network.Names{from, to} {
		id := n.ContainerID
		req.IDs = append(req.IDs, id)
		before, readErr := c.dir.Read(id)
		if readErr == nil {
			back = append(back, func() error { return c.dir.Write(before) })
		} else {
			back = append(back, func() error { return c.dir.Remove(id) })
		}
		if n.Empty() {
			err = errors.Join(err, c.dir.Remove(id))
		} else {
			err = errors.Join(err, c.dir.Write(record(n)))
		}
	}
	var reply table.Reply
	if err == nil {
		if c.conn == nil {
			err = c.revive(ctx) // it reads all of it
		}
		if err == nil {
			reply, err = c.exchange(req)
		}
	}
	if err == nil && reply.Error == "" {
		return nil
	}
	for _, restore := range back {
		err = errors.Join(err, restore())
	}
	if reply.Error != "" {
		err = errors.Join(err, errors.New(reply.Error))
	}
	return fmt.Errorf("move ports of container %s: %w", from.ContainerID, err)
}

// Settle returns when what Put said is served, too: the relays of very many
// ports are opened while their container is being made.
func (c *Client) Settle(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsettled {
		return nil
	}
	c.unsettled = false
	reply, err := c.exchange(table.Request{Op: table.OpSettle})
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	return err
}

// Drop ends what Put began. Its effect comes before that of any later Put.
func (c *Client) Drop(ctx context.Context, containerID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.handles, containerID)
	if err := c.dir.Remove(containerID); err != nil {
		return err
	}
	reply, err := c.changed(ctx, containerID, nil)
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	return err
}

// Status asks netd for its numbers.
func (c *Client) Status() (table.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.exchange(table.Request{Op: table.OpStatus})
	if err != nil {
		return table.Status{}, err
	}
	if reply.Status == nil {
		return table.Status{}, errors.New(reply.Error)
	}
	return *reply.Status, nil
}

// Quit ends netd; one that does not run is no error.
func (c *Client) Quit(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quit = true
	if c.conn == nil {
		return nil
	}
	_, err := c.exchange(table.Request{Op: table.OpQuit})
	c.disconnect()
	return err
}

// Run starts netd again whenever it dies, until ctx is done; then netd goes on
// by itself.
func (c *Client) Run(ctx context.Context) error {
	pause := minPause
	for {
		c.mu.Lock()
		lost, conn := c.lost, c.conn
		c.mu.Unlock()
		if conn != nil {
			select {
			case <-lost:
			case <-ctx.Done():
				return nil
			case <-hangup(ctx, conn):
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		c.mu.Lock()
		quit := c.quit
		var err error
		switch {
		case quit:
		case c.conn != nil && c.conn != conn: // somebody else was faster
		default:
			c.disconnect()
			c.cfg.Logger.Warn("netd is gone; start another one")
			err = c.revive(ctx)
		}
		c.mu.Unlock()
		if err == nil && !quit {
			pause = minPause
			continue
		}
		if err != nil {
			c.cfg.Logger.Error("start netd", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}

// hangup is closed when the other end of a connection is gone. It does not
// read, so it disturbs no exchange.
func hangup(ctx context.Context, conn *table.Conn) <-chan struct{} {
	done := make(chan struct{})
	raw, err := conn.SyscallConn()
	if err != nil {
		close(done)
		return done
	}
	fd := -1
	if err := raw.Control(func(f uintptr) { fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || fd < 0 {
		close(done)
		return done
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		close(done)
		return done
	}
	stop := context.AfterFunc(ctx, func() {
		one := [8]byte{1}
		_, _ = unix.Write(wake, one[:])
	})
	go func() {
		defer close(done)
		defer unix.Close(wake)
		defer unix.Close(fd)
		defer stop()
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}, {Fd: int32(wake), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
				continue
			}
			return
		}
	}()
	return done
}

// record is the table's form of what the engine decided.
func record(n network.Names) table.Sandbox {
	s := table.Sandbox{ID: n.ContainerID, Pid: n.Pid}
	if n.Pid > 0 {
		s.PidStart = startTime(n.Pid)
	}
	if n.DNS {
		s.DNS = &table.DNS{Forward: n.Forward, OwnRoot: n.OwnRoot}
		for _, up := range n.Upstream {
			s.DNS.Upstream = append(s.DNS.Upstream, table.Upstream{Addr: addr53(up), Host: up.Host})
		}
	}
	for _, k := range n.Known {
		name := table.Name{Network: k.NetworkID, Addrs: k.Addrs}
		for _, one := range k.Names {
			name.Names = append(name.Names, one)
			if k.NetworkName != "" {
				name.Names = append(name.Names, one+"."+strings.ToLower(k.NetworkName))
			}
		}
		if len(k.Names) > 0 {
			name.Reverse = k.Names[0]
			if k.NetworkName != "" {
				name.Reverse += "." + k.NetworkName
			}
		}
		s.Names = append(s.Names, name)
		if s.DNS != nil {
			s.DNS.Networks = append(s.DNS.Networks, k.NetworkID)
			for alias, name := range k.Links {
				s.DNS.Links = append(s.DNS.Links, table.Link{Network: k.NetworkID, Alias: alias, Name: name})
			}
		}
	}
	for _, b := range n.Ports {
		s.Ports = append(s.Ports, port(b))
	}
	return s
}
