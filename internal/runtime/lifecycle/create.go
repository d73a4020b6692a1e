package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/rlimit"
	"github.com/orlop/orlop/internal/linux/seccomp"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/hooks"
	"github.com/orlop/orlop/internal/runtime/initproc"
	"github.com/orlop/orlop/internal/runtime/quickstart"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// Create makes a container. Its process waits for Start, or runs already when
// o.StartNow. What fails before leaves nothing behind.
//
// Errors: InvalidArgument for a configuration that makes no sense,
// AlreadyExists for an id that is taken, *StartError when the process could
// not be run.
func Create(ctx context.Context, o Options) (_ *Container, err error) {
	if err := validID(o.ID); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", o.ID, err)
	}
	o.Bundle = dir
	if o.Spec == nil {
		if o.Spec, o.Config, err = bundle.Read(o.Bundle); err != nil {
			return nil, err
		}
	}
	if err := bundle.Validate(o.Spec, o.Rootfs != nil); err != nil {
		return nil, err
	}
	if o.StartNow && o.Spec.Process == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("configuration has no process to start")
	}
	plan, err := rootfs.NewPlan(o.Spec, o.Bundle)
	if err != nil {
		return nil, err
	}
	if o.Rootfs == nil {
		if st, err := os.Stat(rootfs.HostPath(o.Spec, o.Bundle)); err != nil || !st.IsDir() {
			return nil, errdefs.ErrInvalidArgument.WithMessage("rootfs (" + rootfs.HostPath(o.Spec, o.Bundle) + ") does not exist or is no directory")
		}
	}
	k := &creation{Options: o, plan: plan}
	defer func() {
		if err != nil && !fault.On("failure not undone") {
			k.undo()
		}
	}()
	for _, step := range []func(context.Context) error{k.folder, k.group, k.process, k.finish} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	k.release()
	return k.c, nil
}

// creation is a Create under way: a list of steps, and a stack of undos.
type creation struct {
	Options
	c    *Container
	proc *process.Process
	conv *conversation
	gate *os.File // see openGate
	// refused is why there is no control group: a stage cannot help then.
	refused error
	plan    rootfs.Plan
	config  initproc.Config
	user    bool // a user namespace of its own, new or joined
	v2      bool
	undos   []func()
	closes  []func()
}

// undo takes back what was done, last first.
func (k *creation) undo() {
	k.release()
	for i := len(k.undos) - 1; i >= 0; i-- {
		k.undos[i]()
	}
}

// release closes what only the creation needed.
func (k *creation) release() {
	for i := len(k.closes) - 1; i >= 0; i-- {
		k.closes[i]()
	}
	k.closes = nil
}

func (k *creation) closeLater(f *os.File) { k.closes = append(k.closes, func() { _ = f.Close() }) }

// folder makes the state folder, which reserves the id, and holds its lock.
func (k *creation) folder(context.Context) error {
	if err := os.MkdirAll(k.Root, 0o700); err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	c := &Container{spec: k.Spec, root: k.Root, dir: stateDir(k.Root, k.ID), log: k.Logger, own: true, saved: saved{
		Schema: stateSchema, ID: k.ID, Bundle: k.Bundle, Created: time.Now().UTC(), Owner: os.Geteuid(), BootID: boot,
		CgroupPath: k.Spec.Linux.CgroupsPath, SystemdCgroup: k.SystemdCgroup,
	}}
	if k.Rootfs == nil {
		c.saved.Rootfs = rootfs.HostPath(k.Spec, k.Bundle)
	}
	if c.saved.CgroupPath == "" {
		c.saved.CgroupPath = k.ID
		if k.SystemdCgroup {
			c.saved.CgroupPath = ":orlop:" + k.ID
		}
	}
	if fault.On("id taken twice") {
		_ = os.RemoveAll(c.dir)
	}
	if err := os.Mkdir(c.dir, 0o711); errors.Is(err, fs.ErrExist) {
		return errdefs.ErrAlreadyExists.WithMessage("container with id exists: " + k.ID)
	} else if err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	k.undos = append(k.undos, func() { _ = os.RemoveAll(c.dir) })
	unlock, err := lock(c.dir)
	if err != nil {
		return err
	}
	k.closes = append(k.closes, unlock)
	k.c = c
	return nil
}

// group makes the control group where the child is born in it (v2); on v1 that
// is done while the child starts.
func (k *creation) group(ctx context.Context) error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		k.v2 = true
		// The intent first: a group without a state would belong to nobody.
		if err := k.c.save(); err != nil {
			return err
		}
		return k.makeGroup(ctx)
	}
	return nil
}

func (k *creation) makeGroup(ctx context.Context) (err error) {
	defer func() { k.refused = err }()
	g, err := cgroup.New(cgroup.Config{Path: k.c.saved.CgroupPath, Systemd: k.SystemdCgroup, Plain: k.PlainCgroup})
	if err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	k.c.cgroup = g
	k.undos = append(k.undos, func() {
		ctx, cancel := cleanupContext(ctx)
		defer cancel()
		_ = k.c.cgroup.Remove(ctx)
	})
	resources := k.Spec.Linux.Resources
	if fault.On("limits skipped") {
		resources = nil
	}
	if err := k.c.cgroup.Create(ctx, resources); err != nil {
		return fmt.Errorf("unable to apply cgroup configuration: %w", err)
	}
	for _, w := range k.c.cgroup.Warnings() {
		k.Logger.Warn(w, "container", k.ID)
	}
	return k.delegate()
}

// cleanupTimeout bounds tidying up after a failure or an end.
const cleanupTimeout = 10 * time.Second

func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}

// process makes the container's first process: without a stage when that goes.
func (k *creation) process(ctx context.Context) error {
	if err := k.direct(ctx); err == nil {
		k.undos = append(k.undos, k.kill)
		return nil
	} else if ctx.Err() != nil {
		return context.Cause(ctx)
	} else if k.refused != nil {
		return k.refused
	}
	k.config = initproc.Config{}
	for _, step := range []func(context.Context) error{k.start, k.record, k.netDevices, k.configure, k.remember, k.talk} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start clones the child; it waits for its configuration.
func (k *creation) start(context.Context) error {
	exe := k.Executable
	if exe == nil {
		var err error
		if exe, err = process.SealSelf(); err != nil {
			return err
		}
		k.closeLater(exe)
	}
	k.c.exe = k.Executable
	cmd := &process.Command{Exe: exe, Args: []string{"orlop-runtime", initproc.Arg}, Env: stageEnv(k.Spec)}
	if err := k.namespaces(cmd); err != nil {
		return err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	k.conv = ours
	k.closes = append(k.closes, func() {
		if k.conv != nil {
			k.conv.close()
		}
	})
	terminal := k.Spec.Process != nil && k.Spec.Process.Terminal
	if cmd.Files, err = stdio(terminal, k.Stdin, k.Stdout, k.Stderr, k.closeLater); err != nil {
		return err
	}
	cmd.Files = append(cmd.Files, k.ExtraFiles...)
	k.config.Extra = len(k.ExtraFiles)
	cmd.Args = append(cmd.Args, strconv.Itoa(len(cmd.Files)))
	cmd.Files = append(cmd.Files, theirs)
	give := func(f *os.File) int {
		cmd.Files = append(cmd.Files, f)
		return len(cmd.Files) - 1
	}
	k.config.Gate, k.config.Root = -1, -1
	if !k.StartNow {
		gate, err := k.openGate()
		if err != nil {
			return err
		}
		k.config.Gate = give(gate)
	}
	if err := k.prepareMounts(give); err != nil {
		return err
	}
	if k.v2 {
		dir, err := k.c.cgroup.DirFD()
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		k.closeLater(dir)
		cmd.Cgroup = dir
	}
	if defense.Dropped(defense.HostDescriptors) {
		// As the runtime of CVE-2024-21626 did; its child inherits it.
		_, _ = unix.Open("/sys/fs/cgroup", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	k.proc, err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return &StartError{Code: 128, Err: err}
	}
	k.undos = append(k.undos, k.kill)
	return nil
}

// openGate is the reading end of the fifo at which the child waits.
func (k *creation) openGate() (*os.File, error) {
	if k.gate == nil {
		var err error
		if k.gate, err = makeGate(k.c.gate()); err != nil {
			return nil, err
		}
		k.closeLater(k.gate)
	}
	return k.gate, nil
}

// kill ends and reaps the child of a creation that failed.
func (k *creation) kill() {
	_ = pidfd.Signal(k.proc.PidFD, int(unix.SIGKILL))
	_, _ = pidfd.Wait(k.proc.PidFD)
	_ = k.proc.PidFD.Close()
	_ = k.proc.Started()
	k.c.mu.Lock()
	k.c.pidfd = nil
	k.c.mu.Unlock()
	_ = k.c.Close()
}

// stageEnv keeps the Go runtime of a stage small. It has one goroutine, but with
// GOMAXPROCS=1 the runtime's monitor thread takes the only processor away at
// every system call of 20 µs: 20.5 ms of CPU for a whole run instead of 14.7.
func stageEnv(s *specs.Spec) []string {
	env := append([]string{"GOMAXPROCS=2", "GOGC=off"}, defense.Environment()...)
	if notifies(s.Linux.Seccomp) {
		env = append(env, "GODEBUG=asyncpreemptoff=1") // no signal handler's return to be asked about
	}
	return append(env, fault.Environ()...)
}

// namespaces splits the wanted namespaces into new ones and ones to join.
func (k *creation) namespaces(cmd *process.Command) error {
	net := false
	for _, ns := range k.Spec.Linux.Namespaces {
		flag, _ := bundle.CloneFlag(ns.Type)
		switch {
		case ns.Path != "" && !fault.On("namespace not joined"):
			f, err := os.Open(ns.Path)
			if err != nil {
				return fmt.Errorf("join %s namespace: %w", ns.Type, err)
			}
			k.closeLater(f)
			cmd.Join = append(cmd.Join, process.Join{NS: f, Type: flag})
		case ns.Type == specs.NetworkNamespace && k.NetNS != nil:
			cmd.Join = append(cmd.Join, process.Join{NS: k.NetNS, Type: flag})
		case ns.Type == specs.UserNamespace && k.NetNS != nil:
			// A network that was made for a user namespace brings that with it.
			owner, own, err := process.Owner(k.NetNS.Fd())
			if err != nil {
				return err
			}
			k.closeLater(owner)
			if own {
				cmd.New |= flag
				break
			}
			cmd.Join = append([]process.Join{{NS: owner, Type: flag}}, cmd.Join...)
		case ns.Type == specs.CgroupNamespace && !k.v2:
			k.config.CgroupNS = true // made by init, once it is in its groups
		default:
			cmd.New |= flag
			net = net || ns.Type == specs.NetworkNamespace
		}
		if ns.Type == specs.UserNamespace {
			k.user = true
			if ns.Path != "" {
				last := len(cmd.Join) - 1
				cmd.Join[0], cmd.Join[last] = cmd.Join[last], cmd.Join[0] // first, for the rights over the others
			}
		}
	}
	k.config.NewNetNS = net
	if k.user {
		cmd.UIDs, cmd.GIDs = idMap(k.Spec.Linux.UIDMappings), idMap(k.Spec.Linux.GIDMappings)
		cmd.RootInUser = true
		k.config.UserNS = true
		if fault.On("gid map is the uid map") {
			cmd.GIDs = cmd.UIDs
		}
		k.config.DenySetgroups = os.Geteuid() != 0
	}
	if !fault.On("time offsets ignored") {
		cmd.TimeOffsets = timeOffsets(k.Spec.Linux.TimeOffsets)
	}
	return nil
}

func idMap(list []specs.LinuxIDMapping) []process.IDMap {
	out := make([]process.IDMap, len(list))
	for i, m := range list {
		out[i] = process.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size}
	}
	return out
}

func timeOffsets(offsets map[string]specs.LinuxTimeOffset) string {
	s := ""
	for clock, o := range offsets {
		s += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	return s
}

// record writes the state as soon as there is a process: from here on, a
// container whose creator died can be found and deleted.
func (k *creation) record(context.Context) error {
	st, err := pidfd.ReadStat(k.proc.Pid)
	if err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	k.c.saved.Pid, k.c.saved.PidStart = k.proc.Pid, st.Start
	k.c.pidfd = k.proc.PidFD
	return k.c.save()
}

// configure does what the child does not wait for while it starts, and then
// tells it what to do.
func (k *creation) configure(ctx context.Context) error {
	if err := k.filter(); err != nil {
		return err
	}
	var join []*os.File
	if !k.v2 {
		if k.c.cgroup == nil {
			if err := k.makeGroup(ctx); err != nil {
				return err
			}
		}
		var err error
		if join, err = k.c.cgroup.JoinFiles(); err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		for _, f := range join {
			k.closeLater(f)
		}
		if fault.On("cgroup not joined") {
			join = nil
		}
	}
	if k.Spec.Process != nil {
		if err := parentLimits(k.proc.Pid, k.Spec.Process, k.user, k.Logger); err != nil {
			return err
		}
	}
	k.describe()
	spoil(&k.config)
	conn, msg, err := agent(k.Spec.Linux.Seccomp, k.proc.Pid, k.c.stateAs(specs.StateCreating))
	if err != nil {
		return err
	}
	if conn != nil {
		k.closeLater(conn)
		join, k.config.Agent = append(join, conn), msg
	}
	fds := make([]int, len(join))
	for i, f := range join {
		fds[i] = int(f.Fd())
	}
	body, err := k.config.Encode()
	if err != nil {
		return err
	}
	if err := k.conv.conn.Send(initproc.Configure, body, fds...); err != nil {
		return k.died(err)
	}
	if conn != nil {
		_ = conn.Close() // the agent waits for the end of what it is sent
	}
	return nil
}

// filter compiles the seccomp profile.
func (k *creation) filter() error {
	if k.Spec.Linux.Seccomp == nil || k.Spec.Process == nil {
		return nil
	}
	if k.c.seccomp == nil {
		filter, err := compile(k.Spec.Linux.Seccomp)
		if err != nil {
			return err
		}
		k.c.seccomp = filter
	}
	k.config.Seccomp = k.c.seccomp
	return nil
}

// describe fills in the configuration of the stage from that of the container.
func (k *creation) describe() {
	s, c := k.Spec, &k.config
	c.ID, c.Plan, c.Overlay = k.ID, k.plan, k.Rootfs
	c.NoPivot, c.NoNewKeyring = k.NoPivot, k.NoNewKeyring
	if k.Rootfs == nil {
		c.RootPath = k.c.saved.Rootfs
	}
	c.ReadonlyRoot = s.Root != nil && s.Root.Readonly
	c.Propagation, c.MountLabel, c.Sysctl = s.Linux.RootfsPropagation, s.Linux.MountLabel, s.Linux.Sysctl
	c.Hostname, c.Domainname = s.Hostname, s.Domainname
	// A container without a process can be created, only not started.
	c.Process = &specs.Process{Cwd: "/"}
	if s.Process != nil {
		c.Process = s.Process
		c.Rare.Scheduler, c.Rare.IOPriority = s.Process.Scheduler, s.Process.IOPriority
	}
	c.Rare.Personality, c.Rare.MemoryPolicy = s.Linux.Personality, s.Linux.MemoryPolicy
	for i := range k.plan {
		if k.plan[i].Kind == rootfs.Cgroup && k.c.cgroup != nil {
			c.Cgroups = k.c.cgroup.Paths()
		}
	}
	if h := s.Hooks; h != nil {
		c.RuntimeHooks = len(h.Prestart)+len(h.CreateRuntime) > 0 //nolint:staticcheck // still to be run
		c.Rare.CreateContainer, c.Rare.StartContainer = h.CreateContainer, h.StartContainer
		if len(h.CreateContainer)+len(h.StartContainer) > 0 {
			c.Rare.State = k.c.stateAs(specs.StateCreating)
		}
	}
}

// remember writes the configuration down while init is at work, and the compiled
// filter, which an exec from another process would have to compile again.
func (k *creation) remember(context.Context) error {
	if k.c.seccomp != nil {
		if err := os.WriteFile(filepath.Join(k.c.dir, filterFile), k.c.seccomp, 0o600); err != nil {
			return fmt.Errorf("save state of %s: %w", k.ID, err)
		}
	}
	if k.Config != nil {
		return k.c.write(specFile, k.Config)
	}
	return k.c.saveSpec()
}

// compile turns a profile into the bytes that a stage attaches.
func compile(p *specs.LinuxSeccomp) ([]byte, error) {
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return f.MarshalBinary()
}

// parentLimits does what the process may lack the rights or the /proc for:
// its OOM score, and in a user namespace the raising of hard limits.
func parentLimits(pid int, p *specs.Process, user bool, log *slog.Logger) error {
	if p.OOMScoreAdj != nil && !fault.On("oomScoreAdj ignored") {
		if err := setOOMScore(pid, *p.OOMScoreAdj, log); err != nil {
			return err
		}
	}
	if !user || len(p.Rlimits) == 0 {
		return nil
	}
	raise := make([]specs.POSIXRlimit, 0, len(p.Rlimits))
	for _, l := range p.Rlimits {
		nr, err := rlimit.Parse(l.Type)
		if err != nil {
			return err
		}
		var have unix.Rlimit
		if err := unix.Prlimit(pid, nr, nil, &have); err != nil {
			return fmt.Errorf("read %s: %w", l.Type, err)
		}
		if l.Hard > have.Max {
			raise = append(raise, specs.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: have.Cur})
		}
	}
	warnings, err := rlimit.Apply(pid, raise)
	for _, w := range warnings {
		log.Warn(w)
	}
	return err
}

// setOOMScore writes oom_score_adj; without CAP_SYS_RESOURCE a score below our
// own is not allowed, and is left out with a warning as limits are.
func setOOMScore(pid, score int, log *slog.Logger) error {
	err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
	if errors.Is(err, fs.ErrPermission) {
		log.Warn("oomScoreAdj is left out: lowering it needs CAP_SYS_RESOURCE", "score", score)
		return nil
	}
	if err != nil {
		return fmt.Errorf("set oomScoreAdj %d: %w", score, err)
	}
	return nil
}

// talk answers the child until it waits for Start or has become the application.
func (k *creation) talk(ctx context.Context) error {
	until := initproc.Waiting
	if k.StartNow {
		until = initproc.Ready
	}
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Signal(k.proc.PidFD, int(unix.SIGKILL)) })
	err := k.conv.listen(until, k.answers())
	if !stop() && ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errGone) {
		return k.died(err)
	}
	return err
}

// answers are what the parent does for a stage.
func (k *creation) answers() answers {
	return answers{
		log:     k.Logger,
		console: k.ConsoleSocket,
		gotTerm: func(f *os.File) { k.c.console = f },
		hooks: func() error {
			state := k.c.stateAs(specs.StateCreating)
			if err := hooks.Run("prestart", k.Spec.Hooks.Prestart, state); err != nil { //nolint:staticcheck // still to be run
				return err
			}
			return hooks.Run("createRuntime", k.Spec.Hooks.CreateRuntime, state)
		},
	}
}

// died explains why the child went away without a word.
func (k *creation) died(cause error) error {
	if err := k.proc.Started(); err != nil {
		return &StartError{Code: 128, Err: err}
	}
	ws, err := pidfd.Wait(k.proc.PidFD)
	if err != nil {
		return &StartError{Code: 128, Err: fmt.Errorf("container's init ended: %w", cause)}
	}
	if n, err := k.c.cgroup.OOM(); err == nil && n > 0 {
		return &StartError{Code: 128, Err: errors.New("container init was OOM-killed (memory limit too low?)")}
	}
	return &StartError{Code: 128, Err: fmt.Errorf("container's init ended before the application: %s", describe(statusOf(ws)))}
}

// finish hands out what the caller asked for.
func (k *creation) finish(context.Context) error {
	// Without a stage, nobody is executed before the gate is opened.
	held := !k.StartNow && k.conv == nil
	if !held {
		if err := k.proc.Started(); err != nil {
			return &StartError{Code: 128, Err: err}
		}
	}
	if err := k.c.cgroup.Joined(); err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	if k.PidFile != "" {
		if err := writePidFile(k.PidFile, k.proc.Pid); err != nil {
			return err
		}
	}
	// A reference to the mount namespace: tearing it down takes the kernel up
	// to 17 ms, and must not come before the exit is known.
	if ns, err := os.Open("/proc/" + strconv.Itoa(k.proc.Pid) + "/ns/mnt"); err == nil {
		k.c.holds = ns
	}
	if k.StartApart && !k.StartNow && k.Spec.Process != nil && (k.Spec.Hooks == nil || len(k.Spec.Hooks.Poststart) == 0) {
		if err := k.easeStart(); err != nil {
			return err
		}
	}
	if held {
		k.c.held = k.proc
		return nil
	}
	if !k.StartNow {
		k.c.pending, k.conv = k.conv, nil
		return nil
	}
	if h := k.Spec.Hooks; h != nil && len(h.Poststart) > 0 && !fault.On("poststart hooks skipped") {
		return hooks.Run("poststart", h.Poststart, k.c.stateAs(specs.StateRunning))
	}
	return nil
}

// easeStart lets another process start the container without finding out what
// is known here.
func (k *creation) easeStart() error {
	file, thawed := k.c.cgroup.FreezerFile()
	if err := quickstart.Write(k.c.dir, file, thawed); err != nil {
		return fmt.Errorf("create container %s: %w", k.ID, err)
	}
	return nil
}

// writePidFile writes a pid without a newline, atomically, as runc does.
func writePidFile(name string, pid int) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	text := strconv.Itoa(pid)
	if fault.On("pid file with a newline") {
		text += "\n"
	}
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}
