// Package events tells everybody what happened in the engine, in one order:
// Publish numbers an event, hands it to those who listen, and leaves it to Run
// to write it to the log that survives the daemon.
//
// Entry points: New, Run, Publish, Subscribe.
//
// There is one lock, Broker.mu. It guards numbers and queues and is never held
// over the log or a listener.
package events

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	eventtypes "github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Log keeps events across restarts of the daemon. It is used by one broker.
type Log interface {
	// Append writes an event and returns its number, greater than that of
	// every event before. What is written survives the end of the process.
	Append(m eventtypes.Message) (seq uint64, err error)
	// Last returns the number of the newest event; 0 when there is none.
	Last() uint64
	// Read yields the events from since until until (inclusive, zero is
	// unbounded) with their numbers, oldest first.
	Read(since, until time.Time) iter.Seq2[uint64, eventtypes.Message]
}

// Bounds of memory: what one listener may lag behind, and what may wait for a
// log that does not take it.
const (
	listenerQueue = 4096
	unsavedLimit  = 65536
)

// Config of a Broker. Every field is required but Log: without one, events
// are not kept.
type Config struct {
	Log    Log
	Logger *slog.Logger
	Now    func() time.Time
	// After is time.After, or a test's clock.
	After func(time.Duration) <-chan time.Time
}

// Broker distributes events. It is safe for concurrent use.
type Broker struct {
	cfg  Config
	wake chan struct{}

	mu        sync.Mutex
	listeners map[*listener]struct{}
	// unsaved events wait for Run to write them, oldest first; saved is the
	// number of the newest event in the log.
	unsaved []eventtypes.Message
	saved   uint64
	lost    uint64
}

type listener struct {
	filters container.Filters
	queue   chan eventtypes.Message
}

// New makes a broker; events are written once Run runs.
func New(cfg Config) *Broker {
	if cfg.After == nil {
		cfg.After = time.After
	}
	b := &Broker{cfg: cfg, wake: make(chan struct{}, 1), listeners: map[*listener]struct{}{}}
	if cfg.Log != nil {
		b.saved = cfg.Log.Last()
	}
	return b
}

// Publish distributes an event. Time and scope are filled when they are not
// set. It does not block: a listener that lags too far behind misses events.
func (b *Broker) Publish(m eventtypes.Message) {
	if m.TimeNano == 0 {
		now := b.cfg.Now().UTC()
		m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	}
	if m.Scope == "" {
		m.Scope = "local"
	}
	// Attributes belong to the caller, who may go on changing them.
	m.Actor.Attributes = maps.Clone(m.Actor.Attributes)

	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		if !Match(l.filters, m) {
			continue
		}
		select {
		case l.queue <- m:
		default: // Docker drops, too, what a client does not take
		}
	}
	if b.cfg.Log == nil {
		return
	}
	if len(b.unsaved) >= unsavedLimit {
		b.unsaved = b.unsaved[1:]
		b.lost++
	}
	b.unsaved = append(b.unsaved, m)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run writes events to the log until ctx ends, and what is left then.
func (b *Broker) Run(ctx context.Context) error {
	if b.cfg.Log == nil {
		<-ctx.Done()
		return nil
	}
	for {
		b.save()
		select {
		case <-b.wake:
		case <-ctx.Done():
			b.save()
			return nil
		}
	}
}

// save writes what waits. An event that the log refuses is given up after one
// try: the log says itself when it is full, and order matters more.
func (b *Broker) save() {
	for {
		b.mu.Lock()
		lost := b.lost
		b.lost = 0
		if len(b.unsaved) == 0 {
			b.unsaved = nil
			b.mu.Unlock()
			return
		}
		m := b.unsaved[0]
		b.mu.Unlock()
		if lost > 0 {
			b.cfg.Logger.Error("events were not written to the log: it is too slow", "events", lost)
		}

		seq, err := b.cfg.Log.Append(m)
		if err != nil {
			b.cfg.Logger.Error("write event to the log", "type", m.Type, "action", m.Action, "id", m.Actor.ID, "error", err)
		}
		b.mu.Lock()
		// Publish may have dropped the oldest meanwhile.
		if len(b.unsaved) > 0 && b.unsaved[0].TimeNano == m.TimeNano && b.unsaved[0].Actor.ID == m.Actor.ID {
			b.unsaved = b.unsaved[1:]
		}
		if err == nil {
			b.saved = seq
		}
		b.mu.Unlock()
	}
}

// Subscribe yields the events from since on (none of the past when both times
// are zero), then new ones, until the time until (zero: for ever) or until ctx
// ends. The listener is there when Subscribe returns: no event that follows is
// missed. Unknown filters are ignored, as Docker does.
func (b *Broker) Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) (iter.Seq2[eventtypes.Message, error], error) {
	l := &listener{filters: filters, queue: make(chan eventtypes.Message, listenerQueue)}
	past := !since.IsZero() || !until.IsZero()

	b.mu.Lock()
	var unsaved []eventtypes.Message
	if past {
		unsaved = append(unsaved, b.unsaved...)
	}
	saved := b.saved
	b.listeners[l] = struct{}{}
	b.mu.Unlock()
	forget := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, l)
	}
	stop := context.AfterFunc(ctx, forget)

	inRange := func(m eventtypes.Message) bool {
		return (since.IsZero() || m.TimeNano >= since.UnixNano()) && (until.IsZero() || m.TimeNano <= until.UnixNano())
	}
	return func(yield func(eventtypes.Message, error) bool) {
		defer stop()
		defer forget()
		if past {
			if b.cfg.Log != nil {
				for seq, m := range b.cfg.Log.Read(since, until) {
					if seq > saved || ctx.Err() != nil {
						break // from here on it is in unsaved, or the client is gone
					}
					if inRange(m) && Match(l.filters, m) && !yield(m, nil) {
						return
					}
				}
			}
			for _, m := range unsaved {
				if inRange(m) && Match(l.filters, m) && !yield(m, nil) {
					return
				}
			}
		}
		var end <-chan time.Time
		if !until.IsZero() {
			left := until.Sub(b.cfg.Now())
			if left <= 0 {
				return
			}
			end = b.cfg.After(left)
		}
		for {
			select {
			case m := <-l.queue:
				if !yield(m, nil) {
					return
				}
			case <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}, nil
}

// Listeners counts those who listen, for /info.
func (b *Broker) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.listeners)
}
