// Package bridge makes the bridge devices of networks, by netlink only, and
// says how a container's interface is connected to one.
//
// Entry point: New. It keeps nothing in memory: what a bridge has to be follows
// from the network's record. Making and removing devices is slow (the kernel
// waits for its processors) and shares one connection.
package bridge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/rtnl"
)

// Driver is safe for concurrent use.
type Driver struct {
	// conn is taken by whoever uses it.
	conn chan *rtnl.Conn
}

// New connects in the network namespace of the calling thread; bridges are
// made there.
func New() (*Driver, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	d := &Driver{conn: make(chan *rtnl.Conn, 1)}
	d.conn <- c
	return d, nil
}

// Close ends the connection; what was made stays. No other call may run.
func (d *Driver) Close() error {
	(<-d.conn).Close()
	return nil
}

func (d *Driver) with(ctx context.Context, fn func(*rtnl.Conn) error) error {
	select {
	case c := <-d.conn:
		defer func() { d.conn <- c }()
		return fn(c)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Capabilities of bridge networks.
func (d *Driver) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Scope: "local", Ports: true}, nil
}

// Prepare checks the options and chooses the device's name. A device of that
// name that exists already stays when the network goes.
func (d *Driver) Prepare(ctx context.Context, rec *network.Record) (network.Wants, error) {
	o, err := network.ParseBridgeOptions(rec.Options)
	if err != nil {
		return network.Wants{}, err
	}
	if (o.Mode4 == network.GatewayIsolated || o.Mode6 == network.GatewayIsolated) && !rec.Internal {
		return network.Wants{}, errdefs.ErrInvalidArgument.WithMessage("gateway mode 'isolated' can only be used for an internal network")
	}
	rec.Device = cmp.Or(o.Name, network.BridgeDevice(rec.ID))
	if len(rec.Device) > maxName || strings.ContainsAny(rec.Device, "/ ") {
		return network.Wants{}, errdefs.ErrInvalidArgument.WithMessage("invalid bridge name " + strconv.Quote(rec.Device))
	}
	err = d.with(ctx, func(c *rtnl.Conn) error {
		link, err := c.Link(rec.Device)
		switch {
		case rtnl.IsGone(err):
			return nil
		case err != nil:
			return err
		case link.Kind != "bridge":
			return errNoBridge
		}
		rec.Foreign = true
		return nil
	})
	return network.Wants{
		Gateway4: o.Mode4 != network.GatewayIsolated && !(o.InhibitIPv4 && rec.Internal),
		Gateway6: o.Mode6 != network.GatewayIsolated,
	}, err
}

// maxName is the length of an interface's name (IFNAMSIZ without its zero).
const maxName = 15

var errNoBridge = errdefs.ErrInvalidArgument.WithMessage("a device of this name exists and is no bridge")

// Ensure brings the device to the state that the record asks for. ErrNotFound
// for a foreign device that does not exist, ErrInvalidArgument for a name that
// belongs to something that is no bridge.
func (d *Driver) Ensure(ctx context.Context, rec network.Record, live []network.Endpoint) error {
	var ports []string
	for _, ep := range live {
		ports = append(ports, ep.HostLink)
	}
	b, err := network.BridgeOf(rec, ports)
	if err != nil {
		return err
	}
	return d.with(ctx, func(c *rtnl.Conn) error {
		if err := ensure(c, b); err != nil {
			return fmt.Errorf("set up bridge %s: %w", b.Device, err)
		}
		return nil
	})
}

// Remove removes the device; one that is not there, or that was there before
// the network, is no error.
func (d *Driver) Remove(ctx context.Context, rec network.Record) error {
	if rec.Foreign {
		return nil
	}
	return d.with(ctx, func(c *rtnl.Conn) error {
		if err := c.Delete(rec.Device); err != nil && !rtnl.IsGone(err) {
			return err
		}
		return nil
	})
}

// Join says how an endpoint is connected; the kernel is not asked.
func (d *Driver) Join(_ context.Context, j network.Join) (network.Interface, error) {
	o, err := network.ParseBridgeOptions(j.Network.Options)
	if err != nil {
		return network.Interface{}, err
	}
	return network.Interface{
		Kind: network.Veth, HostLink: j.Endpoint.HostLink, InnerLink: j.Endpoint.InnerLink, Bridge: j.Network.Device,
		MAC: j.Endpoint.MAC, MTU: cmp.Or(o.MTU, network.DefaultMTU), Isolated: !o.ICC,
	}, nil
}

// Leave has nothing to do: the interface goes with its sandbox.
func (d *Driver) Leave(context.Context, network.Record, network.Endpoint) error { return nil }

// Links lists the veths on the network's bridge.
func (d *Driver) Links(ctx context.Context, rec network.Record) (names []string, err error) {
	if rec.Foreign {
		return nil, nil // others may have theirs on it
	}
	err = d.with(ctx, func(c *rtnl.Conn) error {
		dev, err := c.Link(rec.Device)
		if rtnl.IsGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		ports, err := c.Ports(dev.Index)
		for _, l := range ports {
			if l.Kind == "veth" {
				names = append(names, l.Name)
			}
		}
		return err
	})
	return names, err
}

func ensure(c *rtnl.Conn, b network.Bridge) error {
	link, err := c.Link(b.Device)
	switch {
	case err == nil && link.Kind != "bridge":
		return errNoBridge
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
	have, err := c.AddrsOf(link.Index)
	if err != nil {
		return err
	}
	for _, a := range have {
		if !a.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(b.Addrs, a.Prefix) {
			if err := c.DelAddr(link.Index, a.Prefix); err != nil {
				return err
			}
		}
	}
	for _, p := range b.Addrs {
		if slices.Contains(have, rtnl.Addr{Index: link.Index, Prefix: p}) {
			continue
		}
		if err := c.AddAddr(link.Index, p); err != nil {
			return err
		}
	}
	if !link.Up {
		if err := c.SetUp(link.Index); err != nil {
			return err
		}
	}
	return ensurePorts(c, link.Index, b)
}

// ensurePorts looks after the interfaces of containers that run, for the case
// that the bridge was made anew or a setting changed. What is as it has to be is
// not touched: every change takes the kernel's lock.
func ensurePorts(c *rtnl.Conn, index int, b network.Bridge) error {
	ports, err := c.Ports(index)
	if err != nil {
		return err
	}
	isolated, hairpin := PortFlags(b.Isolated, Filtered())
	there := map[string]bool{}
	for _, l := range ports {
		there[l.Name] = true
		if l.Kind != "veth" || l.Isolated == isolated && l.Hairpin == hairpin {
			continue
		}
		if err := c.SetPort(l.Name, isolated, hairpin); err != nil && !rtnl.IsGone(err) {
			return err
		}
	}
	for _, name := range b.Ports {
		if there[name] {
			continue
		}
		err := c.SetMaster(name, index)
		if err == nil {
			err = c.SetPort(name, isolated, hairpin)
		}
		if err != nil && !rtnl.IsGone(err) {
			return err
		}
	}
	return nil
}

// PortFlags decides how a port of the bridge treats its neighbors; wanted says
// that containers must not reach each other, filtered that
// bridge-nf-call-iptables is on.
//
// Without bridge-nf-call-iptables, frames between two ports never see the
// firewall, so the bridge has to isolate them itself; a container that uses a
// published port of its neighbor goes through the host and is not affected.
// With it, the firewall sees the frames and decides, and a published port is
// translated inside the bridge: the frame then goes directly to its port, even
// back to the one it came from, which only a hairpin port allows.
func PortFlags(wanted, filtered bool) (isolated, hairpin bool) {
	return wanted && !filtered, filtered
}

// Filtered reports whether frames within a bridge pass the firewall, in
// the namespace of the calling thread.
func Filtered() bool {
	data, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// setSysctl brings net.<family>.conf.<device>.<name> of the network namespace
// that the calling thread is in to a value (some take the kernel's lock even if
// nothing changes); without the family (IPv6 off) there is nothing to set.
func setSysctl(family, device, name string, value int) error {
	path := filepath.Join("/proc/sys/net", family, "conf", device, name)
	text := strconv.Itoa(value)
	if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) == text {
		return nil
	}
	err := os.WriteFile(path, []byte(text), 0)
	if err != nil && !(family == "ipv6" && errors.Is(err, os.ErrNotExist)) {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}
