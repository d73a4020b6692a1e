package containers

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Pause freezes every process of a container. ErrConflict when it does not
// run or is paused.
func (s *Service) Pause(ctx context.Context, ref string) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.freeze(ctx, o, true)
}

// Unpause thaws a paused container.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.freeze(ctx, o, false)
}

// freeze pauses or unpauses: decide, act, record, whether the caller waits for
// the outcome or not.
func (s *Service) freeze(ctx context.Context, o *object, freeze bool) error {
	ask, done, failed := container.ActUnpause, container.ActUnpauseDone, container.ActUnpauseFailed
	action, verb := events.ActionUnPause, "Cannot unpause"
	if freeze {
		ask, done, failed = container.ActPause, container.ActPauseDone, container.ActPauseFailed
		action, verb = events.ActionPause, "cannot pause"
	}
	if err := o.ask(ctx, ask); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	m := o.monitor
	o.mu.Unlock()

	var err error
	if freeze {
		err = m.Pause(ctx)
	} else {
		err = m.Resume(ctx)
	}

	outcome := done
	if err != nil {
		outcome = failed
	}
	o.mu.Lock()
	// It may have ended meanwhile: then that is the outcome.
	current := o.monitor == m && o.move(outcome) == nil
	if current {
		if err == nil {
			o.frozen = freeze
			s.save(ctx, o)
		}
		o.publish()
	}
	snap := o.snapshot()
	checks := o.health
	o.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s container %s: %w", verb, o.id, err)
	}
	if !current {
		return conflict("container %s is not running", o.id)
	}
	checks.pause(freeze)
	s.tell(snap, action, nil)
	return nil
}
