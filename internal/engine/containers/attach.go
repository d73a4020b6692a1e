package containers

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/term"

	"github.com/orlop/orlop/internal/domain/container"
)

// AttachOptions are an attach request.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	// Logs writes the log first; Stream then follows what is produced.
	Logs, Stream bool
	// DetachKeys end the session of a terminal; "" is ctrl-p,ctrl-q.
	DetachKeys string
	// Streams opens the client's side. It is called after every check, with
	// the container already attached to: what the container writes from then
	// on is not lost.
	Streams func(tty bool) (Streams, error)
}

// errNeverStarted ends the wait of a client that attached before a start that
// did not happen.
var errNeverStarted = errors.New("container was not started")

// attachment is a client that waits for the container's start.
type attachment struct {
	streams AttachStreams
	ready   chan attached

	mu   sync.Mutex
	gone bool
}

type attached struct {
	stream Stream
	err    error
}

func newAttachment(streams AttachStreams) *attachment {
	return &attachment{streams: streams, ready: make(chan attached, 1)}
}

// give hands the stream over, or closes it when the client has gone.
func (a *attachment) give(st Stream, err error) {
	a.mu.Lock()
	gone := a.gone
	if !gone {
		a.ready <- attached{st, err}
	}
	a.mu.Unlock()
	if gone && st != nil {
		_ = st.Close() // nobody reads it
	}
}

// leave gives the wait up.
func (a *attachment) leave() {
	a.mu.Lock()
	a.gone = true
	a.mu.Unlock()
	select {
	case got := <-a.ready:
		if got.stream != nil {
			_ = got.stream.Close() // nobody reads it
		}
	default:
	}
}

// Attach connects a client to the streams of a container until its output
// ends, the client detaches or leaves, or ctx ends. A container that does not
// run is waited for: the client sees its output from the first byte.
func (s *Service) Attach(ctx context.Context, ref string, opts AttachOptions) error {
	keys, err := detachKeys(opts.DetachKeys)
	if err != nil {
		return invalid("Invalid detach keys (%s) provided", opts.DetachKeys)
	}
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	o.mu.Lock()
	snap := o.snapshot()
	switch o.state {
	case container.StatePaused, container.StatePausing, container.StateUnpausing:
		o.mu.Unlock()
		return conflict("container %s is paused, unpause the container before attach", ref)
	case container.StateRestarting, container.StateRelaunching:
		o.mu.Unlock()
		return conflict("container %s is restarting, wait until the container is running", ref)
	case container.StateRemoving, container.StateDead:
		o.mu.Unlock()
		return conflict("container %s is marked for removal", ref)
	}
	config := snap.saved.Config
	wanted := AttachStreams{Stdin: opts.Stdin && config.OpenStdin, Stdout: opts.Stdout, Stderr: opts.Stderr}
	m, report := o.monitor, o.exit
	var waiting *attachment
	if opts.Stream && m == nil {
		waiting = newAttachment(wanted)
		o.waiting = append(o.waiting, waiting)
	}
	o.mu.Unlock()
	if waiting != nil {
		defer s.unwait(o, waiting)
	}

	var st Stream
	if opts.Stream && m != nil {
		if st, err = m.Attach(ctx, wanted); err != nil {
			if errdefs.IsNotFound(err) {
				return conflict("container %s is not running", o.id)
			}
			return err
		}
		defer st.Close()
	}
	client, err := opts.Streams(config.Tty)
	if err != nil {
		return err
	}
	if client.In != nil {
		defer client.In.Close()
	}
	if opts.Logs {
		if err := s.copyLog(ctx, snap, wanted, client); err != nil {
			return err
		}
	}
	s.tell(o.snapshot(), events.ActionAttach, nil)
	if !opts.Stream {
		return nil
	}
	if waiting != nil {
		select {
		case got := <-waiting.ready:
			if got.err != nil {
				return nil // the start has told its own caller why
			}
			st = got.stream
			defer st.Close()
		case <-ctx.Done():
			return nil
		}
	}
	detached := pump(ctx, st, client, config.Tty, keys, config.StdinOnce)
	if detached {
		s.tell(o.snapshot(), events.ActionDetach, nil)
		return nil
	}
	if config.StdinOnce && !config.Tty && ctx.Err() == nil {
		// Docker's clients expect the exit to be there when this returns. The
		// note is that of the run attached to, also when it began later.
		select {
		case <-report.done:
		case <-ctx.Done():
		case <-s.leaving:
		}
	}
	return nil
}

// unwait forgets a client that waited for a start.
func (s *Service) unwait(o *object, w *attachment) {
	o.mu.Lock()
	for i, other := range o.waiting {
		if other == w {
			o.waiting = append(o.waiting[:i:i], o.waiting[i+1:]...)
			break
		}
	}
	o.mu.Unlock()
	w.leave()
}

// detachKeys reads "ctrl-p,ctrl-q" and the like; "" is nil.
func detachKeys(raw string) ([]byte, error) {
	if raw == "" {
		return nil, nil
	}
	return term.ToBytes(raw)
}

// defaultDetachKeys are ctrl-p and ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// pump copies between a client and a container's streams until one side ends.
// It reports whether the client detached by its keys. Both sides are unblocked
// and every goroutine has ended when it returns, but that of a client whose
// standard input cannot be interrupted.
func pump(ctx context.Context, st Stream, client Streams, tty bool, keys []byte, closeStdin bool) (detached bool) {
	if keys == nil {
		keys = defaultDetachKeys
	}
	output := make(chan struct{})
	go func() {
		defer close(output)
		for {
			kind, data, err := st.Next()
			if err != nil {
				return
			}
			w := client.Out
			if kind == 2 && !tty {
				w = client.Err
			}
			if w == nil {
				continue
			}
			if _, err := w.Write(data); err != nil {
				return // the client has gone
			}
		}
	}()
	escaped := make(chan struct{})
	input := make(chan struct{})
	go func() {
		defer close(input)
		in := st.Stdin()
		if client.In == nil || in == nil {
			return
		}
		var from io.Reader = client.In
		if tty {
			from = term.NewEscapeProxy(client.In, keys)
		}
		_, err := io.Copy(in, from)
		var escape term.EscapeError
		switch {
		case errors.As(err, &escape):
			close(escaped)
		case closeStdin && !tty:
			_ = in.Close() // the application sees the end of its input
		default:
			_ = st.Close() // Docker ends the session with the client's input
		}
	}()
	select {
	case <-output:
	case <-escaped:
		detached = true
	case <-ctx.Done():
	}
	_ = st.Close() // unblocks the output
	<-output
	if client.In != nil {
		_ = client.In.Close() // unblocks the input
	}
	<-input
	return detached
}
