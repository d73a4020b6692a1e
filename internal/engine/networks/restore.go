package networks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/domain/network"
)

// Restore makes the networks ready: records are loaded (and made, the first
// time), the sandboxes of running containers taken over, bridge, firewall and
// name server brought to exactly what those need, and links that belong to no
// running container handed to the reaper. It is called once, before Open.
func (s *Service) Restore(ctx context.Context, live []LiveSandbox) error {
	began := s.cfg.Now()
	recs, err := s.cfg.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load networks: %w", err)
	}
	if err := s.predefined(ctx, recs, live); err != nil {
		return err
	}
	for _, rec := range recs {
		if !rec.Predefined() {
			s.add(s.restored(ctx, rec))
		}
	}
	for _, l := range live {
		if err := s.takeOver(l); err != nil {
			// Known, but its addresses belong to nobody: it goes on as it is.
			s.cfg.Logger.Warn("take over sandbox", "container", l.Attachment.ContainerID, "error", err)
		}
	}

	known := s.cfg.Now()
	for _, n := range s.all() {
		if n.driver == nil || n.broken != nil {
			continue
		}
		err := n.driver.Ensure(ctx, n.rec, s.endpointsOn(n.rec.ID))
		switch {
		case err != nil && n.rec.Predefined():
			return fmt.Errorf("set up network %s: %w", n.rec.Name, err)
		case err != nil:
			// One network that cannot be set up is no reason to serve none.
			s.cfg.Logger.Error("set up network", "network", n.rec.Name, "error", err)
			n.broken = err
		}
	}
	for _, l := range live {
		if l.Attachment.Changing && l.Pid > 0 {
			if err := s.finishRoutes(ctx, l); err != nil {
				s.cfg.Logger.Warn("set default routes", "container", l.Attachment.ContainerID, "error", err)
			}
		}
	}
	made := s.cfg.Now()
	if err := s.firewall(ctx, false); err != nil {
		return err
	}
	ruled := s.cfg.Now()
	if err := s.cfg.Nameserver.Ensure(ctx, s.allNames()); err != nil {
		return fmt.Errorf("start name server: %w", err)
	}
	named := s.cfg.Now()
	err = s.leftovers(ctx)
	s.cfg.Logger.Debug("networks restored", "networks", len(recs), "sandboxes", len(live), "records", known.Sub(began), "devices", made.Sub(known),
		"firewall", ruled.Sub(made), "names", named.Sub(ruled), "leftovers", s.cfg.Now().Sub(named))
	return err
}

// predefined makes bridge, host and none what configuration and records say.
func (s *Service) predefined(ctx context.Context, recs []network.Record, live []LiveSandbox) error {
	find := func(name string) (network.Record, bool) {
		i := slices.IndexFunc(recs, func(r network.Record) bool { return r.Name == name })
		if i < 0 {
			return network.Record{
				Schema: network.RecordSchema, ID: s.cfg.NewID(), Name: name, Created: s.cfg.Now().UTC(),
			}, false
		}
		return recs[i], true
	}
	for name, driver := range map[string]string{network.HostName: network.DriverHost, network.NoneName: network.DriverNull} {
		rec, known := find(name)
		rec.Driver, rec.EnableIPv4 = driver, true
		if !known {
			if err := s.cfg.Store.Save(ctx, rec); err != nil {
				return fmt.Errorf("save network %s: %w", name, err)
			}
		}
		s.add(newState(rec, nil, network.Capabilities{Scope: "local", Single: true}, nil))
	}
	if s.cfg.Default.Disabled {
		return nil
	}
	rec, known := find(network.BridgeName)
	decided, err := s.defaultBridge(ctx, rec, live)
	if err != nil {
		return fmt.Errorf("set up network %s: %w", network.BridgeName, err)
	}
	if !known || !sameIPAM(rec.IPAM, decided.IPAM) || rec.Device != decided.Device {
		if err := s.cfg.Store.Save(ctx, decided); err != nil {
			return fmt.Errorf("save network %s: %w", network.BridgeName, err)
		}
	}
	driver := s.cfg.Drivers[network.DriverBridge]
	caps, err := driver.Capabilities(ctx)
	if err != nil {
		return err
	}
	s.add(newState(decided, driver, caps, nil))
	return nil
}

// restored is the state of a network of the user. Without its driver it is
// there and can be removed, but not joined.
func (s *Service) restored(ctx context.Context, rec network.Record) *netState {
	if rec.ConfigOnly {
		return newState(rec, nil, network.Capabilities{Scope: "local"}, nil)
	}
	if s.cfg.Plugins != nil && s.cfg.Drivers[rec.Driver] == nil {
		caps := network.Capabilities{Scope: cmp.Or(rec.Scope, network.ScopeLocal)}
		return newState(rec, s.cfg.Plugins.NetworkDriverLater(rec.Driver), caps, s.restoredIPAM(rec))
	}
	driver, caps, err := s.driver(ctx, rec.Driver)
	ipam := s.restoredIPAM(rec)
	n := newState(rec, driver, caps, ipam)
	if err != nil {
		s.cfg.Logger.Error("find driver of network", "network", rec.Name, "error", err)
		n.broken = err
	}
	return n
}

// restoredIPAM is who decides the addresses of a network that was made earlier.
func (s *Service) restoredIPAM(rec network.Record) IPAMDriver {
	if n := rec.IPAM.Driver; n == "" || n == network.IPAMDefault || n == network.IPAMNull || s.cfg.Plugins == nil {
		return nil
	}
	return s.cfg.Plugins.IPAMDriverLater(rec.IPAM.Driver)
}

func (s *Service) add(n *netState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks[n.rec.ID] = n
}

// defaultBridgeBits is the prefix length of the default bridge's subnet: most
// containers are on it.
const defaultBridgeBits = 16

func sameIPAM(a, b networktypes.IPAM) bool {
	return slices.EqualFunc(a.Config, b.Config, func(x, y networktypes.IPAMConfig) bool {
		return x.Subnet == y.Subnet && x.Gateway == y.Gateway && x.IPRange == y.IPRange
	})
}

// defaultBridge decides the addresses of the network "bridge". In this order:
// the configuration; what running containers use; the addresses the device
// has; what the record says, if the host does not use it otherwise by now; the
// first free subnet of the pools.
func (s *Service) defaultBridge(ctx context.Context, rec network.Record, live []LiveSandbox) (network.Record, error) {
	d := s.cfg.Default
	present, err := s.cfg.Host.Addrs(ctx, d.Device)
	if err != nil {
		return rec, err
	}
	used, err := s.cfg.Host.Prefixes(ctx)
	if err != nil {
		return rec, err
	}
	used = slices.DeleteFunc(used, func(p netip.Prefix) bool {
		return slices.ContainsFunc(present, func(q netip.Prefix) bool { return q.Masked() == p.Masked() })
	})
	inUse := func(ipv6 bool) (netip.Prefix, bool) {
		for _, l := range live {
			for _, ep := range l.Attachment.Endpoints {
				p, gw := ep.IPv4, ep.Gateway4
				if ipv6 {
					p, gw = ep.IPv6, ep.Gateway6
				}
				if ep.NetworkID == rec.ID && p.IsValid() && gw.IsValid() {
					return netip.PrefixFrom(gw, p.Bits()), true
				}
			}
		}
		return netip.Prefix{}, false
	}
	decide := func(ipv6 bool, configured, rng netip.Prefix, pools []network.Pool) (netip.Prefix, error) {
		if configured.IsValid() {
			if configured.Addr() == configured.Masked().Addr() {
				configured = netip.PrefixFrom(configured.Addr().Next(), configured.Bits())
			}
			return configured, nil
		}
		if p, ok := inUse(ipv6); ok {
			return p, nil
		}
		for _, p := range present {
			if p.Addr().Is6() == ipv6 && !p.Addr().IsLinkLocalUnicast() {
				return p, nil
			}
		}
		if d.Foreign {
			return netip.Prefix{}, nil
		}
		for _, c := range rec.IPAM.Config {
			if c.Subnet.IsValid() && c.Subnet.Addr().Is6() == ipv6 && c.Gateway.IsValid() && !slices.ContainsFunc(used, func(u netip.Prefix) bool {
				return u.Bits() > 0 && u.Overlaps(c.Subnet)
			}) && (!rng.IsValid() || c.Subnet.Overlaps(rng)) {
				return netip.PrefixFrom(c.Gateway, c.Subnet.Bits()), nil
			}
		}
		if rng.IsValid() {
			return netip.PrefixFrom(rng.Masked().Addr().Next(), rng.Bits()), nil
		}
		size := 0
		if s.cfg.Pools == nil && !ipv6 {
			size = defaultBridgeBits // beside another engine it is as big
		}
		sub, err := network.ChooseSubnet(pools, ipv6, size, used)
		if err != nil && size != 0 {
			sub, err = network.ChooseSubnet(pools, ipv6, 0, used)
		}
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(sub.Addr().Next(), sub.Bits()), nil
	}

	pools := s.pools()
	rec.Driver, rec.Device, rec.Foreign, rec.EnableIPv4, rec.EnableIPv6 = network.DriverBridge, d.Device, d.Foreign, true, d.IPv6
	rec.IPAM = networktypes.IPAM{Driver: "default"}
	rec.BridgeAddr4, rec.BridgeAddr6 = netip.Addr{}, netip.Addr{}
	hostIP := d.HostIP
	if !hostIP.IsValid() {
		hostIP = netip.IPv4Unspecified()
	}
	rec.Options = map[string]string{
		network.OptBridgeName: d.Device, network.OptDefault: "true", network.OptICC: strconv.FormatBool(d.ICC),
		network.OptMasquerade: strconv.FormatBool(d.Masquerade), network.OptHostIP: hostIP.String(),
		network.OptMTU: strconv.Itoa(cmp.Or(d.MTU, network.DefaultMTU)),
	}
	own4, err := decide(false, d.Address, d.Range, pools)
	if err != nil {
		return rec, err
	}
	if own4.IsValid() {
		rec.BridgeAddr4 = family(&rec, own4, d.Range, d.Gateway)
	}
	var own6 netip.Prefix
	if d.IPv6 {
		if own6, err = decide(true, d.Address6, d.Range6, pools); err != nil {
			return rec, err
		}
		if own6.IsValid() {
			rec.BridgeAddr6 = family(&rec, own6, d.Range6, d.Gateway6)
		}
	}
	if !own4.IsValid() && !own6.IsValid() {
		return rec, errdefs.ErrInvalidArgument.WithMessage("bridge " + d.Device + " has no address")
	}
	return rec, nil
}

// family enters one subnet of the network into the record. own is the bridge's
// address with its prefix.
func family(rec *network.Record, own, rng netip.Prefix, gateway netip.Addr) netip.Addr {
	if !gateway.IsValid() {
		gateway = own.Addr()
	}
	cfg := networktypes.IPAMConfig{Subnet: own.Masked(), Gateway: gateway}
	if rng.IsValid() && rng.Masked() != own.Masked() {
		cfg.IPRange = rng.Masked()
	}
	rec.IPAM.Config = append(rec.IPAM.Config, cfg)
	return own.Addr()
}

// finishRoutes gives a container the default routes of its attachment, after a
// change that a kill cut short.
func (s *Service) finishRoutes(ctx context.Context, l LiveSandbox) error {
	ns, err := s.cfg.Sandboxes.Enter(ctx, l.Pid)
	if err != nil {
		return err
	}
	return errors.Join(s.cfg.Sandboxes.SetDefault(ctx, ns, network.Defaults(l.Attachment.Endpoints)), ns.Close())
}

func (s *Service) takeOver(l LiveSandbox) error {
	sb := &sandbox{att: l.Attachment, pid: l.Pid, turn: make(chan struct{}, 1), asked: map[string]*networktypes.EndpointSettings{}}
	sb.att.Changing = false
	if l.Name != "" {
		sb.att.Name = l.Name
	}
	var errs []error
	for _, ep := range l.Attachment.Endpoints {
		n := s.network(ep.NetworkID)
		if n == nil {
			errs = append(errs, errdefs.ErrNotFound.WithMessage("network "+ep.NetworkName+" not found"))
			continue
		}
		errs = append(errs, n.adopt(ep))
	}
	s.portsMu.Lock()
	for _, b := range l.Attachment.Ports {
		s.ports.Add(b.Proto, b.HostPort, b.HostIP)
	}
	s.portsMu.Unlock()
	s.remember(sb)
	return errors.Join(errs...)
}

// all lists the networks that can be joined or were, by name.
func (s *Service) all() []*netState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*netState
	for _, n := range s.networks {
		if n.visible() {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *netState) int { return strings.Compare(a.rec.Name, b.rec.Name) })
	return out
}

// ruled lists the networks that have rules in the firewall.
func (s *Service) ruled() []*netState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*netState
	for _, n := range s.networks {
		if n.rec.Driver == network.DriverBridge && n.rec.Device != "" && (n.ruled || n.visible()) {
			out = append(out, n)
		}
	}
	return out
}

// setRules enters a network into the firewall, or takes it out.
func (s *Service) setRules(ctx context.Context, n *netState, on bool) error {
	if n.rec.Driver != network.DriverBridge {
		return nil
	}
	rules, err := network.BridgeRulesOf(n.rec)
	if err != nil {
		return err
	}
	if on && n.rec.EnableIPv6 && !s.cfg.KeepForwarding && !s.forward6.Load() {
		if err := s.firewall(ctx, true); err != nil {
			return err
		}
	}
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	s.mu.Lock()
	n.ruled = on
	s.mu.Unlock()
	if on {
		return s.cfg.Firewall.SetBridge(ctx, rules)
	}
	return s.cfg.Firewall.DropBridge(ctx, rules)
}

// endpointsOn lists the endpoints on a network that have a link.
func (s *Service) endpointsOn(id string) []network.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []network.Endpoint
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			if ep.NetworkID == id && ep.HostLink != "" {
				out = append(out, ep)
			}
		}
	}
	return out
}

// firewall brings the table to what the networks and published ports need, and
// switches forwarding on: of IPv6 where a network has it, or when ipv6 says so.
func (s *Service) firewall(ctx context.Context, ipv6 bool) error {
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	rules := network.Ruleset{}
	for _, n := range s.ruled() {
		ipv6 = ipv6 || n.rec.EnableIPv6
		b, err := network.BridgeRulesOf(n.rec)
		if err != nil {
			return fmt.Errorf("rules of network %s: %w", n.rec.Name, err)
		}
		rules.Bridges = append(rules.Bridges, b)
	}
	s.mu.Lock()
	for _, sb := range s.sandboxes {
		rules.Ports = append(rules.Ports, sb.att.Ports...)
	}
	s.mu.Unlock()
	dropped, err := s.cfg.Firewall.DropsForeign(ctx)
	if err != nil {
		return fmt.Errorf("read firewall: %w", err)
	}
	rules.DropForeign = dropped
	if len(rules.Bridges) > 0 && !s.cfg.KeepForwarding {
		changed, err := s.cfg.Host.EnableForwarding(ctx, ipv6)
		if err != nil {
			return fmt.Errorf("enable packet forwarding: %w", err)
		}
		rules.DropForeign = dropped || changed
		s.forward6.Store(ipv6)
	}
	plan, err := s.cfg.Firewall.Apply(ctx, rules)
	if err != nil {
		return fmt.Errorf("apply firewall: %w", err)
	}
	if plan != "" {
		s.cfg.Logger.Debug("firewall applied", "plan", plan)
	}
	return nil
}

func (s *Service) allNames() []network.Names {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []network.Names
	for _, sb := range s.sandboxes {
		if n := s.names(sb.att, sb.pid); !n.Empty() {
			all = append(all, n)
		}
	}
	return all
}

// leftovers hands links on our bridges that belong to no running container to
// the reaper: their time is over.
func (s *Service) leftovers(ctx context.Context) error {
	known := map[string]bool{}
	s.mu.Lock()
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			known[ep.HostLink] = true
		}
	}
	s.mu.Unlock()
	for _, n := range s.all() {
		if n.driver == nil || n.broken != nil {
			continue
		}
		links, err := n.driver.Links(ctx, n.rec)
		if err != nil {
			return fmt.Errorf("list links of network %s: %w", n.rec.Name, err)
		}
		s.drainMu.Lock()
		for _, name := range links {
			if !known[name] {
				s.draining[name] = drained{since: s.cfg.Now().Add(-reapAfter)}
			}
		}
		s.drainMu.Unlock()
	}
	return nil
}

// Run watches links, reaps those that stay behind and keeps the name server
// running, until ctx is done. Containers, names and ports go on after that.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.cfg.Sandboxes.WatchLinks(ctx, s.linkGone)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		err := s.cfg.Sandboxes.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		err := s.cfg.Nameserver.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		err := s.cfg.Firewall.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		for {
			var later <-chan time.Time
			if s.reap(ctx) {
				later = time.After(reapAfter)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.wake:
			case <-later:
			}
		}
	})
	return g.Wait()
}

// Shutdown ends what outlives the daemon, if no container needs it any more:
// netd, the firewall's table and the bridge. With containers running it does
// nothing: they keep names and ports.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	running := len(s.sandboxes)
	s.mu.Unlock()
	if running > 0 {
		return nil
	}
	errs := []error{s.cfg.Nameserver.Quit(ctx), s.cfg.Firewall.Remove(ctx)}
	for _, n := range s.all() {
		if n.driver != nil && n.broken == nil {
			errs = append(errs, s.cfg.Sandboxes.Forget(ctx, n.rec.Device), n.driver.Remove(ctx, n.rec))
		}
	}
	return errors.Join(errs...)
}

// pools are what subnets of networks that name none are taken from.
func (s *Service) pools() []network.Pool {
	pools := s.cfg.Pools
	if pools == nil {
		pools = network.DefaultPools()
	}
	return network.WithIPv6(pools, network.ULAPool(s.cfg.EngineID))
}

// driver finds a kind of network. ErrNotFound with Docker's text.
func (s *Service) driver(ctx context.Context, name string) (Driver, network.Capabilities, error) {
	d := s.cfg.Drivers[name]
	if d == nil {
		var err error = errdefs.ErrNotFound
		if s.cfg.Plugins != nil {
			d, err = s.cfg.Plugins.NetworkDriver(ctx, name)
		}
		switch {
		case errdefs.IsNotFound(err):
			return nil, network.Capabilities{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", name))
		case err != nil:
			return nil, network.Capabilities{}, err
		}
	}
	caps, err := d.Capabilities(ctx)
	if err != nil {
		return nil, caps, fmt.Errorf("ask network driver %s: %w", name, err)
	}
	return d, caps, nil
}

// ipamDriver finds who decides addresses; nil is the engine.
func (s *Service) ipamDriver(ctx context.Context, name string) (IPAMDriver, error) {
	if name == "" || name == network.IPAMDefault || name == network.IPAMNull {
		return nil, nil
	}
	var d IPAMDriver
	var err error = errdefs.ErrNotFound
	if s.cfg.Plugins != nil {
		d, err = s.cfg.Plugins.IPAMDriver(ctx, name)
	}
	if errdefs.IsNotFound(err) {
		return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", name))
	}
	return d, err
}
