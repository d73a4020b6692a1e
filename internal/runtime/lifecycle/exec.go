package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

// Exec runs a further process in a running container and returns after its
// execve. FailedPrecondition when the container is stopped or paused,
// InvalidArgument for a process that makes no sense, *StartError when it could
// not be run.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (_ *Process, err error) {
	if o.Process == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("no process")
	}
	if err := bundle.ValidateProcess(o.Process); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	status, err := c.currentStatus()
	if err != nil {
		return nil, err
	}
	switch {
	case status == specs.StateStopped:
		return nil, errdefs.ErrFailedPrecondition.WithMessage("cannot exec in a stopped container")
	case status == StatePaused && !o.IgnorePaused && !fault.On("paused container entered"):
		return nil, errdefs.ErrFailedPrecondition.WithMessage("cannot exec in a paused container (use --ignore-paused to override)")
	}
	x := &execution{ExecOptions: o, c: c}
	defer x.release()
	if status == specs.StateRunning {
		if err := x.direct(ctx); err == nil {
			return x.process(), nil
		} else if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		x.release() // what the attempt had opened is nothing for a stage
	}
	for _, step := range []func(context.Context) error{x.start, x.configure, x.talk, x.finish} {
		if err := step(ctx); err != nil {
			x.kill()
			return nil, err
		}
	}
	return x.process(), nil
}

func (x *execution) process() *Process {
	return &Process{pid: x.proc.Pid, start: x.startTime, pidfd: x.proc.PidFD, console: x.console, cgroup: x.sub}
}

// execution is an Exec under way.
type execution struct {
	ExecOptions
	c         *Container
	proc      *process.Process
	conv      *conversation
	console   *os.File
	join      []*os.File
	sub       cgroup.Manager
	startTime uint64
	closes    []func()
}

func (x *execution) closeLater(f *os.File) { x.closes = append(x.closes, func() { _ = f.Close() }) }

func (x *execution) release() {
	for _, f := range x.closes {
		f()
	}
	x.closes = nil
}

func (x *execution) kill() {
	if x.console != nil {
		_ = x.console.Close()
	}
	if x.proc != nil {
		_ = pidfd.Signal(x.proc.PidFD, int(unix.SIGKILL))
		_, _ = pidfd.Wait(x.proc.PidFD)
		_ = x.proc.PidFD.Close()
	}
	if x.sub != nil {
		ctx, cancel := cleanupContext(context.Background())
		defer cancel()
		_ = x.sub.Remove(ctx)
	}
}

func (x *execution) start(ctx context.Context) error {
	c := x.c
	// The child shares our memory until its execve, and from its clone on it
	// is in the container's namespaces (CVE-2016-9962).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	exe := x.Executable
	if exe == nil {
		exe = c.exe
	}
	if exe == nil {
		var err error
		if exe, err = process.SealSelf(); err != nil {
			return err
		}
		x.closeLater(exe)
	}
	target := c.PidFD()
	if target == nil {
		return errdefs.ErrFailedPrecondition.WithMessage("cannot exec in a stopped container")
	}
	cmd := &process.Command{Exe: exe, Args: []string{"orlop-runtime", initproc.Arg}, Env: stageEnv(c.spec)}
	x.namespaces(cmd, target)
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	x.conv = ours
	x.closes = append(x.closes, ours.close)
	defer theirs.Close()
	if cmd.Files, err = stdio(x.Process.Terminal, x.Stdin, x.Stdout, x.Stderr, x.closeLater); err != nil {
		return err
	}
	cmd.Files = append(cmd.Files, x.ExtraFiles...)
	cmd.Args = append(cmd.Args, strconv.Itoa(len(cmd.Files)))
	cmd.Files = append(cmd.Files, theirs)
	if err := x.group(ctx, cmd); err != nil {
		return err
	}
	if defense.Dropped(defense.HostDescriptors) {
		_, _ = unix.Open("/sys/fs/cgroup", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	x.proc, err = cmd.Start()
	if errors.Is(err, unix.EBUSY) && cmd.Cgroup != nil {
		// The container made groups below its own, which may then hold no
		// process: go where its first process is.
		if cmd.Cgroup, err = c.groupOfInit(); err != nil {
			return err
		}
		x.closeLater(cmd.Cgroup)
		x.proc, err = cmd.Start()
	}
	if err != nil {
		return c.startError(err)
	}
	return nil
}

// namespaces joins those of the container.
func (x *execution) namespaces(cmd *process.Command, target *os.File) {
	var flags uintptr
	for _, ns := range x.c.spec.Linux.Namespaces {
		flag, _ := bundle.CloneFlag(ns.Type)
		flags |= flag
		cmd.RootInUser = cmd.RootInUser || ns.Type == specs.UserNamespace
	}
	cmd.Join = []process.Join{{NS: target, Type: flags}}
}

// startError is what a failed start means: when the container ended meanwhile,
// there was nothing to join.
func (c *Container) startError(err error) error {
	if status, serr := c.currentStatus(); serr == nil && status == specs.StateStopped || errors.Is(err, unix.ESRCH) {
		return errdefs.ErrFailedPrecondition.WithMessage("cannot exec in a stopped container")
	}
	return &StartError{Code: 128, Err: err}
}

// group finds where the process belongs: a folder to be born in (v2), or files
// for the stage to write to (v1).
func (x *execution) group(ctx context.Context, cmd *process.Command) error {
	g := x.c.cgroup
	if x.Cgroup != "" {
		g = g.Sub(x.Cgroup)
		if err := g.Create(ctx, nil); err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		x.sub = g
	}
	dir, err := g.DirFD()
	if err != nil {
		return fmt.Errorf("exec: open cgroup: %w", err)
	}
	if x.join, err = g.JoinFiles(); err != nil {
		return fmt.Errorf("exec: open cgroup: %w", err)
	}
	for _, f := range x.join {
		x.closeLater(f)
	}
	// On a hybrid host the v1 groups count: the v2 side may hold no process.
	if dir != nil {
		x.closeLater(dir)
		if len(x.join) == 0 {
			cmd.Cgroup = dir
		}
	}
	return nil
}

func (x *execution) configure(context.Context) error {
	if st, err := pidfd.ReadStat(x.proc.Pid); err == nil {
		x.startTime = st.Start
	}
	config, err := x.config()
	if err != nil {
		return err
	}
	if err := parentLimits(x.proc.Pid, config.Process, config.UserNS, x.Logger); err != nil {
		return err
	}
	spoil(config)
	if fault.On("exec outside of the cgroup") {
		x.join = nil
	}
	conn, msg, err := agent(x.c.spec.Linux.Seccomp, x.proc.Pid, x.c.stateAs(specs.StateRunning))
	if err != nil {
		return err
	}
	if conn != nil {
		x.closeLater(conn)
		x.join, config.Agent = append(x.join, conn), msg
	}
	fds := make([]int, len(x.join))
	for i, f := range x.join {
		fds[i] = int(f.Fd())
	}
	body, err := config.Encode()
	if err != nil {
		return err
	}
	if err := x.conv.conn.Send(initproc.Configure, body, fds...); err != nil {
		return x.died(err)
	}
	if conn != nil {
		_ = conn.Close() // the agent waits for the end of what it is sent
	}
	return nil
}

// config is what the process has to become.
func (x *execution) config() (*initproc.Config, error) {
	c, p := x.c, *x.Process
	own := c.spec.Process
	if own != nil {
		if p.Capabilities == nil {
			p.Capabilities = own.Capabilities
		}
		if p.ApparmorProfile == "" {
			p.ApparmorProfile = own.ApparmorProfile
		}
		if p.SelinuxLabel == "" {
			p.SelinuxLabel = own.SelinuxLabel
		}
		if len(p.Rlimits) == 0 {
			p.Rlimits = own.Rlimits
		}
		if p.OOMScoreAdj == nil {
			p.OOMScoreAdj = own.OOMScoreAdj
		}
	}
	user, _ := bundle.Namespace(c.spec, specs.UserNamespace)
	config := &initproc.Config{
		Exec: true, ID: c.saved.ID, Process: &p, Extra: len(x.ExtraFiles), Root: -1, Gate: -1, NoNewKeyring: x.NoNewKeyring,
		UserNS: user, DenySetgroups: user && os.Geteuid() != 0,
		Rare: initproc.Rare{
			// Personality and memory policy are the container's.
			Personality: c.spec.Linux.Personality, MemoryPolicy: c.spec.Linux.MemoryPolicy,
			Scheduler: p.Scheduler, IOPriority: p.IOPriority, ExecCPUAffinity: p.ExecCPUAffinity,
		},
	}
	var err error
	config.Seccomp, err = c.filter()
	return config, err
}

// filter is the container's compiled seccomp profile, nil when it has none.
func (c *Container) filter() ([]byte, error) {
	if c.spec.Linux.Seccomp == nil || c.seccomp != nil {
		return c.seccomp, nil
	}
	if b, err := os.ReadFile(filepath.Join(c.dir, filterFile)); err == nil && len(b) > 0 {
		return b, nil
	}
	return compile(c.spec.Linux.Seccomp)
}

func (x *execution) talk(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Signal(x.proc.PidFD, int(unix.SIGKILL)) })
	err := x.conv.listen(initproc.Ready, answers{
		log:     x.Logger,
		console: x.ConsoleSocket,
		gotTerm: func(f *os.File) { x.console = f },
	})
	if !stop() && ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errGone) {
		return x.died(err)
	}
	return err
}

func (x *execution) died(cause error) error {
	if err := x.proc.Started(); err != nil {
		x.proc = nil // reaped
		return x.c.startError(err)
	}
	return &StartError{Code: 128, Err: fmt.Errorf("the process ended before its program ran: %w", cause)}
}

func (x *execution) finish(context.Context) error {
	if err := x.proc.Started(); err != nil {
		x.proc = nil
		return &StartError{Code: 128, Err: err}
	}
	if x.PidFile != "" {
		return writePidFile(x.PidFile, x.proc.Pid)
	}
	return nil
}

// groupOfInit opens the v2 folder that the container's first process is in.
func (c *Container) groupOfInit() (*os.File, error) {
	body, err := os.ReadFile("/proc/" + strconv.Itoa(c.saved.Pid) + "/cgroup")
	if err != nil {
		return nil, fmt.Errorf("exec: cgroup of init: %w", err)
	}
	path, ok := v2Path(string(body))
	if !ok {
		return nil, errors.New("exec: init is in no cgroup of version 2")
	}
	f, err := os.OpenFile("/sys/fs/cgroup"+path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("exec: cgroup of init: %w", err)
	}
	return f, nil
}

// Pid is the process's pid in the host's namespace.
func (p *Process) Pid() int { return p.pid }

// StartTime is field 22 of /proc/<pid>/stat.
func (p *Process) StartTime() uint64 { return p.start }

// Console is the pty's master of a process with a terminal, else nil; closed by Close.
func (p *Process) Console() *os.File { return p.console }

// PidFD is the process's pidfd; it stays p's.
func (p *Process) PidFD() *os.File { return p.pidfd }

// Wait returns how the process ended, when it has; every call the same.
func (p *Process) Wait() (Status, error) {
	p.waiting.Do(func() {
		p.status, p.waitErr = waitStatus(p.pidfd)
		if p.cgroup != nil {
			ctx, cancel := cleanupContext(context.Background())
			defer cancel()
			_ = p.cgroup.Remove(ctx)
		}
	})
	return p.status, p.waitErr
}

// Signal sends a signal; FailedPrecondition when the process has ended.
func (p *Process) Signal(sig int) error {
	if err := pidfd.Signal(p.pidfd, sig); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errdefs.ErrFailedPrecondition.WithMessage("process not running")
		}
		return fmt.Errorf("send signal %d to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// Close releases the descriptors of p; the process goes on.
func (p *Process) Close() error {
	var errs []error
	if p.console != nil {
		errs = append(errs, p.console.Close())
	}
	return errors.Join(append(errs, p.pidfd.Close())...)
}
