package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
)

// Options select entries.
type Options struct {
	// Tail is how many of the last entries to begin with; negative is all.
	Tail int
	// Since and Until bound the time of entries, inclusive; zero is no bound.
	// They are applied after Tail, as Docker does.
	Since, Until time.Time
	// Follow waits for further entries until Ended is closed; what was written
	// before that moment is still yielded.
	Follow bool
	Ended  <-chan struct{}
}

// readSize is how much is read at a time.
const readSize = 64 << 10

const (
	// settleTries and settleWait bound waiting for a rotation to finish, so
	// that what a killed writer left half renamed can still be read.
	settleTries = 50
	settleWait  = time.Millisecond
)

// Reader reads logs that other processes write. One Reader serves any number
// of followed logs with one inotify instance (a user has only 128).
type Reader struct {
	watch watcher
}

// NewReader makes a Reader; nothing is opened yet.
func NewReader() *Reader { return &Reader{} }

// Close ends watching. Followers go on until their context ends, but are no
// longer woken: it is called when the program ends.
func (r *Reader) Close() error { return r.watch.close() }

// Open opens a log as it is now: what it holds can be read though somebody removes
// it meanwhile. Only Driver, Path and MaxFiles of cfg count. A missing file is an
// empty log. What is wrong is told by the first Next: ErrNotImplemented for a
// driver without files. The end of ctx ends reading.
func (r *Reader) Open(ctx context.Context, cfg Config, opts Options) *Log {
	l := &Log{ctx: ctx, opts: opts}
	if cfg.Driver == DriverNone {
		l.err = errdefs.ErrNotImplemented.WithMessage("configured logging driver does not support reading")
		return l
	}
	codec, err := codecOf(cfg.Driver, nil)
	if err != nil {
		l.err = err
		return l
	}
	l.c = &cursor{codec: codec, path: cfg.Path, opts: opts}
	if opts.Follow {
		l.c.wake, l.c.unwatch = r.watch.add(cfg.Path)
	}
	if err := l.c.open(); err != nil {
		l.err = fmt.Errorf("read log %s: %w", cfg.Path, err)
	}
	return l
}

// Log is a log that is being read, by one goroutine, in bounded memory.
type Log struct {
	ctx  context.Context //nolint:containedctx // of the whole reading
	opts Options
	c    *cursor
	// err is what the next Next returns.
	err error
}

// Next returns the next entry, oldest first, which is valid until the next call.
// It fails with io.EOF at the end, and with ctx's own error when that ends.
func (l *Log) Next() (Entry, error) {
	for l.err == nil {
		var e Entry
		err := l.c.next(l.ctx, &e)
		switch {
		case errors.Is(err, io.EOF):
			l.err = io.EOF
		case err != nil:
			l.err = fmt.Errorf("read log %s: %w", l.c.path, err)
		case !l.opts.Since.IsZero() && e.Time.Before(l.opts.Since):
		case !l.opts.Until.IsZero() && e.Time.After(l.opts.Until):
			l.err = io.EOF
		default:
			return e, nil
		}
	}
	return Entry{}, l.err
}

// Close lets the files go. It may be repeated.
func (l *Log) Close() {
	if l.c != nil {
		l.c.close()
	}
	l.c, l.err = nil, io.EOF
}

// Read is Open for the range statement; the sequence can be used once, and its
// error is its end.
func (r *Reader) Read(ctx context.Context, cfg Config, opts Options) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		l := r.Open(ctx, cfg, opts)
		defer l.Close()
		for {
			e, err := l.Next()
			if errors.Is(err, io.EOF) || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// cursor is a position in a row of files.
type cursor struct {
	codec   codec
	path    string
	opts    Options
	wake    <-chan struct{}
	unwatch func()

	// files from the one being read to the newest.
	files []*segment
	// seen is the inode of the last file that was finished.
	seen uint64
	// final: Ended was seen, the next end of the newest file is the end.
	final bool

	buf        []byte
	from, have int
	s          scratch
	count      int
}

// segment is one file.
type segment struct {
	file  *os.File
	inode uint64
	zip   *gzip.Reader // nil for a plain file
	// off is how far a plain file was read.
	off    int64
	opened bool
	// damaged: a compressed file without a whole header.
	damaged bool
	// over: the writer has moved on, so its end is the end.
	over bool
}

func (s *segment) packed() bool { return s.zip != nil || s.damaged }

func (c *cursor) close() {
	for _, s := range c.files {
		s.file.Close()
	}
	if c.unwatch != nil {
		c.unwatch()
	}
}

// open finds the files and goes to where Tail begins.
func (c *cursor) open() error {
	c.buf = make([]byte, readSize)
	var err error
	if c.files, err = c.list(0); err != nil {
		return err
	}
	if c.opts.Tail < 0 {
		return nil
	}
	left := c.opts.Tail
	for i := len(c.files) - 1; i >= 0; i-- {
		found, err := c.seekTail(c.files[i], left)
		if err != nil {
			return err
		}
		left -= found
		if left <= 0 {
			for _, s := range c.files[:i] {
				c.seen = s.inode
				s.file.Close()
			}
			c.files = c.files[i:]
			return nil
		}
	}
	return nil
}

// seekTail positions s where its last n entries begin, and tells how many they
// are.
func (c *cursor) seekTail(s *segment, n int) (int, error) {
	if s.damaged {
		return 0, nil
	}
	if s.zip != nil {
		return c.seekTailZip(s, n)
	}
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() == 0 {
		return 0, nil
	}
	off, found, err := c.codec.tail(s.file, info.Size(), n)
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errHeader) {
			return 0, nil
		}
		return 0, err
	}
	if err := c.begin(s); err != nil {
		return 0, err
	}
	s.off = max(s.off, off)
	return found, nil
}

// seekTailZip counts the entries of a compressed file, which can only be read
// forward, and skips all but the last n.
func (c *cursor) seekTailZip(s *segment, n int) (int, error) {
	total := 0
	for {
		var e Entry
		err := c.entry(s, &e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		total++
	}
	c.from, c.have = 0, 0
	if err := s.rewind(); err != nil {
		return 0, err
	}
	for skip := total - n; skip > 0; skip-- {
		var e Entry
		if err := c.entry(s, &e); err != nil {
			return 0, err
		}
	}
	if total > n {
		// What was read ahead belongs to this file, which is read next.
		return n, nil
	}
	c.from, c.have = 0, 0
	return total, s.rewind()
}

func (s *segment) rewind() error {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.opened = false
	return s.zip.Reset(s.file)
}

// begin reads a file's header.
func (c *cursor) begin(s *segment) error {
	if s.opened {
		return nil
	}
	if s.zip != nil {
		return c.beginZip(s)
	}
	off, attrs, err := c.codec.start(s.file)
	if err != nil {
		return err
	}
	s.off, s.opened = off, true
	c.s.setAttrs(c.codec, attrs)
	return nil
}

// beginZip reads the header of a compressed file into the buffer and parses it
// there.
func (c *cursor) beginZip(s *segment) error {
	s.opened = true
	for c.have < len(c.buf) {
		n, err := s.zip.Read(c.buf[c.have:])
		c.have += n
		if err != nil {
			break // the header may be shorter than the buffer
		}
	}
	off, attrs, err := c.codec.start(bytesAt(c.buf[:c.have]))
	if err != nil {
		return err
	}
	c.from = int(off)
	c.s.setAttrs(c.codec, attrs)
	return nil
}

func (s *scratch) setAttrs(c codec, attrs map[string]string) {
	if _, ok := c.(localCodec); ok {
		s.attrs = attrs
	}
}

// bytesAt is a file in memory.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// next returns the next entry, waiting for it when following. io.EOF at the
// end.
func (c *cursor) next(ctx context.Context, e *Entry) error {
	for {
		// Not for every entry: a context's lock is shared.
		if c.count++; c.count&255 == 1 {
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
		if len(c.files) > 0 {
			s := c.files[0]
			err := c.entry(s, e)
			if err == nil {
				return nil
			}
			if !errors.Is(err, io.EOF) {
				return err
			}
			// What is left is an incomplete entry: it is read again when more
			// came, for the writer may cut it off when it starts again.
			if !s.packed() {
				s.off -= int64(c.have - c.from)
			}
			c.from, c.have = 0, 0
			if len(c.files) > 1 || s.over {
				c.drop()
				continue
			}
		}
		if !c.opts.Follow {
			return io.EOF
		}
		moved, err := c.advance()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if c.final {
			return io.EOF
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
}

// drop leaves the file that was read to its end.
func (c *cursor) drop() {
	c.seen = c.files[0].inode
	c.files[0].file.Close()
	c.files = c.files[1:]
}

// advance looks for files behind the one being read. It reports whether
// reading may go on at once.
func (c *cursor) advance() (bool, error) {
	if len(c.files) > 0 {
		info, err := os.Stat(c.path)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return false, nil
			}
			return false, err
		}
		if statInode(info) == c.files[0].inode {
			if info.Size() < c.files[0].off {
				c.files[0].off = 0 // truncated by somebody else
				c.files[0].opened = false
				return true, nil
			}
			return false, nil
		}
		// The writer has moved on; this file is complete now, but it may have
		// grown since its end was seen.
		c.seen = c.files[0].inode
	}
	newer, err := c.list(c.seen)
	if err != nil {
		return false, err
	}
	if len(c.files) > 0 {
		c.files[0].over = true
		c.files = append(c.files[:1], newer...)
		return true, nil
	}
	c.files = newer
	return len(c.files) > 0, nil
}

// wait returns when something changed.
func (c *cursor) wait(ctx context.Context) error {
	var poll <-chan time.Time
	if c.wake == nil {
		timer := time.NewTimer(pollInterval)
		defer timer.Stop()
		poll = timer.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.opts.Ended:
		c.final = true
	case <-c.wake:
	case <-poll:
	}
	return nil
}

// entry decodes the next entry of a file; io.EOF when there is no complete one.
func (c *cursor) entry(s *segment, e *Entry) error {
	if s.damaged {
		return io.EOF
	}
	if err := c.begin(s); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errHeader) {
			s.opened = false
			return io.EOF
		}
		return err
	}
	for {
		if c.from < c.have {
			used, skip := c.codec.next(c.buf[c.from:c.have], e, &c.s)
			c.from += used
			if used > 0 {
				if skip {
					continue
				}
				return nil
			}
		}
		if err := c.fill(s); err != nil {
			return err
		}
	}
}

// fill reads more behind what is there.
func (c *cursor) fill(s *segment) error {
	if c.from > 0 {
		copy(c.buf, c.buf[c.from:c.have])
		c.have -= c.from
		c.from = 0
	}
	if c.have == len(c.buf) {
		// One entry is longer; the codec gives up at maxRecord.
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	var n int
	var err error
	if s.zip != nil {
		n, err = s.zip.Read(c.buf[c.have:])
		if err != nil && !ioError(err) {
			err = io.EOF // torn or damaged: what came before is good
		}
	} else {
		n, err = s.file.ReadAt(c.buf[c.have:], s.off)
		s.off += int64(n)
	}
	c.have += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// list opens the files that are newer than the one with the inode after (0:
// all), the oldest first. It waits for a rotation under way: without one
// between its first and its last look, no file changed its number.
//
// The file of that inode is still open here, so no newer file can have got its
// inode; an older one, compressed since, may have had it before.
func (c *cursor) list(after uint64) ([]*segment, error) {
	for try := 0; ; try++ {
		files, stable, err := c.listOnce(after)
		if err != nil || stable || try == settleTries {
			return files, err
		}
		for _, s := range files {
			s.file.Close()
		}
		time.Sleep(settleWait)
	}
}

func (c *cursor) listOnce(after uint64) (files []*segment, stable bool, err error) {
	var newest uint64
	known := map[uint64]bool{}
	// add reports whether the search goes on.
	add := func(name string) (bool, error) {
		s, err := openEither(name)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if s.inode == after {
			s.file.Close()
			return false, nil
		}
		if !s.packed() && known[s.inode] {
			s.file.Close() // got another number while we looked
			return true, nil
		}
		if !s.packed() {
			known[s.inode] = true
		}
		files = append(files, s)
		return true, nil
	}
	more, err := add(c.path)
	if len(files) > 0 {
		newest = files[0].inode
	} else if !more && err == nil && after == 0 {
		more = true // no current file: a writer was killed between two renames
	}
	for k := 1; err == nil && more && k < maxRotated; k++ {
		more, err = add(rotatedName(c.path, k))
	}
	if err != nil {
		for _, s := range files {
			s.file.Close()
		}
		return nil, false, err
	}
	slices.Reverse(files)
	if _, err := os.Lstat(c.path + nextSuffix); err == nil {
		return files, false, nil
	}
	info, err := os.Stat(c.path)
	if err != nil {
		return files, newest == 0, nil
	}
	now := statInode(info)
	return files, now == newest || (newest == 0 && now == after), nil
}

// ioError tells a failing disk from a file whose content is damaged.
func ioError(err error) bool {
	var path *os.PathError
	return errors.As(err, &path)
}

// openEither opens a file or its compressed form.
func openEither(name string) (*segment, error) {
	s, err := openSegment(name, false)
	if errors.Is(err, os.ErrNotExist) {
		return openSegment(name+gzSuffix, true)
	}
	return s, err
}

func openSegment(name string, packed bool) (*segment, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s := &segment{file: f}
	if !packed {
		if s.inode = inodeOf(f); s.inode == 0 {
			f.Close()
			return nil, fmt.Errorf("%s has no inode", name)
		}
		return s, nil
	}
	if s.zip, err = gzip.NewReader(f); err != nil {
		if ioError(err) {
			f.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		s.damaged, s.inode = true, inodeOf(f)
		return s, nil
	}
	if s.inode = extraInode(s.zip.Extra); s.inode == 0 {
		s.inode = inodeOf(f)
	}
	return s, nil
}
