package layers

import (
	"context"
	"sync"
)

// keyedLock is one lock per key; waiting for it ends with the context.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*entry
}

type entry struct {
	slot  chan struct{}
	users int
}

// lock returns the function that unlocks.
func (l *keyedLock) lock(ctx context.Context, key string) (func(), error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*entry{}
	}
	e := l.held[key]
	if e == nil {
		e = &entry{slot: make(chan struct{}, 1)}
		l.held[key] = e
	}
	e.users++
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(l.held, key)
		}
	}
	select {
	case e.slot <- struct{}{}:
		return func() { <-e.slot; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

// groupSync makes one sync of the file system serve everybody whose files were
// written before it began.
type groupSync struct {
	// turn is held by the one that syncs; mu guards the numbers below.
	turn sync.Mutex
	mu   sync.Mutex
	// started numbers the syncs; done is the newest number that succeeded.
	started, done uint64
}

// do calls sync unless one that began after this call has finished meanwhile.
func (g *groupSync) do(sync func() error) error {
	g.mu.Lock()
	seen := g.started
	g.mu.Unlock()

	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	// One that started after we looked covers our files.
	if g.done > seen {
		g.mu.Unlock()
		return nil
	}
	g.started++
	mine := g.started
	g.mu.Unlock()
	if err := sync(); err != nil {
		return err
	}
	g.mu.Lock()
	g.done = mine
	g.mu.Unlock()
	return nil
}
