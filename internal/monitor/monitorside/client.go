package monitorside

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// inputSize is how much of a client's standard input is taken at a time.
const inputSize = 16 << 10

// fanout gives a task's output to its clients.
type fanout struct {
	m *monitor

	mu      sync.Mutex
	clients map[*client]bool
	open    int // streams that have not ended
	ended   bool
	dropped bool // nobody is served any more
}

// begin says how many streams there are. Without any, clients are there for the
// input and stay until the process ends.
func (o *fanout) begin(streams int) {
	o.mu.Lock()
	o.open = streams
	o.mu.Unlock()
}

// add reports false when it is too late: nobody would ever drop the client.
func (o *fanout) add(c *client) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dropped {
		return false
	}
	if o.clients == nil {
		o.clients = map[*client]bool{}
	}
	o.clients[c] = true
	if o.ended {
		c.end()
	}
	return true
}

func (o *fanout) remove(c *client) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.clients, c)
}

func (o *fanout) list() []*client {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]*client, 0, len(o.clients))
	for c := range o.clients {
		list = append(list, c)
	}
	return list
}

// give hands one read to every client that wants the stream. It never
// waits.
func (o *fanout) give(stream byte, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.clients {
		if c.wants[stream] {
			c.give(stream, data)
		}
	}
}

// endOne notes the end of one stream; after the last, clients get theirs.
func (o *fanout) endOne() {
	o.mu.Lock()
	o.open--
	last := o.open <= 0
	o.mu.Unlock()
	if last {
		o.end()
	}
}

// end lets clients finish: no more output comes.
func (o *fanout) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for c := range o.clients {
		c.end()
	}
}

// waitRoom waits while the queue of a client that was there first is full: the
// bound of what is kept for it was reached, and the application has to wait for
// it. It reports false when the pump has to stop.
func (o *fanout) waitRoom(quit <-chan struct{}) bool {
	for _, c := range o.list() {
		for {
			room := c.waitRoom()
			if room == nil {
				break
			}
			select {
			case <-room:
			case <-quit:
				return false
			}
		}
	}
	return true
}

// deliver waits until every client took its queue. A client that takes nothing
// for the whole timeout is given up.
func (o *fanout) deliver(timeout time.Duration) {
	for _, c := range o.list() {
		timer := time.NewTimer(timeout)
		for {
			progress := c.waitEmpty()
			if progress == nil {
				break
			}
			select {
			case <-progress:
				timer.Reset(timeout)
				continue
			case <-timer.C:
			}
			break
		}
		timer.Stop()
	}
}

// dropAll lets go of every client, and of those that come later.
func (o *fanout) dropAll() {
	o.mu.Lock()
	o.dropped = true
	o.mu.Unlock()
	for _, c := range o.list() {
		c.drop()
	}
}

// client is one attached stream.
type client struct {
	t     *task
	file  *os.File
	raw   syscall.RawConn
	stdin bool
	wants [3]bool // by stream
	// first: it was there before the process, whose output it is. The process waits
	// for it as for a pipe, while others are cut off.
	first bool

	mu    sync.Mutex
	queue queue
	// writing: a goroutine empties the queue.
	writing bool
	// ended: nothing comes any more; dead: the client is gone.
	ended, dead bool
	// change is closed and replaced whenever the queue got shorter or the
	// client died, if anybody waits for it.
	change chan struct{}
	head   [protocol.StreamHeaderSize]byte
}

func newClient(t *task, f *os.File, a protocol.AttachArgs, first bool) (*client, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &client{t: t, file: f, raw: raw, stdin: a.Stdin, wants: [3]bool{1: a.Stdout, 2: a.Stderr}, first: first}
	c.queue.folder = t.m.spill
	return c, nil
}

// give sends what the socket takes at once and queues the rest.
func (c *client) give(stream byte, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.ended {
		return
	}
	if !c.first && c.queue.full() {
		c.cutOff()
		return
	}
	head := protocol.AppendStreamHeader(c.head[:0], stream, len(data))
	sent := 0
	if !c.writing {
		var err error
		sent, err = c.send(head, data)
		if err != nil {
			c.die()
			return
		}
		if sent == len(head)+len(data) {
			return
		}
	}
	if sent < len(head) {
		c.queue.push(head[sent:])
		c.queue.push(data)
	} else {
		c.queue.push(data[sent-len(head):])
	}
	if !c.writing {
		c.writing = true
		c.t.m.work.Go(c.write)
	}
}

// cutOff ends the output to a client that has not taken what waits for it
// already: it gets that, and the reason. mu is held; the queue is not empty.
func (c *client) cutOff() {
	stream := logfile.Stderr
	if c.t.tty || !c.wants[stream] {
		stream = logfile.Stdout
	}
	text := "\nthe rest of the output is not shown here: it comes faster than it is read; see the log\n"
	if c.t.tty {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	c.queue.push(protocol.AppendStreamHeader(nil, stream, len(text)))
	c.queue.push([]byte(text))
	c.ended = true
	c.signal()
}

// send writes without waiting.
func (c *client) send(parts ...[]byte) (n int, err error) {
	if ctlErr := c.raw.Control(func(fd uintptr) {
		for {
			n, err = unix.SendmsgBuffers(int(fd), parts, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				return
			}
		}
	}); ctlErr != nil {
		return 0, ctlErr
	}
	if err == unix.EAGAIN {
		return 0, nil
	}
	return n, err
}

// write empties the queue as fast as the client reads.
func (c *client) write() {
	buf := make([]byte, pumpSize)
	for {
		c.mu.Lock()
		part, err := c.queue.peek(buf)
		if err != nil {
			c.die()
		}
		if c.dead || len(part) == 0 {
			c.writing = false
			c.queue.close()
			if c.ended && !c.dead {
				c.shut()
			}
			c.signal()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		var n int
		waitErr := c.raw.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), part, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
		c.mu.Lock()
		if waitErr != nil || err != nil {
			c.die()
		} else {
			c.queue.pop(n)
		}
		c.signal()
		c.mu.Unlock()
	}
}

// end closes the direction towards the client after its queue.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	if !c.writing && !c.dead {
		c.shut()
	}
}

// shut tells the client that the output has ended. mu is held.
func (c *client) shut() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
}

// die gives the client up. mu is held.
func (c *client) die() {
	c.dead = true
	c.signal()
	if !c.writing {
		c.queue.close()
	}
}

// signal wakes who waits for a change. mu is held.
func (c *client) signal() {
	if c.change != nil {
		close(c.change)
		c.change = nil
	}
}

func (c *client) changed() <-chan struct{} {
	if c.change == nil {
		c.change = make(chan struct{})
	}
	return c.change
}

// waitRoom returns nil when the client takes more, else what to wait for.
func (c *client) waitRoom() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.ended || !c.first || !c.queue.full() {
		return nil
	}
	return c.changed()
}

// waitEmpty returns nil when nothing is queued, else what to wait for.
func (c *client) waitEmpty() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || !c.writing {
		return nil
	}
	return c.changed()
}

// drop closes the connection.
func (c *client) drop() {
	c.t.out.remove(c)
	c.mu.Lock()
	c.die()
	c.mu.Unlock()
	c.file.Close()
}

// read passes the client's input on and notices when it goes. It holds no
// buffer while it waits.
func (c *client) read() {
	defer c.drop()
	moving := &c.t.m.moving
	var buf []byte
	for {
		n := 0
		var err error
		if c.raw.Read(func(fd uintptr) bool {
			if buf == nil && !readable(int(fd)) {
				return false
			}
			if buf == nil {
				buf = make([]byte, inputSize)
			}
			moving.RLock()
			for {
				n, err = unix.Read(int(fd), buf)
				if err != unix.EINTR {
					break
				}
			}
			if err == unix.EAGAIN {
				moving.RUnlock()
				buf = nil
				return false
			}
			return true
		}) != nil {
			return
		}
		if err != nil || n == 0 {
			buf = nil
			c.inputEnded()
			moving.RUnlock()
			c.awaitHangup()
			return
		}
		if c.stdin {
			c.t.in.write(buf[:n])
			c.t.m.trim.touch()
		}
		moving.RUnlock()
	}
}

func (c *client) inputEnded() {
	if c.stdin {
		c.t.in.gone()
	}
}

// awaitHangup returns when the client has closed both directions.
func (c *client) awaitHangup() {
	_ = c.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	})
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
