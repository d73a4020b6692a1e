package daemonside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// Files go beside a launch.
type Files struct {
	// NetNS is the network namespace of the container; nil for a new one, the
	// host's or one given by path in the spec. It stays the caller's.
	NetNS container.Handle
	// Attach lists streams that are attached before the first byte is
	// produced. Start closes them, also when it fails.
	Attach []AttachFile
}

// StartFailed is why an application could not be started. Its class is
// InvalidArgument for codes 126 and 127 (Docker answers 400 then), else
// Internal.
type StartFailed struct {
	// Code is 127 (not found), 126 (not executable) or 128.
	Code int
	// Message is what the runtime said, in runc's words where it has any.
	Message string
}

// Error returns the message.
func (f *StartFailed) Error() string { return f.Message }

// ExitCode is the exit status of the container that never ran.
func (f *StartFailed) ExitCode() int { return f.Code }

// Unwrap gives the error its class.
func (f *StartFailed) Unwrap() error {
	if f.Code == 126 || f.Code == 127 {
		return errdefs.ErrInvalidArgument
	}
	return errdefs.ErrInternal
}

// launchArgs is the payload of a launch: the protocol's part and the spec.
type launchArgs struct {
	protocol.LaunchArgs
	Spec *specs.Spec `json:"spec"`
}

// Start runs a container. It returns once the application was exec'ed, or with
// *StartFailed and nothing left behind but the log. When ctx ends first the
// container is killed. ErrConflict: it runs already.
func (l *Launcher) Start(ctx context.Context, launch container.Launch, files Files) (_ *Monitor, err error) {
	defer func() {
		for _, a := range files.Attach {
			a.Close()
		}
	}()
	id := launch.ID
	if err := checkID(id); err != nil {
		return nil, err
	}
	if launch.Spec == nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("start container " + id + ": no configuration")
	}
	if old := l.monitor(id); old != nil {
		select {
		case <-old.Exited():
		default:
			return nil, errdefs.ErrConflict.WithMessage("container " + id + " is already running")
		}
		if err := old.waitGone(ctx); err != nil {
			return nil, fmt.Errorf("start container %s: clean-up of its last run: %w", id, err)
		}
	}
	lock, err := l.take(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", id, err)
	}
	defer lock.Close()
	if err := l.prepareRun(launch); err != nil {
		return nil, fmt.Errorf("start container %s: %w", id, err)
	}
	m, err := l.spawn(launch, files, lock)
	if err != nil {
		l.clearRun(id)
		return nil, fmt.Errorf("start container %s: %w", id, err)
	}
	m.log.Debug("monitor started", "container", id, "pid", m.pid)

	var started protocol.Started
	err = m.await(ctx, m.launchCall, &started)
	if err == nil {
		m.setRunning(started)
		l.refill()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			m.release()
			return nil, errdefs.ErrUnavailable.WithMessage("start container " + id + ": the launcher is closed")
		}
		return m, nil
	}
	return nil, l.abandon(m, id, err)
}

// abandon ends a monitor whose container did not start and cleans up.
func (l *Launcher) abandon(m *Monitor, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var failure *protocol.Failure
	reported := errors.As(cause, &failure)
	if !reported {
		m.kill()
	}
	if err := m.waitGone(ctx); err != nil {
		l.log.Error("monitor does not end", "container", id, "pid", m.pid, "error", err)
	}
	l.mu.Lock()
	if l.monitors[id] == m {
		delete(l.monitors, id)
	}
	l.mu.Unlock()
	if !reported {
		if err := l.killGroup(ctx, id, true); err != nil {
			// The run folder stays: with it, Forget can try again.
			l.log.Error("clean up after a failed start", "container", id, "error", err)
			return fmt.Errorf("start container %s: %w", id, cause)
		}
	}
	l.clearRun(id)
	if reported && failure.Class == protocol.ClassStart {
		return &StartFailed{Code: failure.Code, Message: failure.Message}
	}
	return fmt.Errorf("start container %s: %w", id, cause)
}

// prepareRun makes the run folder that of a container about to start.
func (l *Launcher) prepareRun(launch container.Launch) error {
	dir := l.Dir(launch.ID)
	for _, name := range []string{placeFile, exitFile, socketFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	p := place{ID: launch.ID, BootID: l.bootID, SystemdCgroup: launch.SystemdCgroup}
	if launch.Spec.Linux != nil {
		p.CgroupsPath = launch.Spec.Linux.CgroupsPath
	}
	if p.CgroupsPath == "" {
		return errdefs.ErrInvalidArgument.WithMessage("the configuration has no cgroupsPath")
	}
	data, err := marshal(p)
	if err != nil {
		return err
	}
	return replace(dir, placeFile, data)
}

// clearRun removes our files from a run folder, and the folder when the engine
// has none in it.
func (l *Launcher) clearRun(id string) {
	dir := l.Dir(id)
	for _, name := range []string{placeFile, exitFile, socketFile, lockFile} {
		_ = os.Remove(filepath.Join(dir, name))
	}
	for _, name := range monitorsOwn {
		_ = os.RemoveAll(filepath.Join(dir, name))
	}
	_ = os.Remove(dir)
}

// spawn executes a monitor and sends it the launch.
func (l *Launcher) spawn(launch container.Launch, files Files, lock *os.File) (*Monitor, error) {
	args := launchArgs{Spec: launch.Spec, LaunchArgs: protocol.LaunchArgs{
		ID:            launch.ID,
		RunDir:        l.Dir(launch.ID),
		Rootfs:        rootfsOf(launch.Rootfs),
		Log:           protocol.Log(launch.Log),
		OpenStdin:     launch.OpenStdin,
		StdinOnce:     launch.StdinOnce,
		Tied:          launch.Tied,
		SystemdCgroup: launch.SystemdCgroup,
		Runtime:       launch.Runtime,
		RuntimeArgs:   launch.RuntimeArgs,
		Files:         []string{protocol.FileLock},
	}}
	passed := []int{int(lock.Fd())}
	if files.NetNS != nil {
		args.Files = append(args.Files, protocol.FileNetNS)
		passed = append(passed, int(files.NetNS.Fd()))
	}
	for _, a := range files.Attach {
		args.Files = append(args.Files, protocol.FileAttach)
		args.Attach = append(args.Attach, protocol.AttachArgs{Stdin: a.opts.Stdin, Stdout: a.opts.Stdout, Stderr: a.opts.Stderr})
		passed = append(passed, int(a.file.Fd()))
	}
	payload, err := marshal(args)
	if err != nil {
		return nil, err
	}

	for {
		p, spare, err := l.newborn()
		if err != nil {
			return nil, fmt.Errorf("execute monitor: %w", err)
		}
		m := newMonitor(l, launch.ID, p.conn)
		m.pid, m.pidfd, m.child = p.pid, p.pidfd, true
		err = m.hello()
		if err == nil {
			m.launchCall, err = m.post(protocol.OpLaunch, payload, passed...)
		}
		if err == nil {
			if !l.follow(m) {
				err = errdefs.ErrUnavailable.WithMessage("the launcher is closed")
			} else {
				return m, nil
			}
		}
		p.end()
		if !spare {
			return nil, fmt.Errorf("send launch: %w", err)
		}
		// A spare one may have been killed long ago.
	}
}

func rootfsOf(r *container.Rootfs) *protocol.Rootfs {
	if r == nil || len(r.Lower) == 0 {
		return nil
	}
	return &protocol.Rootfs{
		Lower: r.Lower, Upper: r.Upper, Work: r.Work, Volatile: r.Volatile,
		UIDs: mappings(r.IDMap.UIDs), GIDs: mappings(r.IDMap.GIDs),
	}
}

func mappings(list []specs.LinuxIDMapping) []protocol.IDMapping {
	var out []protocol.IDMapping
	for _, m := range list {
		out = append(out, protocol.IDMapping(m))
	}
	return out
}
