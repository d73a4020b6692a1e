package main

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangups tells when the peer of a connection has closed both directions. One
// thread waits for all connections; a client that only ended its input
// (shutdown of the writing half) is still there.
type hangups struct {
	epoll int

	mu   sync.Mutex
	next int32
	gone map[int32]func()
}

// newHangups starts the waiter, which lives as long as the process: an epoll
// descriptor cannot be closed under a waiting thread.
func newHangups() (*hangups, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	h := &hangups{epoll: fd, gone: map[int32]func(){}}
	go h.wait()
	return h, nil
}

// watch is httpapi.Config.Hangup.
func (h *hangups) watch(conn net.Conn, gone func()) (stop func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	h.mu.Lock()
	h.next++
	key := h.next
	h.gone[key] = gone
	h.mu.Unlock()

	added := false
	// EPOLLHUP and EPOLLERR are reported without being asked for. The number
	// of the descriptor may be used again, so events carry our own key.
	_ = raw.Control(func(fd uintptr) {
		added = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: key}) == nil
	})
	stop = func() {
		h.mu.Lock()
		_, waiting := h.gone[key]
		delete(h.gone, key)
		h.mu.Unlock()
		if waiting && added {
			_ = raw.Control(func(fd uintptr) { _ = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, int(fd), nil) })
		}
	}
	if !added {
		stop()
	}
	return stop
}

func (h *hangups) wait() {
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(h.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range events[:max(n, 0)] {
			h.mu.Lock()
			gone := h.gone[e.Fd]
			delete(h.gone, e.Fd)
			h.mu.Unlock()
			if gone != nil {
				gone()
			}
		}
	}
}
