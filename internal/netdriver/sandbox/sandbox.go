// Package sandbox makes network namespaces with their interfaces, and adds
// interfaces to those that run, by netlink only. Which interface on which
// network is what drivers decide; how it comes into a namespace is here.
//
// Entry point: New; Open is the hot path (one namespace, one veth per network,
// about 1 ms). Several sandboxes are made at the same time; the kernel's own
// rtnl lock is the only thing they share. Removing links, which holds that
// lock for 10 to 30 ms, has a connection of its own.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/bridge"
)

// conns is how many sandboxes talk to rtnetlink at the same time; the kernel
// takes their requests one after the other.
const conns = 4

// Maker is safe for concurrent use.
type Maker struct {
	pool    chan *rtnl.Conn
	cleaner *rtnl.Conn
	arp     *announcer
	spares  *pool
	// uids and gids are the maps of new user namespaces.
	uids, gids []process.IDMap
}

// New connects in the network namespace of the calling thread; the host's ends
// of veths are made there.
//
// uids and gids are the maps of user namespaces, for plans that want one.
func New(uids, gids []process.IDMap) (*Maker, error) {
	m := &Maker{pool: make(chan *rtnl.Conn, conns), spares: newPool(time.Now), uids: uids, gids: gids}
	for range conns {
		c, err := rtnl.Open()
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.pool <- c
	}
	var err error
	if m.cleaner, err = rtnl.Open(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if m.arp, err = newAnnouncer(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close ends the connections; what was made stays. No other call may run.
func (m *Maker) Close() error {
	if err := discard(m.spares.drain("", true)); err != nil {
		return err
	}
	for len(m.pool) > 0 {
		(<-m.pool).Close()
	}
	if m.cleaner != nil {
		m.cleaner.Close()
	}
	if m.arp != nil {
		return m.arp.close()
	}
	return nil
}

// with lends a connection.
func (m *Maker) with(ctx context.Context, fn func(*rtnl.Conn) error) error {
	select {
	case c := <-m.pool:
		defer func() { m.pool <- c }()
		return fn(c)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RemoveLink removes an interface; one that is not there is no error. It takes
// the kernel 10 to 30 ms.
func (m *Maker) RemoveLink(_ context.Context, name string) error {
	if err := m.cleaner.Delete(name); err != nil && !rtnl.IsGone(err) {
		return err
	}
	return nil
}

// CutLink stops all traffic of a container's interface at once; one that is not
// there is no error.
func (m *Maker) CutLink(ctx context.Context, name string) error {
	return m.with(ctx, func(c *rtnl.Conn) error {
		if err := c.DisablePort(name); err != nil && !rtnl.IsGone(err) {
			return err
		}
		return nil
	})
}

// WatchLinks calls removed with the name of every interface the kernel
// removes, until ctx is done.
func (m *Maker) WatchLinks(ctx context.Context, removed func(string)) error {
	return rtnl.Watch(ctx, removed)
}

// Open makes a network namespace with its interfaces. On failure nothing is
// left of it: the interfaces vanish with the namespace. One that was made ready
// has an interface already: then the plan's HostLink is changed to its name.
func (m *Maker) Open(ctx context.Context, plan network.SandboxPlan) (network.Handle, error) {
	// Read out here: /proc/sys/net shows the settings of the namespace that the
	// reading thread is in.
	filtered := bridge.Filtered()
	furnish := func(ns *netns.NS) error {
		return m.with(ctx, func(host *rtnl.Conn) error { return m.furnish(ctx, host, ns, plan, filtered) })
	}
	if plan.Remapped { // spare ones belong to the host's user namespace
		return m.openRemapped(plan.UserNSPath, furnish)
	}
	if ns := m.fromSpare(ctx, plan, filtered); ns != nil {
		return ns, nil
	}
	ns, err := netns.New(furnish)
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	return ns, nil
}

// openRemapped makes a namespace whose owner is the user namespace at path, or
// a new one.
func (m *Maker) openRemapped(path string, furnish func(*netns.NS) error) (network.Handle, error) {
	var f *os.File
	var err error
	if path == "" {
		f, err = process.NewNetworkNamespace(m.uids, m.gids)
	} else {
		var user *os.File
		if user, err = os.Open(path); err == nil {
			f, err = process.NewNetworkNamespaceIn(user)
			_ = user.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	ns := netns.Of(f)
	if err := ns.Do(func() error { return furnish(ns) }); err != nil {
		return nil, errors.Join(fmt.Errorf("make sandbox: %w", err), ns.Close())
	}
	return ns, nil
}

// loopback is the first interface of every namespace.
const loopback = 1

// furnish runs on a thread inside the namespace; host talks to the outside.
func (m *Maker) furnish(ctx context.Context, host *rtnl.Conn, ns *netns.NS, plan network.SandboxPlan, filtered bool) error {
	inside, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.SetUp(loopback); err != nil {
		return err
	}
	for _, itf := range plan.Interfaces {
		if err := m.connect(ctx, host, inside, ns, itf, filtered); err != nil {
			return err
		}
	}
	return nil
}

// Enter opens the network namespace of a process. ErrNotFound when it is gone.
func (m *Maker) Enter(_ context.Context, pid int) (network.Handle, error) {
	ns, err := netns.OfPid(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// in runs fn inside a namespace, with a connection to it and one to the host.
func (m *Maker) in(ctx context.Context, handle network.Handle, fn func(host, inside *rtnl.Conn, ns *netns.NS) error) error {
	ns, ok := handle.(*netns.NS)
	if !ok {
		return errdefs.ErrInvalidArgument.WithMessage("not a sandbox of this driver")
	}
	return m.with(ctx, func(host *rtnl.Conn) error {
		return ns.Do(func() error {
			inside, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer inside.Close()
			return fn(host, inside, ns)
		})
	})
}

// Attach adds an interface to a sandbox. On failure it is not there.
func (m *Maker) Attach(ctx context.Context, handle network.Handle, itf network.Interface) error {
	filtered := bridge.Filtered()
	return m.in(ctx, handle, func(host, inside *rtnl.Conn, ns *netns.NS) error {
		err := m.connect(ctx, host, inside, ns, itf, filtered)
		if err != nil {
			if gone := inside.Delete(itf.InnerLink); gone != nil && !rtnl.IsGone(gone) {
				err = errors.Join(err, gone)
			}
		}
		return err
	})
}

// Detach removes an interface of a sandbox; one that is not there is no error.
// hostLink, when not empty, is what a moved interface is called again outside.
func (m *Maker) Detach(ctx context.Context, handle network.Handle, innerLink, hostLink string) error {
	home, err := netns.Current()
	if err != nil {
		return err
	}
	defer home.Close()
	err = m.in(ctx, handle, func(_, inside *rtnl.Conn, _ *netns.NS) error {
		if hostLink == "" {
			return inside.Delete(innerLink)
		}
		return inside.Move(innerLink, hostLink, home.Fd())
	})
	if err != nil && !rtnl.IsGone(err) {
		return fmt.Errorf("remove %s of a sandbox: %w", innerLink, err)
	}
	return nil
}

// SetDefault makes these the default routes of a sandbox.
func (m *Maker) SetDefault(ctx context.Context, handle network.Handle, want network.Default) error {
	return m.in(ctx, handle, func(_, inside *rtnl.Conn, _ *netns.NS) error {
		for _, d := range []struct {
			ipv6    bool
			link    string
			gateway netip.Addr
		}{{false, want.Link4, want.Gateway4}, {true, want.Link6, want.Gateway6}} {
			index := 0
			if d.link != "" {
				link, err := inside.Link(d.link)
				if err != nil {
					return err
				}
				index = link.Index
			}
			if err := inside.SetDefaultRoute(d.ipv6, index, d.gateway); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Maker) connect(ctx context.Context, host, inside *rtnl.Conn, ns *netns.NS, itf network.Interface, filtered bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("connect %s to %s: %w", itf.InnerLink, place(itf), err)
		}
	}()
	var mac net.HardwareAddr
	if itf.MAC != "" {
		if mac, err = net.ParseMAC(itf.MAC); err != nil {
			return errdefs.ErrInvalidArgument.WithMessage("invalid MAC address " + itf.MAC)
		}
	}
	// What a new interface inherits: without an IPv6 address it gets no
	// link-local one either, and it never listens to router advertisements.
	name, value := "disable_ipv6", "1"
	if slices.ContainsFunc(itf.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		name, value = "accept_ra", "0"
	}
	before, err := swapSysctl("/proc/sys/net/ipv6/conf/default/"+name, value)
	if err != nil {
		return err
	}
	dev, err := m.lay(host, inside, ns, itf, mac, filtered)
	if before != "" {
		_, back := swapSysctl("/proc/sys/net/ipv6/conf/default/"+name, before)
		err = errors.Join(err, back)
	}
	if err != nil {
		return err
	}
	link, err := inside.Link(itf.InnerLink)
	if err != nil {
		return err
	}
	for _, s := range itf.Sysctls {
		if err := writeSysctl(s, itf.InnerLink); err != nil {
			return err
		}
	}
	if err := patiently(ctx, func() error { return configure(inside, link.Index, itf) }); err != nil {
		return err
	}
	if dev == nil {
		return nil
	}
	return m.passing(host, *dev, itf, mac)
}

// configure gives an interface its addresses, switches it on and adds its
// routes. It may be repeated.
func configure(inside *rtnl.Conn, index int, itf network.Interface) error {
	for _, p := range itf.Addrs {
		if err := inside.AddAddr(index, p); err != nil {
			return err
		}
	}
	if err := inside.SetUp(index); err != nil {
		return err
	}
	for _, r := range itf.Routes {
		if err := inside.AddRoute(index, r.To, r.Via); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		ipv6, onLink bool
		gateway      netip.Addr
	}{{false, itf.OnLink4, itf.Gateway4}, {true, itf.OnLink6, itf.Gateway6}} {
		if d.gateway.IsValid() || d.onLink {
			if err := inside.AddDefaultRoute(d.ipv6, index, d.gateway); err != nil {
				return err
			}
		}
	}
	return nil
}

// patiently repeats what a namespace that the kernel is just removing stands in
// the way of, for ten seconds: MAC addresses of macvlan and addresses of ipvlan
// are unique on a parent, and one worker of the kernel removes all namespaces.
func patiently(ctx context.Context, act func() error) error {
	deadline := time.Now().Add(10 * time.Second)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := act()
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// place is what an interface is connected to, for errors.
func place(itf network.Interface) string {
	switch {
	case itf.Bridge != "":
		return "bridge " + itf.Bridge
	case itf.Parent != "":
		return itf.Parent
	}
	return itf.HostLink
}

// lay makes the interface in the namespace, switched off. dev is the bridge of a veth.
func (m *Maker) lay(host, inside *rtnl.Conn, ns *netns.NS, itf network.Interface, mac net.HardwareAddr, filtered bool) (dev *rtnl.Link, err error) {
	switch itf.Kind {
	case "", network.Veth:
		link, err := host.Link(itf.Bridge)
		if err != nil {
			return nil, err
		}
		err = host.AddVeth(rtnl.Veth{
			Name: itf.HostLink, Master: link.Index, MTU: itf.MTU, Peer: itf.InnerLink, PeerMAC: mac, PeerNS: ns.Fd(),
		})
		if err != nil {
			return nil, err
		}
		if isolated, hairpin := bridge.PortFlags(itf.Isolated, filtered); isolated || hairpin {
			return &link, host.SetPort(itf.HostLink, isolated, hairpin)
		}
		return &link, nil
	case network.Moved:
		if err := host.Move(itf.HostLink, itf.InnerLink, ns.Fd()); err != nil {
			return nil, err
		}
		if mac == nil && itf.MTU == 0 {
			return nil, nil
		}
		link, err := inside.Link(itf.InnerLink)
		if err != nil {
			return nil, err
		}
		if itf.MTU > 0 && link.MTU != itf.MTU {
			if err := inside.SetMTU(link.Index, itf.MTU); err != nil {
				return nil, err
			}
		}
		if mac != nil && mac.String() != link.Addr.String() {
			return nil, inside.SetMAC(link.Index, mac)
		}
		return nil, nil
	}
	if itf.Kind == network.Macvlan || itf.Kind == network.Ipvlan {
		parent, err := host.Link(itf.Parent)
		if rtnl.IsGone(err) {
			return nil, errdefs.ErrNotFound.WithMessage("the requested parent interface " + itf.Parent + " was not found on the Docker host")
		}
		if err != nil {
			return nil, err
		}
		fd := ns.Fd()
		return nil, host.AddSub(rtnl.Sub{
			Kind: itf.Kind, Name: itf.InnerLink, Parent: parent.Index, Mode: itf.Mode, Flag: itf.Flag, MAC: mac, MTU: itf.MTU, NS: &fd,
		})
	}
	return nil, errdefs.ErrNotImplemented.WithMessage("interfaces of kind " + itf.Kind + " are not known")
}

// passing waits until packets pass a veth, and tells the neighbors about it.
func (m *Maker) passing(host *rtnl.Conn, dev rtnl.Link, itf network.Interface, mac net.HardwareAddr) error {
	if err := host.WaitUp(itf.HostLink); err != nil {
		return err
	}
	// A bridge without ports has no carrier either.
	if !dev.Passing() {
		if err := host.WaitUp(itf.Bridge); err != nil {
			return err
		}
	}
	return m.neighbors(host, dev.Index, itf, mac)
}

// neighbors tells the host, and if need be everybody, about an address.
func (m *Maker) neighbors(host *rtnl.Conn, dev int, itf network.Interface, mac net.HardwareAddr) error {
	// The host need not ask, and does not go on waiting for an answer that was
	// lost while the address belonged to nobody: clients that keep knocking at
	// a published port would have to wait for the next second.
	for _, p := range itf.Addrs {
		if err := host.SetNeighbor(dev, p.Addr(), mac); err != nil {
			return err
		}
	}
	if itf.Announce {
		return m.arp.announce(dev, mac, itf.Addrs)
	}
	return nil
}

// swapSysctl changes a setting in the namespace of the calling thread and
// returns what it was, without its newline; "" when there is nothing to put back.
func swapSysctl(path, value string) (before string, err error) {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // no IPv6 at all
	}
	before = strings.TrimSpace(string(old))
	if err == nil && before == value {
		return "", nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		return "", fmt.Errorf("set sysctl: %w", err)
	}
	return before, nil
}

// writeSysctl sets net.X.Y.IFNAME.Z in the namespace of the calling thread. An
// interface's name may have dots, so it is put in after the others became
// slashes.
func writeSysctl(s network.Sysctl, link string) error {
	path := "/proc/sys/" + strings.ReplaceAll(strings.ReplaceAll(s.Key, ".", "/"), "IFNAME", link)
	if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", s.Key, err)
	}
	return nil
}
