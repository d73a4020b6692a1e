package httpapi

import (
	"fmt"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/engine/containers"
)

func (a *API) containerStart(w *answer, r *request) error {
	// The host configuration could be sent here until API 1.22. The shortest
	// object with a field has 7 bytes; -1 is a body of unknown length.
	if r.ContentLength > 7 || r.ContentLength == -1 {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.query("checkpoint") != "" {
		return notImplemented("start container " + r.name() + ": checkpoints are not available in this version of the engine")
	}
	return done(w, a.cfg.Containers.Start(r.Context(), r.name()))
}

// stopOptions reads how to stop; a signal can be chosen since API 1.42.
func (r *request) stopOptions() (opts containers.StopOptions, err error) {
	if !r.before(42) {
		opts.Signal = r.query("signal")
	}
	opts.Timeout, err = r.seconds("t")
	return opts, err
}

func (a *API) containerStop(w *answer, r *request) error {
	opts, err := r.stopOptions()
	if err != nil {
		return err
	}
	return done(w, a.cfg.Containers.Stop(r.Context(), r.name(), opts))
}

func (a *API) containerRestart(w *answer, r *request) error {
	opts, err := r.stopOptions()
	if err != nil {
		return err
	}
	return done(w, a.cfg.Containers.Restart(r.Context(), r.name(), opts))
}

func (a *API) containerKill(w *answer, r *request) error {
	if err := a.cfg.Containers.Kill(r.Context(), r.name(), r.query("signal")); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", r.name(), err)
	}
	return done(w, nil)
}

func (a *API) containerPause(w *answer, r *request) error {
	return done(w, a.cfg.Containers.Pause(r.Context(), r.name()))
}

func (a *API) containerUnpause(w *answer, r *request) error {
	return done(w, a.cfg.Containers.Unpause(r.Context(), r.name()))
}

func (a *API) containerRename(w *answer, r *request) error {
	return done(w, a.cfg.Containers.Rename(r.Context(), r.name(), r.query("name")))
}

// containerWait answers with headers at once and with the exit when it happens.
// Before API 1.30 there was no condition and headers came with the exit; before
// 1.34 a removal that failed could only be told by an empty answer.
func (a *API) containerWait(w *answer, r *request) error {
	condition := containertypes.WaitConditionNotRunning
	if v := r.query("condition"); v != "" && !r.before(30) {
		condition = containertypes.WaitCondition(v)
		switch condition {
		case containertypes.WaitConditionNotRunning, containertypes.WaitConditionNextExit, containertypes.WaitConditionRemoved:
		default:
			return invalid(fmt.Sprintf("invalid condition: %q", v))
		}
	}
	exit, err := a.cfg.Containers.Wait(r.Context(), r.name(), condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := newStream(w)
	if !r.before(30) {
		out.begin(200)
	}
	select {
	case resp, ok := <-exit:
		if !ok {
			return nil
		}
		if resp.Error != nil && condition == containertypes.WaitConditionRemoved && r.before(34) {
			return nil
		}
		body, err := marshal(resp)
		if err != nil {
			return err
		}
		_, _ = out.Write(body)
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

func (a *API) containerResize(w *answer, r *request) error {
	height, err := r.size("h", "height")
	if err != nil {
		return err
	}
	width, err := r.size("w", "width")
	if err != nil {
		return err
	}
	return a.cfg.Containers.Resize(r.Context(), r.name(), uint(height), uint(width))
}
