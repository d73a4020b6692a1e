package logfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a log is looked at where inotify is exhausted.
const pollInterval = 250 * time.Millisecond

// watchMask: a folder is watched, not the file, because rotation gives the
// name to another file.
const watchMask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR

// watcher tells followers that their log changed.
type watcher struct {
	mu      sync.Mutex
	file    *os.File
	closed  bool
	done    chan struct{}
	folders map[int32]*folder
}

type folder struct {
	path string
	subs map[chan struct{}]string
}

// add watches a file by name. The channel gets a value after a change (several
// may be one); nil means that the caller has to poll.
func (w *watcher) add(path string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	none := func() {}
	if w.closed || w.open() != nil {
		return nil, none
	}
	dir, base := filepath.Dir(path), filepath.Base(path)
	wd, err := unix.InotifyAddWatch(w.fd(), dir, watchMask)
	if err != nil {
		return nil, none
	}
	f := w.folders[int32(wd)]
	if f == nil {
		f = &folder{path: dir, subs: map[chan struct{}]string{}}
		w.folders[int32(wd)] = f
	}
	ch := make(chan struct{}, 1)
	f.subs[ch] = base
	return ch, func() { w.remove(int32(wd), f, ch) }
}

func (w *watcher) remove(wd int32, f *folder, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(f.subs, ch)
	if len(f.subs) == 0 && w.folders[wd] == f {
		delete(w.folders, wd)
		if w.file != nil {
			_, _ = unix.InotifyRmWatch(w.fd(), uint32(wd)) // fails when the folder is gone, which is as good
		}
	}
}

// fd is valid while mu is held and the file is open.
func (w *watcher) fd() int {
	fd := -1
	if raw, err := w.file.SyscallConn(); err == nil {
		_ = raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

// open makes the inotify instance. mu is held.
func (w *watcher) open() error {
	if w.file != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	w.file = os.NewFile(uintptr(fd), "inotify")
	w.folders = map[int32]*folder{}
	w.done = make(chan struct{})
	go w.run(w.file)
	return nil
}

// run hands out events until the instance is closed.
func (w *watcher) run(f *os.File) {
	defer close(w.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			length := int(binary.NativeEndian.Uint32(b[12:]))
			name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length], []byte{0})
			b = b[unix.SizeofInotifyEvent+length:]
			w.tell(wd, mask, string(name))
		}
		w.mu.Unlock()
	}
}

// tell wakes those who wait for name; mu is held.
func (w *watcher) tell(wd int32, mask uint32, name string) {
	wake := func(f *folder) {
		for ch, base := range f.subs {
			if name != "" && base != name {
				continue
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	if mask&unix.IN_Q_OVERFLOW != 0 {
		name = ""
		for _, f := range w.folders {
			wake(f)
		}
		return
	}
	if f := w.folders[wd]; f != nil {
		wake(f)
		if mask&unix.IN_IGNORED != 0 {
			delete(w.folders, wd)
		}
	}
}

func (w *watcher) close() error {
	w.mu.Lock()
	w.closed = true
	f, done := w.file, w.done
	w.file = nil
	for _, d := range w.folders {
		for ch := range d.subs {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	err := f.Close()
	<-done
	return err
}
