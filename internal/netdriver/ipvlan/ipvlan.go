// Package ipvlan is Docker's driver of that name: containers have addresses of
// their own, and the MAC address of the host's interface whose wire they share
// (parent): a port of a switch that knows one MAC address is enough.
//
// Entry point: New.
package ipvlan

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/uplink"
)

// Options of the driver.
const (
	// OptMode is l2 (the default), l3 or l3s.
	OptMode = "ipvlan_mode"
	// OptFlag is bridge (the default), private or vepa.
	OptFlag = "ipvlan_flag"
)

// Driver implements networks.Driver. It is safe for concurrent use.
type Driver struct{ uplink.Base }

// New makes the driver.
func New(parents *uplink.Parents) *Driver { return &Driver{uplink.Base{Parents: parents}} }

func options(rec network.Record) (mode, flag string, err error) {
	switch mode = cmp.Or(rec.Options[OptMode], "l2"); mode {
	case "l2", "l3", "l3s":
	default:
		return "", "", uplink.Refused("requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default", mode)
	}
	switch flag = cmp.Or(rec.Options[OptFlag], "bridge"); flag {
	case "bridge", "private", "vepa":
	default:
		return "", "", uplink.Refused("requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default", flag)
	}
	return mode, flag, nil
}

// refuse: a parent has one network, and its children are of one kind.
func refuse(parent string) func([]uplink.User) error {
	return func(others []uplink.User) error {
		if len(others) == 0 {
			return nil
		}
		id := others[0].ID
		if len(id) > 12 {
			id = id[:12]
		}
		return uplink.Refused("network di-%s is already using parent interface %s", id, parent)
	}
}

// Prepare checks options and parent.
func (d *Driver) Prepare(_ context.Context, rec *network.Record) (network.Wants, error) {
	if _, _, err := options(*rec); err != nil {
		return network.Wants{}, err
	}
	return network.Wants{}, d.Choose(rec, "di-", refuse(rec.Options[uplink.OptParent]))
}

// Ensure makes the parent, and the host's own interface.
func (d *Driver) Ensure(_ context.Context, rec network.Record, live []network.Endpoint) error {
	if err := uplink.CheckPools(rec); err != nil {
		return err
	}
	mode, flag, err := options(rec)
	if err != nil {
		return err
	}
	if err := d.Use(rec, uplink.User{ID: rec.ID, Driver: "ipvlan", Exclusive: true}, refuse(rec.Device)); err != nil {
		return fmt.Errorf("set up parent of network %s: %w", rec.Name, err)
	}
	return d.EnsureHost(rec, rtnl.Sub{Kind: "ipvlan", Mode: mode, Flag: flag}, live)
}

// Join says how an endpoint is connected. Its MAC address is the parent's.
func (d *Driver) Join(_ context.Context, j network.Join) (network.Interface, error) {
	mode, flag, err := options(j.Network)
	if err != nil {
		return network.Interface{}, err
	}
	addr := j.Endpoint.IPv4
	if !addr.IsValid() {
		addr = j.Endpoint.IPv6
	}
	if addr.IsValid() && j.Endpoint.MAC != "" && j.Endpoint.MAC != network.MAC(addr.Addr()) {
		return network.Interface{}, uplink.Refused("ipvlan interfaces do not support custom mac address assignment")
	}
	j.Endpoint.MAC = ""
	// With l3 the kernel routes: there is nobody to ask for a MAC address.
	uplink.Gateways(j.Network, j.Endpoint, mode != "l2")
	if err := d.Reach(j.Network, *j.Endpoint, true); err != nil {
		return network.Interface{}, err
	}
	mtu, _ := strconv.Atoi(j.Network.Options[network.OptMTU])
	return network.Interface{
		Kind: network.Ipvlan, HostLink: j.Endpoint.HostLink, InnerLink: j.Endpoint.InnerLink,
		Parent: j.Network.Device, Mode: mode, Flag: flag, MTU: max(mtu, 0),
	}, nil
}
