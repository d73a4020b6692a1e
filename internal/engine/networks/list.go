package networks

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// List returns the networks that pass every filter, in the order of their
// names. ErrInvalidArgument for a filter that does not exist.
func (s *Service) List(_ context.Context, opts ListOptions) ([]networktypes.Summary, error) {
	if err := network.CheckFilters(opts.Filters); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.usedLocked()
	out := []networktypes.Summary{}
	for _, n := range s.networks {
		if n.visible() && network.Passes(n.rec, used[n.rec.ID], opts.Filters) {
			out = append(out, networktypes.Summary{Network: n.rec.Network()})
		}
	}
	slices.SortFunc(out, func(a, b networktypes.Summary) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// usedLocked tells which networks have endpoints; Service.mu is held.
func (s *Service) usedLocked() map[string]bool {
	used := map[string]bool{}
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			used[ep.NetworkID] = true
		}
	}
	return used
}

// Drivers lists the kinds of networks there are, by name.
func (s *Service) Drivers() []string {
	out := []string{network.DriverHost, network.DriverNull}
	for name := range s.cfg.Drivers {
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Inspect returns a network by name, id or prefix of an id, with the
// containers that run on it. ErrNotFound.
func (s *Service) Inspect(_ context.Context, ref string) (networktypes.Inspect, error) {
	s.mu.Lock()
	n, err := s.findLocked(ref)
	if err != nil {
		s.mu.Unlock()
		return networktypes.Inspect{}, err
	}
	type on struct {
		container, name string
		ep              network.Endpoint
	}
	var all []on
	for id, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			if ep.NetworkID == n.rec.ID {
				all = append(all, on{id, sb.att.Name, ep})
			}
		}
	}
	s.mu.Unlock()
	out := networktypes.Inspect{Network: n.rec.Network(), Containers: map[string]networktypes.EndpointResource{}, Status: n.status()}
	for _, o := range all {
		r := networktypes.EndpointResource{Name: o.name, EndpointID: o.ep.ID, IPv4Address: o.ep.IPv4, IPv6Address: o.ep.IPv6}
		if o.ep.MAC != "" {
			if err := r.MacAddress.UnmarshalText([]byte(o.ep.MAC)); err != nil {
				return networktypes.Inspect{}, err
			}
		}
		out.Containers[o.container] = r
	}
	return out, nil
}

// status counts the addresses of every subnet that the engine decides about.
func (n *netState) status() *networktypes.Status {
	st := &networktypes.Status{IPAM: networktypes.IPAMStatus{Subnets: networktypes.SubnetStatuses{}}}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pools {
		if p.addrs != nil {
			st.IPAM.Subnets[p.subnet] = networktypes.SubnetStatus{
				IPsInUse: uint64(p.addrs.InUse()), DynamicIPsAvailable: p.addrs.Available(),
			}
		}
	}
	return st
}

func notFound(containerID string) error {
	return errdefs.ErrNotFound.WithMessage("container " + containerID + " has no sandbox")
}
