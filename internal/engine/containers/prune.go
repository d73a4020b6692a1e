package containers

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Prune removes every container that does not run. ErrConflict while another
// prune runs.
func (s *Service) Prune(ctx context.Context, filters map[string][]string) (containertypes.PruneReport, error) {
	var report containertypes.PruneReport
	if !s.pruning.CompareAndSwap(false, true) {
		return report, conflict("a prune operation is already running")
	}
	defer s.pruning.Store(false)
	f := container.Filters(filters)
	if err := f.Validate("label", "label!", "until"); err != nil {
		return report, err
	}
	var until time.Time
	switch values := f["until"]; len(values) {
	case 0:
	case 1:
		var err error
		if until, err = parseUntil(values[0], s.cfg.Now()); err != nil {
			return report, invalid("invalid value for \"until\" filter: %v", err)
		}
	default:
		return report, invalid("more than one until filter specified")
	}
	for _, snap := range s.snapshots() {
		if ctx.Err() != nil {
			return report, nil
		}
		labels := snap.saved.Config.Labels
		excluded := len(f["label!"]) > 0 && f.Labels("label!", labels)
		if snap.state.WireRunning() || snap.state.Busy() || excluded || !f.Labels("label", labels) {
			continue
		}
		if !until.IsZero() && snap.saved.Created.After(until) {
			continue
		}
		size, _, err := s.cfg.Store.Sizes(ctx, snap.id)
		if err != nil {
			s.cfg.Logger.Debug("prune: measure container", "container", snap.id, "error", err)
		}
		if err := s.Remove(ctx, snap.id, RemoveOptions{}); err != nil {
			s.cfg.Logger.Warn("prune: remove container", "container", snap.id, "error", err)
			continue
		}
		report.SpaceReclaimed += uint64(max(size, 0))
		report.ContainersDeleted = append(report.ContainersDeleted, snap.id)
	}
	slices.Sort(report.ContainersDeleted)
	now := s.cfg.Now().UTC()
	s.cfg.Events.Publish(events.Message{
		Type: events.ContainerEventType, Action: events.ActionPrune, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}},
	})
	return report, nil
}

// parseUntil reads a time, a Unix time with or without nanoseconds, or a
// duration before now.
func parseUntil(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	sec, frac, _ := strings.Cut(v, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nano := int64(0)
	if frac != "" {
		if nano, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(n, nano), nil
}
