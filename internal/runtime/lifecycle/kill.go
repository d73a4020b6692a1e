package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/runtime/fault"
)

// Kill sends a signal to the container's process, or to every process of its
// cgroup when all. FailedPrecondition when the container is not running.
// A frozen container gets SIGKILL at once and other signals when it is thawed.
func (c *Container) Kill(sig int, all bool) error {
	if fault.On("every signal is TERM") {
		sig = int(unix.SIGTERM)
	}
	if all {
		return c.killAll(sig)
	}
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	if status == specs.StateStopped && fault.On("kill of a stopped container succeeds") {
		return nil
	}
	if status == specs.StateStopped {
		return errdefs.ErrFailedPrecondition.WithMessage("container not running")
	}
	if err := c.signal(sig); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errdefs.ErrFailedPrecondition.WithMessage("container not running")
		}
		return fmt.Errorf("send signal %d to container %s: %w", sig, c.saved.ID, err)
	}
	if sig == int(unix.SIGKILL) && status == StatePaused {
		// On v1 a frozen process does not even die.
		if err := c.cgroup.Thaw(context.Background()); err != nil {
			return fmt.Errorf("thaw container %s to kill it: %w", c.saved.ID, err)
		}
	}
	return nil
}

// killAll signals every process of the cgroup, by pidfd; several passes catch
// processes that are born meanwhile.
func (c *Container) killAll(sig int) error {
	if sig == int(unix.SIGKILL) {
		ctx, cancel := cleanupContext(context.Background())
		defer cancel()
		if err := c.cgroup.Kill(ctx); err != nil {
			return fmt.Errorf("kill container %s: %w", c.saved.ID, err)
		}
		return nil
	}
	pids, err := c.cgroup.Pids()
	if err != nil {
		return fmt.Errorf("signal container %s: %w", c.saved.ID, err)
	}
	var errs []error
	for _, pid := range pids {
		f, err := pidfd.Open(pid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err == nil {
			err = pidfd.Signal(f, sig)
			_ = f.Close()
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Pids lists the processes of the container in the host's pids.
func (c *Container) Pids() ([]int, error) {
	pids, err := c.cgroup.Pids()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", c.saved.ID, err)
	}
	return pids, nil
}
