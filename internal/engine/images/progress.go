package images

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/orlop/orlop/internal/domain/image"
)

// progressEvery bounds how often a layer's bytes are reported, as Docker does.
const progressEvery = 100 * time.Millisecond

// reporter sends the messages of one act to its client, one at a time. A
// client that is gone ends the act.
type reporter struct {
	send   func(jsonstream.Message) error
	cancel context.CancelCauseFunc
	now    func() time.Time

	mu   sync.Mutex
	last map[string]reported
}

type reported struct {
	status  string
	at      time.Time
	current int64
}

func (s *Service) reporter(ctx context.Context, send func(jsonstream.Message) error) (context.Context, *reporter) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &reporter{send: send, cancel: cancel, now: s.cfg.Now, last: map[string]reported{}}
}

func (r *reporter) close() { r.cancel(nil) }

func (r *reporter) deliver(m jsonstream.Message) {
	if r.send == nil {
		return
	}
	if err := r.send(m); err != nil {
		r.cancel(fmt.Errorf("send progress: %w", err))
	}
}

// message is a line; id may be empty.
func (r *reporter) message(id, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliver(jsonstream.Message{ID: id, Status: status})
}

// stream is text as it is printed.
func (r *reporter) stream(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliver(jsonstream.Message{Stream: text})
}

// layer tells how far something with an id is.
func (r *reporter) layer(id, status string, current, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, before := r.now(), r.last[id]
	if before.status == status && current != total && now.Sub(before.at) < progressEvery {
		return
	}
	// A finished count is told once.
	if before.status == status && before.current == current {
		return
	}
	r.last[id] = reported{status: status, at: now, current: current}
	r.deliver(jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: current, Total: total}})
}

func (r *reporter) phase(id string, phase image.Phase, current, total int64) {
	r.layer(id, string(phase), current, total)
}
