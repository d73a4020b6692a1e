package monitorside

import (
	"os"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper takes the status of processes that foreign runtimes left to the
// monitor and that nobody waits for.
type reaper struct {
	signals chan os.Signal
	done    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	held  int          // a runtime runs: an unknown child may become a known one
	known map[int]bool // somebody waits for these
}

func newReaper() *reaper {
	r := &reaper{signals: make(chan os.Signal, 1), done: make(chan struct{}), known: map[int]bool{}}
	signal.Notify(r.signals, unix.SIGCHLD)
	go func() {
		defer close(r.done)
		for range r.signals {
			r.reap()
		}
	}()
	return r
}

func (r *reaper) hold() {
	r.mu.Lock()
	r.held++
	r.mu.Unlock()
}

func (r *reaper) release() {
	r.mu.Lock()
	r.held--
	r.mu.Unlock()
	r.reap()
}

func (r *reaper) add(pid int) {
	r.mu.Lock()
	r.known[pid] = true
	r.mu.Unlock()
}

func (r *reaper) remove(pid int) {
	r.mu.Lock()
	delete(r.known, pid)
	r.mu.Unlock()
	r.reap()
}

// reap stops at a child that somebody waits for: remove comes back then.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.held == 0 {
		// Waitid with WNOWAIT only looks; si_pid follows three ints.
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo == 0 {
			return
		}
		pid := int(*(*int32)(unsafe.Pointer(uintptr(unsafe.Pointer(&info)) + sifieldsOffset)))
		if r.known[pid] {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// sifieldsOffset is where the union of siginfo_t begins on 64-bit machines.
const sifieldsOffset = 16

// stop ends the goroutine and waits for it. It may be repeated.
func (r *reaper) stop() {
	r.once.Do(func() {
		signal.Stop(r.signals)
		close(r.signals)
	})
	<-r.done
}
