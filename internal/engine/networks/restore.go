package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
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
	recs, err := s.cfg.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load networks: %w", err)
	}
	if err := s.predefined(ctx, recs, live); err != nil {
		return err
	}
	for _, rec := range recs {
		if !rec.Predefined() {
			s.add(fromRecord(rec))
		}
	}
	for _, l := range live {
		if err := s.takeOver(l); err != nil {
			// Known, but its addresses belong to nobody: it goes on as it is.
			s.cfg.Logger.Warn("take over sandbox", "container", l.Attachment.ContainerID, "error", err)
		}
	}

	for _, n := range s.bridges() {
		if err := s.cfg.Driver.EnsureBridge(ctx, s.bridgePlan(n)); err != nil {
			return fmt.Errorf("set up network %s: %w", n.rec.Name, err)
		}
	}
	if err := s.firewall(ctx); err != nil {
		return err
	}
	if err := s.cfg.Nameserver.Ensure(ctx, s.allNames()); err != nil {
		return fmt.Errorf("start name server: %w", err)
	}
	return s.leftovers(ctx)
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
		s.add(&netState{rec: rec})
	}
	if s.cfg.Default.Disabled {
		return nil
	}
	rec, known := find(network.BridgeName)
	n, err := s.defaultBridge(ctx, rec, live)
	if err != nil {
		return fmt.Errorf("set up network %s: %w", network.BridgeName, err)
	}
	if !known || !sameIPAM(rec.IPAM, n.rec.IPAM) || rec.Device != n.rec.Device {
		if err := s.cfg.Store.Save(ctx, n.rec); err != nil {
			return fmt.Errorf("save network %s: %w", network.BridgeName, err)
		}
	}
	s.add(n)
	return nil
}

func (s *Service) add(n *netState) {
	n.freed = make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks[n.rec.ID] = n
}

func sameIPAM(a, b networktypes.IPAM) bool {
	return slices.EqualFunc(a.Config, b.Config, func(x, y networktypes.IPAMConfig) bool {
		return x.Subnet == y.Subnet && x.Gateway == y.Gateway && x.IPRange == y.IPRange
	})
}

// defaultBridge decides the addresses of the network "bridge". In this order:
// the configuration; what running containers use; the addresses the device
// has; what the record says, if the host does not use it otherwise by now; the
// first free subnet of the pools.
func (s *Service) defaultBridge(ctx context.Context, rec network.Record, live []LiveSandbox) (*netState, error) {
	d := s.cfg.Default
	present, err := s.cfg.Driver.BridgeAddrs(ctx, d.Device)
	if err != nil {
		return nil, err
	}
	used, err := s.cfg.Host.Prefixes(ctx)
	if err != nil {
		return nil, err
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
		sub, err := network.ChooseSubnet(pools, ipv6, 0, used)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(sub.Addr().Next(), sub.Bits()), nil
	}

	pools := s.cfg.Pools
	if pools == nil {
		pools = network.DefaultPools()
	}
	n := &netState{mtu: d.MTU, icc: d.ICC, masq: d.Masquerade}
	if n.mtu == 0 {
		n.mtu = 1500
	}
	rec.Driver, rec.Device, rec.EnableIPv4, rec.EnableIPv6 = network.DriverBridge, d.Device, true, d.IPv6
	rec.IPAM = networktypes.IPAM{Driver: "default"}
	hostIP := d.HostIP
	if !hostIP.IsValid() {
		hostIP = netip.IPv4Unspecified()
	}
	rec.Options = map[string]string{
		network.OptBridgeName: d.Device, network.OptDefault: "true", network.OptICC: strconv.FormatBool(d.ICC),
		network.OptMasquerade: strconv.FormatBool(d.Masquerade), network.OptHostIP: hostIP.String(), network.OptMTU: strconv.Itoa(n.mtu),
	}
	own4, err := decide(false, d.Address, d.Range, pools)
	if err != nil {
		return nil, err
	}
	if own4.IsValid() {
		n.addr4, n.gateway4 = n.family(&rec, own4, d.Range, d.Gateway)
	}
	if d.IPv6 {
		own6, err := decide(true, d.Address6, d.Range6, pools)
		if err != nil {
			return nil, err
		}
		if own6.IsValid() {
			n.addr6, n.gateway6 = n.family(&rec, own6, d.Range6, d.Gateway6)
		}
	}
	n.rec = rec
	if n.addr4 == nil && n.addr6 == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("bridge " + d.Device + " has no address")
	}
	return n, nil
}

// fromRecord is the state of a network whose addresses were decided when it was
// made.
func fromRecord(rec network.Record) *netState {
	option := func(name string, otherwise bool) bool {
		v, err := strconv.ParseBool(rec.Options[name])
		if err != nil {
			return otherwise
		}
		return v
	}
	n := &netState{rec: rec, mtu: 1500, icc: option(network.OptICC, true), masq: option(network.OptMasquerade, true)}
	if mtu, err := strconv.Atoi(rec.Options[network.OptMTU]); err == nil && mtu > 0 {
		n.mtu = mtu
	}
	for _, c := range rec.IPAM.Config {
		if !c.Subnet.IsValid() || !c.Gateway.IsValid() {
			continue
		}
		own := netip.PrefixFrom(c.Gateway, c.Subnet.Bits())
		reserve := []netip.Addr{c.Gateway}
		for _, a := range c.AuxAddress {
			reserve = append(reserve, a)
		}
		addrs := network.NewAddresses(c.Subnet, c.IPRange, reserve...)
		n.bridgeAddrs = append(n.bridgeAddrs, own)
		if c.Subnet.Addr().Is4() {
			n.addr4, n.gateway4 = addrs, c.Gateway
		} else {
			n.addr6, n.gateway6 = addrs, c.Gateway
		}
	}
	return n
}

// family enters one subnet of the network into record and state. own is the
// bridge's address with its prefix.
func (n *netState) family(rec *network.Record, own, rng netip.Prefix, gateway netip.Addr) (*network.Addresses, netip.Addr) {
	if !gateway.IsValid() {
		gateway = own.Addr()
	}
	n.bridgeAddrs = append(n.bridgeAddrs, own)
	cfg := networktypes.IPAMConfig{Subnet: own.Masked(), Gateway: gateway}
	if rng.IsValid() && rng.Masked() != own.Masked() {
		cfg.IPRange = rng.Masked()
	}
	rec.IPAM.Config = append(rec.IPAM.Config, cfg)
	return network.NewAddresses(own, rng, own.Addr(), gateway), gateway
}

func (s *Service) takeOver(l LiveSandbox) error {
	sb := &sandbox{att: l.Attachment, pid: l.Pid}
	if l.Name != "" {
		sb.att.Name = l.Name
	}
	var errs []error
	for _, ep := range l.Attachment.Endpoints {
		s.mu.Lock()
		n := s.networks[ep.NetworkID]
		s.mu.Unlock()
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

// bridges lists the networks that have a device, by name.
func (s *Service) bridges() []*netState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*netState
	for _, n := range s.networks {
		if n.rec.Device != "" {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *netState) int {
		if a.rec.Name < b.rec.Name {
			return -1
		}
		return 1
	})
	return out
}

func (s *Service) bridgePlan(n *netState) network.Bridge {
	var ports []string
	s.mu.Lock()
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			if ep.NetworkID == n.rec.ID && ep.HostLink != "" {
				ports = append(ports, ep.HostLink)
			}
		}
	}
	s.mu.Unlock()
	return network.Bridge{
		Device: n.rec.Device, Foreign: s.cfg.Default.Foreign && n.rec.Name == network.BridgeName,
		Addrs: n.bridgeAddrs, MTU: n.mtu, IPv6: n.addr6 != nil, Localnet: n.addr4 != nil,
		Isolated: !n.icc, Ports: ports,
	}
}

// firewall brings the table to what the networks and published ports need.
func (s *Service) firewall(ctx context.Context) error {
	rules := network.Ruleset{}
	for _, n := range s.bridges() {
		b := network.BridgeRules{Device: n.rec.Device, ICC: n.icc, Masquerade: n.masq, Internal: n.rec.Internal}
		for _, c := range n.rec.IPAM.Config {
			b.Subnets = append(b.Subnets, c.Subnet)
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
		changed, err := s.cfg.Host.EnableForwarding(ctx, s.cfg.Default.IPv6)
		if err != nil {
			return fmt.Errorf("enable packet forwarding: %w", err)
		}
		rules.DropForeign = dropped || changed
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
		if n := s.names(sb); !n.Empty() {
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
	for _, n := range s.bridges() {
		if s.cfg.Default.Foreign && n.rec.Name == network.BridgeName {
			continue
		}
		links, err := s.cfg.Driver.Links(ctx, n.rec.Device)
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
		err := s.cfg.Driver.WatchLinks(ctx, s.linkGone)
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
	for _, n := range s.bridges() {
		if !s.bridgePlan(n).Foreign {
			errs = append(errs, s.cfg.Driver.RemoveBridge(ctx, n.rec.Device))
		}
	}
	return errors.Join(errs...)
}
