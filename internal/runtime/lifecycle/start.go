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
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/hooks"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

// Start runs the process of a created container. From the process that created
// it, it returns after execve or with a *StartError; from any other one, when
// init has been told. FailedPrecondition when the container is not created.
func (c *Container) Start(ctx context.Context) error {
	unlock, err := lock(c.dir)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := c.currentStatus()
	if err != nil {
		return err
	}
	switch status {
	case specs.StateCreated:
	case specs.StateRunning:
		return errdefs.ErrFailedPrecondition.WithMessage("cannot start an already running container")
	case specs.StateStopped:
		return errdefs.ErrFailedPrecondition.WithMessage("cannot start a container that has stopped")
	default:
		return errdefs.ErrFailedPrecondition.WithMessage("cannot start a container in the " + string(status) + " state")
	}
	if c.spec.Process == nil {
		return errdefs.ErrInvalidArgument.WithMessage("configuration has no process to start")
	}
	if err := c.openGate(); err != nil {
		return err
	}
	c.mu.Lock()
	conv, held := c.pending, c.held
	c.pending, c.held = nil, nil
	c.mu.Unlock()
	if held != nil {
		stop := context.AfterFunc(ctx, func() { _ = c.signal(int(unix.SIGKILL)) })
		err := held.Executed()
		if !stop() && err != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return lateError(err)
		}
	}
	if conv != nil {
		defer conv.close()
		stop := context.AfterFunc(ctx, func() { _ = c.signal(int(unix.SIGKILL)) })
		defer stop()
		err := conv.listen(initproc.Ready, answers{log: c.log})
		if errors.Is(err, errGone) {
			return &StartError{Code: 128, Err: errors.New("container's init ended before the application")}
		}
		if err != nil {
			return err
		}
	}
	if h := c.spec.Hooks; h != nil && len(h.Poststart) > 0 && !fault.On("poststart hooks skipped") {
		if err := hooks.Run("poststart", h.Poststart, c.stateAs(specs.StateRunning)); err != nil {
			// The container is stopped and destroyed (runtime.md, "Lifecycle", 9).
			err = errors.Join(err, c.end(), c.destroy(ctx))
			c.stopHooks()
			return err
		}
	}
	return nil
}

// lateError is why an init without a stage did not become the application.
func lateError(err error) error {
	var step *process.StepError
	if errors.As(err, &step) {
		return &StartError{Code: initproc.ExecCode(step.Errno), Err: err}
	}
	return &StartError{Code: 128, Err: fmt.Errorf("container's init ended before the application: %w", err)}
}

// openGate tells init to go on and removes the mark of the state "created".
func (c *Container) openGate() error {
	fd, err := unix.Open(c.gate(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENXIO) {
		return errdefs.ErrFailedPrecondition.WithMessage("cannot start a container that has stopped")
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.saved.ID, err)
	}
	defer unix.Close(fd)
	if err := os.Remove(c.gate()); err != nil {
		return fmt.Errorf("start container %s: %w", c.saved.ID, err)
	}
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return fmt.Errorf("start container %s: %w", c.saved.ID, err)
	}
	return nil
}

// signal sends sig to the container's process.
func (c *Container) signal(sig int) error {
	c.mu.Lock()
	f := c.pidfd
	c.mu.Unlock()
	if f == nil {
		return unix.ESRCH
	}
	return pidfd.Signal(f, sig)
}
