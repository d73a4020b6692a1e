// Package bridge makes bridge devices and the sandboxes connected to them, by
// netlink only.
//
// Entry point: New; OpenSandbox is the hot path (one namespace, one veth per
// network, about 1 ms). Several sandboxes are made at the same time; the
// kernel's own rtnl lock is the only thing they share. Removing links, which
// holds that lock for 10 to 30 ms, has a connection of its own.
package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
)

// conns is how many sandboxes talk to rtnetlink at the same time; the kernel
// takes their requests one after the other.
const conns = 4

// Driver is safe for concurrent use.
type Driver struct {
	pool    chan *rtnl.Conn
	cleaner *rtnl.Conn
	arp     *announcer
}

// New connects in the network namespace of the calling thread; bridges and the
// host's ends of veths are made there.
func New() (*Driver, error) {
	d := &Driver{pool: make(chan *rtnl.Conn, conns)}
	for range conns {
		c, err := rtnl.Open()
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.pool <- c
	}
	var err error
	if d.cleaner, err = rtnl.Open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if d.arp, err = newAnnouncer(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close ends the connections; what was made stays. No other call may run.
func (d *Driver) Close() error {
	for len(d.pool) > 0 {
		(<-d.pool).Close()
	}
	if d.cleaner != nil {
		d.cleaner.Close()
	}
	if d.arp != nil {
		return d.arp.close()
	}
	return nil
}

// with lends a connection.
func (d *Driver) with(ctx context.Context, fn func(*rtnl.Conn) error) error {
	select {
	case c := <-d.pool:
		defer func() { d.pool <- c }()
		return fn(c)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EnsureBridge brings a device to the wanted state. ErrNotFound for a foreign
// device that does not exist, ErrInvalidArgument for a name that belongs to
// something that is no bridge.
func (d *Driver) EnsureBridge(ctx context.Context, b network.Bridge) error {
	return d.with(ctx, func(c *rtnl.Conn) error {
		if err := ensure(c, b); err != nil {
			return fmt.Errorf("set up bridge %s: %w", b.Device, err)
		}
		return nil
	})
}

func ensure(c *rtnl.Conn, b network.Bridge) error {
	link, err := c.Link(b.Device)
	switch {
	case err == nil && link.Kind != "bridge":
		return errdefs.ErrInvalidArgument.WithMessage("a device of this name exists and is no bridge")
	case err == nil:
	case !rtnl.IsGone(err):
		return err
	case b.Foreign:
		return errdefs.ErrNotFound.WithMessage("bridge device " + b.Device + " not found")
	default:
		mac := make(net.HardwareAddr, 6)
		rand.Read(mac)
		mac[0] = mac[0]&^1 | 2 // a unicast address that nobody was assigned
		if err := c.AddBridge(b.Device, mac, b.MTU); err != nil {
			return err
		}
		if link, err = c.Link(b.Device); err != nil {
			return err
		}
	}
	if b.Localnet {
		if err := setSysctl("ipv4", b.Device, "route_localnet", 1); err != nil {
			return err
		}
	}
	if b.Foreign {
		return c.SetUp(link.Index)
	}
	// The bridge is the containers' router: it takes no advice from them
	// (CVE-2020-13401).
	if err := setSysctl("ipv6", b.Device, "accept_ra", 0); err != nil {
		return err
	}
	if b.IPv6 {
		if err := setSysctl("ipv6", b.Device, "disable_ipv6", 0); err != nil {
			return err
		}
	}
	if b.MTU > 0 && link.MTU != b.MTU {
		if err := c.SetMTU(link.Index, b.MTU); err != nil {
			return err
		}
	}
	have, err := c.Addrs()
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.Index == link.Index && !a.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(b.Addrs, a.Prefix) {
			if err := c.DelAddr(link.Index, a.Prefix); err != nil {
				return err
			}
		}
	}
	for _, p := range b.Addrs {
		if err := c.AddAddr(link.Index, p); err != nil {
			return err
		}
	}
	if !link.Up {
		if err := c.SetUp(link.Index); err != nil {
			return err
		}
	}
	// The ports of containers that run, for the case that the setting changed.
	links, err := c.Links()
	if err != nil {
		return err
	}
	isolated, hairpin := portFlags(b.Isolated, bridgeFiltered())
	for _, l := range links {
		if l.Master != link.Index && slices.Contains(b.Ports, l.Name) {
			if err := c.SetMaster(l.Name, link.Index); err != nil && !rtnl.IsGone(err) {
				return err
			}
			l.Master = link.Index
		}
		if l.Master == link.Index && l.Kind == "veth" {
			if err := c.SetPort(l.Name, isolated, hairpin); err != nil && !rtnl.IsGone(err) {
				return err
			}
		}
	}
	return nil
}

// portFlags decides how a port of the bridge treats its neighbors; wanted says
// that containers must not reach each other, filtered that
// bridge-nf-call-iptables is on.
//
// Without bridge-nf-call-iptables, frames between two ports never see the
// firewall, so the bridge has to isolate them itself; a container that uses a
// published port of its neighbor goes through the host and is not affected.
// With it, the firewall sees the frames and decides, and a published port is
// translated inside the bridge: the frame then goes directly to its port, even
// back to the one it came from, which only a hairpin port allows.
func portFlags(wanted, filtered bool) (isolated, hairpin bool) {
	return wanted && !filtered, filtered
}

// bridgeFiltered reports whether frames within a bridge pass the firewall, in
// the namespace of the calling thread.
func bridgeFiltered() bool {
	data, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// setSysctl writes net.<family>.conf.<device>.<name> of the network namespace
// that the calling thread is in; without the family (IPv6 off) there is
// nothing to set.
func setSysctl(family, device, name string, value int) error {
	path := filepath.Join("/proc/sys/net", family, "conf", device, name)
	err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0)
	if err != nil && !(family == "ipv6" && errors.Is(err, os.ErrNotExist)) {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}

// BridgeAddrs lists the addresses of a device; none when it does not exist.
func (d *Driver) BridgeAddrs(ctx context.Context, device string) (addrs []netip.Prefix, err error) {
	err = d.with(ctx, func(c *rtnl.Conn) error {
		link, err := c.Link(device)
		if rtnl.IsGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		all, err := c.Addrs()
		for _, a := range all {
			if a.Index == link.Index {
				addrs = append(addrs, a.Prefix)
			}
		}
		return err
	})
	return addrs, err
}

// RemoveBridge removes a device; one that is not there is no error.
func (d *Driver) RemoveBridge(ctx context.Context, device string) error {
	return d.RemoveLink(ctx, device)
}

// RemoveLink removes an interface; one that is not there is no error. It takes
// the kernel 10 to 30 ms.
func (d *Driver) RemoveLink(_ context.Context, name string) error {
	if err := d.cleaner.Delete(name); err != nil && !rtnl.IsGone(err) {
		return err
	}
	return nil
}

// CutLink stops all traffic of a container's interface at once; one that is not
// there is no error.
func (d *Driver) CutLink(ctx context.Context, name string) error {
	return d.with(ctx, func(c *rtnl.Conn) error {
		if err := c.DisablePort(name); err != nil && !rtnl.IsGone(err) {
			return err
		}
		return nil
	})
}

// Links lists the veths on a bridge.
func (d *Driver) Links(ctx context.Context, device string) (names []string, err error) {
	err = d.with(ctx, func(c *rtnl.Conn) error {
		bridge, err := c.Link(device)
		if rtnl.IsGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		links, err := c.Links()
		for _, l := range links {
			if l.Master == bridge.Index && l.Kind == "veth" {
				names = append(names, l.Name)
			}
		}
		return err
	})
	return names, err
}

// WatchLinks calls removed with the name of every interface the kernel
// removes, until ctx is done.
func (d *Driver) WatchLinks(ctx context.Context, removed func(string)) error {
	return rtnl.Watch(ctx, removed)
}

// OpenSandbox makes a network namespace with its interfaces. On failure
// nothing is left of it: the interfaces vanish with the namespace.
func (d *Driver) OpenSandbox(ctx context.Context, plan network.SandboxPlan) (network.Handle, error) {
	// Read out here: /proc/sys/net shows the settings of the namespace that the
	// reading thread is in.
	filtered := bridgeFiltered()
	ns, err := netns.New(func(ns *netns.NS) error {
		return d.with(ctx, func(host *rtnl.Conn) error { return d.furnish(host, ns, plan, filtered) })
	})
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	return ns, nil
}

// furnish runs on a thread inside the namespace; host talks to the outside.
func (d *Driver) furnish(host *rtnl.Conn, ns *netns.NS, plan network.SandboxPlan, filtered bool) error {
	inside, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer inside.Close()
	const loopback = 1 // the first interface of every namespace
	if err := inside.SetUp(loopback); err != nil {
		return err
	}
	for _, itf := range plan.Interfaces {
		if err := d.connect(host, inside, ns, itf, filtered); err != nil {
			return fmt.Errorf("connect %s to bridge %s: %w", itf.InnerLink, itf.Bridge, err)
		}
	}
	return nil
}

func (d *Driver) connect(host, inside *rtnl.Conn, ns *netns.NS, itf network.Interface, filtered bool) error {
	bridge, err := host.Link(itf.Bridge)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(itf.MAC)
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid MAC address " + itf.MAC)
	}
	// What a new interface inherits: without an IPv6 address it gets no
	// link-local one either, and it never listens to router advertisements.
	ipv6 := slices.ContainsFunc(itf.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	name, value, usual := "disable_ipv6", 1, 0
	if ipv6 {
		name, value, usual = "accept_ra", 0, 1
	}
	if err := setSysctl("ipv6", "default", name, value); err != nil {
		return err
	}
	err = host.AddVeth(rtnl.Veth{
		Name: itf.HostLink, Master: bridge.Index, MTU: itf.MTU, Peer: itf.InnerLink, PeerMAC: mac, PeerNS: ns.Fd(),
	})
	if err := errors.Join(err, setSysctl("ipv6", "default", name, usual)); err != nil {
		return err
	}
	if isolated, hairpin := portFlags(itf.Isolated, filtered); isolated || hairpin {
		if err := host.SetPort(itf.HostLink, isolated, hairpin); err != nil {
			return err
		}
	}
	link, err := inside.Link(itf.InnerLink)
	if err != nil {
		return err
	}
	for _, p := range itf.Addrs {
		if err := inside.AddAddr(link.Index, p); err != nil {
			return err
		}
	}
	if err := inside.SetUp(link.Index); err != nil {
		return err
	}
	for _, gw := range []netip.Addr{itf.Gateway4, itf.Gateway6} {
		if gw.IsValid() {
			if err := inside.AddDefaultRoute(link.Index, gw); err != nil {
				return err
			}
		}
	}
	if err := host.WaitUp(itf.HostLink); err != nil {
		return err
	}
	// A bridge without ports has no carrier either.
	if !bridge.Passing() {
		if err := host.WaitUp(itf.Bridge); err != nil {
			return err
		}
	}
	// The host need not ask, and does not go on waiting for an answer that was
	// lost while the address belonged to nobody: clients that keep knocking at
	// a published port would have to wait for the next second.
	for _, p := range itf.Addrs {
		if err := host.SetNeighbor(bridge.Index, p.Addr(), mac); err != nil {
			return err
		}
	}
	if itf.Announce {
		return d.arp.announce(bridge.Index, mac, itf.Addrs)
	}
	return nil
}
