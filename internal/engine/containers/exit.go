package containers

import (
	"context"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

const (
	// lazySave is how long a container that goes with its run must have run
	// before its record tells that it does: short ones cost no commit.
	lazySave = time.Second
	// reportDelay is how long the report of an exit may wait for the ports to
	// be free, so that who was told can use them.
	reportDelay = 50 * time.Millisecond
	// teardownTimeout bounds what is done after an exit.
	teardownTimeout = 30 * time.Second
)

// follow watches a running container until it ends or the daemon leaves.
func (s *Service) follow(o *object, m Monitor, checks *health) {
	if checks != nil {
		s.spawn(func() { s.checkHealth(o, m, checks) })
	}
	s.spawn(func() {
		oom := m.OOM()
		var lazy <-chan time.Time
		if o.snapshot().saved.HostConfig.AutoRemove {
			lazy = s.cfg.After(lazySave)
		}
		for {
			select {
			case <-m.Exited():
				s.ended(o, m, m.Exit())
				return
			case _, ok := <-oom:
				if !ok {
					oom = nil
					continue
				}
				s.outOfMemory(o, m)
			case bytes := <-m.LogDropped():
				s.logDropped(o, m, bytes)
			case <-lazy:
				o.mu.Lock()
				if o.monitor == m {
					s.save(context.Background(), o)
				}
				o.mu.Unlock()
			case <-s.leaving:
				return
			}
		}
	})
}

func (s *Service) outOfMemory(o *object, m Monitor) {
	o.mu.Lock()
	if o.monitor != m {
		o.mu.Unlock()
		return
	}
	o.saved.OOMKilled = true
	o.publish()
	snap := o.snapshot()
	o.mu.Unlock()
	s.tell(snap, events.ActionOOM, nil)
}

// logDropped records that output is missing in the log. The daemon's log tells it
// when it begins, and each time it is ten times as much.
func (s *Service) logDropped(o *object, m Monitor, bytes uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.monitor != m || bytes <= o.saved.LogDropped {
		return
	}
	before := o.saved.LogDropped
	o.saved.LogDropped = bytes
	// Told first: who sees the number may look for the reason.
	if before == 0 || len(strconv.FormatUint(bytes, 10)) > len(strconv.FormatUint(before, 10)) {
		s.warnDropped(o.id, o.saved.HostConfig.LogConfig.Config["mode"], bytes)
	}
	o.publish()
}

func (s *Service) warnDropped(id, mode string, bytes uint64) {
	cause := "the log cannot be written"
	if mode == "non-blocking" {
		cause = "the disk is slower than the output and max-buffer-size is used up, or " + cause
	}
	s.cfg.Logger.Warn("output of a container is missing in its log", "container", id, "bytes", bytes, "cause", cause)
}

// ended records that the process of a container has ended, reports it, tears
// down what is left of the run, and does what comes next: a restart by the
// policy, a removal, or nothing.
func (s *Service) ended(o *object, m Monitor, exit container.Exit) {
	ctx := context.Background()
	o.mu.Lock()
	if o.monitor != m {
		o.mu.Unlock()
		return // another run is the current one
	}
	if exit.Time.IsZero() {
		exit.Time = s.cfg.Now()
	}
	ran := exit.Time.Sub(o.saved.StartedAt)
	again, history := container.RestartDecision(o.saved.HostConfig.RestartPolicy, o.history, exit.Code, o.saved.ManuallyStopped, ran)
	again = again && !o.calledOff && !s.stopping.Load()
	act := container.ActEnded
	if again {
		act = container.ActEndedAgain
	}
	if err := o.move(act); err != nil {
		s.cfg.Logger.Error("record exit", "container", o.id, "error", err)
	}
	again = again && o.state == container.StateRestarting
	o.history = history
	if again {
		o.saved.RestartCount++
		o.callOff = make(chan struct{})
	}
	o.monitor, o.running, o.frozen = nil, container.Running{}, false
	o.saved.FinishedAt, o.saved.ExitCode = exit.Time.UTC(), exit.Code
	o.saved.OOMKilled = o.saved.OOMKilled || exit.OOMKilled
	o.saved.Error = exit.Reason
	if exit.LogDropped > o.saved.LogDropped {
		o.saved.LogDropped = exit.LogDropped
		s.warnDropped(o.id, o.saved.HostConfig.LogConfig.Config["mode"], exit.LogDropped)
	}
	o.health.stop()
	remove := o.saved.HostConfig.AutoRemove && !again && o.restarting == 0 && o.state != container.StateRemoving
	if !remove && o.state != container.StateRemoving {
		s.save(ctx, o)
	}
	o.publish()
	snap := o.snapshot()
	report, callOff, settled := o.exit, o.callOff, o.settled
	o.exit, o.reporting = newNote(), report
	o.mu.Unlock()

	s.tell(snap, events.ActionDie, map[string]string{
		"exitCode":     strconv.Itoa(exit.Code),
		"execDuration": strconv.Itoa(max(int(ran.Seconds()), 0)),
	})
	free := make(chan struct{})
	s.spawn(func() {
		defer close(free)
		s.closeNetwork(ctx, o.id)
	})
	select {
	case <-free:
	case <-s.cfg.After(reportDelay):
	}
	s.tellMounts(snap, events.ActionUnmount)
	report.tell(exit.Code, exit.Reason)
	o.mu.Lock()
	if o.reporting == report {
		o.reporting = nil
	}
	o.mu.Unlock()
	s.spawn(func() {
		<-free
		s.tearDown(ctx, snap)
		close(settled)
	})
	switch {
	case again:
		s.spawn(func() { s.restartByPolicy(o, history.Delay, callOff) })
	case remove:
		if err := s.removeAfterRun(ctx, o); err != nil {
			s.cfg.Logger.Error("remove container after its run", "container", o.id, "error", err)
		}
	}
}

func (s *Service) closeNetwork(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, teardownTimeout)
	defer cancel()
	if err := s.cfg.Networks.Close(ctx, id); err != nil {
		s.cfg.Logger.Error("close network of container", "container", id, "error", err)
	}
}

// tearDown removes what a run leaves below the exec root.
func (s *Service) tearDown(ctx context.Context, snap *snapshot) {
	ctx, cancel := context.WithTimeout(ctx, teardownTimeout)
	defer cancel()
	if snap.saved.HostConfig.IpcMode.IsShareable() {
		if err := s.cfg.RunDir.DropShm(snap.id); err != nil {
			s.cfg.Logger.Error("drop shared memory of container", "container", snap.id, "error", err)
		}
	}
	if err := s.cfg.Launcher.Forget(ctx, snap.id); err != nil {
		s.cfg.Logger.Error("clean up after container", "container", snap.id, "error", err)
	}
}

// restartByPolicy starts a container again after the policy's delay, unless
// that is called off.
func (s *Service) restartByPolicy(o *object, delay time.Duration, callOff <-chan struct{}) {
	select {
	case <-s.cfg.After(delay):
	case <-callOff:
		return // whoever called it off has moved the state
	case <-s.leaving:
		return
	}
	o.mu.Lock()
	if s.stopping.Load() || o.state != container.StateRestarting || o.move(container.ActRelaunch) != nil {
		o.mu.Unlock()
		return
	}
	o.publish()
	o.mu.Unlock()
	if err := s.launch(context.Background(), o); err != nil {
		s.cfg.Logger.Error("restart container by its policy", "container", o.id, "error", err)
	}
}
