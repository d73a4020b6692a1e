package containers

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
)

// Restart stops a container if it runs, and starts it. Once begun it is
// finished although the caller leaves.
func (s *Service) Restart(ctx context.Context, ref string, opts StopOptions) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	if err := s.restart(ctx, o, opts); err != nil {
		return fmt.Errorf("Cannot restart container %s: %w", ref, err)
	}
	return nil
}

func (s *Service) restart(ctx context.Context, o *object, opts StopOptions) error {
	ctx = context.WithoutCancel(ctx)
	// While this lasts, an exit does not remove a --rm container.
	o.mu.Lock()
	o.restarting++
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.restarting--
		o.mu.Unlock()
	}()
	if err := s.stop(ctx, o, opts); err != nil && !errdefs.IsNotModified(err) {
		return err
	}
	if err := s.start(ctx, o); err != nil && !errdefs.IsNotModified(err) {
		return err
	}
	s.tell(o.snapshot(), events.ActionRestart, nil)
	return nil
}
