package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/domain/container"
)

// object is one container. Fields below mu are guarded by it.
type object struct {
	id      string
	request json.RawMessage

	// snap is what readers see; replaced by every change.
	snap atomic.Pointer[snapshot]

	mu    sync.Mutex
	name  string
	state container.State
	// saved is what the record holds. The things it points to are never
	// changed in place.
	saved container.Saved
	// monitor is set while a process runs.
	monitor Monitor
	running container.Running
	// frozen: its processes do not run, whatever act is in progress.
	frozen bool
	// changed is closed and replaced at every move of state.
	changed chan struct{}
	// exit is closed at the next end of the process, gone at the removal.
	exit, gone *note
	// reporting is the note of an exit that is recorded but not told yet: its ports
	// are about to be free.
	reporting *note
	// settled is closed when what the last run left has been torn down.
	settled chan struct{}
	history container.RestartHistory
	// calledOff: a user ended it, the restart policy keeps still until a user
	// starts it again. callOff wakes a policy that waits.
	calledOff bool
	callOff   chan struct{}
	// restarting counts restarts by a user in progress: an exit then removes
	// nothing.
	restarting int
	// waiting are clients that attached before the start.
	waiting []*attachment
	health  *health
}

// note tells those who wait how something ended.
type note struct {
	done chan struct{}
	// code and err are valid once done is closed.
	code int
	err  string
}

func newNote() *note { return &note{done: make(chan struct{})} }

func (n *note) tell(code int, err string) {
	n.code, n.err = code, err
	close(n.done)
}

// snapshot is an object at one moment. It is immutable.
type snapshot struct {
	id, name string
	state    container.State
	saved    container.Saved
	pid      int
	health   *containertypes.Health
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func newObject(rec container.Record, saved container.Saved) *object {
	o := &object{
		id: rec.ID, request: rec.Request, name: rec.Name, state: saved.State, saved: saved,
		frozen: saved.State == container.StatePaused, changed: make(chan struct{}), exit: newNote(), gone: newNote(), settled: closedChan(),
	}
	o.publish()
	return o
}

// publish replaces the snapshot. mu is held (or nobody else knows o yet).
func (o *object) publish() {
	o.snap.Store(&snapshot{
		id: o.id, name: o.name, state: o.state, saved: o.saved, pid: o.running.InitPid, health: o.health.report(),
	})
}

func (o *object) snapshot() *snapshot { return o.snap.Load() }

// move applies act to the state. mu is held; the caller publishes.
func (o *object) move(act container.Act) error {
	next, err := o.state.On(act, o.id)
	if err != nil {
		return err
	}
	if next != o.state {
		o.state = next
		close(o.changed)
		o.changed = make(chan struct{})
	}
	return nil
}

// ask moves the container by an act that somebody wants, after waiting for an
// act in progress. On success it returns with mu held and the state published.
func (o *object) ask(ctx context.Context, act container.Act) error {
	for {
		o.mu.Lock()
		changed := o.changed
		err := o.move(act)
		if err == nil {
			o.publish()
			return nil
		}
		o.mu.Unlock()
		var wait container.MustWait
		if !errors.As(err, &wait) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// record is what the store keeps of the object. mu is held.
func (o *object) record() (container.Record, error) {
	saved := o.saved
	saved.State = resting(o.state, !saved.StartedAt.IsZero())
	state, err := json.Marshal(saved)
	if err != nil {
		return container.Record{}, fmt.Errorf("encode state of container %s: %w", o.id, err)
	}
	return container.Record{Schema: container.SavedSchema, ID: o.id, Name: o.name, Request: o.request, State: state}, nil
}

// resting is the state that is stored for an act in progress: what is true if
// the daemon dies now and the act never happened.
func resting(s container.State, started bool) container.State {
	switch s {
	case container.StateStarting:
		if !started {
			return container.StateCreated
		}
		return container.StateExited
	case container.StatePausing, container.StateStopping:
		return container.StateRunning
	case container.StateUnpausing:
		return container.StatePaused
	case container.StateRelaunching:
		return container.StateRestarting
	}
	return s
}

// save writes the record; mu is held. A failure is logged: the state in memory
// is the truth, and the next save brings the record up to date.
func (s *Service) save(ctx context.Context, o *object) {
	rec, err := o.record()
	if err == nil {
		err = s.cfg.Store.Save(context.WithoutCancel(ctx), rec)
	}
	if err != nil {
		s.cfg.Logger.Error("save container", "container", o.id, "error", err)
	}
}

// stopTimeout is how long a polite stop may take; negative is for ever.
func (s *Service) stopTimeout(c *containertypes.Config, asked *int) time.Duration {
	switch {
	case asked != nil:
		return time.Duration(*asked) * time.Second
	case c.StopTimeout != nil:
		return time.Duration(*c.StopTimeout) * time.Second
	}
	return s.settings.Load().StopTimeout
}
