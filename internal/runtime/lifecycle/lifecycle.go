// Package lifecycle creates, starts, watches, changes and removes containers:
// one file per verb. The entry points are Create and Open.
//
// Whether a container is created, running, paused or stopped is derived from
// the kernel (pid, start time, freezer) and from the gate in its state folder;
// only what cannot be derived is written down, in <root>/<id>/state.json, which
// is replaced as a whole.
//
// A Container may be used by several goroutines. Verbs that change it hold the
// flock of <root>/<id>/lock, which other processes take too; Container.mu
// guards only fields and is never held over a system call that waits.
package lifecycle

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

// Container is one container, made by Create or found by Open.
type Container struct {
	saved  saved
	spec   *specs.Spec
	root   string
	dir    string
	log    *slog.Logger
	cgroup cgroup.Manager
	// own says that the process is our child.
	own     bool
	exe     *os.File // of Options
	seccomp []byte   // compiled filter, for exec

	mu sync.Mutex
	// pidfd is nil when the process is gone.
	pidfd   *os.File
	console *os.File
	// holds keeps the mount namespace in being until Close, so that tearing
	// it down does not delay the report of the exit.
	holds *os.File
	// pending is the conversation with an init that waits for Start.
	pending *conversation
	// held is that init when it has no stage.
	held    *process.Process
	waiting sync.Once
	status  Status
	waitErr error
}

// Process is a process started by Exec.
type Process struct {
	pid     int
	start   uint64
	pidfd   *os.File
	console *os.File
	cgroup  cgroup.Manager // to remove, or nil

	waiting sync.Once
	status  Status
	waitErr error
}

// conversation is the parent's end of the socket to a stage.
type conversation struct {
	conn *initproc.Conn
	fd   int
}

// ID returns the container's name below its root.
func (c *Container) ID() string { return c.saved.ID }

// Pid is the process's pid in the host's namespace, also after its end.
func (c *Container) Pid() int { return c.saved.Pid }

// StartTime is field 22 of /proc/<pid>/stat: with Pid it names the process.
func (c *Container) StartTime() uint64 { return c.saved.PidStart }

// Spec is the configuration; not to be changed.
func (c *Container) Spec() *specs.Spec { return c.spec }

// Bundle is the folder it was made from.
func (c *Container) Bundle() string { return c.saved.Bundle }

// Cgroup is the container's control group.
func (c *Container) Cgroup() cgroup.Manager { return c.cgroup }

// Console is the pty's master of a container with a terminal whose
// ConsoleSocket was empty, else nil. It is closed by Close.
func (c *Container) Console() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.console
}

// PidFD is the pidfd of the container's process, nil when that was gone already
// when the container was opened. It stays c's.
func (c *Container) PidFD() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pidfd
}

// Open finds a container by its id below root. ErrNotFound: `container "x"
// does not exist`; ErrDataLoss: its state is damaged.
func Open(root, id string) (*Container, error) {
	s, spec, err := load(root, id)
	if err != nil {
		return nil, err
	}
	c := &Container{saved: *s, spec: spec, root: root, dir: stateDir(root, id), log: slog.New(slog.DiscardHandler)}
	if c.cgroup, err = cgroup.New(cgroup.Config{Path: s.CgroupPath, Systemd: s.SystemdCgroup}); err != nil {
		return nil, fmt.Errorf("open container %s: %w", id, err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if s.Pid <= 0 || s.BootID != boot {
		return c, nil
	}
	// First the descriptor, then the check: the pid cannot change hands between.
	f, err := pidfd.Open(s.Pid)
	if err != nil {
		return c, nil
	}
	if st, err := pidfd.ReadStat(s.Pid); err != nil || st.Start != s.PidStart {
		_ = f.Close()
		return c, nil
	}
	c.pidfd = f
	return c, nil
}

// gate is the path of the fifo that an init waits at.
func (c *Container) gate() string { return filepath.Join(c.dir, gateFile) }

// status derives the container's state from the kernel.
func (c *Container) currentStatus() (specs.ContainerState, error) {
	c.mu.Lock()
	fd := c.pidfd
	c.mu.Unlock()
	if fd == nil {
		return specs.StateStopped, nil
	}
	ended, err := pidfd.HasEnded(fd)
	if err != nil {
		return "", fmt.Errorf("state of container %s: %w", c.saved.ID, err)
	}
	if ended {
		return specs.StateStopped, nil
	}
	if frozen, err := c.cgroup.Frozen(); err == nil && frozen {
		return StatePaused, nil
	}
	if _, err := os.Lstat(c.gate()); err == nil {
		return specs.StateCreated, nil
	}
	return specs.StateRunning, nil
}

// StatePaused is a state beside those of the specification, which allows it.
const StatePaused specs.ContainerState = "paused"

// Status is the container's state: creating, created, running, paused or stopped.
func (c *Container) Status() (specs.ContainerState, error) { return c.currentStatus() }

// State is the state in the form of the specification (runtime.md, "State").
func (c *Container) State() (*specs.State, error) {
	status, err := c.currentStatus()
	if err != nil {
		return nil, err
	}
	return c.stateAs(status), nil
}

func (c *Container) stateAs(status specs.ContainerState) *specs.State {
	s := &specs.State{
		Version: specs.Version, ID: c.saved.ID, Status: status, Pid: c.saved.Pid, Bundle: c.saved.Bundle,
		Annotations: c.spec.Annotations,
	}
	if fault.On("annotations lost") {
		s.Annotations = nil
	}
	if status == specs.StateStopped && !fault.On("pid of a stopped container") {
		s.Pid = 0
	}
	return s
}

// Close releases the descriptors of c. The container goes on.
func (c *Container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range []**os.File{&c.pidfd, &c.console, &c.holds} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	if c.pending != nil {
		c.pending.close()
		c.pending = nil
	}
	if c.held != nil {
		c.held.Leave()
		c.held = nil
	}
	return errors.Join(errs...)
}
