package firewall

import (
	"context"
	"errors"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/netdriver/portmap"
)

// Firewall owns one table in the network namespace it was made in. It is safe
// for concurrent use.
type Firewall struct {
	name string
	conn *nft.Conn
}

// New connects to the kernel; it changes nothing. table is "orlop-<engine>".
func New(table string) (*Firewall, error) {
	conn, err := nft.Open()
	if err != nil {
		return nil, err
	}
	return &Firewall{name: table, conn: conn}, nil
}

// Close ends the connection; the table stays.
func (f *Firewall) Close() error { return f.conn.Close() }

// Apply makes the table equal to the ruleset and returns what that took.
func (f *Firewall) Apply(_ context.Context, rules network.Ruleset) (string, error) {
	got, err := f.conn.Observe(f.name)
	if err != nil {
		return "", err
	}
	plan := nft.NewPlan(Table(f.name, rules), got)
	if err := f.conn.Apply(plan); err != nil || plan.Empty() {
		return "", err
	}
	return plan.String(), portmap.Forget(rules.Ports)
}

// DropsForeign reports whether the table has the rule that keeps the host from
// becoming a router.
func (f *Firewall) DropsForeign(context.Context) (bool, error) {
	got, err := f.conn.Observe(f.name)
	if err != nil {
		return false, err
	}
	return got.Has("forward", commentForeign), nil
}

// Publish adds bindings in one transaction.
func (f *Firewall) Publish(_ context.Context, ports []network.Binding) error {
	if err := f.conn.Update(f.name, nft.Change{Add: filled(ports)}); err != nil {
		return err
	}
	// A client that sent before there was a container has a flow that leads
	// nowhere.
	return portmap.Forget(ports)
}

// Unpublish removes bindings in one transaction.
func (f *Firewall) Unpublish(_ context.Context, ports []network.Binding) error {
	return errors.Join(f.conn.Update(f.name, nft.Change{Remove: filled(ports)}), portmap.Forget(ports))
}

// SetBridge adds the rules of one network.
func (f *Firewall) SetBridge(_ context.Context, rules network.BridgeRules) error {
	return f.conn.Update(f.name, nft.Change{Add: some(bridgeSets([]network.BridgeRules{rules}))})
}

// DropBridge removes the rules of one network.
func (f *Firewall) DropBridge(_ context.Context, rules network.BridgeRules) error {
	return f.conn.Update(f.name, nft.Change{Remove: some(bridgeSets([]network.BridgeRules{rules}))})
}

// filled are the maps of these ports.
func filled(ports []network.Binding) []nft.Set { return some(portmap.Sets(ports)) }

// some leaves out maps that have nothing to change.
func some(sets []nft.Set) []nft.Set {
	var out []nft.Set
	for _, s := range sets {
		if len(s.Elements) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// Remove deletes the table.
func (f *Firewall) Remove(context.Context) error { return f.conn.Remove(f.name) }
