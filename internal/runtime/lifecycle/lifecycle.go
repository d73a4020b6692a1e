// Package lifecycle creates, starts, watches, changes and removes containers:
// one file per verb. The entry points are Create and Open.
//
// Whether a container is created, running, paused or stopped is derived from
// the kernel (pid, start time, freezer) and from the gate in its state folder;
// only what cannot be derived is written down (package state file
// <root>/<id>/state.json, atomically replaced).
//
// A Container may be used by several goroutines. Verbs that change it take
// the lock file of its state folder, shared with other processes; no other
// lock is held meanwhile.
package lifecycle

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Container is one container, made by Create or found by Open.
type Container struct {
	id      string
	console *os.File
	pid     int
}

// Process is a process started by Exec.
type Process struct {
	pid     int
	console *os.File
}

func Create(ctx context.Context, o Options) (*Container, error) {
	return nil, errdefs.ErrNotImplemented
}

// Open finds a container by its id below root. ErrNotFound:
// `container "x" does not exist`.
func Open(root, id string) (*Container, error) { return nil, errdefs.ErrNotImplemented }

// List returns the ids below root, sorted.
func List(root string) ([]string, error) { return nil, errdefs.ErrNotImplemented }

func (c *Container) ID() string        { return c.id }
func (c *Container) Pid() int          { return c.pid }
func (c *Container) Console() *os.File { return c.console }

// StartTime is field 22 of /proc/<pid>/stat of the container's process.
func (c *Container) StartTime() uint64               { return 0 }
func (c *Container) Start(ctx context.Context) error { return errdefs.ErrNotImplemented }

// Wait returns when the container's process ended. Only the process that
// created it learns the status.
func (c *Container) Wait() (Status, error)                        { return Status{}, errdefs.ErrNotImplemented }
func (c *Container) State() (*specs.State, error)                 { return nil, errdefs.ErrNotImplemented }
func (c *Container) Kill(sig int, all bool) error                 { return errdefs.ErrNotImplemented }
func (c *Container) Pause(ctx context.Context) error              { return errdefs.ErrNotImplemented }
func (c *Container) Resume(ctx context.Context) error             { return errdefs.ErrNotImplemented }
func (c *Container) Pids() ([]int, error)                         { return nil, errdefs.ErrNotImplemented }
func (c *Container) Delete(ctx context.Context, force bool) error { return errdefs.ErrNotImplemented }
func (c *Container) Update(ctx context.Context, r *specs.LinuxResources) error {
	return errdefs.ErrNotImplemented
}
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	return nil, errdefs.ErrNotImplemented
}

// Close releases the descriptors of c (pidfd, namespaces, console). The
// container goes on.
func (c *Container) Close() error { return nil }

func (p *Process) Pid() int              { return p.pid }
func (p *Process) Console() *os.File     { return p.console }
func (p *Process) Wait() (Status, error) { return Status{}, errdefs.ErrNotImplemented }
func (p *Process) Signal(sig int) error  { return errdefs.ErrNotImplemented }
func (p *Process) Close() error          { return nil }
