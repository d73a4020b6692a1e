package logfile

import (
	"sync"
	"time"
)

// ring holds output between callers that do not wait and the disk. A nil ring
// holds nothing.
type ring struct {
	max   int64
	write func(stream byte, p []byte, at time.Time)
	end   func(stream byte, at time.Time)

	mu      sync.Mutex
	queue   []piece
	size    int64
	dropped uint64
	// working is not nil while a goroutine empties the queue, which closes it when
	// the queue is empty. Others may put while somebody waits for that.
	working chan struct{}
}

// piece is what one read returned, or the end of a stream.
type piece struct {
	stream byte
	data   []byte
	at     time.Time
	end    bool
}

// pieceCost is what a piece takes beside its bytes: without it a program that
// writes byte by byte would have a hundred times the bound.
const pieceCost = 64

// cost is the memory of a piece; one whose bytes were dropped has none.
func (p piece) cost() int64 {
	if p.data == nil {
		return 0
	}
	return int64(len(p.data)) + pieceCost
}

// put queues a piece. What does not fit beside it is dropped, the oldest first;
// one piece always fits.
func (r *ring) put(p piece) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i < len(r.queue) && r.size+p.cost() > r.max; i++ {
		if r.queue[i].end {
			continue // ends of streams stay
		}
		r.dropped += uint64(len(r.queue[i].data))
		r.size -= r.queue[i].cost()
		r.queue[i].data = nil
	}
	for len(r.queue) > 0 && r.queue[0].data == nil && !r.queue[0].end {
		r.queue = r.queue[1:]
	}
	r.queue = append(r.queue, p)
	r.size += p.cost()
	if r.working == nil {
		r.working = make(chan struct{})
		go r.run()
	}
}

// run empties the queue.
func (r *ring) run() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			close(r.working)
			r.working, r.queue = nil, nil
			r.mu.Unlock()
			return
		}
		p := r.queue[0]
		r.queue = r.queue[1:]
		r.size -= p.cost()
		r.mu.Unlock()
		switch {
		case p.end:
			r.end(p.stream, p.at)
		case len(p.data) > 0:
			r.write(p.stream, p.data, p.at)
		}
	}
}

// wait returns when the queue is empty, or after limit; below 0 is no limit.
func (r *ring) wait(limit time.Duration) {
	working := r.emptying()
	if working == nil {
		return
	}
	if limit < 0 {
		<-working
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-working:
	case <-timer.C:
	}
}

func (r *ring) busy() bool { return r.emptying() != nil }

func (r *ring) emptying() <-chan struct{} {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.working
}

// lost counts bytes that were dropped for want of room.
func (r *ring) lost() uint64 {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}
