package containers

import (
	"context"
	"iter"
	"time"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
)

// StatsOptions are a request for the use of resources.
type StatsOptions struct {
	// Stream gives a sample each second; otherwise there is one.
	Stream bool
	// OneShot gives that one at once, without an earlier one to compare with.
	OneShot bool
}

// statsPeriod between two samples.
const statsPeriod = time.Second

// Stats samples what a container uses. One that does not run has empty samples.
func (s *Service) Stats(ctx context.Context, ref string, opts StatsOptions) (iter.Seq2[*containertypes.StatsResponse, error], error) {
	o, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return func(yield func(*containertypes.StatsResponse, error) bool) {
		var before *containertypes.StatsResponse
		if !opts.Stream && !opts.OneShot {
			if before, err = s.sample(ctx, o); err != nil {
				yield(nil, err)
				return
			}
			if before.Read.IsZero() { // it does not run: there is nothing to wait for
				yield(before, nil)
				return
			}
			if !s.pauseFor(ctx, statsPeriod) {
				return
			}
		}
		for {
			now, err := s.sample(ctx, o)
			if err != nil {
				if ctx.Err() == nil {
					yield(nil, err)
				}
				return
			}
			if before != nil && !now.Read.IsZero() {
				now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
			}
			if !yield(now, nil) || !opts.Stream {
				return
			}
			before = now
			if !s.pauseFor(ctx, statsPeriod) {
				return
			}
			if s.isGone(o) {
				return
			}
		}
	}, nil
}

func (s *Service) sample(ctx context.Context, o *object) (*containertypes.StatsResponse, error) {
	snap := o.snapshot()
	empty := &containertypes.StatsResponse{ID: snap.id, Name: "/" + snap.name, OSType: "linux"}
	if !snap.state.Alive() || snap.pid == 0 {
		return empty, nil
	}
	stats, err := s.cfg.Host.Stats(ctx, snap.pid)
	switch {
	case errdefs.IsNotFound(err):
		return empty, nil // it has ended just now
	case err != nil:
		return nil, err
	}
	stats.ID, stats.Name, stats.OSType = snap.id, "/"+snap.name, "linux"
	if stats.Read.IsZero() {
		stats.Read = s.cfg.Now()
	}
	return stats, nil
}

func (s *Service) pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-s.cfg.After(d):
		return true
	case <-ctx.Done():
	case <-s.leaving:
	}
	return false
}

func (s *Service) isGone(o *object) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[o.id] != o
}
