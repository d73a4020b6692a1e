// Package eventlog keeps the events of an engine in a bounded set of files, so
// that a client may ask for what happened before it connected, also before the
// daemon was restarted or killed.
//
// The entry point is [Open]. The log is a folder of segments named by the number
// of their first event; a line is one event with its number. Appending goes on
// where a dead daemon stopped: a last line that was torn is cut off. What is
// written survives the end of the process; it is not synced, because an event
// that a power failure takes is not worth 100 µs of every container's start.
//
// Lock order: [Log.mu] guards the files and is a leaf; it is held for a write,
// never while a reader's function runs.
package eventlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// Config of a Log.
type Config struct {
	// Root of the segments; it is created (0700).
	Root string
	// SegmentSize in bytes after which a new segment begins; default 1 MiB.
	SegmentSize int64
	// Segments that are kept, the current one included; default 8, at least 2.
	Segments int
	Logger   *slog.Logger
}

// maxLine bounds one event; a container may have labels of any size.
const maxLine = 1 << 20

// Log is an open event log. It is safe for concurrent use by one process.
type Log struct {
	cfg Config

	mu       sync.Mutex
	file     *os.File
	size     int64
	last     uint64
	segments []uint64
}

// line is an event as it is stored.
type line struct {
	Seq   uint64         `json:"seq"`
	Event events.Message `json:"event"`
}

// Open opens or makes the log and cuts off a torn last line.
func Open(cfg Config) (*Log, error) {
	if cfg.SegmentSize <= 0 {
		cfg.SegmentSize = 1 << 20
	}
	if cfg.Segments <= 0 {
		cfg.Segments = 8
	}
	cfg.Segments = max(cfg.Segments, 2)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l := &Log{cfg: cfg}
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return l, nil
}

func (l *Log) path(first uint64) string {
	// 20 digits hold every uint64: names sort as numbers do.
	return filepath.Join(l.cfg.Root, fmt.Sprintf("%020d.log", first))
}

func (l *Log) recover() error {
	entries, err := os.ReadDir(l.cfg.Root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".log")
		first, err := strconv.ParseUint(name, 10, 64)
		if ok && err == nil {
			l.segments = append(l.segments, first)
		}
	}
	slices.Sort(l.segments)
	if len(l.segments) == 0 {
		return nil
	}
	newest := l.segments[len(l.segments)-1]
	l.last = newest - 1
	good, err := l.scan(newest)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(l.path(newest), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err == nil && info.Size() > good {
		l.cfg.Logger.Warn("event log ends in a torn event, which is dropped", "file", file.Name(), "bytes", info.Size()-good)
	}
	if err := file.Truncate(good); err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.size = file, good
	return nil
}

// scan finds the last whole event of a segment and where it ends.
func (l *Log) scan(first uint64) (good int64, err error) {
	file, err := os.Open(l.path(first))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for {
		data, err := reader.ReadBytes('\n')
		if err == io.EOF {
			return good, nil
		}
		if err != nil {
			return 0, err
		}
		var one line
		if json.Unmarshal(data, &one) != nil || one.Seq <= l.last {
			// Everything behind a damaged line is doubtful.
			return good, nil
		}
		l.last = one.Seq
		good += int64(len(data))
	}
}

// Append writes an event and returns its number, one greater than that of the
// event before.
func (l *Log) Append(m events.Message) (seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq = l.last + 1
	data, err := json.Marshal(line{Seq: seq, Event: m})
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	if len(data) >= maxLine {
		return 0, fmt.Errorf("append event: %d bytes are too many", len(data))
	}
	data = append(data, '\n')
	if err := l.rotate(seq, int64(len(data))); err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	if n, err := l.file.Write(data); err != nil {
		// A part of a line would make the next one unreadable.
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size))
		}
		return 0, fmt.Errorf("append event: %w", err)
	}
	l.size += int64(len(data))
	l.last = seq
	return seq, nil
}

// rotate begins a new segment when the current one is full, and removes the
// oldest.
func (l *Log) rotate(seq uint64, need int64) error {
	if l.file != nil && (l.size == 0 || l.size+need <= l.cfg.SegmentSize) {
		return nil
	}
	file, err := os.OpenFile(l.path(seq), os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = file, 0
	if len(l.segments) == 0 || l.segments[len(l.segments)-1] != seq {
		l.segments = append(l.segments, seq)
	}
	for len(l.segments) > l.cfg.Segments {
		if err := os.Remove(l.path(l.segments[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.cfg.Logger.Warn("cannot remove an old part of the event log", "error", err)
			break
		}
		l.segments = l.segments[1:]
	}
	return nil
}

// Last returns the number of the newest event; 0 when there is none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Read yields the events whose time is from since until until (inclusive;
// zero is unbounded) with their numbers, oldest first: those that were written
// when it began. Reading and appending do not wait for each other.
func (l *Log) Read(since, until time.Time) iter.Seq2[uint64, events.Message] {
	return func(yield func(uint64, events.Message) bool) {
		l.mu.Lock()
		segments, last := slices.Clone(l.segments), l.last
		l.mu.Unlock()
		for _, first := range segments {
			if !l.readSegment(first, last, since, until, yield) {
				return
			}
		}
	}
}

// readSegment returns false when reading is over.
func (l *Log) readSegment(first, last uint64, since, until time.Time, yield func(uint64, events.Message) bool) bool {
	file, err := os.Open(l.path(first))
	if err != nil {
		// Removed meanwhile: the oldest events are the ones that go.
		return true
	}
	defer file.Close()
	// The kernel's clock for files is up to 10 ms behind ours.
	if info, err := file.Stat(); err == nil && !since.IsZero() && info.ModTime().Before(since.Add(-time.Second)) {
		return true
	}
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 64<<10), maxLine+1)
	for scanner.Scan() {
		var one line
		if json.Unmarshal(bytes.TrimSpace(scanner.Bytes()), &one) != nil {
			return true
		}
		if one.Seq > last {
			return false
		}
		at := time.Unix(0, one.Event.TimeNano)
		if !since.IsZero() && at.Before(since) || !until.IsZero() && at.After(until) {
			continue
		}
		if !yield(one.Seq, one.Event) {
			return false
		}
	}
	return true
}

// Close closes the file; nothing may be appended any more.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
