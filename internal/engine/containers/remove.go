package containers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// RemoveOptions say how a container is removed.
type RemoveOptions struct {
	// Force kills it when it runs.
	Force bool
	// Volumes removes its anonymous volumes, too.
	Volumes bool
	// Link removes a link of a --link by its name, not a container.
	Link bool
}

// Remove takes a container away: record, name, writable layer, log. ErrConflict
// when it runs and is not forced. Once begun it is finished although the caller
// leaves.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) error {
	if opts.Link {
		// Links of the default bridge are part of their container here.
		if strings.Count(strings.Trim(ref, "/"), "/") == 0 {
			return withText(errdefs.ErrInvalidArgument, "Conflict, cannot remove the default link name of the container")
		}
		return withText(errdefs.ErrNotFound, "Cannot get parent %s for link name %s", strings.Split(strings.Trim(ref, "/"), "/")[0], ref)
	}
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	act := container.ActRemove
	if opts.Force {
		act = container.ActForceRemove
	}
	if err := o.ask(ctx, act); err != nil {
		if o.snapshot().state == container.StateRemoving {
			return conflict("removal of container %s is already in progress", strings.TrimPrefix(ref, "/"))
		}
		return fmt.Errorf("cannot remove container %q: %w", "/"+o.snapshot().name, err)
	}
	if err := s.remove(context.WithoutCancel(ctx), o, opts.Volumes); err != nil {
		return fmt.Errorf("cannot remove container %q: %w", "/"+o.snapshot().name, err)
	}
	return nil
}

// removeAfterRun removes a --rm container that has ended.
func (s *Service) removeAfterRun(ctx context.Context, o *object) error {
	if err := o.ask(ctx, container.ActRemove); err != nil {
		if o.snapshot().state == container.StateRemoving {
			return nil // somebody else does
		}
		return err
	}
	return s.remove(ctx, o, true)
}

// remove finishes a removal that was decided. It is called with mu held and
// releases it.
func (s *Service) remove(ctx context.Context, o *object, volumes bool) error {
	m, report := o.monitor, o.exit
	o.calledOff = true
	if o.callOff != nil {
		close(o.callOff)
		o.callOff = nil
	}
	o.mu.Unlock()

	if m != nil {
		if err := s.kill(ctx, o, m, report); err != nil {
			o.mu.Lock()
			if o.monitor == m && o.move(container.ActKillFailed) == nil {
				o.publish()
			}
			o.mu.Unlock()
			return fmt.Errorf("could not kill container: %w", err)
		}
	}
	// What the run left below the exec root is torn down beside this: the
	// layers may go while the last mount of them does.
	if err := s.cfg.Store.Delete(ctx, o.id); err != nil {
		o.mu.Lock()
		err = errors.Join(err, o.move(container.ActRemoveFailed))
		o.saved.Error = err.Error()
		s.save(ctx, o)
		o.publish()
		gone, code := o.gone, o.saved.ExitCode
		o.gone = newNote()
		o.mu.Unlock()
		gone.tell(code, err.Error())
		return err
	}
	o.mu.Lock()
	snap := o.snapshot()
	waiting := o.waiting
	o.waiting = nil
	gone := o.gone
	o.mu.Unlock()
	if snap.saved.HostConfig.AutoRemove && !snap.saved.StartedAt.IsZero() {
		s.depart(o.id, snap.saved.ExitCode, snap.saved.Error)
	}
	s.forget(o.id, snap.name)
	if volumes {
		s.dropVolumes(ctx, snap.saved.Mounts)
	}
	for _, w := range waiting {
		w.give(nil, errNeverStarted)
	}
	s.tell(snap, events.ActionDestroy, nil)
	gone.tell(snap.saved.ExitCode, "")
	return nil
}
