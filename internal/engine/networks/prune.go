package networks

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// Prune removes the networks of users that nobody is on. Filters: label,
// label! and until. ErrConflict while another prune runs.
func (s *Service) Prune(ctx context.Context, filters map[string][]string) (networktypes.PruneReport, error) {
	var report networktypes.PruneReport
	if !s.pruning.CompareAndSwap(false, true) {
		return report, errdefs.ErrConflict.WithMessage("a prune operation is already running")
	}
	defer s.pruning.Store(false)
	until, err := network.PruneFilters(filters, s.cfg.Now())
	if err != nil {
		return report, err
	}
	s.mu.Lock()
	used := s.usedLocked()
	var due []network.Record
	for _, n := range s.networks {
		if n.visible() && !n.rec.Predefined() && !used[n.rec.ID] && network.Passes(n.rec, false, filters) && (until.IsZero() || !n.rec.Created.After(until)) {
			due = append(due, n.rec)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(due, func(a, b network.Record) int { return strings.Compare(a.Name, b.Name) })
	for _, rec := range due {
		if ctx.Err() != nil {
			return report, nil
		}
		if err := s.Remove(ctx, rec.ID); err != nil {
			// Somebody joined it meanwhile, or a configuration is in use.
			s.cfg.Logger.Debug("prune: remove network", "network", rec.Name, "error", err)
			continue
		}
		report.NetworksDeleted = append(report.NetworksDeleted, rec.Name)
	}
	now := s.cfg.Now().UTC()
	s.cfg.Events.Publish(events.Message{
		Type: events.NetworkEventType, Action: events.ActionPrune, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{Attributes: map[string]string{"reclaimed": "0"}},
	})
	return report, nil
}
