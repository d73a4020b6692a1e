package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// Create makes a network. raw is the request as it came, nil encodes req. On
// failure nothing is left of it. ErrPermissionDenied, ErrInvalidArgument,
// ErrConflict and ErrNotFound have Docker's text.
func (s *Service) Create(ctx context.Context, req networktypes.CreateRequest, raw json.RawMessage) (_ networktypes.CreateResponse, err error) {
	var resp networktypes.CreateResponse
	if raw == nil {
		if raw, err = json.Marshal(req); err != nil {
			return resp, fmt.Errorf("create network %s: encode request: %w", req.Name, err)
		}
	}
	rec, err := network.NewRecord(req, s.cfg.DriverOptions, s.configuration)
	if err != nil {
		return resp, err
	}
	rec.ID, rec.Created, rec.Request = s.cfg.NewID(), s.cfg.Now().UTC(), raw
	n, wants, err := s.prepare(ctx, req, rec)
	if err != nil {
		return resp, err
	}
	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(context.WithoutCancel(ctx), s.cfg.Logger)
		}
	}()
	// The name is taken from here on, and the subnets as soon as they are decided.
	if err := s.begin(n); err != nil {
		return resp, err
	}
	undo.add("forget network", func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.networks, rec.ID)
		return nil
	})
	if !n.rec.ConfigOnly {
		decided, err := s.decide(ctx, n, wants, &undo)
		if err != nil {
			return resp, err
		}
		n = decided
	}

	// From here on the making is finished, whoever waits for it or not.
	ctx = context.WithoutCancel(ctx)
	if err := s.cfg.Store.Save(ctx, n.rec); err != nil {
		return resp, fmt.Errorf("save network %s: %w", n.rec.Name, err)
	}
	undo.add("delete record", func(ctx context.Context) error { return s.cfg.Store.Delete(ctx, n.rec.ID) })
	if n.driver != nil {
		undo.add("remove network", func(ctx context.Context) error { return n.driver.Remove(ctx, n.rec) })
		if err := n.driver.Ensure(ctx, n.rec, nil); err != nil {
			return resp, err
		}
	}
	undo.add("remove rules", func(ctx context.Context) error { return s.setRules(ctx, n, false) })
	if err := s.setRules(ctx, n, true); err != nil {
		return resp, fmt.Errorf("set rules of network %s: %w", n.rec.Name, err)
	}
	s.mu.Lock()
	n.making = false
	s.mu.Unlock()
	s.tell(events.ActionCreate, n.rec.ID, n.rec.Name, n.rec.Driver, "")
	resp.ID = n.rec.ID
	return resp, nil
}

// configuration finds a configuration network by its name.
func (s *Service) configuration(name string) (network.Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		if n.visible() && n.rec.ConfigOnly && n.rec.Name == name {
			return n.rec, true
		}
	}
	return network.Record{}, false
}

// prepare finds the drivers of a network and has them complete the record.
func (s *Service) prepare(ctx context.Context, req networktypes.CreateRequest, rec network.Record) (*netState, network.Wants, error) {
	if rec.ConfigOnly {
		return newState(rec, nil, network.Capabilities{Scope: network.ScopeLocal}, nil), network.Wants{}, nil
	}
	driver, caps, err := s.driver(ctx, rec.Driver)
	if err != nil {
		return nil, network.Wants{}, err
	}
	if err := network.CheckScope(req, caps); err != nil {
		return nil, network.Wants{}, err
	}
	ipam, err := s.ipamDriver(ctx, rec.IPAM.Driver)
	if err != nil {
		return nil, network.Wants{}, err
	}
	wants, err := driver.Prepare(ctx, &rec)
	if err != nil {
		return nil, network.Wants{}, err
	}
	return &netState{rec: rec, driver: driver, caps: caps, ipam: ipam, freed: make(chan struct{})}, wants, nil
}

// begin takes the name for a network that is being made.
func (s *Service) begin(n *netState) error {
	n.making = true
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.networks {
		if other.rec.Name == n.rec.Name {
			return network.NameTaken(n.rec.Name)
		}
	}
	s.networks[n.rec.ID] = n
	return nil
}

// decide chooses the subnets and gateways of a network and makes it the one
// that has them.
func (s *Service) decide(ctx context.Context, n *netState, wants network.Wants, undo *undoStack) (*netState, error) {
	rec := n.rec
	var configs []networktypes.IPAMConfig
	for _, family := range []struct {
		on, ipv6, gateway bool
	}{{rec.EnableIPv4, false, wants.Gateway4}, {rec.EnableIPv6, true, wants.Gateway6}} {
		if !family.on || rec.IPAM.Driver == network.IPAMNull {
			continue
		}
		mine := slices.DeleteFunc(slices.Clone(rec.IPAM.Config), func(c networktypes.IPAMConfig) bool {
			return c.Subnet.IsValid() && c.Subnet.Addr().Is6() != family.ipv6
		})
		if family.ipv6 { // a config without a subnet is IPv4's
			mine = slices.DeleteFunc(mine, func(c networktypes.IPAMConfig) bool { return !c.Subnet.IsValid() })
		}
		if len(mine) == 0 {
			mine = []networktypes.IPAMConfig{{}}
		}
		for _, c := range mine {
			done, id, err := s.subnet(ctx, n, c, family.ipv6, family.gateway, configs, undo)
			if err != nil {
				return nil, err
			}
			configs = append(configs, done)
			if n.ipam != nil {
				rec.Pools = append(rec.Pools, id)
			}
		}
	}
	rec.IPAM.Config = configs
	done := newState(rec, n.driver, n.caps, n.ipam)
	done.making = true
	s.mu.Lock()
	defer s.mu.Unlock()
	var others []network.Record
	for id, other := range s.networks {
		if id == rec.ID {
			continue
		}
		others = append(others, other.rec)
		if n.ipam != nil || other.ipam != nil {
			continue
		}
		for _, c := range configs {
			if slices.ContainsFunc(other.rec.IPAM.Config, func(o networktypes.IPAMConfig) bool {
				return !other.rec.ConfigOnly && o.Subnet.IsValid() && o.Subnet.Overlaps(c.Subnet)
			}) {
				return nil, network.ErrOverlap
			}
		}
	}
	if rec.Driver == network.DriverBridge {
		if err := network.CheckBridge(rec, others); err != nil {
			return nil, err
		}
	}
	s.networks[rec.ID] = done
	return done, nil
}

// subnet completes one configuration: subnet and gateway. so are the ones that
// the network has already.
func (s *Service) subnet(ctx context.Context, n *netState, c networktypes.IPAMConfig, ipv6, gateway bool, so []networktypes.IPAMConfig, undo *undoStack) (networktypes.IPAMConfig, string, error) {
	if n.ipam != nil {
		return s.foreignSubnet(ctx, n, c, ipv6, gateway, undo)
	}
	if !c.Subnet.IsValid() || c.Subnet.Addr().IsUnspecified() {
		used, err := s.cfg.Host.Prefixes(ctx)
		if err != nil {
			return c, "", err
		}
		raw, source, err := s.cfg.Host.ResolvConf()
		if err != nil {
			return c, "", err
		}
		for _, a := range network.ParseResolvConf(raw, source).Servers {
			used = append(used, netip.PrefixFrom(a, a.BitLen()))
		}
		for _, o := range so {
			used = append(used, o.Subnet)
		}
		size := 0
		if c.Subnet.IsValid() {
			size = c.Subnet.Bits()
		}
		// Chosen and taken in one step: two networks made at once differ.
		s.mu.Lock()
		for _, other := range s.networks {
			for _, o := range other.rec.IPAM.Config {
				if !other.rec.ConfigOnly {
					used = append(used, o.Subnet)
				}
			}
		}
		c.Subnet, err = network.ChooseSubnet(s.pools(), ipv6, size, used)
		if err == nil {
			n.rec.IPAM.Config = append(slices.Clone(so), c)
		}
		s.mu.Unlock()
		if err != nil {
			return c, "", err
		}
	}
	if !c.Gateway.IsValid() && gateway {
		reserve := []netip.Addr{}
		for _, a := range c.AuxAddress {
			reserve = append(reserve, a.Unmap())
		}
		first, err := network.NewAddresses(c.Subnet, c.IPRange, reserve...).Allocate()
		if err != nil {
			return c, "", errdefs.ErrInternal.WithMessage("failed to allocate gateway (): " + err.Error())
		}
		c.Gateway = first
	}
	return c, "", nil
}

// foreignSubnet has an IPAM driver decide subnet and gateway.
func (s *Service) foreignSubnet(ctx context.Context, n *netState, c networktypes.IPAMConfig, ipv6, gateway bool, undo *undoStack) (networktypes.IPAMConfig, string, error) {
	id, pool, err := n.ipam.RequestPool(ctx, c.Subnet, c.IPRange, n.rec.IPAM.Options, ipv6)
	if err != nil {
		return c, "", err
	}
	undo.add("release pool", func(ctx context.Context) error { return n.ipam.ReleasePool(ctx, id) })
	c.Subnet = pool.Prefix.Masked()
	if !c.Gateway.IsValid() && pool.Gateway.IsValid() {
		c.Gateway = pool.Gateway
	} else if c.Gateway.IsValid() || gateway {
		got, err := n.ipam.RequestAddress(ctx, id, c.Gateway, map[string]string{"RequestAddressType": "com.docker.network.gateway"})
		if err != nil {
			return c, "", errdefs.ErrInternal.WithMessage(fmt.Sprintf("failed to allocate gateway (%s): %v", text(c.Gateway), err))
		}
		c.Gateway = got.Prefix.Addr()
	}
	for name, a := range c.AuxAddress {
		if _, err := n.ipam.RequestAddress(ctx, id, a.Unmap(), nil); err != nil && !errors.Is(err, network.ErrAddressOutside) {
			return c, "", errdefs.ErrInternal.WithMessage(fmt.Sprintf("failed to allocate secondary ip address (%s:%s): %v", name, a, err))
		}
	}
	return c, id, nil
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
