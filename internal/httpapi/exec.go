package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/engine/containers"
)

func (a *API) execCreate(w *answer, r *request) error {
	var req containertypes.ExecCreateRequest
	if err := r.json(&req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	if r.before(42) {
		req.ConsoleSize = nil
	}
	id, err := a.cfg.Containers.ExecCreate(r.Context(), r.name(), req)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusCreated, containertypes.ExecCreateResponse{ID: id})
	return nil
}

func (a *API) execStart(w *answer, r *request) error {
	var req containertypes.ExecStartRequest
	if err := r.json(&req); err != nil {
		return err
	}
	if r.before(42) || !req.Tty {
		req.ConsoleSize = nil
	}
	opts := containers.ExecStartOptions{Detach: req.Detach, TTY: req.Tty, ConsoleSize: req.ConsoleSize}
	if req.Detach {
		if err := a.cfg.Containers.ExecStart(r.Context(), r.name(), opts); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if err := hijackable(w, "exec "+r.name()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	var c *wire
	opts.Streams = func(bool) (containers.Streams, error) {
		var err error
		// The frames follow what the client asked for here, which clients
		// keep equal to what they created.
		if c, err = a.open(w, r, req.Tty, cancel); err != nil {
			return containers.Streams{}, err
		}
		return c.streams(true), nil
	}
	err := a.cfg.Containers.ExecStart(ctx, r.name(), opts)
	if c == nil {
		return err
	}
	if err != nil {
		// A command that cannot be started is told on its own output.
		_, _ = fmt.Fprintf(c.out, "%v\r\n", err)
		a.cfg.Logger.Debug("exec failed", "exec", r.name(), "error", err)
	}
	c.Close()
	return nil
}

func (a *API) execInspect(w *answer, r *request) error {
	inspect, err := a.cfg.Containers.ExecInspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, inspect)
	return nil
}

func (a *API) execResize(_ *answer, r *request) error {
	height, err := r.size("h", "height")
	if err != nil {
		return err
	}
	width, err := r.size("w", "width")
	if err != nil {
		return err
	}
	return a.cfg.Containers.ExecResize(r.Context(), r.name(), uint(height), uint(width))
}

var _ io.ReadCloser = stdin{}
