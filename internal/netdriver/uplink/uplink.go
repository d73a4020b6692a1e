// Package uplink keeps the interfaces of the host whose wire the containers of
// macvlan and ipvlan networks share: it makes and removes 802.1q
// sub-interfaces (eth0.10) and dummies, knows which network uses which, and
// gives the host an interface of its own on the wire where that is asked for,
// because the kernel passes nothing between a parent and its children.
//
// Entry point: New; one Parents for all drivers.
//
// Lock order: Parents.mu only; it guards who uses what, never a call of the
// kernel.
package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/rtnl"
)

// Options that both drivers know.
const (
	OptParent = "parent"
	// OptHostAddress gives the host an interface on the network, with this
	// address, which has to be one of the network's aux addresses: the host
	// reaches the containers then. It is Orlop's own.
	OptHostAddress = "orlop.host_address"
)

// Keys of Record.Made.
const (
	madeVLAN  = "vlan"
	madeDummy = "dummy"
)

// User is a network that uses a parent.
type User struct {
	// ID and Driver of the network.
	ID, Driver string
	// Exclusive: nobody else may use the parent (ipvlan, mode passthru). Name
	// is what the message of the refusal calls the mode.
	Exclusive bool
}

// Parents is safe for concurrent use.
type Parents struct {
	conn *rtnl.Conn

	mu sync.Mutex
	// users by parent.
	users map[string][]User
	// made are parents that we made.
	made map[string]bool
}

// New connects in the network namespace of the calling thread.
func New() (*Parents, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	return &Parents{conn: c, users: map[string][]User{}, made: map[string]bool{}}, nil
}

// Close ends the connection; what was made stays.
func (l *Parents) Close() error {
	l.conn.Close()
	return nil
}

// Choose picks the parent of a network and notes in the record what will
// have to be made. dummy is the prefix of a dummy's name, for a network that
// names no parent. It changes nothing.
func (l *Parents) Choose(rec *network.Record, dummy string, refuse func([]User) error) error {
	parent := rec.Options[OptParent]
	rec.Made = map[string]string{}
	if parent == "lo" {
		return Refused("loopback interface is not a valid %s parent link", rec.Driver)
	}
	if parent == "" {
		id := rec.ID
		if len(id) > 12 {
			id = id[:12]
		}
		rec.Device = dummy + id
		rec.Made[madeDummy] = rec.Device
		return nil
	}
	rec.Device = parent
	l.mu.Lock()
	users, ours := slices.Clone(l.users[parent]), l.made[parent]
	l.mu.Unlock()
	if err := refuse(users); err != nil {
		return err
	}
	_, err := l.conn.Link(parent)
	switch {
	case err == nil && ours:
		rec.Made[madeVLAN] = parent
		return nil
	case err == nil:
		return nil
	case !rtnl.IsGone(err):
		return err
	}
	if _, _, err := l.vlan(parent); err != nil {
		return err
	}
	rec.Made[madeVLAN] = parent
	return nil
}

// Refused is an error of an option, in Docker's words and with the status that
// dockerd answers: 500.
func Refused(format string, args ...any) error {
	return errdefs.ErrInternal.WithMessage(fmt.Sprintf(format, args...))
}

// vlan reads the name of a sub-interface that does not exist yet: the index of
// its parent, and the tag.
func (l *Parents) vlan(name string) (parent int, id uint16, err error) {
	bad := func(format string, args ...any) (int, uint16, error) {
		return 0, 0, Refused(format, args...)
	}
	if !strings.Contains(name, ".") {
		return bad("invalid subinterface vlan name %s, example formatting is eth0.10", name)
	}
	parts := strings.Split(name, ".")
	if len(parts) != 2 {
		return bad("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received %s", name)
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return bad("unable to parse a valid vlan id from: %s (ex. eth0.10 for vlan 10)", parts[1])
	}
	link, err := l.conn.Link(parts[0])
	if rtnl.IsGone(err) {
		return bad("-o parent interface was not found on the host: %s", parts[0])
	}
	if err != nil {
		return 0, 0, err
	}
	const first, last = 1, 4094
	if n < first || n > last {
		return bad("vlan id must be between 1-4094, received: %d", n)
	}
	return link.Index, uint16(n), nil
}

// Use makes the parent when it is to be made, and registers its user; refuse
// decides, with the others known, whether it may.
func (l *Parents) Use(rec network.Record, user User, refuse func([]User) error) error {
	l.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(l.users[rec.Device]), func(u User) bool { return u.ID == user.ID })
	err := refuse(others)
	if err == nil {
		l.users[rec.Device] = append(others, user)
		if rec.Made[madeVLAN] != "" || rec.Made[madeDummy] != "" {
			l.made[rec.Device] = true
		}
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = l.conn.Link(rec.Device)
	if err == nil || !rtnl.IsGone(err) {
		return err
	}
	if rec.Made[madeDummy] != "" {
		return l.conn.AddDummy(rec.Device)
	}
	if rec.Made[madeVLAN] == "" {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("the requested parent interface %s was not found on the Docker host", rec.Device))
	}
	parent, id, err := l.vlan(rec.Device)
	if err != nil {
		return err
	}
	return l.conn.AddVLAN(rec.Device, parent, id)
}

// Release ends a network's use; a parent that we made goes with its last user.
func (l *Parents) Release(rec network.Record) error {
	l.mu.Lock()
	l.users[rec.Device] = slices.DeleteFunc(l.users[rec.Device], func(u User) bool { return u.ID == rec.ID })
	last := len(l.users[rec.Device]) == 0
	made := l.made[rec.Device] || rec.Made[madeVLAN] != "" || rec.Made[madeDummy] != ""
	if last {
		delete(l.users, rec.Device)
		delete(l.made, rec.Device)
	}
	l.mu.Unlock()
	if err := l.delete(hostLink(rec)); err != nil {
		return err
	}
	if !last || !made {
		return nil
	}
	return l.delete(rec.Device)
}

func (l *Parents) delete(name string) error {
	if err := l.conn.Delete(name); err != nil && !rtnl.IsGone(err) {
		return err
	}
	return nil
}

// Internal reports whether the network leads nowhere: it is internal, or its
// parent is a dummy of ours.
func Internal(rec network.Record) bool { return rec.Internal || rec.Made[madeDummy] != "" }

// CheckPools refuses a network without addresses of a family that it has.
func CheckPools(rec network.Record) error {
	for _, f := range []struct {
		on, ipv6 bool
		name     string
	}{{rec.EnableIPv4, false, "ipv4"}, {rec.EnableIPv6, true, "ipv6"}} {
		if f.on && !slices.ContainsFunc(rec.Subnets(), func(p netip.Prefix) bool { return p.Addr().Is6() == f.ipv6 && p.Bits() > 0 }) {
			return errdefs.ErrInvalidArgument.WithMessage(f.name + " pool is empty")
		}
	}
	return nil
}

// hostLink is the name of the host's own interface on a network.
func hostLink(rec network.Record) string {
	id := rec.ID
	if len(id) > 10 {
		id = id[:10]
	}
	return "host-" + id
}

// HostAddress reads the option; invalid for none.
func HostAddress(rec network.Record) (netip.Addr, error) {
	text := rec.Options[OptHostAddress]
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid value of %s: %v", OptHostAddress, err))
	}
	for _, c := range rec.IPAM.Config {
		for _, aux := range c.AuxAddress {
			if aux.Unmap() == addr.Unmap() {
				return addr.Unmap(), nil
			}
		}
	}
	return netip.Addr{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s: %s has to be set aside: --aux-address host=%s", OptHostAddress, text, text))
}

// EnsureHost makes the host's interface on the network and its routes to the
// containers that run. sub describes it; its name and parent are filled in.
func (l *Parents) EnsureHost(rec network.Record, sub rtnl.Sub, live []network.Endpoint) error {
	addr, err := HostAddress(rec)
	if err != nil || !addr.IsValid() {
		return err
	}
	name := hostLink(rec)
	link, err := l.conn.Link(name)
	if rtnl.IsGone(err) {
		parent, perr := l.conn.Link(rec.Device)
		if perr != nil {
			return perr
		}
		sub.Name, sub.Parent = name, parent.Index
		if err := l.conn.AddSub(sub); err != nil {
			return err
		}
		link, err = l.conn.Link(name)
	}
	if err != nil {
		return err
	}
	if err := l.conn.AddAddr(link.Index, netip.PrefixFrom(addr, addr.BitLen())); err != nil {
		return err
	}
	if err := l.conn.SetUp(link.Index); err != nil {
		return err
	}
	for _, ep := range live {
		if err := l.Reach(rec, ep, true); err != nil {
			return err
		}
	}
	return nil
}

// Reach adds or removes the host's routes to a container. Where the host has no
// interface of its own there is nothing to do.
func (l *Parents) Reach(rec network.Record, ep network.Endpoint, on bool) error {
	if rec.Options[OptHostAddress] == "" {
		return nil
	}
	link, err := l.conn.Link(hostLink(rec))
	if rtnl.IsGone(err) && !on {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if !p.IsValid() {
			continue
		}
		to := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		if on {
			err = l.conn.AddRoute(link.Index, to, netip.Addr{})
		} else {
			err = l.conn.DelRoute(link.Index, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Gateways completes an endpoint: an internal network has no way out, one
// without a known gateway leads outside by its wire.
func Gateways(rec network.Record, ep *network.Endpoint, onLink bool) {
	if Internal(rec) {
		ep.NoGateway = true
		ep.Gateway4, ep.Gateway6 = netip.Addr{}, netip.Addr{}
		return
	}
	if onLink {
		ep.Gateway4, ep.Gateway6 = netip.Addr{}, netip.Addr{}
		ep.OnLink4, ep.OnLink6 = ep.IPv4.IsValid(), ep.IPv6.IsValid()
	}
}

// Base are the methods of networks.Driver that both drivers share.
type Base struct{ *Parents }

// Capabilities of these networks: nothing is published, containers have
// addresses on the wire.
func (Base) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Scope: network.ScopeLocal}, nil
}

// Remove undoes what Use did.
func (b Base) Remove(_ context.Context, rec network.Record) error { return b.Release(rec) }

// Leave removes the host's route; the interface goes with its sandbox.
func (b Base) Leave(_ context.Context, rec network.Record, ep network.Endpoint) error {
	return b.Reach(rec, ep, false)
}

// Info is what inspect shows of an endpoint beside its addresses: nothing.
func (Base) Info(context.Context, network.Record, network.Endpoint) (map[string]string, error) {
	return nil, nil
}

// Links lists interfaces of containers on the host: they are in the sandboxes.
func (Base) Links(context.Context, network.Record) ([]string, error) { return nil, nil }
