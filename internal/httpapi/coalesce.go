package httpapi

import "sync"

// coalesceLimit is how much output waits at most before the one who writes it
// has to send it.
const coalesceLimit = 64 << 10

// coalescer gathers small writes and sends them as soon as the connection takes
// them: a slow stream goes out piece by piece at once, a fast one in large
// pieces. Without it every line of a log would cost a system call.
type coalescer struct {
	out   *stream
	dirty chan struct{}
	done  chan struct{}

	mu  sync.Mutex // guards buf and err; held over a send, which is the back-pressure
	buf []byte
	err error
}

// coalesce starts the sender; it ends with close.
func coalesce(out *stream) *coalescer {
	c := &coalescer{out: out, dirty: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for range c.dirty {
			c.mu.Lock()
			c.send()
			c.mu.Unlock()
		}
	}()
	return c
}

// Write fails when an earlier send did.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) >= coalesceLimit {
		c.send()
		return len(p), c.err
	}
	select {
	case c.dirty <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *coalescer) send() {
	if len(c.buf) == 0 || c.err != nil {
		return
	}
	_, c.err = c.out.Write(c.buf)
	c.buf = c.buf[:0]
}

// close sends what is left and waits for the sender. No write may follow.
func (c *coalescer) close() {
	close(c.dirty)
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send()
}
