package httpapi

import (
	"context"
	"io"
	"net/http"
	"sync"

	"golang.org/x/net/websocket"

	"github.com/orlop/orlop/internal/engine/containers"
)

func (r *request) attachOptions() containers.AttachOptions {
	return containers.AttachOptions{
		Stdin:      r.flag("stdin"),
		Stdout:     r.flag("stdout"),
		Stderr:     r.flag("stderr"),
		Logs:       r.flag("logs"),
		Stream:     r.flag("stream"),
		DetachKeys: r.query("detachKeys"),
	}
}

func (a *API) containerAttach(w *answer, r *request) error {
	if err := hijackable(w, "container "+r.name()); err != nil {
		return err
	}
	// The request's context does not notice the client's end any more once
	// the connection is taken over; the wire's watcher does.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	opts := r.attachOptions()
	var c *wire
	opts.Streams = func(tty bool) (containers.Streams, error) {
		var err error
		if c, err = a.open(w, r, tty, cancel); err != nil {
			return containers.Streams{}, err
		}
		return c.streams(opts.Stdin), nil
	}
	err := a.cfg.Containers.Attach(ctx, r.name(), opts)
	if c == nil {
		return err
	}
	c.Close()
	if err != nil {
		a.cfg.Logger.Debug("attach ended", "container", r.name(), "error", err)
	}
	return nil
}

// streams is the wire as the engine sees it. Without standard input nothing is
// read from the client; that it has gone is told by the wire's watcher.
func (c *wire) streams(input bool) containers.Streams {
	s := containers.Streams{Out: c.out, Err: c.err}
	if input {
		s.In = stdin{c}
	}
	return s
}

// containerAttachWebsocket carries the raw streams in frames of a web socket.
func (a *API) containerAttachWebsocket(w *answer, r *request) error {
	opts := r.attachOptions()
	if r.before(42) {
		opts.Stdin, opts.Stdout, opts.Stderr = true, true, true
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()

	var (
		finished = make(chan struct{})
		served   sync.WaitGroup
		opened   bool
	)
	opts.Streams = func(bool) (containers.Streams, error) {
		ready := make(chan *websocket.Conn, 1)
		server := websocket.Server{Handler: func(conn *websocket.Conn) {
			ready <- conn
			<-finished
		}}
		served.Go(func() {
			// Returns without a call of the handler when the handshake is
			// refused; it has answered the client then.
			server.ServeHTTP(w, r.Request)
			close(ready)
		})
		conn, ok := <-ready
		if !ok {
			return containers.Streams{}, invalid("attach to container " + r.name() + ": not a web socket handshake")
		}
		opened = true
		if !r.before(28) {
			conn.PayloadType = websocket.BinaryFrame
		}
		s := containers.Streams{Out: conn, Err: conn}
		if opts.Stdin {
			s.In = conn
		} else {
			// Reading answers pings and notices the client's end.
			served.Go(func() {
				_, _ = io.Copy(io.Discard, conn)
				cancel()
			})
		}
		return s, nil
	}
	err := a.cfg.Containers.Attach(ctx, r.name(), opts)
	close(finished)
	if !opened {
		served.Wait()
		if w.hijacked {
			return nil
		}
		return err
	}
	served.Wait()
	if err != nil {
		a.cfg.Logger.Debug("web socket attach ended", "container", r.name(), "error", err)
	}
	return nil
}

// containerStats writes one sample, or one each second until the client goes.
func (a *API) containerStats(w *answer, r *request) error {
	follow := r.flagOr("stream", true)
	w.Header().Set("Content-Type", "application/json")
	out := newStream(w)
	write := jsonLines(out, "")
	stats, err := a.cfg.Containers.Stats(r.Context(), r.name(), containers.StatsOptions{
		Stream:  follow,
		OneShot: !r.before(41) && r.flag("one-shot"),
	})
	if err != nil {
		return err
	}
	if follow {
		out.begin(http.StatusOK)
	}
	for sample, err := range stats {
		if err != nil {
			return err
		}
		if err := write(sample); err != nil {
			return nil
		}
	}
	return nil
}
