package containers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Bounds and defaults of health checks, Docker's.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthLog           = 5
	healthOutput        = 4096
)

// health is the state of a running container's health checks. A nil *health
// is a container without any.
type health struct {
	config  containertypes.HealthConfig
	command []string
	started time.Time
	// stopped is closed when the container has ended.
	stopped  chan struct{}
	stopOnce sync.Once
	// resumed gets a value when a paused container goes on.
	resumed chan struct{}

	mu     sync.Mutex
	status containertypes.HealthStatus
	streak int
	log    []*containertypes.HealthcheckResult
	paused bool
}

// newHealth prepares the checks of a container that starts; nil when it has
// none. The object's mu is held.
func (s *Service) newHealth(o *object) *health {
	config := o.saved.Config.Healthcheck
	if config == nil || len(config.Test) < 2 {
		return nil
	}
	command := slices.Clone(config.Test[1:])
	switch config.Test[0] {
	case "CMD":
	case "CMD-SHELL":
		shell := o.saved.Config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(slices.Clone(shell), command...)
	default:
		return nil
	}
	return &health{
		config: *config, command: command, started: o.saved.StartedAt,
		stopped: make(chan struct{}), resumed: make(chan struct{}, 1), status: containertypes.Starting,
	}
}

func (h *health) stop() {
	if h != nil {
		h.stopOnce.Do(func() { close(h.stopped) })
	}
}

func (h *health) pause(frozen bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.paused = frozen
	h.mu.Unlock()
	if !frozen {
		select {
		case h.resumed <- struct{}{}:
		default:
		}
	}
}

// report copies what inspect shows; nil without checks.
func (h *health) report() *containertypes.Health {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &containertypes.Health{Status: h.status, FailingStreak: h.streak, Log: slices.Clone(h.log)}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// next is how long to wait before the next check.
func (h *health) next(now time.Time) time.Duration {
	interval := orDefault(h.config.Interval, healthInterval)
	left := h.config.StartPeriod - now.Sub(h.started)
	h.mu.Lock()
	defer h.mu.Unlock()
	if left <= 0 || h.status != containertypes.Starting {
		return interval
	}
	return min(orDefault(h.config.StartInterval, healthStartInterval), left)
}

// record takes a result in and returns the status before and after.
func (h *health) record(r *containertypes.HealthcheckResult) (before, after containertypes.HealthStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.status
	h.log = append(h.log, r)
	if len(h.log) > healthLog {
		h.log = slices.Clone(h.log[len(h.log)-healthLog:])
	}
	retries := h.config.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	switch {
	case r.ExitCode == 0:
		h.streak, h.status = 0, containertypes.Healthy
	case h.status == containertypes.Starting && r.Start.Sub(h.started) < h.config.StartPeriod:
		// It is allowed to fail while it starts.
	default:
		if h.streak++; h.streak >= retries {
			h.status = containertypes.Unhealthy
		}
	}
	return before, h.status
}

// checkHealth runs the checks of a container until it ends.
func (s *Service) checkHealth(o *object, m Monitor, h *health) {
	for {
		select {
		case <-s.cfg.After(h.next(s.cfg.Now())):
		case <-h.stopped:
			return
		case <-s.leaving:
			return
		}
		h.mu.Lock()
		paused := h.paused
		h.mu.Unlock()
		if paused {
			select {
			case <-h.resumed:
			case <-h.stopped:
				return
			case <-s.leaving:
				return
			}
			continue
		}
		result := s.probe(o, m, h)
		select {
		case <-h.stopped:
			return
		case <-s.leaving:
			return
		default:
		}
		before, after := h.record(result)
		o.mu.Lock()
		current := o.monitor == m
		if current {
			o.publish()
		}
		snap := o.snapshot()
		o.mu.Unlock()
		if current && before != after {
			s.tell(snap, events.Action(string(events.ActionHealthStatus)+": "+string(after)), nil)
		}
	}
}

// probe runs one check.
func (s *Service) probe(o *object, m Monitor, h *health) *containertypes.HealthcheckResult {
	result := &containertypes.HealthcheckResult{Start: s.cfg.Now()}
	timeout := orDefault(h.config.Timeout, healthTimeout)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over := s.cfg.After(timeout)
	timedOut := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-over:
			close(timedOut)
			cancel()
		case <-h.stopped:
			cancel()
		case <-s.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	code, output, err := s.runProbe(ctx, o, m, h)
	cancel()
	<-watching
	result.End, result.ExitCode, result.Output = s.cfg.Now(), code, output
	select {
	case <-timedOut:
		result.ExitCode = -1
		result.Output = fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
		if output != "" {
			result.Output += ": " + output
		}
	default:
		if err != nil {
			result.ExitCode, result.Output = -1, err.Error()
		}
	}
	return result
}

func (s *Service) runProbe(ctx context.Context, o *object, m Monitor, h *health) (int, string, error) {
	in, err := s.specInput(o.snapshot())
	if err != nil {
		return 0, "", err
	}
	config := in.Config
	if in.User, err = s.execUser(ctx, o.id, config.User, in.Host.GroupAdd); err != nil {
		return 0, "", err
	}
	req := containertypes.ExecCreateRequest{Cmd: h.command, User: config.User, AttachStdout: true, AttachStderr: true}
	process, err := container.ExecProcess(in, req)
	if err != nil {
		return 0, "", err
	}
	e := &execution{id: s.cfg.NewID(), o: o, req: req, process: process}
	s.tellExec(e, events.ActionExecCreate)
	s.tellExec(e, events.ActionExecStart)
	code, output, err := s.runIn(ctx, e, m, healthOutput)
	if err != nil && errors.Is(err, context.Canceled) {
		return code, output, nil
	}
	if err == nil {
		s.tell(o.snapshot(), events.ActionExecDie, map[string]string{"execID": e.id, "exitCode": fmt.Sprint(code)})
	}
	return code, output, err
}
