package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// FuzzLog plays a script of writes, ends, restarts, kills and reads on a log,
// and compares what is read with a model that goes byte by byte.
func FuzzLog(f *testing.F) {
	f.Add(byte(0), []byte("\x00\x05ab\ncd\x07\x00\x00\x02x\n\x0c"))
	f.Add(byte(0x15), []byte("\x00\xff\x01a\x00\xfe\x02\n\x08\x00\x03abc\x09\x00\x06long\n\n\x00\x80\x0d\x01"))
	f.Add(byte(0x2a), []byte("\x01\x04a\nb\n\x06\x90\x01\x04c\nd\n\x0a\x00\x04e\nf\n\x0b\x00\x00\x05g\nhij\x02"))
	f.Fuzz(func(t *testing.T, settings byte, script []byte) {
		if len(script) > 4<<10 {
			return
		}
		p := newPlay(t, settings, script)
		for len(p.script) > 0 && p.steps < 60 {
			p.step()
		}
		p.compareAll()
		p.look()
		p.w.compressor.stop()
		if p.w.file != nil {
			p.w.file.Close()
		}
		p.follower.close()
	})
}

// play is one run of a script.
type play struct {
	t      *testing.T
	cfg    Config
	script []byte
	steps  int
	now    time.Time
	w      *Writer
	half   [2]struct {
		bytes []byte
		going bool
		since time.Time
	}
	// want is every entry since the beginning.
	want     []Entry
	follower *cursor
	followed int
}

func newPlay(t *testing.T, settings byte, script []byte) *play {
	p := &play{t: t, script: script, now: noon, cfg: Config{
		Driver: []string{DriverJSON, DriverLocal}[settings&1], Path: filepath.Join(t.TempDir(), "c.log"),
		MaxSize:  []int64{0, 300, 4000, 50000}[settings>>1&3],
		MaxFiles: []int{1, 2, 5, 64}[settings>>3&3], Compress: settings&0x20 != 0,
	}}
	if settings&0x40 != 0 {
		p.cfg.Attrs = map[string]string{"a": "<b>", "\"q": `,"time":"`, "": "\n"}
	}
	p.reopen()
	p.follow(-1)
	return p
}

func (p *play) follow(tail int) {
	codec, err := codecOf(p.cfg.Driver, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.follower = &cursor{codec: codec, path: p.cfg.Path, opts: Options{Tail: tail, Follow: true}}
	if err := p.follower.open(); err != nil {
		p.t.Fatalf("follow: %v", err)
	}
}

func (p *play) reopen() {
	var err error
	if p.w, err = Open(p.cfg); err != nil {
		p.t.Fatalf("open: %v", err)
	}
}

func (p *play) next() int {
	if len(p.script) == 0 {
		return 0
	}
	b := p.script[0]
	p.script = p.script[1:]
	return int(b)
}

// output is what a stream says: the script's own bytes, or many of one.
func (p *play) output() []byte {
	n := p.next()
	if n < 0x80 {
		n = min(n, len(p.script))
		b := p.script[:n]
		p.script = p.script[n:]
		return b
	}
	fill := byte(p.next())
	size := n
	if n >= 0xf0 && fill != '\n' {
		size = (n - 0xef) * 1100
	}
	b := bytes.Repeat([]byte{fill}, size)
	if n&1 != 0 {
		b = append(b, '\n')
	}
	return b
}

func (p *play) step() {
	p.steps++
	op := p.next()
	switch op % 14 {
	default:
		p.write(byte(op&1)+1, p.output())
	case 6:
		p.now = p.now.Add(time.Duration(p.next()-100) * time.Duration(1+p.next()*7919))
	case 7:
		p.end(byte(op>>4&1) + 1)
		p.w.End(byte(op>>4&1)+1, p.now)
		p.half[op>>4&1].going = false
	case 8: // another start of the container
		for i := range p.half {
			p.end(byte(i) + 1)
		}
		if err := p.w.Close(p.now); err != nil {
			p.t.Fatal(err)
		}
		p.forget()
		p.reopen()
	case 9:
		p.kill()
	case 10: // the monitor executes itself again
		s, ok := p.w.State()
		if !ok {
			p.t.Fatal("compression is over and yet keeps the state")
		}
		if p.w.file != nil {
			p.w.file.Close()
		}
		p.reopen()
		p.w.Resume(s)
	case 11:
		p.compareTail(p.next())
	case 12:
		p.compareTimes(p.next(), p.next())
	case 13:
		p.look()
	}
	if p.cfg.Compress {
		p.w.compressor.mu.Lock()
		done := p.w.compressor.done
		p.w.compressor.mu.Unlock()
		if done != nil {
			<-done
		}
	}
	if n := p.w.Dropped(); n != 0 {
		p.t.Fatalf("%d bytes dropped", n)
	}
}

// forget: unfinished lines die with their writer.
func (p *play) forget() {
	for i := range p.half {
		p.half[i].bytes, p.half[i].going = nil, false
	}
}

func (p *play) write(stream byte, out []byte) {
	p.w.Write(stream, out, p.now)
	p.expect(stream, out)
}

// expect is the model: a line ends with its newline or when it is 16 KiB long.
func (p *play) expect(stream byte, out []byte) {
	h := &p.half[stream-1]
	for _, b := range out {
		if b == '\n' {
			p.entry(stream, false)
			continue
		}
		if h.bytes = append(h.bytes, b); len(h.bytes) == 16<<10 {
			p.entry(stream, true)
		}
	}
}

func (p *play) entry(stream byte, partial bool) {
	h := &p.half[stream-1]
	e := Entry{Time: p.now, Stream: stream, Line: h.bytes, Partial: partial, Attrs: p.cfg.Attrs}
	if h.going {
		e.Time = h.since
	} else if partial {
		h.since = p.now
	}
	h.going = partial
	h.bytes = nil
	if p.cfg.Driver == DriverJSON {
		e.Line = []byte(string([]rune(string(e.Line)))) // one U+FFFD a byte
	}
	if !partial {
		e.Line = append(e.Line, '\n')
	}
	p.want = append(p.want, e)
}

func (p *play) end(stream byte) {
	if len(p.half[stream-1].bytes) > 0 {
		p.entry(stream, true)
	}
}

// kill ends the writer in the middle of a write: the file has a part of it.
func (p *play) kill() {
	before, errBefore := os.Stat(p.cfg.Path)
	known := len(p.want)
	p.write(byte(p.next()&1)+1, p.output())
	p.w.compressor.stop()
	if p.w.file != nil {
		p.w.file.Close()
	}
	p.forget()
	after, err := os.Stat(p.cfg.Path)
	cut := p.next()
	crashed := false
	if err == nil && (errBefore != nil || os.SameFile(before, after)) {
		size := int64(0)
		if errBefore == nil {
			size = before.Size()
		}
		size += (after.Size() - size) * int64(cut) / 256
		if err := os.Truncate(p.cfg.Path, size); err != nil {
			p.t.Fatal(err)
		}
		if crashed = cut&3 == 0; crashed {
			// What a crash of the machine leaves of blocks that were never written.
			f, err := os.OpenFile(p.cfg.Path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				p.t.Fatal(err)
			}
			_, err = f.Write(make([]byte, cut))
			if err := errors.Join(err, f.Close()); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	got := p.read(Options{Tail: -1})
	// How much of the last write is there shows in the last entry that is.
	n := len(p.want)
	for ; n > known; n-- {
		if len(got) > 0 && same(got[len(got)-1], p.want[n-1]) && p.isSuffix(got, p.want[:n]) {
			break
		}
	}
	if n == known && !p.isSuffix(got, p.want[:n]) {
		p.t.Fatalf("after a kill: %s\nwant the end of %s", show(got), show(p.want))
	}
	p.want = p.want[:n]
	if crashed {
		p.follower.close()
		p.follow(0)
		p.followed = n
	} else {
		p.look()
	}
	p.reopen()
	p.compareAll()
}

// read reads the log as another process would.
func (p *play) read(opts Options) []Entry {
	r := NewReader()
	defer r.Close()
	var out []Entry
	for e, err := range r.Read(context.Background(), p.cfg, opts) {
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		e.Line = bytes.Clone(e.Line)
		out = append(out, e)
	}
	return out
}

func same(a, b Entry) bool {
	return a.Stream == b.Stream && a.Partial == b.Partial && a.Time.Equal(b.Time) && bytes.Equal(a.Line, b.Line) && maps.Equal(a.Attrs, b.Attrs)
}

// rotates: older entries may be gone.
func (p *play) rotates() bool {
	last := rotatedName(p.cfg.Path, p.cfg.MaxFiles-1)
	return p.cfg.MaxSize > 0 && (p.cfg.MaxFiles == 1 || exists(last) || exists(last+gzSuffix))
}

func (p *play) isSuffix(got, want []Entry) bool {
	if len(got) > len(want) || !p.rotates() && len(got) != len(want) || len(want) > 0 && len(got) == 0 {
		return false
	}
	return slices.EqualFunc(got, want[len(want)-len(got):], same)
}

func (p *play) compareAll() {
	got := p.read(Options{Tail: -1})
	if !p.isSuffix(got, p.want) {
		p.t.Fatalf("read %s\nwant %s", show(got), show(p.want))
	}
	if p.cfg.MaxSize == 0 {
		return
	}
	files, err := filepath.Glob(p.cfg.Path + "*")
	if err != nil {
		p.t.Fatal(err)
	}
	if len(files) > p.cfg.MaxFiles {
		p.t.Fatalf("%d files, at most %d: %v", len(files), p.cfg.MaxFiles, files)
	}
	for _, name := range files {
		// One entry may be longer than a file should be.
		if info, err := os.Stat(name); err == nil && info.Size() > max(p.cfg.MaxSize, 16<<10*6+512) {
			p.t.Fatalf("%s has %d bytes", name, info.Size())
		}
	}
}

func (p *play) compareTail(n int) {
	got, all := p.read(Options{Tail: n}), p.read(Options{Tail: -1})
	if want := all[max(0, len(all)-n):]; !slices.EqualFunc(got, want, same) {
		p.t.Fatalf("tail %d: %s\nwant %s", n, show(got), show(want))
	}
}

func (p *play) compareTimes(a, b int) {
	all := p.read(Options{Tail: -1})
	if len(all) == 0 {
		return
	}
	since, until := all[a%len(all)].Time, all[b%len(all)].Time
	var want []Entry
	for _, e := range all {
		if e.Time.Before(since) {
			continue
		}
		if e.Time.After(until) {
			break // reading stops at the first later entry, as Docker's does
		}
		want = append(want, e)
	}
	if got := p.read(Options{Tail: -1, Since: since, Until: until}); !slices.EqualFunc(got, want, same) {
		p.t.Fatalf("from %s to %s: %s\nwant %s", since, until, show(got), show(want))
	}
}

// look lets the follower read what there is.
func (p *play) look() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	var got []Entry
	for {
		p.follower.count = 1 // the context is looked at every 256 entries
		var e Entry
		err := p.follower.next(over, &e)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			p.t.Fatalf("follow: %v", err)
		}
		e.Line = bytes.Clone(e.Line)
		got = append(got, e)
	}
	want := p.want[p.followed:]
	p.followed = len(p.want)
	if !p.rotates() {
		if !slices.EqualFunc(got, want, same) {
			p.t.Fatalf("the follower got %s\nwant %s", show(got), show(want))
		}
		return
	}
	// Some may be rotated away before they are read, but not the last, and the
	// rest comes in order.
	rest := want
	for i := len(got) - 1; i >= 0; i-- {
		k := len(rest) - 1
		for k >= 0 && i < len(got)-1 && !same(got[i], rest[k]) {
			k--
		}
		if k < 0 || !same(got[i], rest[k]) {
			p.t.Fatalf("the follower got %s\nnot in order or not to the end of %s", show(got), show(want))
		}
		rest = rest[:k]
	}
	if len(got) == 0 && len(want) > 0 {
		p.t.Fatalf("the follower got nothing of %s", show(want))
	}
}

func show(list []Entry) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d entries:", len(list))
	for i, e := range list {
		if i < 3 || i >= len(list)-3 {
			fmt.Fprintf(&b, "\n  %d %d partial=%t %s %.40q (%d) %v", i, e.Stream, e.Partial, e.Time.Format(time.RFC3339Nano), e.Line, len(e.Line), e.Attrs)
		}
	}
	return b.String()
}
