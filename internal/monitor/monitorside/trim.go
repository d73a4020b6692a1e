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
	// settleAgain is how long a monitor that was asked something must be idle
	// before it starts afresh once more.
	settleAgain = time.Minute
	// idleTrim is how long nothing must happen before memory is given back.
	idleTrim = 3 * time.Second
)

// trimmer gives memory back to the kernel when the monitor is idle.
type trimmer struct {
	active atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	armed   bool // the timer runs
	due     bool // it was set by f's wish or by start: activity does not put it off
	stopped bool
	f       func() time.Duration
}

// start lets touch arm the timer from now on, and arms it unless after is 0. f
// returns when it wants to be called again although nothing happened, 0 for
// never.
func (t *trimmer) start(after time.Duration, f func() time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.f = f
	t.armed, t.due = after > 0, after > 0
	t.timer = time.AfterFunc(max(after, idleTrim), t.fire)
	if after > 0 {
		t.timer.Reset(after)
	} else {
		t.timer.Stop()
	}
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
	if t.active.Swap(false) && !t.due {
		t.timer.Reset(idleTrim)
		t.mu.Unlock()
		return
	}
	t.armed, t.due = false, false
	t.mu.Unlock()
	again := t.f()
	t.mu.Lock()
	defer t.mu.Unlock()
	if again > 0 && !t.stopped && !t.armed {
		t.armed, t.due = true, true
		t.timer.Reset(again)
	}
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

// shrink gives back what an idle monitor does not need. It returns when it
// should be called again; 0 is after the next activity.
//
// A monitor that has started afresh keeps its few buffers: the first garbage
// collection of a Go program costs 0.3 MiB, more than they are.
func (m *monitor) shrink() (again time.Duration) {
	if m.grown.Load() {
		idle := m.now().Sub(time.Unix(0, m.asked.Load()))
		if m.settled && idle < settleAgain {
			again = settleAgain - idle
		} else {
			again = m.settle()
		}
	}
	if !m.settled {
		m.buffer.trim()
		m.log.Trim()
		debug.FreeOSMemory()
	}
	return again
}
