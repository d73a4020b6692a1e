package monitorside

import (
	"context"
	"fmt"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// reopened is a container of our runtime that this process started before it
// became another program. What lifecycle knows of it is read only when it is
// needed.
type reopened struct {
	group
	id, root string
	pid      int
	start    uint64
	pidfd    *os.File
	// mounts keeps the mount namespace in being, so that tearing it down does
	// not delay the report of the exit.
	mounts *os.File

	mu sync.Mutex
	c  *lifecycle.Container
}

// reopen finds the container again. Its process is still a child of ours that
// nobody has waited for, so the pid cannot be another's.
func reopen(s *settledState) (*reopened, error) {
	f, err := pidfd.Open(s.Pid)
	if err != nil {
		return nil, err
	}
	r := &reopened{
		group: group{cgroup.Config{Path: s.Cgroup, Systemd: s.Systemd}},
		id:    s.ID, root: stateRoot(s.Dir), pid: s.Pid, start: s.Started.StartTime, pidfd: f,
	}
	// It fails when the process has ended, and does no harm then.
	r.mounts, _ = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.Pid))
	return r, nil
}

// container reads what lifecycle has recorded.
func (r *reopened) container() (*lifecycle.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		return r.c, nil
	}
	var err error
	r.c, err = lifecycle.Open(r.root, r.id)
	return r.c, err
}

func (r *reopened) Pid() int          { return r.pid }
func (r *reopened) StartTime() uint64 { return r.start }
func (r *reopened) Console() *os.File { return nil }

func (r *reopened) Ended() error { return pidfd.Ended(r.pidfd) }

func (r *reopened) Wait() (int, error) {
	ws, err := pidfd.Wait(r.pidfd)
	if err != nil {
		return 0, err
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (r *reopened) Signal(sig int) error {
	if err := pidfd.Signal(r.pidfd, sig); err != nil {
		return err
	}
	if sig == int(unix.SIGKILL) {
		return r.thaw(context.Background())
	}
	return nil
}

func (r *reopened) Pause(ctx context.Context) error {
	c, err := r.container()
	if err != nil {
		return err
	}
	return c.Pause(ctx)
}

func (r *reopened) Resume(ctx context.Context) error {
	c, err := r.container()
	if err != nil {
		return err
	}
	return c.Resume(ctx)
}

func (r *reopened) Update(ctx context.Context, resources *specs.LinuxResources) error {
	c, err := r.container()
	if err != nil {
		return err
	}
	return c.Update(ctx, resources)
}

func (r *reopened) Exec(ctx context.Context, x *execution, s stdio) (process, error) {
	c, err := r.container()
	if err != nil {
		return nil, err
	}
	return execIn(ctx, c, x, s)
}

func (r *reopened) Delete(ctx context.Context) error {
	if r.mounts != nil {
		r.mounts.Close()
	}
	c, err := r.container()
	if err != nil {
		return err
	}
	return c.Delete(ctx, true)
}

func (r *reopened) Close() error { return r.pidfd.Close() }

// Remember: it may be done again.
func (r *reopened) Remember(s *settledState) bool {
	s.Cgroup, s.Systemd = r.cfg.Path, r.cfg.Systemd
	return true
}
