package containers

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Update changes limits and restart policy, also of a running container.
func (s *Service) Update(ctx context.Context, ref string, req containertypes.UpdateConfig) (containertypes.UpdateResponse, error) {
	resp := containertypes.UpdateResponse{Warnings: []string{}}
	warnings, err := container.ValidateResources(&req.Resources, s.facts)
	resp.Warnings = append(resp.Warnings, warnings...)
	if err != nil {
		return resp, err
	}
	if err := containertypes.ValidateRestartPolicy(req.RestartPolicy); err != nil {
		return resp, invalid("%v", err)
	}
	o, err := s.find(ref)
	if err != nil {
		return resp, err
	}
	ctx = context.WithoutCancel(ctx)

	o.mu.Lock()
	if o.state == container.StateRemoving || o.state == container.StateDead {
		o.mu.Unlock()
		return resp, fmt.Errorf("Cannot update container %s: %w", o.id, conflict("container is marked for removal and cannot be \"update\""))
	}
	before := o.saved.HostConfig
	after, err := container.UpdateHostConfig(*before, req)
	if err != nil {
		o.mu.Unlock()
		return resp, fmt.Errorf("Cannot update container %s: %w", o.id, err)
	}
	o.saved.HostConfig = &after
	s.save(ctx, o)
	o.publish()
	snap, m := o.snapshot(), o.monitor
	o.mu.Unlock()

	if m != nil {
		limits, err := container.Limits(req.Resources, func(path string) (int64, int64, error) {
			d, err := s.cfg.Host.Device(path)
			return d.Major, d.Minor, err
		})
		if err == nil {
			err = m.Update(ctx, limits)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			o.mu.Lock()
			if o.saved.HostConfig == &after {
				o.saved.HostConfig = before
				s.save(ctx, o)
				o.publish()
			}
			o.mu.Unlock()
			return resp, fmt.Errorf("Cannot update container %s: %w", o.id, err)
		}
	}
	s.tell(snap, events.ActionUpdate, nil)
	return resp, nil
}
