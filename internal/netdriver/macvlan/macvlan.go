// Package macvlan is Docker's driver of that name: containers have interfaces
// with MAC addresses of their own on the wire of an interface of the host
// (parent), or of an 802.1q sub-interface of it, or of nobody (a dummy, for
// containers among themselves).
//
// Entry point: New.
package macvlan

import (
	"context"
	"fmt"
	"strconv"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/uplink"
)

// OptMode is bridge (the default), private, vepa or passthru.
const OptMode = "macvlan_mode"

const (
	modeBridge   = "bridge"
	modePassthru = "passthru"
)

// Driver implements networks.Driver. It is safe for concurrent use.
type Driver struct{ uplink.Base }

// New makes the driver.
func New(parents *uplink.Parents) *Driver { return &Driver{uplink.Base{Parents: parents}} }

func mode(rec network.Record) (string, error) {
	switch m := rec.Options[OptMode]; m {
	case "":
		return modeBridge, nil
	case modeBridge, "private", "vepa", modePassthru:
		return m, nil
	default:
		return "", uplink.Refused("requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", m)
	}
}

// refuse decides whether a network may share its parent with others.
func refuse(parent string, passthru bool) func([]uplink.User) error {
	return func(others []uplink.User) error {
		for _, o := range others {
			switch {
			case o.Driver != "macvlan":
				return uplink.Refused("%s network %s is already using parent interface %s", o.Driver, o.ID, parent)
			case passthru:
				return uplink.Refused("cannot use mode passthru, macvlan network %s is already using parent interface %s", o.ID, parent)
			case o.Exclusive:
				return uplink.Refused("macvlan network %s is already using parent interface %s in mode passthru", o.ID, parent)
			}
		}
		return nil
	}
}

// Prepare checks mode and parent.
func (d *Driver) Prepare(_ context.Context, rec *network.Record) (network.Wants, error) {
	m, err := mode(*rec)
	if err != nil {
		return network.Wants{}, err
	}
	return network.Wants{}, d.Choose(rec, "dm-", refuse(rec.Options[uplink.OptParent], m == modePassthru))
}

// Ensure makes the parent, and the host's own interface.
func (d *Driver) Ensure(_ context.Context, rec network.Record, live []network.Endpoint) error {
	if err := uplink.CheckPools(rec); err != nil {
		return err
	}
	m, err := mode(rec)
	if err != nil {
		return err
	}
	user := uplink.User{ID: rec.ID, Driver: "macvlan", Exclusive: m == modePassthru}
	if err := d.Use(rec, user, refuse(rec.Device, user.Exclusive)); err != nil {
		return fmt.Errorf("set up parent of network %s: %w", rec.Name, err)
	}
	return d.EnsureHost(rec, rtnl.Sub{Kind: "macvlan", Mode: m}, live)
}

// Join says how an endpoint is connected.
func (d *Driver) Join(_ context.Context, j network.Join) (network.Interface, error) {
	m, err := mode(j.Network)
	if err != nil {
		return network.Interface{}, err
	}
	uplink.Gateways(j.Network, j.Endpoint, false)
	if err := d.Reach(j.Network, *j.Endpoint, true); err != nil {
		return network.Interface{}, err
	}
	mtu, _ := strconv.Atoi(j.Network.Options[network.OptMTU])
	return network.Interface{
		Kind: network.Macvlan, HostLink: j.Endpoint.HostLink, InnerLink: j.Endpoint.InnerLink,
		Parent: j.Network.Device, Mode: m, MAC: j.Endpoint.MAC, MTU: max(mtu, 0),
	}, nil
}
