package events_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	eventtypes "github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/engine/events"
)

// memoryLog is a log that can be held up or refuse.
type memoryLog struct {
	mu   sync.Mutex
	list []eventtypes.Message
	gate chan struct{}
	err  error
}

func (l *memoryLog) Append(m eventtypes.Message) (uint64, error) {
	if l.gate != nil {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.list = append(l.list, m)
	return uint64(len(l.list)), nil
}

func (l *memoryLog) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.list))
}

func (l *memoryLog) Read(_, _ time.Time) iter.Seq2[uint64, eventtypes.Message] {
	l.mu.Lock()
	list := slices.Clone(l.list)
	l.mu.Unlock()
	return func(yield func(uint64, eventtypes.Message) bool) {
		for i, m := range list {
			if !yield(uint64(i+1), m) {
				return
			}
		}
	}
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock moves by a second each time.
func clock() func() time.Time {
	var mu sync.Mutex
	now := start
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func event(id string, action eventtypes.Action) eventtypes.Message {
	return eventtypes.Message{Type: eventtypes.ContainerEventType, Action: action, Actor: eventtypes.Actor{ID: id, Attributes: map[string]string{"name": "web"}}}
}

func newBroker(t *testing.T, log events.Log) (*events.Broker, func()) {
	b := events.New(events.Config{Log: log, Logger: slog.New(slog.DiscardHandler), Now: clock()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return b, stop
}

// take reads n events of a subscription.
func take(t *testing.T, seq iter.Seq2[eventtypes.Message, error], n int) []string {
	t.Helper()
	var out []string
	for m, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m.Actor.ID)
		if len(out) == n {
			break
		}
	}
	return out
}

func TestTheBacklogJoinsTheStreamWithoutAGapOrAPair(t *testing.T) {
	log := &memoryLog{gate: make(chan struct{}, 100)}
	b, _ := newBroker(t, log)
	for _, id := range []string{"a", "b", "c"} {
		b.Publish(event(id, "start"))
	}
	log.gate <- struct{}{} // only the first is written
	seq, err := b.Subscribe(t.Context(), start, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		log.gate <- struct{}{}
	}
	b.Publish(event("d", "start"))
	if got, want := take(t, seq, 4), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("saw %v, want %v", got, want)
	}
	if b.Listeners() != 0 {
		t.Error("the listener is still there")
	}
}

func TestEventsSurviveTheBroker(t *testing.T) {
	log := &memoryLog{}
	b, stop := newBroker(t, log)
	b.Publish(event("a", "start"))
	b.Publish(event("b", "die"))
	stop()
	b, _ = newBroker(t, log)
	seq, err := b.Subscribe(t.Context(), start, start.Add(time.Hour), map[string][]string{"event": {"die"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := take(t, seq, 1); !slices.Equal(got, []string{"b"}) {
		t.Errorf("saw %v", got)
	}
}

func TestALogThatFailsLosesOnlyItsOwn(t *testing.T) {
	b, stop := newBroker(t, &memoryLog{err: errors.New("disk full")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seq, err := b.Subscribe(ctx, time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Publish(event("a", "start"))
	if got := take(t, seq, 1); !slices.Equal(got, []string{"a"}) {
		t.Errorf("saw %v", got)
	}
	stop()
}

func TestAnUnreadListenerHoldsNobodyUp(t *testing.T) {
	b, _ := newBroker(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.Subscribe(ctx, time.Time{}, time.Time{}, nil); err != nil {
		t.Fatal(err)
	}
	for range 10000 {
		b.Publish(event("a", "start"))
	}
	cancel()
	for b.Listeners() != 0 {
		time.Sleep(0) // the listener goes with its context
	}
}

func TestPastEventsAreNotSentWithoutATime(t *testing.T) {
	b, _ := newBroker(t, &memoryLog{})
	b.Publish(event("old", "start"))
	seq, err := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Publish(event("new", "start"))
	if got := take(t, seq, 1); !slices.Equal(got, []string{"new"}) {
		t.Errorf("saw %v", got)
	}
}

func TestFilters(t *testing.T) {
	web := eventtypes.Message{Type: "container", Action: "start", Scope: "local", Actor: eventtypes.Actor{ID: "0123abc", Attributes: map[string]string{"name": "web", "image": "redis:7", "tier": "front"}}}
	probe := web
	probe.Action = "exec_create: redis-cli ping"
	image := eventtypes.Message{Type: "image", Action: "pull", Scope: "local", Actor: eventtypes.Actor{ID: "docker.io/library/redis:7", Attributes: map[string]string{"name": "redis"}}}
	for _, c := range []struct {
		m       eventtypes.Message
		filters map[string][]string
		want    bool
	}{
		{web, nil, true},
		{web, map[string][]string{"type": {"container"}}, true},
		{web, map[string][]string{"type": {"image"}}, false},
		{web, map[string][]string{"type": {"image", "container"}, "event": {"start", "die"}}, true},
		{web, map[string][]string{"event": {"sta"}}, false},
		{web, map[string][]string{"container": {"web"}}, true},
		{web, map[string][]string{"container": {"0123"}}, true},
		{web, map[string][]string{"container": {"db"}}, false},
		{image, map[string][]string{"container": {"web"}}, false},
		{web, map[string][]string{"image": {"redis"}}, true},
		{web, map[string][]string{"image": {"redis:7"}}, true},
		{web, map[string][]string{"image": {"nginx"}}, false},
		{image, map[string][]string{"image": {"redis"}}, true},
		{web, map[string][]string{"label": {"tier=front"}}, true},
		{web, map[string][]string{"label": {"tier=front", "other"}}, false},
		{probe, map[string][]string{"event": {"exec_create"}}, true},
		{probe, map[string][]string{"event": {"exec_start"}}, false},
		{web, map[string][]string{"scope": {"swarm"}}, false},
	} {
		if got := events.Match(c.filters, c.m); got != c.want {
			t.Errorf("%s %s with %v: %v", c.m.Type, c.m.Action, c.filters, got)
		}
	}
}
