package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/fault"
)

// Pause stops every process of the container. It returns when they stand;
// when ctx ends first, they run on. FailedPrecondition unless running or created.
func (c *Container) Pause(ctx context.Context) error {
	unlock, err := lock(c.dir)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	if status != specs.StateRunning && status != specs.StateCreated {
		return errdefs.ErrFailedPrecondition.WithMessage("container not running or created: " + string(status))
	}
	if fault.On("pause does nothing") {
		return nil
	}
	if err := c.cgroup.Freeze(ctx); err != nil {
		return fmt.Errorf("pause container %s: %w", c.saved.ID, err)
	}
	return nil
}

// Resume lets the processes of a paused container run. FailedPrecondition
// unless paused.
func (c *Container) Resume(ctx context.Context) error {
	unlock, err := lock(c.dir)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	if status != StatePaused {
		return errdefs.ErrFailedPrecondition.WithMessage("container not paused")
	}
	if err := c.cgroup.Thaw(ctx); err != nil {
		return fmt.Errorf("resume container %s: %w", c.saved.ID, err)
	}
	return nil
}

// Update changes limits of a container that is not stopped; fields that r
// leaves out stay as they are.
func (c *Container) Update(_ context.Context, r *specs.LinuxResources) error {
	unlock, err := lock(c.dir)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	if status == specs.StateStopped {
		return errdefs.ErrFailedPrecondition.WithMessage("container not running")
	}
	if err := c.cgroup.Set(r); err != nil {
		return fmt.Errorf("update container %s: %w", c.saved.ID, err)
	}
	for _, w := range c.cgroup.Warnings() {
		c.log.Warn(w, "container", c.saved.ID)
	}
	return nil
}
