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
	for key := range opts.Filters {
		if !slices.Contains([]string{"driver", "id", "label", "name", "scope", "type", "dangling"}, key) {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid filter '" + key + "'")
		}
	}
	for _, t := range opts.Filters["type"] {
		if t != "custom" && t != "builtin" {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid filter: 'type'='" + t + "'")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[string]bool{}
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			used[ep.NetworkID] = true
		}
	}
	out := []networktypes.Summary{}
	for _, n := range s.networks {
		if passes(n.rec, used[n.rec.ID], opts.Filters) {
			out = append(out, networktypes.Summary{Network: n.rec.Network()})
		}
	}
	slices.SortFunc(out, func(a, b networktypes.Summary) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// passes: every filter key must have a value that fits.
func passes(rec network.Record, used bool, filters map[string][]string) bool {
	for key, values := range filters {
		fits := func(v string) bool {
			switch key {
			case "driver":
				return rec.Driver == v
			case "id":
				return strings.HasPrefix(rec.ID, v)
			case "name":
				return strings.Contains(rec.Name, v)
			case "scope":
				return v == "local"
			case "type":
				return (v == "builtin") == rec.Predefined()
			case "dangling":
				yes := v == "true" || v == "1"
				return yes == (!used && !rec.Predefined())
			case "label":
				name, value, exact := strings.Cut(v, "=")
				has, ok := rec.Labels[name]
				return ok && (!exact || has == value)
			}
			return false
		}
		all := key == "label" // every label must be there; of the others one is enough
		ok := all
		for _, v := range values {
			if all {
				ok = ok && fits(v)
			} else {
				ok = ok || fits(v)
			}
		}
		if !ok && len(values) > 0 {
			return false
		}
	}
	return true
}

// Inspect returns a network by name, id or prefix of an id, with the
// containers that run on it. ErrNotFound.
func (s *Service) Inspect(_ context.Context, ref string) (networktypes.Inspect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.findLocked(ref)
	if err != nil {
		return networktypes.Inspect{}, err
	}
	out := networktypes.Inspect{Network: n.rec.Network(), Containers: map[string]networktypes.EndpointResource{}}
	for id, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			if ep.NetworkID != n.rec.ID {
				continue
			}
			r := networktypes.EndpointResource{Name: sb.att.Name, EndpointID: ep.ID, IPv4Address: ep.IPv4, IPv6Address: ep.IPv6}
			if ep.MAC != "" {
				if err := r.MacAddress.UnmarshalText([]byte(ep.MAC)); err != nil {
					return networktypes.Inspect{}, err
				}
			}
			out.Containers[id] = r
		}
	}
	return out, nil
}

func notFound(containerID string) error {
	return errdefs.ErrNotFound.WithMessage("container " + containerID + " has no sandbox")
}
