package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Writer appends the output of one container. Its methods may be called by
// several goroutines.
type Writer struct {
	cfg   Config
	codec codec

	mu      sync.Mutex
	file    *os.File // nil until the first entry of a new log
	closed  bool
	size    int64
	base    int64 // length of the file's header
	streams [2]half
	out     []byte
	// bytes of output that out stands for.
	held    int
	dropped uint64
	text    []byte

	// ring takes what callers do not wait for; nil when they do.
	ring *ring
	// lost: there is no log, and what comes is counted.
	lost bool

	// names is held while files are renamed.
	names      sync.Mutex
	compressor compressor
}

// half is one stream's unfinished line.
type half struct {
	rest []byte
	// going: the entry before was a partial one, of this time.
	going bool
	since time.Time
}

// Open opens the log for appending: an incomplete last entry is cut off and
// rotated files beyond MaxFiles are removed. A log that does not exist is
// created with its first entry, because creating a file costs a disk's file
// system 0.3 ms and many containers say nothing; its folder must exist. Driver
// "none" gives a Writer that discards. ErrInvalidArgument: unknown driver.
func Open(cfg Config) (*Writer, error) {
	cfg.MaxFiles = max(cfg.MaxFiles, 1)
	w := &Writer{cfg: cfg}
	if cfg.Driver == DriverNone {
		return w, nil
	}
	if cfg.Buffer > 0 {
		w.ring = &ring{max: cfg.Buffer, write: w.write, end: w.end}
	}
	var err error
	if w.codec, err = codecOf(cfg.Driver, cfg.Attrs); err != nil {
		return nil, err
	}
	err = w.openCurrent(0)
	if errors.Is(err, os.ErrNotExist) {
		if _, err = os.Stat(filepath.Dir(cfg.Path)); err == nil {
			return w, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Path, err)
	}
	w.removeBeyond()
	return w, nil
}

// Lost gives a Writer for a log that was there and cannot be opened again: it
// counts what it is given as dropped.
func Lost(cfg Config) *Writer { return &Writer{cfg: cfg, lost: true} }

// openCurrent opens the file and cuts off what kill -9 left incomplete.
func (w *Writer) openCurrent(flag int) error {
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_APPEND|flag, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	size := info.Size()
	if size > 0 {
		good, err := w.codec.sound(f, size)
		if err != nil {
			f.Close()
			return err
		}
		if good < size {
			if err := f.Truncate(good); err != nil {
				f.Close()
				return err
			}
			size = good
		}
	}
	if size == 0 {
		if size, err = w.begin(f); err != nil {
			f.Close()
			return err
		}
		w.base = size
	} else if w.base, _, err = w.codec.start(f); err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, size
	return nil
}

// begin writes the header of an empty file.
func (w *Writer) begin(f *os.File) (int64, error) {
	head, err := w.codec.header(w.cfg.Attrs)
	if err != nil || len(head) == 0 {
		return 0, err
	}
	if _, err := f.Write(head); err != nil {
		_ = f.Truncate(0) // half a header must not stay; the write tells what is wrong
		return 0, err
	}
	return int64(len(head)), nil
}

// Write logs what one read of a stream returned, read at the given time. It
// never fails: what cannot be written is dropped and counted.
func (w *Writer) Write(stream byte, p []byte, now time.Time) {
	if w.codec == nil {
		if w.lost {
			w.mu.Lock()
			w.dropped += uint64(len(p))
			w.mu.Unlock()
		}
		return
	}
	if w.ring != nil {
		w.ring.put(piece{stream: stream, data: bytes.Clone(p), at: now})
		return
	}
	w.write(stream, p, now)
}

func (w *Writer) write(stream byte, p []byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &w.streams[stream-1]
	at := w.stamp(now)
	for len(p) > 0 {
		room := maxLine - len(h.rest)
		chunk := p[:min(room, len(p))]
		i := bytes.IndexByte(chunk, '\n')
		switch {
		case i >= 0:
			w.line(stream, h, chunk[:i], false, at, now)
			p = p[i+1:]
		case len(chunk) == room:
			w.line(stream, h, chunk, true, at, now)
			p = p[room:]
		default:
			h.rest = append(h.rest, chunk...)
			p = nil
		}
	}
	w.flush()
}

// End logs the unfinished last line of a stream that has ended.
func (w *Writer) End(stream byte, now time.Time) {
	if w.codec == nil {
		return
	}
	if w.ring != nil {
		w.ring.put(piece{stream: stream, at: now, end: true})
		return
	}
	w.end(stream, now)
}

func (w *Writer) end(stream byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &w.streams[stream-1]
	if len(h.rest) > 0 {
		w.line(stream, h, nil, true, w.stamp(now), now)
		w.flush()
	}
	*h = half{}
}

// stamp formats a time once for all lines of a read.
func (w *Writer) stamp(now time.Time) stamp {
	now = now.UTC()
	w.text = append(w.text[:0], '"')
	w.text = now.AppendFormat(w.text, time.RFC3339Nano)
	w.text = append(w.text, '"')
	return stamp{nanos: now.UnixNano(), text: w.text}
}

// line encodes one entry made of the stream's rest and more.
func (w *Writer) line(stream byte, h *half, more []byte, partial bool, at stamp, now time.Time) {
	line := more
	if len(h.rest) > 0 {
		h.rest = append(h.rest, more...)
		line = h.rest
	}
	if h.going && !h.since.Equal(now) {
		old := h.since.UTC()
		at = stamp{nanos: old.UnixNano(), text: old.AppendFormat([]byte{'"'}, time.RFC3339Nano)}
		at.text = append(at.text, '"')
	}
	if partial && !h.going {
		h.since = now
	}
	h.going = partial

	before, held := len(w.out), w.held
	w.out = w.codec.append(w.out, stream, line, partial, at)
	w.held += len(line)
	if !partial {
		w.held++
	}
	if w.cfg.MaxSize > 0 && w.size+int64(len(w.out)) > w.cfg.MaxSize {
		w.split(before, held)
	}
	if len(w.out) >= flushAt {
		w.flush()
	}
	if cap(h.rest) > 4096 {
		h.rest = nil
	} else {
		h.rest = h.rest[:0]
	}
}

// split writes what fits into the current file, rotates, and keeps the entry
// that starts at offset before for the next one; held is what counted for
// those in front of it.
func (w *Writer) split(before, held int) {
	last := append([]byte(nil), w.out[before:]...)
	length := w.held - held
	w.out, w.held = w.out[:before], held
	w.flush()
	if w.size > w.base {
		if err := w.rotate(); err != nil {
			// Growing on would break the bound that was asked for.
			w.dropped += uint64(length)
			return
		}
	}
	w.out, w.held = append(w.out, last...), length
}

// flush writes what was collected, all of it or nothing.
func (w *Writer) flush() {
	if len(w.out) == 0 {
		return
	}
	if err := w.put(w.out); err != nil {
		w.dropped += uint64(w.held)
	}
	w.held = 0
	if cap(w.out) > 2*flushAt {
		w.out = nil
	} else {
		w.out = w.out[:0]
	}
}

// put appends b. A part that got written is cut off again, so that the file
// always ends with a complete entry.
func (w *Writer) put(b []byte) error {
	if w.closed {
		return os.ErrClosed
	}
	if w.file == nil {
		if err := w.openCurrent(os.O_CREATE); err != nil {
			return err
		}
	}
	n, err := w.file.Write(b)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, w.file.Truncate(w.size))
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// Config is what the log was opened with.
func (w *Writer) Config() Config { return w.cfg }

// Dropped counts bytes of output that were not written.
func (w *Writer) Dropped() uint64 {
	dropped := w.ring.lost()
	if w.ring.busy() {
		return dropped // whoever writes may wait for the disk
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped + dropped
}

// State is what a Writer holds beside the file.
type State struct {
	Halves  [2]Half `json:"halves"`
	Dropped uint64  `json:"dropped,omitempty"`
}

// Half is the unfinished line of a stream (Stdout is the first).
type Half struct {
	Rest  []byte    `json:"rest,omitempty"`
	Going bool      `json:"going,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// State returns what another Writer, of the program that takes the place of this
// one, needs to go on by Resume. ok is false while rotated files are compressed
// and while output waits in memory.
func (w *Writer) State() (s State, ok bool) {
	if w.compressor.busy() || w.ring.busy() {
		return s, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, h := range w.streams {
		s.Halves[i] = Half{Rest: h.rest, Going: h.going, Since: h.since}
	}
	s.Dropped = w.dropped + w.ring.lost()
	return s, true
}

// Resume goes on where another Writer was. It is called before the first Write.
func (w *Writer) Resume(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, h := range s.Halves {
		w.streams[i] = half{rest: h.Rest, going: h.Going, since: h.Since}
	}
	w.dropped = s.Dropped
}

// Trim gives buffers back while nothing is written.
func (w *Writer) Trim() {
	if w.ring.busy() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out, w.text = nil, nil
	for i := range w.streams {
		if len(w.streams[i].rest) == 0 {
			w.streams[i].rest = nil
		}
	}
}

// Drain returns when what waited in memory is written, or after limit.
func (w *Writer) Drain(limit time.Duration) { w.ring.wait(limit) }

// Close writes what waits in memory and unfinished lines and closes the file. A compression under way
// is given up; the next rotation does it.
func (w *Writer) Close(now time.Time) error {
	if w.codec == nil {
		return nil
	}
	w.ring.wait(-1)
	w.compressor.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	for i := range w.streams {
		h := &w.streams[i]
		if len(h.rest) == 0 {
			continue
		}
		w.line(byte(i+1), h, nil, true, w.stamp(now), now)
	}
	w.flush()
	w.closed = true
	if w.file == nil {
		return nil
	}
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("close log %s: %w", w.cfg.Path, err)
	}
	return nil
}
