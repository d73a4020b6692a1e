package monitorside

import (
	"context"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// startContainer runs a container with our own runtime, or a foreign one.
func startContainer(ctx context.Context, l *launch, s stdio) (runner, error) {
	if l.Runtime != "" {
		return startForeign(ctx, l, s)
	}
	c, err := lifecycle.Create(ctx, lifecycle.Options{
		ID:     l.ID,
		Bundle: l.RunDir,
		// The state folder is the monitor's own; the run folder is not.
		Root:          stateRoot(l.RunDir),
		Spec:          l.Spec,
		Config:        l.config,
		Rootfs:        overlay(l.Rootfs),
		NetNS:         l.netNS,
		Stdin:         s.in,
		Stdout:        s.out,
		Stderr:        s.err,
		SystemdCgroup: l.SystemdCgroup,
		StartNow:      true,
	})
	if err != nil {
		return nil, err
	}
	g := groupOf(l)
	return &ownContainer{Container: c, cgroup: g.cfg.Path, systemd: g.cfg.Systemd}, nil
}

func stateRoot(runDir string) string { return filepath.Join(runDir, "runtime") }

func overlay(r *protocol.Rootfs) *rootfs.Overlay {
	if r == nil {
		return nil
	}
	return &rootfs.Overlay{
		Lower: r.Lower, Upper: r.Upper, Work: r.Work, Volatile: r.Volatile,
		UIDs: mappings(r.UIDs), GIDs: mappings(r.GIDs),
	}
}

func mappings(list []protocol.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping(m))
	}
	return out
}

// ownContainer is a container of our runtime.
type ownContainer struct {
	*lifecycle.Container
	cgroup  string
	systemd bool
}

func (c *ownContainer) OOM() (uint64, error) { return c.Cgroup().OOM() }

func (c *ownContainer) OOMEvents(ctx context.Context) (<-chan struct{}, error) {
	return c.Cgroup().OOMEvents(ctx)
}

func (c *ownContainer) Ended() error {
	f := c.PidFD()
	if f == nil {
		return nil
	}
	return pidfd.Ended(f)
}

func (c *ownContainer) Wait() (int, error) {
	s, err := c.Container.Wait()
	return s.Code, err
}

func (c *ownContainer) Signal(sig int) error    { return c.Kill(sig, false) }
func (c *ownContainer) SignalAll(sig int) error { return c.Kill(sig, true) }

func (c *ownContainer) Delete(ctx context.Context) error {
	return c.Container.Delete(ctx, true)
}

// Remember keeps what reopen needs.
func (c *ownContainer) Remember(s *settledState) bool {
	s.Cgroup, s.Systemd = c.cgroup, c.systemd
	return true
}

func (c *ownContainer) Exec(ctx context.Context, x *execution, s stdio) (process, error) {
	return execIn(ctx, c.Container, x, s)
}

func execIn(ctx context.Context, c *lifecycle.Container, x *execution, s stdio) (process, error) {
	p, err := c.Exec(ctx, lifecycle.ExecOptions{Process: x.Process, Stdin: s.in, Stdout: s.out, Stderr: s.err})
	if err != nil {
		return nil, err
	}
	return ownProcess{p}, nil
}

// ownProcess is an exec of our runtime.
type ownProcess struct{ *lifecycle.Process }

func (p ownProcess) Wait() (int, error) {
	s, err := p.Process.Wait()
	return s.Code, err
}

// StartTime of an exec is of no use to anybody yet.
func (p ownProcess) StartTime() uint64 { return 0 }

var (
	_ runner  = (*ownContainer)(nil)
	_ runner  = (*reopened)(nil)
	_ runner  = (*foreign)(nil)
	_ process = ownProcess{}
)
