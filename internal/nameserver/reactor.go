package nameserver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// reactor waits for many descriptors with one goroutine: a thousand listening
// sockets cost no more memory than their entries in a map. Handlers run one
// after the other and must not block.
type reactor struct {
	epfd, wake int

	mu       sync.Mutex
	handlers map[int]func()
	// closing are descriptors that the loop closes between two handlers, so
	// that no handler ever works with a number that means another socket.
	running bool
	closing []closing
	// paused and idle stop the loop for a take-over: idle is closed when no
	// handler runs any more.
	paused bool
	idle   chan struct{}
	resume chan struct{}
}

func newReactor() (*reactor, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make eventfd: %w", err), unix.Close(epfd))
	}
	r := &reactor{epfd: epfd, wake: wake, handlers: map[int]func(){}}
	return r, r.register(wake)
}

func (r *reactor) register(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

type closing struct {
	fds  []int
	done chan struct{}
}

// add calls handler whenever fd can be read.
func (r *reactor) add(fd int, handler func()) error {
	r.mu.Lock()
	r.handlers[fd] = handler
	r.mu.Unlock()
	if err := r.register(fd); err != nil {
		r.mu.Lock()
		delete(r.handlers, fd)
		r.mu.Unlock()
		return err
	}
	return nil
}

// remove ends that. The handler may be running for the last time; it finds the
// descriptor not readable, or closed.
func (r *reactor) remove(fd int) {
	r.mu.Lock()
	_, known := r.handlers[fd]
	delete(r.handlers, fd)
	r.mu.Unlock()
	if known {
		// The descriptor may be closed already, which has removed it.
		_ = unix.EpollCtl(r.epfd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// closeFDs ends the watch and closes descriptors; it returns when that has
// happened. It must not be called by a handler.
func (r *reactor) closeFDs(fds ...int) {
	if len(fds) == 0 {
		return
	}
	r.mu.Lock()
	watched := false
	for _, fd := range fds {
		if _, known := r.handlers[fd]; known {
			watched = true
			delete(r.handlers, fd)
		}
	}
	if !watched || !r.running || r.paused {
		r.mu.Unlock()
		r.discard(fds)
		return
	}
	c := closing{fds: fds, done: make(chan struct{})}
	r.closing = append(r.closing, c)
	r.mu.Unlock()
	r.kick()
	<-c.done
}

// discard closes descriptors. A successor may have them too: closing alone
// would not take them out of our epoll.
func (r *reactor) discard(fds []int) {
	for _, fd := range fds {
		_ = unix.EpollCtl(r.epfd, unix.EPOLL_CTL_DEL, fd, nil)
		unix.Close(fd)
	}
}

// sweep closes what waits to be closed.
func (r *reactor) sweep(last bool) {
	r.mu.Lock()
	list := r.closing
	r.closing = nil
	if last {
		r.running = false
	}
	r.mu.Unlock()
	for _, c := range list {
		r.discard(c.fds)
		close(c.done)
	}
}

// run until ctx is done.
func (r *reactor) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.kick)
	defer stop()
	r.mu.Lock()
	r.running = true
	r.mu.Unlock()
	defer r.sweep(true)
	events := make([]unix.EpollEvent, 64)
	for {
		r.sweep(false)
		r.mu.Lock()
		paused, idle, resume := r.paused, r.idle, r.resume
		r.mu.Unlock()
		if paused {
			close(idle)
			select {
			case <-resume:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		n, err := unix.EpollWait(r.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			if fd == r.wake {
				var b [8]byte
				_, _ = unix.Read(r.wake, b[:])
				continue
			}
			r.mu.Lock()
			handler := r.handlers[fd]
			r.mu.Unlock()
			if handler != nil {
				handler()
			}
		}
	}
}

func (r *reactor) kick() {
	one := [8]byte{1} // any number but 0 and the highest
	_, _ = unix.Write(r.wake, one[:])
}

// pause stops the loop and returns when no handler runs any more.
func (r *reactor) pause() {
	r.mu.Lock()
	r.paused, r.idle, r.resume = true, make(chan struct{}), make(chan struct{})
	idle := r.idle
	r.mu.Unlock()
	r.kick()
	<-idle
}

// unpause lets the loop go on.
func (r *reactor) unpause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = false
	close(r.resume)
}

func (r *reactor) close() error {
	return errors.Join(unix.Close(r.epfd), unix.Close(r.wake))
}
