package containers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

const (
	// killWait is how long a killed container may take to end.
	killWait = 10 * time.Second
	// failedSignalWait is how long a container may take to end although the
	// stop signal could not be sent.
	failedSignalWait = 2 * time.Second
	// signalWait is how long a monitor may take to send a signal; one that takes
	// longer is stuck.
	signalWait = 5 * time.Second
)

// StopOptions say how a container is stopped.
type StopOptions struct {
	// Signal instead of the container's own stop signal.
	Signal string
	// Timeout in seconds before it is killed; 0 kills at once, negative waits
	// for ever; nil is the container's StopTimeout or the daemon's.
	Timeout *int
}

// Stop ends a container by its stop signal, and by force when that takes too
// long. ErrNotModified when it does not run. It is finished although the
// caller leaves.
func (s *Service) Stop(ctx context.Context, ref string, opts StopOptions) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	if err := s.stop(ctx, o, opts); err != nil {
		if errdefs.IsNotModified(err) {
			return err
		}
		return fmt.Errorf("cannot stop container: %s: %w", ref, err)
	}
	return nil
}

func (s *Service) stop(ctx context.Context, o *object, opts StopOptions) error {
	sig := 0
	if opts.Signal != "" {
		var err error
		if sig, err = container.ParseSignal(opts.Signal); err != nil {
			return err
		}
		if !container.ValidSignal(sig) {
			return invalid("the linux daemon does not support signal %d", sig)
		}
	}
	if err := o.ask(ctx, container.ActStop); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	config := o.saved.Config
	if sig == 0 {
		sig = container.StopSignalOf(config)
	}
	s.callOff(ctx, o, sig)
	if o.state == container.StateExited { // it waited for a restart
		s.endRestart(o)
		s.tell(o.snapshot(), events.ActionStop, nil)
		return nil
	}
	m, report := o.monitor, o.exit
	o.mu.Unlock()

	timeout := s.stopTimeout(config, opts.Timeout)
	err := s.signal(ctx, o, m, sig)
	if err != nil {
		timeout = failedSignalWait
	}
	if timeout < 0 {
		<-report.done
		s.tell(o.snapshot(), events.ActionStop, nil)
		return nil
	}
	if timeout > 0 && s.waitFor(report, timeout) {
		s.tell(o.snapshot(), events.ActionStop, nil)
		return nil
	}
	s.cfg.Logger.Info("container did not end in time, killing it", "container", o.id, "signal", sig, "timeout", timeout)
	if killErr := s.kill(ctx, o, m, report); killErr != nil {
		o.mu.Lock()
		if o.monitor == m && o.move(container.ActStopFailed) == nil {
			o.publish()
		}
		o.mu.Unlock()
		return errors.Join(err, killErr)
	}
	s.tell(o.snapshot(), events.ActionStop, nil)
	return nil
}

// callOff notes that a user ends the container, as far as the signal means
// that: the restart policy keeps still. mu is held.
func (s *Service) callOff(ctx context.Context, o *object, sig int) {
	if sig == container.SIGKILL || o.saved.Config.StopSignal == "" || sig == container.StopSignalOf(o.saved.Config) {
		o.calledOff = true
	}
	if s.stopping.Load() || o.saved.ManuallyStopped {
		return
	}
	o.saved.ManuallyStopped = true
	// Only a policy reads it, after a reboot.
	if policy := o.saved.HostConfig.RestartPolicy; !policy.IsNone() {
		s.save(ctx, o)
	}
	o.publish()
}

// endRestart records that a container that waited for its restart has ended.
// It is called with mu held and releases it.
func (s *Service) endRestart(o *object) {
	if o.callOff != nil {
		close(o.callOff)
		o.callOff = nil
	}
	o.calledOff = true
	s.save(context.Background(), o)
	o.publish()
	report := o.exit
	o.exit = newNote()
	code, text := o.saved.ExitCode, o.saved.Error
	o.mu.Unlock()
	report.tell(code, text)
}

// signal sends a signal to the init process and thaws the container when the
// signal is meant to end it. A container that has ended is no error.
func (s *Service) signal(ctx context.Context, o *object, m Monitor, sig int) error {
	snap := o.snapshot()
	// Before it is sent: nobody shall see the end before the signal.
	s.tell(snap, events.ActionKill, map[string]string{"signal": strconv.Itoa(sig)})
	ctx, cancel := s.bounded(ctx, signalWait)
	defer cancel()
	all := sig == container.SIGKILL && !snap.saved.HostConfig.PidMode.IsPrivate()
	if err := m.Signal(ctx, sig, all); err != nil {
		if errdefs.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("send signal %d: %w", sig, err)
	}
	o.mu.Lock()
	thaw := o.calledOff && o.monitor == m && o.frozen
	if thaw {
		o.frozen = false
	}
	o.mu.Unlock()
	if !thaw {
		return nil
	}
	err := m.Resume(ctx)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("unpause to end it: %w", err)
	}
	o.mu.Lock()
	moved := o.monitor == m && o.move(container.ActUnpauseDone) == nil
	if moved {
		o.publish()
		snap = o.snapshot()
	}
	ended := o.monitor != m // at once, when it was thawed
	o.mu.Unlock()
	if moved || ended && err == nil {
		s.tell(snap, events.ActionUnPause, nil)
	}
	return nil
}

// kill ends a container by force and waits for its end. When its monitor does
// not do it, the monitor goes too: what is in the cgroup is killed past it.
func (s *Service) kill(ctx context.Context, o *object, m Monitor, report *note) error {
	err := s.signal(ctx, o, m, container.SIGKILL)
	wait := killWait
	if err != nil {
		wait = failedSignalWait
	}
	if s.waitFor(report, wait) {
		return nil
	}
	s.cfg.Logger.Warn("container did not end when killed, ending its monitor", "container", o.id, "error", err)
	forget, cancel := s.bounded(ctx, killWait)
	defer cancel()
	err = errors.Join(err, s.cfg.Launcher.Forget(forget, o.id))
	if s.waitFor(report, failedSignalWait) {
		return nil
	}
	return errors.Join(err, errors.New("tried to kill container, but did not receive an exit event"))
}

// bounded is ctx that ends after d of the service's clock.
func (s *Service) bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := s.cfg.After(d)
	go func() {
		select {
		case <-over:
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// waitFor waits for a note, at most for d.
func (s *Service) waitFor(n *note, d time.Duration) bool {
	select {
	case <-n.done:
		return true
	case <-s.cfg.After(d):
		return false
	}
}
