package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/domain/container"
)

// exitOtherBoot is recorded for a container that ran when the machine went
// down, as Docker does.
const exitOtherBoot = 255

// restoreParallel is how many containers are looked at at once.
const restoreParallel = 8

// found is what a restore learned about one container.
type found struct {
	o       *object
	monitor Monitor // it runs
	live    *LiveSandbox
	exit    *container.Exit // it ended while no daemon was there
	// rebooted: it ran when the machine went down.
	rebooted bool
	// hasRun: there is a run folder to sweep.
	hasRun bool
}

// Restore takes over what an earlier life of the daemon left: it loads every
// record, reconnects to the monitors of running containers, learns of the
// exits that happened meanwhile and applies restart policies. It is called
// once, before any verb. A record that cannot be read is logged and kept.
func (s *Service) Restore(ctx context.Context) error {
	began := s.cfg.Now()
	records, broken, err := s.cfg.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load containers: %w", err)
	}
	for _, err := range broken {
		s.cfg.Logger.Error("container record cannot be read and is left alone", "error", err)
	}
	leftovers, err := s.cfg.Launcher.Leftovers()
	if err != nil {
		return fmt.Errorf("list run folders: %w", err)
	}
	ran := map[string]bool{}
	for _, id := range leftovers {
		ran[id] = true
	}

	read := s.cfg.Now()
	results := make([]*found, len(records))
	var group errgroup.Group
	group.SetLimit(restoreParallel)
	for i, rec := range records {
		saved, err := container.ParseSaved(rec)
		if err != nil {
			s.cfg.Logger.Error("container record cannot be read and is left alone", "container", rec.ID, "error", err)
			delete(ran, rec.ID)
			continue
		}
		hasRun := ran[rec.ID]
		delete(ran, rec.ID)
		o := newObject(rec, saved)
		s.enter(o)
		group.Go(func() error {
			results[i] = s.observe(ctx, o, hasRun)
			return nil
		})
	}
	_ = group.Wait() // observe does not fail: what it cannot learn is an exit

	observed := s.cfg.Now()
	// What runs without a record was half made, or belongs to a container
	// that was removed while it ended.
	for id := range ran {
		if err := s.cfg.Launcher.Forget(ctx, id); err != nil {
			s.cfg.Logger.Error("sweep run folder without a record", "container", id, "error", err)
		}
	}
	var live []LiveSandbox
	for _, f := range results {
		if f != nil && f.live != nil {
			live = append(live, *f.live)
		}
	}
	if err := s.cfg.Networks.Restore(ctx, live); err != nil {
		return fmt.Errorf("restore networks: %w", err)
	}
	connected := s.cfg.Now()
	// One exit that is recorded waits for the disk and for its network.
	group = errgroup.Group{}
	group.SetLimit(restoreParallel)
	for _, f := range results {
		if f != nil {
			group.Go(func() error {
				s.apply(ctx, f)
				return nil
			})
		}
	}
	_ = group.Wait() // what fails is logged
	s.cfg.Logger.Debug("containers restored", "all", len(records), "running", len(live), "reading", read.Sub(began),
		"monitors", observed.Sub(read), "networks", connected.Sub(observed), "recording", s.cfg.Now().Sub(connected))
	s.startAtBoot(ctx, results)
	return nil
}

// observe asks kernel and monitor what became of a container; it changes
// nothing.
func (s *Service) observe(ctx context.Context, o *object, hasRun bool) *found {
	f := &found{o: o, hasRun: hasRun}
	if !hasRun {
		f.rebooted = o.state.Alive() || o.state == container.StateRestarting
		return f
	}
	var run runRecord
	data, err := s.cfg.RunDir.Read(o.id, runFile)
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.cfg.Logger.Error("read run record", "container", o.id, "error", err)
	}
	m, err := s.cfg.Launcher.Adopt(ctx, o.id)
	if err == nil {
		f.monitor = m
		run.Attachment.ContainerID = o.id
		f.live = &LiveSandbox{Attachment: run.Attachment, Pid: m.Running().InitPid, Name: o.name}
		return f
	}
	exit, exitErr := s.cfg.Launcher.LastExit(o.id)
	switch {
	case exitErr == nil && exit.Reason == container.ReasonMonitorLost && !o.state.Alive() &&
		(run.Running == nil || !run.Running.StartedAt.After(o.saved.FinishedAt)):
		// Nothing says how it ended, and nothing says that it ran since the end
		// that is recorded: that run's folder was being removed, or the next start
		// had not come to its process.
	case exitErr == nil:
		f.exit = &exit
		if run.Running != nil && o.saved.StartedAt.Before(run.Running.StartedAt) {
			o.saved.StartedAt = run.Running.StartedAt.UTC() // it was saved late or never
		}
	case o.state.Alive():
		// It ran, and nobody is left who could tell how it ended.
		if !errdefs.IsNotFound(err) {
			s.cfg.Logger.Error("reach monitor", "container", o.id, "error", err)
		}
		f.exit = &container.Exit{Code: 128 + container.SIGKILL, Time: s.cfg.Now(), Reason: container.ReasonMonitorLost}
	}
	return f
}

// apply brings a container to the state that was observed.
func (s *Service) apply(ctx context.Context, f *found) {
	o := f.o
	switch {
	case f.monitor != nil:
		s.adopt(ctx, f)
	case f.exit != nil && (o.state.Alive() || o.saved.FinishedAt.Before(f.exit.Time)):
		s.endedMeanwhile(o, *f.exit)
	case f.rebooted:
		s.endedByReboot(ctx, o)
	case o.state == container.StateRemoving || o.state == container.StateDead:
		s.finishRemoval(ctx, o)
	case f.hasRun:
		// It is over and recorded, or a start that was never finished.
		s.closeNetwork(ctx, o.id)
		s.tearDown(ctx, o.snapshot())
	}
}

// adopt takes a running container over.
func (s *Service) adopt(ctx context.Context, f *found) {
	o := f.o
	o.mu.Lock()
	state := container.StateRunning
	if o.frozen {
		state = container.StatePaused
	}
	unknown := !o.state.Alive()
	o.state = state
	o.monitor, o.running = f.monitor, f.monitor.Running()
	if !o.running.StartedAt.IsZero() {
		o.saved.StartedAt = o.running.StartedAt.UTC()
	}
	if unknown {
		if err := s.writeRun(o.id, runRecord{Attachment: f.live.Attachment, Running: &o.running}); err != nil {
			s.cfg.Logger.Warn("write run record", "container", o.id, "error", err)
		}
		o.saved.ExitCode, o.saved.Error, o.saved.OOMKilled, o.saved.LogDropped = 0, "", false, 0
		o.history.Count = o.saved.RestartCount
		if !o.saved.HostConfig.AutoRemove {
			s.save(ctx, o)
		}
	}
	o.settled = make(chan struct{})
	o.health = s.newHealth(o)
	o.health.pause(o.frozen)
	o.publish()
	snap, m, checks := o.snapshot(), o.monitor, o.health
	o.mu.Unlock()
	// What its log has lost so far is known before anybody asks.
	select {
	case bytes := <-m.LogDropped():
		s.logDropped(o, m, bytes)
	default:
	}
	if unknown {
		// The daemon died between the start and its report.
		s.tell(snap, events.ActionStart, nil)
	}
	execs, err := m.Execs(ctx)
	if err != nil {
		s.cfg.Logger.Warn("list execs of adopted container", "container", o.id, "error", err)
	}
	for _, proc := range execs {
		s.adoptExec(o, proc)
	}
	s.follow(o, m, checks)
}

// adoptExec makes an exec of an earlier life of the daemon known again. One whose
// monitor is too old to have kept what it was asked for shows no command.
func (s *Service) adoptExec(o *object, proc Exec) {
	process, err := s.processOf(o.snapshot())
	if err != nil {
		s.cfg.Logger.Warn("adopt exec", "container", o.id, "exec", proc.ID(), "error", err)
		return
	}
	e := &execution{id: proc.ID(), o: o, process: process, started: closedChan(), begun: true, running: true, proc: proc}
	if err := json.Unmarshal(proc.Note(), &e.req); err != nil || len(e.req.Cmd) == 0 {
		e.req.Cmd = []string{""}
	}
	s.mu.Lock()
	s.execs[e.id] = e
	s.mu.Unlock()
	s.spawn(func() { s.awaitExec(e, proc) })
}

// lostRun stands for the monitor of a run that is over.
type lostRun struct {
	Monitor
	exit container.Exit
}

// endedMeanwhile records an exit that happened without a daemon, with
// everything that follows from it.
func (s *Service) endedMeanwhile(o *object, exit container.Exit) {
	o.mu.Lock()
	m := &lostRun{exit: exit}
	o.state, o.monitor = container.StateRunning, m
	o.history.Count = o.saved.RestartCount
	o.settled = make(chan struct{})
	o.mu.Unlock()
	s.ended(o, m, exit)
}

// endedByReboot records the end of a container that ran when the machine went
// down. Its restart policy is applied with those of the others.
func (s *Service) endedByReboot(ctx context.Context, o *object) {
	o.mu.Lock()
	o.state, o.frozen = container.StateExited, false
	o.saved.ExitCode, o.saved.FinishedAt = exitOtherBoot, s.cfg.Now().UTC()
	remove := o.saved.HostConfig.AutoRemove
	if !remove {
		s.save(ctx, o)
	}
	o.publish()
	o.mu.Unlock()
	if remove {
		if err := s.removeAfterRun(ctx, o); err != nil {
			s.cfg.Logger.Error("remove container after a reboot", "container", o.id, "error", err)
		}
	}
}

// finishRemoval tries again what an earlier life of the daemon did not finish.
func (s *Service) finishRemoval(ctx context.Context, o *object) {
	o.mu.Lock()
	o.state = container.StateRemoving
	o.publish()
	s.closeNetworkLocked(ctx, o)
	if err := s.remove(ctx, o, false); err != nil {
		s.cfg.Logger.Error("finish removal", "container", o.id, "error", err)
	}
}

// closeNetworkLocked drops the lock for the call and takes it again.
func (s *Service) closeNetworkLocked(ctx context.Context, o *object) {
	o.mu.Unlock()
	s.closeNetwork(ctx, o.id)
	s.tearDown(ctx, o.snapshot())
	o.mu.Lock()
}

// startAtBoot applies the restart policies of containers that do not run: all
// of "always", and those of the others that their policy had still running.
// What a container depends on is started before it.
func (s *Service) startAtBoot(ctx context.Context, results []*found) {
	var wanted []*object
	for _, f := range results {
		if f == nil || f.monitor != nil {
			continue
		}
		snap := f.o.snapshot()
		if snap.state != container.StateExited && snap.state != container.StateRestarting || f.exit != nil {
			continue // an exit just applied has started its own restart
		}
		if snap.saved.StartedAt.IsZero() {
			continue
		}
		ran := max(snap.saved.FinishedAt.Sub(snap.saved.StartedAt), 0)
		restart, _ := container.RestartDecision(snap.saved.HostConfig.RestartPolicy,
			container.RestartHistory{Count: snap.saved.RestartCount}, snap.saved.ExitCode, snap.saved.ManuallyStopped, ran)
		if restart {
			wanted = append(wanted, f.o)
		} else if snap.state == container.StateRestarting {
			s.giveUp(ctx, f.o)
		}
	}
	s.spawn(func() {
		for _, level := range s.byDependency(wanted) {
			var group errgroup.Group
			group.SetLimit(restoreParallel)
			for _, o := range level {
				group.Go(func() error {
					s.relaunch(o)
					return nil
				})
			}
			_ = group.Wait() // failures are recorded in the containers
		}
	})
}

func (s *Service) relaunch(o *object) {
	o.mu.Lock()
	if s.stopping.Load() || o.move(container.ActRelaunch) != nil {
		o.mu.Unlock()
		return // somebody was faster
	}
	o.history.Count = o.saved.RestartCount
	o.publish()
	o.mu.Unlock()
	if err := s.launch(context.Background(), o); err != nil {
		s.cfg.Logger.Error("start container by its restart policy", "container", o.id, "error", err)
	}
}

func (s *Service) giveUp(ctx context.Context, o *object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.move(container.ActGaveUp) == nil {
		s.save(ctx, o)
		o.publish()
	}
}

// Exited, Exit and OOM are all that is asked of a run that is over.
func (l *lostRun) Exited() <-chan struct{}   { return closedChan() }
func (l *lostRun) Exit() container.Exit      { return l.exit }
func (l *lostRun) OOM() <-chan struct{}      { return nil }
func (l *lostRun) LogDropped() <-chan uint64 { return nil }
func (l *lostRun) Running() container.Running {
	return container.Running{StartedAt: time.Time{}}
}
