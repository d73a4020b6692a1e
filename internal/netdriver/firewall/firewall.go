package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/netdriver/portmap"
)

// Config is what a Firewall is made of.
type Config struct {
	// Table is "orlop-<engine>".
	Table string
	// Mark is the bit of the packet mark for what was let through; 0 is
	// DefaultMark.
	Mark uint32
	// WarnOnly: no rule is put into other tables, and those that were are
	// removed.
	WarnOnly bool
	// Dir is a folder that lasts as long as the host runs (exec-root): a mark
	// in it says that this engine switched forwarding on, for the case that the
	// table, which says so too, is removed while no daemon runs. Empty for none.
	Dir    string
	Logger *slog.Logger
}

// mark of Config.Dir.
func (f *Firewall) forwardingMark() string { return filepath.Join(f.cfg.Dir, "forwarding-was-off") }

// Firewall owns one table in the network namespace it was made in, and at most
// one rule per chain in other tables. It is safe for concurrent use.
//
// Lock order: Firewall.mu, then that of nft.Conn. mu covers a transaction: what
// is wanted and what the kernel has change together.
type Firewall struct {
	cfg  Config
	conn *nft.Conn

	mu sync.Mutex
	// want is what the table is brought back to; nil before the first Apply.
	want *network.Ruleset
	// ports of want, by what they are in the kernel's maps.
	ports    map[network.Binding]bool
	warnings []string
	// look wakes Run.
	look chan struct{}
}

// New connects to the kernel; it changes nothing.
func New(cfg Config) (*Firewall, error) {
	cfg.Mark = cmp.Or(cfg.Mark, DefaultMark)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := nft.Open()
	if err != nil {
		return nil, err
	}
	return &Firewall{cfg: cfg, conn: conn, look: make(chan struct{}, 1)}, nil
}

// Close ends the connection; the table stays.
func (f *Firewall) Close() error { return f.conn.Close() }

// Apply makes the table equal to the ruleset and returns what that took. The
// ports of the first ruleset are what is published; after that Publish and
// Unpublish decide, and those of the ruleset, whose author may not know of one
// that is being published this moment, are not looked at.
func (f *Firewall) Apply(_ context.Context, rules network.Ruleset) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want == nil {
		f.ports = map[network.Binding]bool{}
		for _, b := range rules.Ports {
			f.ports[b] = true
		}
	}
	f.want = &rules
	if rules.DropForeign && f.cfg.Dir != "" {
		if err := os.WriteFile(f.forwardingMark(), nil, 0o600); err != nil {
			return "", fmt.Errorf("remember that forwarding was off: %w", err)
		}
	}
	return f.apply()
}

// apply brings the kernel to what is wanted; f.mu is held.
func (f *Firewall) apply() (string, error) {
	f.want.Ports = make([]network.Binding, 0, len(f.ports))
	for b := range f.ports {
		f.want.Ports = append(f.want.Ports, b)
	}
	got, err := f.conn.Observe(f.cfg.Table)
	if err != nil {
		return "", err
	}
	plan := nft.NewPlan(Table(f.cfg.Table, f.cfg.Mark, *f.want), got)
	if err := f.conn.Apply(plan); err != nil {
		return "", err
	}
	done := plan.String()
	if !plan.Empty() {
		if err := portmap.Forget(f.want.Ports); err != nil {
			return "", err
		}
	}
	foreign, err := f.applyForeign()
	return done + foreign, err
}

// applyForeign brings the rules in other tables to what is wanted.
func (f *Firewall) applyForeign() (string, error) {
	got, err := f.conn.ObserveForeign(f.cfg.Table, places...)
	if err != nil {
		return "", err
	}
	plan := PlanForeign(f.cfg.Table, f.cfg.Mark, !f.cfg.WarnOnly, f.want.Bridges, bridgeFiltered(), got)
	warnings := append(plan.Warnings, legacyWarnings(f.cfg.Mark, f.want.Bridges, bridgeFiltered())...)
	for _, w := range warnings {
		if !slices.Contains(f.warnings, w) {
			f.cfg.Logger.Warn(strings.TrimPrefix(w, "WARNING: "))
		}
	}
	f.warnings = warnings
	if err := f.conn.ApplyForeign(plan.changes); err != nil {
		return "", fmt.Errorf("put a rule for containers into other tables: %w", err)
	}
	return plan.String(), nil
}

// bridgeFiltered reports whether frames within a bridge pass the forward hook.
func bridgeFiltered() bool {
	data, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// Show prints the table as the kernel has it. It fails when that is not what
// this release makes.
func (f *Firewall) Show() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got, err := f.conn.Observe(f.cfg.Table)
	if err != nil {
		return "", err
	}
	rules := network.Ruleset{}
	if f.want != nil {
		rules = *f.want
	}
	return got.Text(Table(f.cfg.Table, f.cfg.Mark, rules))
}

// Warnings are what the user should know about other tables; each begins with
// "WARNING: ".
func (f *Firewall) Warnings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.warnings)
}

// DropsForeign reports whether the table has the rule that keeps the host from
// becoming a router.
func (f *Firewall) DropsForeign(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want != nil {
		return f.want.DropForeign, nil // whatever somebody made of the table
	}
	if f.cfg.Dir != "" {
		if _, err := os.Stat(f.forwardingMark()); err == nil {
			return true, nil
		}
	}
	got, err := f.conn.Observe(f.cfg.Table)
	if err != nil {
		return false, err
	}
	return got.Has("forward", commentForeign), nil
}

// Redirect replaces bindings by others in one transaction: a packet finds either.
// It returns when no UDP flow leads to the former any more.
func (f *Firewall) Redirect(_ context.Context, from, to []network.Binding) error {
	if err := f.redirect(from, to); err != nil {
		return err
	}
	return portmap.Move(from, to) // it may wait for answers, nobody for it
}

func (f *Firewall) redirect(from, to []network.Binding) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.conn.Update(f.cfg.Table, nft.Change{Remove: filled(from), Add: filled(to)}); err != nil {
		return err
	}
	for _, b := range from {
		delete(f.ports, b)
	}
	for _, b := range to {
		f.ports[b] = true
	}
	return nil
}

// Publish adds bindings in one transaction.
func (f *Firewall) Publish(_ context.Context, ports []network.Binding) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.conn.Update(f.cfg.Table, nft.Change{Add: filled(ports)}); err != nil {
		return err
	}
	for _, b := range ports {
		f.ports[b] = true
	}
	// A client that sent before there was a container has a flow that leads
	// nowhere.
	return portmap.Forget(ports)
}

// Unpublish removes bindings in one transaction.
func (f *Firewall) Unpublish(_ context.Context, ports []network.Binding) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Even when the kernel refuses: what is brought back later has no such port.
	for _, b := range ports {
		delete(f.ports, b)
	}
	return errors.Join(f.conn.Update(f.cfg.Table, nft.Change{Remove: filled(ports)}), portmap.Forget(ports))
}

// SetBridge makes the rules of one network these. Other tables are looked at
// afterwards, by Run.
func (f *Firewall) SetBridge(_ context.Context, rules network.BridgeRules) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	change := nft.Change{Add: some(bridgeSets([]network.BridgeRules{rules}))}
	if old, ok := f.forget(rules.Device); ok {
		change.Remove = some(bridgeSets([]network.BridgeRules{old}))
	}
	f.want.Bridges = append(f.want.Bridges, rules)
	f.nudge()
	return f.conn.Update(f.cfg.Table, change)
}

// DropBridge removes the rules of one network.
func (f *Firewall) DropBridge(_ context.Context, rules network.BridgeRules) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(rules.Device)
	f.nudge()
	return f.conn.Update(f.cfg.Table, nft.Change{Remove: some(bridgeSets([]network.BridgeRules{rules}))})
}

// forget takes a network out of what is wanted; f.mu is held.
func (f *Firewall) forget(device string) (network.BridgeRules, bool) {
	if f.want == nil {
		f.want = &network.Ruleset{}
	}
	i := slices.IndexFunc(f.want.Bridges, func(b network.BridgeRules) bool { return b.Device == device })
	if i < 0 {
		return network.BridgeRules{}, false
	}
	old := f.want.Bridges[i]
	// A copy: the slice is the caller's of Apply.
	f.want.Bridges = slices.Delete(slices.Clone(f.want.Bridges), i, i+1)
	return old, true
}

// nudge has Run look at other tables.
func (f *Firewall) nudge() {
	select {
	case f.look <- struct{}{}:
	default: // it will
	}
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

// Remove deletes the table, and the engine's rules in other tables.
func (f *Firewall) Remove(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want, f.ports, f.warnings = nil, nil, nil
	got, err := f.conn.ObserveForeign(f.cfg.Table, places...)
	if err == nil {
		err = f.conn.ApplyForeign(PlanForeign(f.cfg.Table, f.cfg.Mark, false, nil, false, got).changes)
	}
	if f.cfg.Dir != "" {
		if gone := os.Remove(f.forwardingMark()); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return errors.Join(err, f.conn.Remove(f.cfg.Table))
}

const (
	// settle is how long a change of other tables may still be going on; a
	// reload consists of many. Our own table is brought back at once.
	settle = 20 * time.Millisecond
	// again is how long after a failure the next attempt follows.
	again = time.Second
)

// Run brings back what others remove, and follows what they change, until ctx
// is done: `nft flush ruleset`, a reload of nftables, firewalld or ufw, a start
// of Docker. What it does is logged. Once before Run the ruleset was applied.
func (f *Firewall) Run(ctx context.Context) error {
	events := make(chan bool, 1)
	notify := func(own bool) {
		select {
		case events <- own:
		case was := <-events: // not read yet: one event for both
			events <- own || was
		}
	}
	done := make(chan error, 1)
	go func() {
		// What changed before Watch listened.
		done <- f.conn.Watch(ctx, f.cfg.Table, func() { notify(true) }, notify)
	}()
	var later <-chan time.Time
	for {
		select {
		case err := <-done:
			return err
		case <-f.look:
			if later == nil {
				later = time.After(settle)
			}
			continue
		case own := <-events:
			if !own {
				if later == nil {
					later = time.After(settle)
				}
				continue
			}
		case <-later:
		}
		later = nil
		if err := f.heal(); err != nil {
			f.cfg.Logger.Error("bring the firewall back", "error", err)
			later = time.After(again)
		}
	}
}

// heal applies what is wanted again.
func (f *Firewall) heal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want == nil {
		return nil
	}
	plan, err := f.apply()
	if plan != "" {
		f.cfg.Logger.Info("firewall was changed by others, brought back", "plan", plan)
	}
	return err
}
