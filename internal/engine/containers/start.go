package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
)

// exitUnknown is recorded for a start that failed for another reason than its
// command, as Docker does.
const exitUnknown = 128

// runFile is the engine's file in a container's run folder.
const runFile = "run.json"

// runRecord is what a later life of the daemon needs to take a running
// container over. It is written before the launch (then without Running), so
// that a container is never found without its place in the networks.
type runRecord struct {
	Attachment network.Attachment `json:"attachment"`
	Running    *container.Running `json:"running,omitempty"`
}

// Start runs a container that does not run. ErrNotModified when it runs
// already; ErrInvalidArgument when its command cannot be run.
func (s *Service) Start(ctx context.Context, ref string) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.start(ctx, o)
}

func (s *Service) start(ctx context.Context, o *object) error {
	if err := o.ask(ctx, container.ActStart); err != nil {
		return err
	}
	// A user's start forgets what came before.
	o.calledOff = false
	o.history = container.RestartHistory{}
	o.saved.RestartCount = 0
	o.saved.ManuallyStopped = false
	o.mu.Unlock()
	// From here on the start is finished, whoever waits for it or not.
	return s.launch(context.WithoutCancel(ctx), o)
}

// launched is what a launch has made, for the record of its outcome.
type launched struct {
	monitor    Monitor
	attachment network.Attachment
	waiting    []*attachment
	streams    []Stream
}

// launch acts on a start that was decided and records its outcome.
func (s *Service) launch(ctx context.Context, o *object) error {
	o.mu.Lock()
	settled := o.settled
	snap := o.snapshot()
	o.mu.Unlock()
	// What the last run left must be gone: same folder, address and ports.
	<-settled

	var undo undoStack
	made, err := s.perform(ctx, o, snap, &undo)
	if err != nil {
		undo.run(ctx, s.cfg.Logger, o.id)
		return s.startFailed(ctx, o, err)
	}

	o.mu.Lock()
	if err := o.move(container.ActStarted); err != nil {
		// The table has no such row; nothing may run that nobody knows of.
		o.mu.Unlock()
		undo.run(ctx, s.cfg.Logger, o.id)
		return err
	}
	o.monitor, o.running = made.monitor, made.monitor.Running()
	o.saved.Addresses = made.attachment.Addrs()
	o.saved.StartedAt = o.running.StartedAt.UTC()
	if o.saved.StartedAt.IsZero() {
		o.saved.StartedAt = s.cfg.Now().UTC()
	}
	o.saved.ExitCode, o.saved.Error, o.saved.OOMKilled, o.saved.LogDropped = 0, "", false, 0
	o.settled = make(chan struct{})
	o.health = s.newHealth(o)
	late := o.waiting
	o.waiting = nil
	if !o.saved.HostConfig.AutoRemove {
		s.save(ctx, o)
	}
	o.publish()
	snap = o.snapshot()
	checks := o.health
	o.mu.Unlock()

	for i, w := range made.waiting {
		w.give(made.streams[i], nil)
	}
	for _, w := range late {
		st, err := made.monitor.Attach(ctx, w.streams)
		w.give(st, err)
	}
	s.tellMounts(snap, events.ActionMount)
	s.tell(snap, events.ActionStart, nil)
	s.follow(o, made.monitor, checks)
	return nil
}

// perform makes everything a running container needs, each step with its undo.
func (s *Service) perform(ctx context.Context, o *object, snap *snapshot, undo *undoStack) (made launched, err error) {
	host, config := snap.saved.HostConfig, snap.saved.Config
	in, err := s.specInput(snap)
	if err != nil {
		return made, err
	}
	if err := s.joinNamespaces(snap, &in); err != nil {
		return made, err
	}
	if joined := host.NetworkMode.ConnectedContainer(); joined != "" {
		donor, err := s.find(joined)
		if err != nil {
			return made, err
		}
		// Who shares a network is known by one name on it.
		shared, theirs := *in.Config, donor.snapshot().saved.Config
		shared.Hostname, shared.Domainname = theirs.Hostname, theirs.Domainname
		in.Config = &shared
	}
	rootfs, err := s.cfg.Store.Rootfs(ctx, o.id)
	if err != nil {
		return made, fmt.Errorf("find layers: %w", err)
	}
	rootfs.Volatile = host.AutoRemove
	owner := s.ownerFor(host)
	if in.User, err = s.userOf(ctx, rootfs, config.User, host.GroupAdd); err != nil {
		return made, withText(errdefs.ErrInternal, "%v", err)
	}
	if err := s.makeWorkDir(ctx, rootfs, config.WorkingDir); err != nil {
		return made, err
	}
	for i, m := range snap.saved.Mounts {
		if err := prepareMount(m, owner); err != nil {
			return made, err
		}
		if m.Type == mount.TypeVolume && m.Subpath != "" && !defense.Dropped(defense.VolumesInside) {
			f, err := openInside(m.Source, m.Subpath)
			if err != nil {
				return made, err
			}
			// What was opened is what is bound: the path could have become a link
			// to the host by then. A container's mount namespace takes over mounts of
			// ours, but no descriptor of one.
			path, drop, err := s.cfg.RunDir.Pin(o.id, i, f)
			f.Close()
			if err != nil {
				return made, fmt.Errorf("mount %s of volume %s: %w", m.Subpath, m.Name, err)
			}
			defer func() {
				if err := drop(); err != nil {
					s.cfg.Logger.Error("drop the subpath of a volume", "container", o.id, "error", err)
				}
			}()
			in.Mounts[i].Source = path
		}
	}
	undo.add("run folder", func(ctx context.Context) error { return s.cfg.Launcher.Forget(ctx, o.id) })
	if host.IpcMode.IsShareable() {
		undo.add("shared memory", func(context.Context) error { return s.cfg.RunDir.DropShm(o.id) })
		if in.ShmPath, err = s.cfg.RunDir.Shm(o.id, host.ShmSize); err != nil {
			return made, fmt.Errorf("make shared memory: %w", err)
		}
		if err := owner.take(in.ShmPath); err != nil {
			return made, fmt.Errorf("make shared memory: %w", err)
		}
	}

	request, linkEnv, err := s.sandboxRequest(snap)
	if err != nil {
		return made, err
	}
	request.UserNSPath = in.UserNSPath
	in.LinkEnv = linkEnv
	sandbox, err := s.cfg.Networks.Open(ctx, request)
	if err != nil {
		return made, err // in Docker's words already
	}
	undo.add("network", func(ctx context.Context) error { return s.cfg.Networks.Close(ctx, o.id) })
	if sandbox.Release != nil {
		defer sandbox.Release()
	}
	made.attachment = sandbox.Attachment
	in.NetNSPath = sandbox.Path
	if in.NetNSPath != "" {
		in.UserNSPath = strings.TrimSuffix(in.NetNSPath, "net") + "user"
	}
	for _, f := range []struct {
		name    string
		content []byte
		path    *string
	}{
		{"hosts", sandbox.Hosts, &in.HostsPath},
		{"hostname", sandbox.Hostname, &in.HostnamePath},
		{"resolv.conf", sandbox.ResolvConf, &in.ResolvConfPath},
	} {
		if f.content == nil {
			// Of a container whose network is joined the names are joined too.
			if owner := s.etcOwner(o.id, host.NetworkMode); owner != o.id {
				*f.path = s.etcPath(owner, f.name)
			}
			continue
		}
		*f.path = s.etcPath(o.id, f.name)
		if err := os.WriteFile(*f.path, f.content, 0o644); err != nil {
			return made, fmt.Errorf("write %s: %w", f.name, err)
		}
		if err := owner.take(*f.path); err != nil {
			return made, fmt.Errorf("write %s: %w", f.name, err)
		}
	}

	spec, err := container.BuildSpec(in)
	if err != nil {
		// Not a fault of the start request, whatever its class.
		return made, withText(errdefs.ErrInternal, "%v", err)
	}
	log, err := s.logConfig(o.id, snap.name, &snap.saved)
	if err != nil {
		return made, err
	}
	if log.Path != "" {
		if err := os.MkdirAll(filepath.Dir(log.Path), 0o710); err != nil {
			return made, fmt.Errorf("make log folder: %w", err)
		}
	}
	if owner != nil {
		// For the container only: on disk its files have the ids that it sees,
		// so whatever else looks at them needs no map.
		rootfs.IDMap = s.settings.Load().Defaults.IDMap
	}
	runtime := s.settings.Load().Runtimes[host.Runtime]
	// Whatever runs is ended before its network goes.
	undo.add("monitor", func(ctx context.Context) error { return s.cfg.Launcher.Forget(ctx, o.id) })
	if err := s.writeRun(o.id, runRecord{Attachment: made.attachment}); err != nil {
		return made, err
	}

	o.mu.Lock()
	made.waiting = o.waiting
	o.waiting = nil
	o.mu.Unlock()
	options := StartOptions{NetNS: sandbox.Handle}
	for _, w := range made.waiting {
		options.Attach = append(options.Attach, w.streams)
	}
	made.monitor, made.streams, err = s.cfg.Launcher.Start(ctx, container.Launch{
		ID: o.id, Spec: spec, Rootfs: &rootfs, Log: log, OpenStdin: config.OpenStdin, StdinOnce: config.StdinOnce,
		SystemdCgroup: s.facts.CgroupSystemd, Runtime: runtime.Path, RuntimeArgs: runtime.Args,
	}, options)
	if err != nil {
		for _, w := range made.waiting {
			w.give(nil, errNeverStarted)
		}
		return made, startError(err)
	}
	running := made.monitor.Running()
	if err := s.writeRun(o.id, runRecord{Attachment: made.attachment, Running: &running}); err != nil {
		s.cfg.Logger.Warn("write run record", "container", o.id, "error", err)
	}
	if err := s.cfg.Networks.Started(ctx, o.id, running.InitPid); err != nil {
		return made, err
	}
	return made, nil
}

// startFailed records a start that failed, and removes the container when it
// was to be removed after its run.
func (s *Service) startFailed(ctx context.Context, o *object, cause error) error {
	code := exitUnknown
	var failure StartFailure
	if errors.As(cause, &failure) && failure.ExitCode() != 0 {
		code = failure.ExitCode()
	}
	o.mu.Lock()
	byPolicy := o.state == container.StateRelaunching
	if err := o.move(container.ActStartFailed); err != nil {
		s.cfg.Logger.Error("record failed start", "container", o.id, "error", err)
	}
	o.saved.Error, o.saved.ExitCode = cause.Error(), code
	waiting := o.waiting
	o.waiting = nil
	remove := o.saved.HostConfig.AutoRemove
	if !remove {
		s.save(ctx, o)
	}
	o.publish()
	report := o.exit
	if byPolicy {
		o.exit = newNote()
	}
	o.mu.Unlock()
	if byPolicy { // it counted as running until now
		report.tell(code, cause.Error())
	}
	for _, w := range waiting {
		w.give(nil, errNeverStarted)
	}
	if remove {
		if err := s.removeAfterRun(ctx, o); err != nil {
			s.cfg.Logger.Error("remove container that did not start", "container", o.id, "error", err)
		}
	}
	return cause
}

// startedError is what the user reads of a command that could not be run; the
// client takes its own exit status from these words.
type startedError struct {
	text  string
	cause error
}

func (e startedError) Error() string { return e.text }
func (e startedError) Unwrap() error { return e.cause }

// startError puts a failure of the runtime into Docker's words.
func startError(err error) error {
	var failure StartFailure
	if !errors.As(err, &failure) {
		return fmt.Errorf("failed to create task for container: %w", err)
	}
	return startedError{
		text:  "failed to create task for container: OCI runtime create failed: " + processFailure(failure),
		cause: err,
	}
}

// processFailure tells why a process could not be started; other runtimes
// begin with these words themselves.
func processFailure(failure StartFailure) string {
	const unable = "unable to start container process: "
	text := recognizable(failure.Error(), failure.ExitCode())
	if !strings.Contains(text, unable) {
		text = unable + text
	}
	return text
}

// recognizable makes sure that a message has the words by which clients choose
// between the exit statuses 126 and 127.
func recognizable(message string, code int) string {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(message, w) {
				return true
			}
		}
		return false
	}
	switch {
	case code == 127 && !has("executable file not found", "no such file or directory", "not a directory"):
		return message + ": no such file or directory"
	case code == 126 && !has("permission denied"):
		return message + ": permission denied"
	}
	return message
}

// specInput gathers what the configuration of a container depends on.
func (s *Service) specInput(snap *snapshot) (container.SpecInput, error) {
	// A copy: limits that the host has lost since the create are taken out.
	host := *snap.saved.HostConfig
	if _, err := container.ValidateHostConfig(&host, s.facts, s.settings.Load().Defaults); err != nil {
		return container.SpecInput{}, err
	}
	return container.SpecInput{
		ID: snap.id, Config: snap.saved.Config, Host: &host, Mounts: boundMounts(snap.saved.Mounts),
		Facts: s.facts, Defaults: s.settings.Load().Defaults,
		CgroupParent: s.cfg.CgroupParent, CgroupPrefix: s.cfg.CgroupPrefix, AppArmorProfile: s.cfg.AppArmorProfile,
		Device:       s.cfg.Host.Device,
		DevicesBelow: s.cfg.Host.Devices,
		HostDevices:  func() ([]specs.LinuxDevice, error) { return s.cfg.Host.Devices("/dev") },
		Propagation:  s.cfg.Host.MountOf,
		Seccomp:      s.cfg.Seccomp,
	}, nil
}

// boundMounts puts the subpath of a volume into its source.
func boundMounts(mounts []container.Mount) []container.Mount {
	out := make([]container.Mount, len(mounts))
	for i, m := range mounts {
		if m.Subpath != "" {
			m.Source = filepath.Join(m.Source, m.Subpath)
		}
		if m.Type == mount.TypeVolume && m.Propagation == "" {
			m.Propagation = mount.PropagationRPrivate
		}
		out[i] = m
	}
	return out
}

// prepareMount makes the missing source of a -v, as Docker does.
func prepareMount(m container.Mount, owner *owner) error {
	switch m.Type {
	case mount.TypeBind:
		if m.CreateSource {
			if err := owner.mkdirAll(m.Source); err != nil && !errors.Is(err, os.ErrExist) && !isFile(m.Source) {
				return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
			}
			return nil
		}
	case mount.TypeVolume:
		if m.Subpath == "" {
			return owner.mkdirAll(m.Source)
		}
		f, err := openInside(m.Source, m.Subpath)
		if err != nil {
			return err
		}
		return f.Close()
	default:
		return nil
	}
	if _, err := os.Stat(m.Source); err != nil {
		return invalid("invalid mount config for type %q: bind source path does not exist: %s", m.Type, m.Source)
	}
	return nil
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openInside opens the subpath of a volume; a link in it leads nowhere else.
func openInside(volume, subpath string) (*os.File, error) {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer root.Close()
	f, err := root.OpenFile(subpath, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot access path %s: %w", filepath.Join(volume, subpath), err)
	}
	return f, nil
}

// joinNamespaces finds the namespaces that are shared with other containers.
func (s *Service) joinNamespaces(snap *snapshot, in *container.SpecInput) error {
	if ref := snap.saved.HostConfig.PidMode.Container(); ref != "" {
		donor, err := s.donor(ref)
		if err != nil {
			return fmt.Errorf("failed to join PID namespace: %w", err)
		}
		in.PIDNSPath = fmt.Sprintf("/proc/%d/ns/pid", donor.pid)
		in.UserNSPath = fmt.Sprintf("/proc/%d/ns/user", donor.pid)
	}
	ipc := snap.saved.HostConfig.IpcMode
	switch {
	case ipc.IsContainer():
		donor, err := s.donor(ipc.Container())
		if err != nil {
			return fmt.Errorf("failed to join IPC namespace: %w", err)
		}
		in.IPCNSPath = fmt.Sprintf("/proc/%d/ns/ipc", donor.pid)
		in.UserNSPath = fmt.Sprintf("/proc/%d/ns/user", donor.pid)
		switch of := donor.saved.HostConfig.IpcMode; {
		case of.IsHost():
			in.ShmPath = "/dev/shm"
		case of.IsShareable():
			if in.ShmPath, err = s.cfg.RunDir.Shm(donor.id, donor.saved.HostConfig.ShmSize); err != nil {
				return fmt.Errorf("failed to join IPC namespace: %w", err)
			}
		default:
			return invalid("failed to join IPC namespace: container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", donor.id)
		}
	case ipc.IsHost():
		in.ShmPath = "/dev/shm"
	}
	return nil
}

// donor is a running container whose namespaces are joined.
func (s *Service) donor(ref string) (*snapshot, error) {
	o, err := s.find(ref)
	if err != nil {
		return nil, withText(errdefs.ErrInvalidArgument, "%v", err)
	}
	snap := o.snapshot()
	switch {
	case snap.state == container.StateRestarting || snap.state == container.StateRelaunching:
		return nil, conflict("Container %s is restarting, wait until the container is running", o.id)
	case !snap.state.Alive() || snap.pid == 0:
		return nil, conflict("container %s is not running", o.id)
	}
	return snap, nil
}

func (s *Service) sandboxRequest(snap *snapshot) (SandboxRequest, []string, error) {
	linkHosts, linkEnv, err := s.links(snap)
	if err != nil {
		return SandboxRequest{}, nil, err
	}
	req := s.networkRequest(snap)
	req.ExtraHosts = append(linkHosts, req.ExtraHosts...)
	req.Join = func(id string) (int, bool) {
		donor, err := s.donor(id)
		if err != nil {
			return 0, false
		}
		return donor.pid, true
	}
	return req, linkEnv, nil
}

func (s *Service) writeRun(id string, r runRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode run record: %w", err)
	}
	if err := s.cfg.RunDir.Write(id, runFile, data); err != nil {
		return fmt.Errorf("write run record: %w", err)
	}
	return nil
}

func (s *Service) logPath(id, driver string) string {
	if driver == "none" {
		return ""
	}
	return filepath.Join(s.cfg.Store.Dir(id), container.LogFile(id, driver))
}
