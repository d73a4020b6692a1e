package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/hooks"
)

// Delete removes a stopped container: its remaining processes, cgroup and state
// folder; then the poststop hooks run. A created one is killed first, a running
// one only when force, else FailedPrecondition.
func (c *Container) Delete(ctx context.Context, force bool) error {
	unlock, err := lock(c.dir)
	if err != nil {
		if force && errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	defer unlock()
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	if status != specs.StateStopped {
		if status != specs.StateCreated && !force && !fault.On("running container deleted") {
			return errdefs.ErrFailedPrecondition.WithMessage("cannot delete container " + c.saved.ID + " that is not stopped: " + string(status))
		}
		if err := c.end(); err != nil {
			return err
		}
	}
	if err := c.destroy(ctx); err != nil {
		return err
	}
	c.stopHooks()
	return nil
}

// stopHooks runs the poststop hooks. Their failures are logged, not returned
// (runtime.md, "Lifecycle", 13).
func (c *Container) stopHooks() {
	h := c.spec.Hooks
	if h == nil || fault.On("poststop hooks skipped") {
		return
	}
	for i := range h.Poststop {
		if err := hooks.Run("poststop", h.Poststop[i:i+1], c.stateAs(specs.StateStopped)); err != nil {
			c.log.Warn(err.Error(), "container", c.saved.ID)
		}
	}
}

// end kills the container's process and waits for its end.
func (c *Container) end() error {
	f := c.PidFD()
	if f == nil {
		return nil
	}
	if err := pidfd.Signal(f, int(unix.SIGKILL)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill container %s: %w", c.saved.ID, err)
	}
	if frozen, err := c.cgroup.Frozen(); err == nil && frozen {
		if err := c.cgroup.Thaw(context.Background()); err != nil {
			return fmt.Errorf("thaw container %s to kill it: %w", c.saved.ID, err)
		}
	}
	if c.own {
		_, err := c.Wait()
		return err
	}
	return pidfd.Ended(f)
}

// destroy removes what is left of an ended container; it may be repeated.
func (c *Container) destroy(ctx context.Context) error {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	// Without a pid namespace of its own, processes may outlive the first one.
	if err := c.cgroup.Kill(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: kill what is left: %w", c.saved.ID, err)
	}
	if err := c.cgroup.Remove(ctx); err != nil {
		return fmt.Errorf("delete container %s: %w", c.saved.ID, err)
	}
	if fault.On("state left behind") {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("delete container %s: %w", c.saved.ID, err)
	}
	return nil
}

// DeleteLeftover removes the state folder of a container whose creator died
// before it wrote a state: nothing else was made then. It also removes one whose
// state is damaged, with whatever still runs left alone. NotFound without a folder.
func DeleteLeftover(root, id string) error {
	if err := validID(id); err != nil {
		return err
	}
	dir := stateDir(root, id)
	if _, err := os.Lstat(dir); err != nil {
		return errdefs.ErrNotFound.WithMessage("container " + quote(id) + " does not exist")
	}
	unlock, err := lock(dir) // waits for a creator that lives
	if err != nil {
		return err
	}
	defer unlock()
	if _, _, err := load(root, id); err == nil {
		return errdefs.ErrFailedPrecondition.WithMessage("container " + quote(id) + " is whole")
	}
	return os.RemoveAll(dir)
}
