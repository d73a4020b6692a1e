package process

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread of its own, which ends with it: whatever
// namespaces f enters, nothing else of this process is ever in them.
func OnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: it would stay in those namespaces, and
			// is what /proc/self shows. It is held here until f ran on another.
			defer runtime.UnlockOSThread()
			OnThread(f)
			return
		}
		f() // never unlocked
	}()
	<-done
}
