package monitorside

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/cgroup"
)

// group is a container's cgroup, for runners that know nothing else of it.
type group struct{ cfg cgroup.Config }

func groupOf(l *launch) group {
	g := group{cgroup.Config{Systemd: l.SystemdCgroup}}
	if l.Spec.Linux != nil {
		g.cfg.Path = l.Spec.Linux.CgroupsPath
	}
	return g
}

func (g group) OOM() (uint64, error) {
	m, err := cgroup.New(g.cfg)
	if err != nil {
		return 0, err
	}
	return m.OOM()
}

func (g group) OOMEvents(ctx context.Context) (<-chan struct{}, error) {
	m, err := cgroup.New(g.cfg)
	if err != nil {
		return nil, err
	}
	return m.OOMEvents(ctx)
}

func (g group) SignalAll(sig int) error {
	m, err := cgroup.New(g.cfg)
	if err != nil {
		return err
	}
	if sig == int(unix.SIGKILL) {
		return m.Kill(context.Background())
	}
	pids, err := m.Pids()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.Signal(sig)); err != nil && err != unix.ESRCH {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// thaw lets the processes run: a frozen one on v1 does not even die.
func (g group) thaw(ctx context.Context) error {
	m, err := cgroup.New(g.cfg)
	if err != nil {
		return err
	}
	if frozen, err := m.Frozen(); err != nil || !frozen {
		return err
	}
	return m.Thaw(ctx)
}

// remove kills what is left and removes the group.
func (g group) remove(ctx context.Context) error {
	m, err := cgroup.New(g.cfg)
	if err != nil {
		return err
	}
	if err := m.Kill(ctx); err != nil {
		return err
	}
	return m.Remove(ctx)
}
