package monitorside

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// queueMemory is how much a slow client's queue holds in memory.
	queueMemory = 128 << 10
	// queueFile is how much it holds in its file beyond that, in bytes.
	queueFile = 64 << 20
	// punchStep is how much is taken from the file before its blocks are given
	// back.
	punchStep = 1 << 20
)

// queue holds what a client has not taken yet: a little in memory, then in a
// file without a name, up to a bound.
type queue struct {
	folder string

	mem  []byte
	from int // of mem
	file *os.File
	// The file's content between r and w comes behind mem.
	r, w    int64
	punched int64
	// broken: the file could not be written, memory is all there is.
	broken bool
}

// push appends. It always takes what it gets; full says when to stop.
func (q *queue) push(p []byte) {
	if q.r == q.w && len(q.mem)-q.from+len(p) <= queueMemory || q.broken {
		q.remember(p)
		return
	}
	if q.file == nil {
		if q.file = unnamed(q.folder); q.file == nil {
			q.broken = true
			q.remember(p)
			return
		}
	}
	n, err := q.file.WriteAt(p, q.w)
	q.w += int64(n)
	if err != nil {
		// What is in the file comes first, so it is taken into memory.
		q.broken = true
		rest := make([]byte, q.w-q.r)
		if _, err := q.file.ReadAt(rest, q.r); err == nil {
			q.remember(rest)
		}
		q.r, q.w = 0, 0
		q.remember(p[n:])
	}
}

func (q *queue) remember(p []byte) {
	if q.from > 0 && len(q.mem)+len(p) > cap(q.mem) {
		q.mem = append(q.mem[:0], q.mem[q.from:]...)
		q.from = 0
	}
	q.mem = append(q.mem, p...)
}

// full: whoever fills it should wait now.
func (q *queue) full() bool {
	if q.broken {
		return len(q.mem)-q.from >= queueMemory
	}
	return q.w-q.r >= queueFile
}

// peek returns the first bytes; buf is used for those of the file.
func (q *queue) peek(buf []byte) ([]byte, error) {
	if q.from < len(q.mem) {
		n := copy(buf, q.mem[q.from:])
		return buf[:n], nil
	}
	if q.r == q.w {
		return nil, nil
	}
	n := min(int64(len(buf)), q.w-q.r)
	_, err := q.file.ReadAt(buf[:n], q.r)
	return buf[:n], err
}

// pop removes the first n bytes, at most as many as peek returned.
func (q *queue) pop(n int) {
	if q.from < len(q.mem) {
		q.from += n
		if q.from == len(q.mem) {
			q.mem, q.from = nil, 0
		}
		return
	}
	q.r += int64(n)
	if q.r == q.w {
		_ = q.file.Truncate(0)
		q.r, q.w, q.punched = 0, 0, 0
	} else if q.r-q.punched >= punchStep {
		raw, err := q.file.SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) {
				_ = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, q.punched, q.r-q.punched)
			})
		}
		q.punched = q.r
	}
}

// close gives everything back.
func (q *queue) close() {
	q.mem, q.from, q.r, q.w, q.punched = nil, 0, 0, 0, 0
	if q.file != nil {
		q.file.Close()
		q.file = nil
	}
}

// unnamed makes a file that goes with its descriptor, or returns nil.
func unnamed(folder string) *os.File {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "spill")
	}
	f, err := os.CreateTemp(folder, ".spill-*")
	if err != nil {
		return nil
	}
	_ = os.Remove(f.Name())
	return f
}

// spillFolder is where slow clients' output waits: beside the log, which is on
// a disk; the run folder is memory.
func spillFolder(l *launch) string {
	if l.Log.Path != "" {
		return filepath.Dir(l.Log.Path)
	}
	return l.RunDir
}
