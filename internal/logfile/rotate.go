package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/klauspost/compress/gzip"
)

const (
	// nextSuffix is the coming current file; as long as it is there, a
	// rotation is under way.
	nextSuffix = ".new"
	gzSuffix   = ".gz"
	gzTemp     = ".gz.tmp"
	// maxRotated bounds the search for rotated files.
	maxRotated = 10000
	// inodeField marks the extra field of a gzip header that holds the inode
	// of the file that was compressed (RFC 1952, 2.3.1.1).
	inodeField = "OL"
)

func rotatedName(path string, k int) string { return path + "." + strconv.Itoa(k) }

// rotate starts a new current file. mu is held and out is empty.
func (w *Writer) rotate() error {
	path := w.cfg.Path
	next, err := os.OpenFile(path+nextSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	size, err := w.begin(next)
	if err == nil {
		err = w.rename()
	}
	if err != nil {
		next.Close()
		_ = os.Remove(path + nextSuffix) // the next rotation writes it anew
		return fmt.Errorf("rotate log: %w", err)
	}
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.size, w.base = next, size, size
	if w.cfg.Compress && w.cfg.MaxFiles > 1 {
		w.compressor.start(w.compressRotated)
	}
	return nil
}

// rename gives every file its next number.
func (w *Writer) rename() error {
	w.names.Lock()
	defer w.names.Unlock()
	path := w.cfg.Path
	highest := 1
	for highest < w.cfg.MaxFiles-1 && (exists(rotatedName(path, highest)) || exists(rotatedName(path, highest)+gzSuffix)) {
		highest++
	}
	for k := highest; k > 1; k-- {
		from, to := rotatedName(path, k-1), rotatedName(path, k)
		for _, suffix := range []string{"", gzSuffix} {
			err := os.Rename(from+suffix, to+suffix)
			switch {
			case err == nil:
				// The other form under this number is older, and mostly absent.
				_ = os.Remove(to + otherForm(suffix))
			case !errors.Is(err, os.ErrNotExist):
				return err
			}
		}
	}
	if w.cfg.MaxFiles > 1 {
		if err := os.Rename(path, rotatedName(path, 1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		_ = os.Remove(rotatedName(path, 1) + gzSuffix)
	}
	return os.Rename(path+nextSuffix, path)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func otherForm(suffix string) string {
	if suffix == "" {
		return gzSuffix
	}
	return ""
}

// removeBeyond removes rotated files that no longer count, and what an
// interrupted rotation or compression left. What cannot be removed is tried
// again by the next rotation.
func (w *Writer) removeBeyond() {
	_ = os.Remove(w.cfg.Path + nextSuffix)
	_ = os.Remove(w.cfg.Path + gzTemp)
	for k := w.cfg.MaxFiles; k < maxRotated; k++ {
		name := rotatedName(w.cfg.Path, k)
		plain, packed := os.Remove(name), os.Remove(name+gzSuffix)
		if plain != nil && packed != nil {
			return
		}
	}
}

// compressor runs at most one goroutine.
type compressor struct {
	mu      sync.Mutex
	running bool
	again   bool
	stopped bool
	quit    chan struct{}
	done    chan struct{}
}

// start runs f, or lets it run once more when it does already.
func (c *compressor) start(f func(quit <-chan struct{})) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if c.running {
		c.again = true
		return
	}
	c.running = true
	quit, done := make(chan struct{}), make(chan struct{})
	c.quit, c.done = quit, done
	go func() {
		defer close(done)
		for {
			f(quit)
			c.mu.Lock()
			more := c.again && !c.stopped
			c.again = false
			c.running = more
			c.mu.Unlock()
			if !more {
				return
			}
		}
	}()
}

func (c *compressor) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// stop ends the goroutine for good and waits for it.
func (c *compressor) stop() {
	c.mu.Lock()
	if !c.stopped && c.quit != nil {
		close(c.quit)
	}
	c.stopped = true
	done := c.done
	c.mu.Unlock()
	if done != nil {
		<-done
	}
}

// compressRotated compresses every plain rotated file, the newest first. A
// file may get another number or go away meanwhile: it is found again by its
// inode.
func (w *Writer) compressRotated(quit <-chan struct{}) {
	skip := map[uint64]bool{}
	for {
		f, inode := w.plainRotated(skip)
		if f == nil {
			return
		}
		skip[inode] = true
		err := w.compress(f, inode, quit)
		f.Close()
		if err != nil {
			_ = os.Remove(w.cfg.Path + gzTemp)
		}
		select {
		case <-quit:
			return
		default:
		}
	}
}

// plainRotated opens the newest rotated file that is not compressed.
func (w *Writer) plainRotated(skip map[uint64]bool) (*os.File, uint64) {
	w.names.Lock()
	defer w.names.Unlock()
	for k := 1; k < w.cfg.MaxFiles; k++ {
		f, err := os.Open(rotatedName(w.cfg.Path, k))
		if err != nil {
			continue
		}
		if inode := inodeOf(f); inode != 0 && !skip[inode] {
			return f, inode
		}
		f.Close()
	}
	return nil, 0
}

var errGivenUp = errors.New("given up")

func (w *Writer) compress(f *os.File, inode uint64, quit <-chan struct{}) error {
	tmp, err := os.OpenFile(w.cfg.Path+gzTemp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer tmp.Close()
	z, err := gzip.NewWriterLevel(tmp, gzip.BestSpeed)
	if err != nil {
		return err
	}
	z.Extra = inodeExtra(inode)
	buf := make([]byte, 32<<10)
	for {
		select {
		case <-quit:
			return errGivenUp
		default:
		}
		n, err := f.Read(buf)
		if n > 0 {
			if _, err := z.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	// The plain file is removed for it.
	if err := tmp.Sync(); err != nil {
		return err
	}
	w.names.Lock()
	defer w.names.Unlock()
	for k := 1; k < w.cfg.MaxFiles; k++ {
		name := rotatedName(w.cfg.Path, k)
		info, err := os.Lstat(name)
		if err != nil || statInode(info) != inode {
			continue
		}
		// A reader looks for the plain form first, then for this one: there is
		// no moment without either.
		if err := os.Rename(w.cfg.Path+gzTemp, name+gzSuffix); err != nil {
			return err
		}
		return os.Remove(name)
	}
	return errGivenUp // rotated away
}

func inodeExtra(inode uint64) []byte {
	b := append([]byte(inodeField), 8, 0)
	return binary.LittleEndian.AppendUint64(b, inode)
}

// extraInode reads the field of inodeExtra; 0 when it is not there.
func extraInode(extra []byte) uint64 {
	if len(extra) == 12 && string(extra[:2]) == inodeField {
		return binary.LittleEndian.Uint64(extra[4:])
	}
	return 0
}

func inodeOf(f *os.File) uint64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return statInode(info)
}

func statInode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
