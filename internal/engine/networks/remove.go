package networks

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/network"
)

// Remove ends a network that nobody is on. ErrNotFound; ErrPermissionDenied for
// a predefined one and one in use.
func (s *Service) Remove(ctx context.Context, ref string) error {
	s.mu.Lock()
	n, err := s.findLocked(ref)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// A container that has ended is on its way out, and not in use.
	awaitAll(ctx, s.beingClosed(func(att network.Attachment) bool {
		return slices.ContainsFunc(att.Endpoints, func(ep network.Endpoint) bool { return ep.NetworkID == n.rec.ID })
	}))
	s.mu.Lock()
	n, err = s.findLocked(ref)
	if err == nil {
		err = s.removableLocked(n)
	}
	if err == nil {
		n.removing = true
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.dismantle(ctx, n); err != nil {
		// It stays, to be removed again: what is gone is no obstacle then.
		s.mu.Lock()
		n.removing = false
		s.mu.Unlock()
		return fmt.Errorf("error while removing network: %w", err)
	}
	s.mu.Lock()
	delete(s.networks, n.rec.ID)
	s.mu.Unlock()
	if !n.rec.ConfigOnly {
		s.tell(events.ActionDestroy, n.rec.ID, n.rec.Name, n.rec.Driver, "")
	}
	return nil
}

// removableLocked says why a network cannot be removed; Service.mu is held.
func (s *Service) removableLocked(n *netState) error {
	if n.rec.Predefined() {
		return errdefs.ErrPermissionDenied.WithMessage(n.rec.Name + " is a pre-defined network and cannot be removed")
	}
	inUse := func(text string) error {
		return errdefs.ErrPermissionDenied.WithMessage("error while removing network: " + text)
	}
	if n.rec.ConfigOnly {
		for _, other := range s.networks {
			if other.rec.ConfigFrom == n.rec.Name {
				return inUse(fmt.Sprintf("configuration network %q is in use", n.rec.Name))
			}
		}
	}
	var active []string
	for _, sb := range s.sandboxes {
		for _, ep := range sb.att.Endpoints {
			if ep.NetworkID == n.rec.ID {
				active = append(active, fmt.Sprintf("name:%q id:%q", sb.att.Name, ep.ID[:min(12, len(ep.ID))]))
			}
		}
	}
	if len(active) > 0 || n.joining > 0 {
		slices.Sort(active)
		return inUse(fmt.Sprintf("network %s has active endpoints (%s)", n.rec.Name, strings.Join(active, ", ")))
	}
	return nil
}

// dismantle takes a network off the host and out of the records. Every step
// may be repeated.
func (s *Service) dismantle(ctx context.Context, n *netState) error {
	s.reapNetwork(ctx, n)
	if err := s.setRules(ctx, n, false); err != nil {
		return err
	}
	if n.driver != nil {
		if err := s.cfg.Sandboxes.Forget(ctx, n.rec.Device); err != nil {
			s.cfg.Logger.Warn("give up what was made ready", "network", n.rec.Name, "error", err)
		}
		if err := n.driver.Remove(ctx, n.rec); err != nil {
			return err
		}
	}
	if n.ipam != nil {
		for _, id := range n.rec.Pools {
			if err := n.ipam.ReleasePool(ctx, id); err != nil {
				s.cfg.Logger.Warn("release pool", "network", n.rec.Name, "pool", id, "error", err)
			}
		}
	}
	return s.cfg.Store.Delete(ctx, n.rec.ID)
}

// reapNetwork removes the links of a network that the kernel has not yet
// removed: nothing is left of it on the host when its removal returns.
func (s *Service) reapNetwork(ctx context.Context, n *netState) {
	var due []string
	s.drainMu.Lock()
	for name, d := range s.draining {
		if d.ep.NetworkID == n.rec.ID {
			due = append(due, name)
		}
	}
	s.drainMu.Unlock()
	for _, name := range due {
		if err := s.cfg.Sandboxes.RemoveLink(ctx, name); err != nil {
			s.cfg.Logger.Warn("remove link", "link", name, "error", err)
			continue
		}
		s.linkGone(name)
	}
}
