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

// Rename gives a container another name. ErrConflict when it belongs to
// another one.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	ref, name = strings.TrimSpace(ref), strings.TrimSpace(name)
	if strings.TrimPrefix(ref, "/") == "" || strings.TrimPrefix(name, "/") == "" {
		return invalid("Neither old nor new names may be empty")
	}
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	if strings.TrimPrefix(name, "/") == o.snapshot().name {
		return invalid("Renaming a container with the same name as its current name")
	}
	fresh, err := container.ParseName(name)
	if err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	if err := s.reserve(fresh, o.id); err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	o.mu.Lock()
	old := o.name
	if o.state == container.StateRemoving || o.state == container.StateDead {
		o.mu.Unlock()
		s.release(fresh, o.id)
		return conflict("container %s is marked for removal", o.id)
	}
	if err := s.cfg.Store.Rename(context.WithoutCancel(ctx), o.id, fresh); err != nil {
		o.mu.Unlock()
		s.release(fresh, o.id)
		var taken container.NameTaken
		if errors.As(err, &taken) {
			return container.NameConflict(taken.Name, taken.ID)
		}
		return fmt.Errorf("rename container %s: %w", old, err)
	}
	o.name = fresh
	o.publish()
	snap := o.snapshot()
	o.mu.Unlock()
	s.release(old, o.id)
	if snap.state.Alive() {
		_, err := s.cfg.Networks.Rename(context.WithoutCancel(ctx), s.changeRequest(o, snap))
		if err != nil && !errdefs.IsNotFound(err) {
			s.cfg.Logger.Warn("rename container in its networks", "container", o.id, "error", err)
		}
	}
	s.tell(snap, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}
