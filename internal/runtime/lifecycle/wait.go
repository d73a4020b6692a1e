package lifecycle

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/runtime/fault"
)

// Wait returns how the container's process ended, when it has. Every call gets
// the same answer. Only the process that created the container learns the
// status; any other one gets FailedPrecondition after the end.
func (c *Container) Wait() (Status, error) {
	c.waiting.Do(func() {
		f := c.PidFD()
		if f == nil {
			c.waitErr = errdefs.ErrFailedPrecondition.WithMessage("container " + c.saved.ID + " is not running")
			return
		}
		if !c.own {
			if c.waitErr = pidfd.Ended(f); c.waitErr == nil {
				c.waitErr = errdefs.ErrFailedPrecondition.WithMessage("container " + c.saved.ID + " is the child of another process")
			}
			return
		}
		c.status, c.waitErr = waitStatus(f)
	})
	return c.status, c.waitErr
}

func waitStatus(f *os.File) (Status, error) {
	ws, err := pidfd.Wait(f)
	if err != nil {
		return Status{}, err
	}
	return statusOf(ws), nil
}

// describe is a status in words.
func describe(s Status) string {
	if s.Signal != 0 {
		return "killed by " + unix.SignalName(unix.Signal(s.Signal))
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

func statusOf(ws unix.WaitStatus) Status {
	if fault.On("exit status lost") {
		return Status{}
	}
	if ws.Signaled() && fault.On("signal without 128") {
		return Status{Code: int(ws.Signal())}
	}
	if ws.Signaled() {
		return Status{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal()), CoreDumped: ws.CoreDump()}
	}
	return Status{Code: ws.ExitStatus()}
}
