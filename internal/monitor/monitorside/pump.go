package monitorside

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pumpSize is how much is read from a pipe at a time.
	pumpSize = 32 << 10
	// drainLimit bounds what is read after the end of a process while others
	// go on writing. A pipe holds 64 KiB unless somebody enlarged it (1 MiB).
	drainLimit = 2 << 20
)

// buffer is the one read buffer of a monitor: pumps take turns, so a hundred
// idle execs hold none.
type buffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *buffer) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = nil
}

// pump moves one stream from a pipe or terminal to the log and the clients.
type pump struct {
	t      *task
	file   *os.File
	raw    syscall.RawConn
	stream byte
	quit   chan struct{}
	once   sync.Once

	// done is guarded by buffer.mu: the end of the stream was seen.
	done bool
}

type progress int

const (
	moved progress = iota
	empty
	over
)

// run moves until the end of the stream.
func (p *pump) run() {
	for {
		state := empty
		if err := p.raw.Read(func(fd uintptr) bool {
			state = p.step(int(fd))
			return state != empty
		}); err != nil || state == over {
			break
		}
		if !p.t.out.waitRoom(p.quit) {
			break
		}
	}
	p.finish()
}

// step moves what one read returns.
func (p *pump) step(fd int) progress {
	p.t.m.moving.RLock()
	defer p.t.m.moving.RUnlock()
	b := &p.t.m.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.done {
		return over
	}
	if b.data == nil {
		b.data = make([]byte, pumpSize)
	}
	n, err := unix.Read(fd, b.data)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return empty
	case err != nil || n == 0: // EIO: nobody holds the terminal any more
		p.done = true
		p.end()
		return over
	}
	p.move(b.data[:n])
	return moved
}

func (p *pump) move(data []byte) {
	if p.t.log != nil {
		p.t.log.Write(p.stream, data, p.t.m.now())
		p.t.m.noteDropped()
	}
	p.t.out.give(p.stream, data)
	p.t.m.trim.touch()
}

// end is called once, at the end of the stream.
func (p *pump) end() {
	if p.t.log != nil {
		p.t.log.End(p.stream, p.t.m.now())
	}
	p.t.out.endOne()
}

// finish makes the end known when the pump was stopped before it came.
func (p *pump) finish() {
	b := &p.t.m.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.done {
		p.done = true
		p.end()
	}
}

// drain moves what is there without waiting.
func (p *pump) drain() {
	_ = p.raw.Control(func(fd uintptr) {
		for n := 0; n < drainLimit; n += pumpSize {
			if p.step(int(fd)) != moved {
				return
			}
		}
	})
}

// stop ends the pump although its stream goes on.
func (p *pump) stop() {
	p.once.Do(func() {
		close(p.quit)
		p.file.Close()
	})
}
