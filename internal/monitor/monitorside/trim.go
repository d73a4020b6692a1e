package monitorside

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// startTrim is when a container that is still there after its start has
	// its monitor made small; those that ended before never pay for it.
	startTrim = 300 * time.Millisecond
	// idleTrim is how long nothing must happen before memory is given back.
	idleTrim = 3 * time.Second
)

// trimmer gives memory back to the kernel when the monitor is idle.
type trimmer struct {
	active atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	armed   bool // the timer runs
	stopped bool
	f       func()
}

// start arms the first trim; touch does nothing before.
func (t *trimmer) start(after time.Duration, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.f = f
	t.armed = true
	t.timer = time.AfterFunc(after, t.fire)
}

// touch notes activity: there will be something to give back.
func (t *trimmer) touch() {
	if t.active.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil || t.stopped || t.armed {
		return
	}
	t.armed = true
	t.timer.Reset(idleTrim)
}

// fire trims unless something happened since it was armed.
func (t *trimmer) fire() {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return
	}
	if t.active.Swap(false) {
		t.timer.Reset(idleTrim)
		t.mu.Unlock()
		return
	}
	t.armed = false
	t.mu.Unlock()
	t.f()
}

// stop ends trimming.
func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// shrink gives back everything an idle monitor does not need.
func (m *monitor) shrink() {
	m.ctr.Forget()
	m.buffer.trim()
	m.log.Trim()
	debug.FreeOSMemory()
}
