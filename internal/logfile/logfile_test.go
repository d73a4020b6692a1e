package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 5000000, time.UTC)

func open(t testing.TB, cfg Config) *Writer {
	t.Helper()
	w, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(noon) })
	return w
}

// lines reads a log and returns "stream:line" of each entry.
func lines(t testing.TB, cfg Config, opts Options) []string {
	t.Helper()
	r := NewReader()
	defer r.Close()
	var out []string
	for e, err := range r.Read(context.Background(), cfg, opts) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d:%s", e.Stream, e.Line))
	}
	return out
}

func drivers(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, d := range []string{DriverJSON, DriverLocal} {
		t.Run(d, func(t *testing.T) {
			f(t, Config{Driver: d, Path: filepath.Join(t.TempDir(), "c.log"), MaxFiles: 1})
		})
	}
}

func TestJSONLinesAreByteForByteDockers(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "c.log"), Attrs: map[string]string{"b": "2", "a": "<1>"}}
	w := open(t, cfg)
	w.Write(Stdout, []byte("hello\n\n"), noon)
	w.Write(Stderr, []byte("a\"\\\x01\t\r<&>\u2028\xff\xc3é\n"), noon)
	w.Write(Stdout, []byte("unfinished"), noon.Add(time.Second))
	w.End(Stdout, noon.Add(2*time.Second))
	got, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	attrs := `,"attrs":{"a":"\u003c1\u003e","b":"2"},"time":"2026-01-02T12:00:00.005Z"}` + "\n"
	want := `{"log":"hello\n","stream":"stdout"` + attrs +
		`{"log":"\n","stream":"stdout"` + attrs +
		`{"log":"a\"\\\u0001\u0009\r\u003c\u0026\u003e\u2028\ufffd\ufffdé\n","stream":"stderr"` + attrs +
		`{"log":"unfinished","stream":"stdout"` + strings.Replace(attrs, "00.005", "02.005", 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestALongLineIsSplitWhereDockerSplitsIt(t *testing.T) {
	drivers(t, func(t *testing.T, cfg Config) {
		w := open(t, cfg)
		long := strings.Repeat("x", maxLine)
		w.Write(Stdout, []byte(long[:1000]), noon)
		w.Write(Stdout, []byte(long[1000:]), noon.Add(time.Second))
		w.Write(Stdout, []byte("\n"+long[:maxLine-1]+"\n"+long+"tail\n"), noon.Add(2*time.Second))
		var got []string
		for e, err := range NewReader().Read(context.Background(), cfg, Options{Tail: -1}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%d %v %s", len(e.Line), e.Partial, e.Time.Format("05")))
		}
		// A partial entry's successors carry its time.
		want := []string{"16384 true 01", "1 false 01", "16384 false 02", "16384 true 02", "5 false 02"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTailSinceAndUntil(t *testing.T) {
	drivers(t, func(t *testing.T, cfg Config) {
		w := open(t, cfg)
		for i := range 10 {
			w.Write(Stdout, fmt.Appendf(nil, "%d\n", i), noon.Add(time.Duration(i)*time.Second))
		}
		at := func(i int) time.Time { return noon.Add(time.Duration(i) * time.Second) }
		for _, c := range []struct {
			opts Options
			want string
		}{
			{Options{Tail: -1, Since: at(8)}, "8 9"},
			{Options{Tail: 3}, "7 8 9"},
			{Options{Tail: 0}, ""},
			{Options{Tail: 100, Until: at(1)}, "0 1"},
			{Options{Tail: 5, Since: at(1), Until: at(6)}, "5 6"},
		} {
			got := strings.Join(lines(t, cfg, c.opts), "")
			got = strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(got, "1:", ""), "\n", " "))
			if got != c.want {
				t.Errorf("%+v: got %q, want %q", c.opts, got, c.want)
			}
		}
	})
}

func TestRotationKeepsItsBoundsAndTailReadsAcrossFiles(t *testing.T) {
	for _, compress := range []bool{false, true} {
		drivers(t, func(t *testing.T, cfg Config) {
			cfg.MaxSize, cfg.MaxFiles, cfg.Compress = 4096, 4, compress
			w := open(t, cfg)
			const n = 1000
			for i := range n {
				w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), noon)
			}
			if err := w.Close(noon); err != nil {
				t.Fatal(err)
			}
			names, _ := filepath.Glob(cfg.Path + "*")
			if len(names) != 4 {
				t.Errorf("files: %q", names)
			}
			for _, name := range names {
				if info, _ := os.Stat(name); info.Size() > cfg.MaxSize {
					t.Errorf("%s has %d bytes", name, info.Size())
				}
			}
			all := lines(t, cfg, Options{Tail: -1})
			if len(all) < 80 || all[len(all)-1] != "1:line 999\n" {
				t.Fatalf("%d lines, last %q", len(all), all[len(all)-1])
			}
			for i, l := range all {
				if want := fmt.Sprintf("1:line %d\n", n-len(all)+i); l != want {
					t.Fatalf("line %d of %d is %q, want %q", i, len(all), l, want)
				}
			}
			for _, tail := range []int{1, 20, 50, len(all) - 1, len(all), n} {
				got := lines(t, cfg, Options{Tail: tail})
				want := all[max(0, len(all)-tail):]
				if strings.Join(got, "") != strings.Join(want, "") {
					t.Errorf("tail %d: %d lines from %q", tail, len(got), got[0])
				}
			}
		})
	}
}

func TestCompressedFilesAreReadLikeOthers(t *testing.T) {
	drivers(t, func(t *testing.T, cfg Config) {
		cfg.MaxSize, cfg.MaxFiles, cfg.Compress = 4096, 5, true
		cfg.Attrs = map[string]string{"k": "v"}
		w := open(t, cfg)
		for i := range 200 {
			w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), noon)
		}
		before := lines(t, cfg, Options{Tail: -1})
		w.compressor.stop()
		w.compressRotated(make(chan struct{})) // what the goroutine did not get to yet
		packed, _ := filepath.Glob(cfg.Path + ".*.gz")
		if len(packed) == 0 {
			t.Fatal("nothing was compressed")
		}
		if plain, _ := filepath.Glob(cfg.Path + ".?"); len(plain) != 0 {
			t.Errorf("not compressed: %q", plain)
		}
		after := lines(t, cfg, Options{Tail: -1})
		if strings.Join(before, "") != strings.Join(after, "") {
			t.Errorf("%d lines before, %d after", len(before), len(after))
		}
		for e := range NewReader().Read(context.Background(), cfg, Options{Tail: -1}) {
			if e.Attrs["k"] != "v" {
				t.Fatalf("attributes %v", e.Attrs)
			}
		}
	})
}

func TestATornLastEntryIsLeftOutAndCutOff(t *testing.T) {
	drivers(t, func(t *testing.T, cfg Config) {
		w := open(t, cfg)
		w.Write(Stdout, []byte("one\ntwo\n"), noon)
		w.Close(noon)
		whole, _ := os.ReadFile(cfg.Path)
		one := open(t, cfg)
		one.Write(Stdout, []byte("three\n"), noon)
		one.Close(noon)
		three, _ := os.ReadFile(cfg.Path)
		for cut := len(whole) + 1; cut < len(three); cut++ {
			os.WriteFile(cfg.Path, three[:cut], 0o600)
			if got := lines(t, cfg, Options{Tail: -1}); len(got) != 2 {
				t.Fatalf("cut at %d: %q", cut, got)
			}
			if got := lines(t, cfg, Options{Tail: 1}); len(got) != 1 || got[0] != "1:two\n" {
				t.Fatalf("cut at %d, tail 1: %q", cut, got)
			}
			w := open(t, cfg)
			w.Write(Stdout, []byte("four\n"), noon)
			w.Close(noon)
			if got := lines(t, cfg, Options{Tail: -1}); len(got) != 3 || got[2] != "1:four\n" {
				t.Fatalf("cut at %d, written on: %q", cut, got)
			}
		}
	})
}

func TestWhatACrashDamagedIsLeftOutAndTheRestIsRead(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"no bytes": func(path string) error { return os.Truncate(path, 0) },
		"a part":   func(path string) error { return os.Truncate(path, 7) },
		"zeros":    func(path string) error { return os.WriteFile(path, make([]byte, 64), 0o640) },
		"half zeros": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, append(b[:len(b)/2], make([]byte, len(b)/2)...), 0o640)
		},
	} {
		t.Run(name, func(t *testing.T) {
			drivers(t, func(t *testing.T, cfg Config) {
				cfg.MaxSize, cfg.MaxFiles, cfg.Compress, cfg.Attrs = 400, 5, true, map[string]string{"key": strings.Repeat("v", 40)}
				w := open(t, cfg)
				for i := range 12 {
					w.Write(Stdout, []byte(fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", 60))), noon)
					w.compressor.mu.Lock()
					done := w.compressor.done
					w.compressor.mu.Unlock()
					if done != nil {
						<-done
					}
				}
				if err := w.Close(noon); err != nil {
					t.Fatal(err)
				}
				whole := lines(t, cfg, Options{Tail: -1})
				for _, path := range []string{cfg.Path + ".2.gz", cfg.Path} {
					if err := damage(path); err != nil {
						t.Fatal(err)
					}
					for _, tail := range []int{-1, 100} {
						got := lines(t, cfg, Options{Tail: tail})
						if len(got) >= len(whole) || len(got) < len(whole)/3 {
							t.Errorf("%s: %d lines of %d with tail %d", path, len(got), len(whole), tail)
						}
					}
				}
				w = open(t, cfg)
				w.Write(Stdout, []byte("after\n"), noon)
				got := lines(t, cfg, Options{Tail: -1})
				if len(got) == 0 || got[len(got)-1] != "1:after\n" {
					t.Errorf("the log does not go on: %q", got)
				}
			})
		})
	}
}

func TestAFollowerSeesEveryLineAcrossRotations(t *testing.T) {
	for _, compress := range []bool{false, true} {
		drivers(t, func(t *testing.T, cfg Config) {
			// Enough files that the writer cannot overtake the reader.
			cfg.MaxSize, cfg.MaxFiles, cfg.Compress = 16384, 100, compress
			w := open(t, cfg)
			w.Write(Stdout, []byte("line 0\n"), noon)
			r := NewReader()
			defer r.Close()
			ended := make(chan struct{})
			const n = 5000
			var wg sync.WaitGroup
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 1; i < n; i++ {
					w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), noon)
				}
				close(ended)
			}()
			next := 0
			for e, err := range r.Read(context.Background(), cfg, Options{Tail: -1, Follow: true, Ended: ended}) {
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("line %d\n", next); string(e.Line) != want {
					t.Fatalf("got %q, want %q", e.Line, want)
				}
				next++
			}
			wg.Wait()
			if next != n {
				t.Errorf("saw %d of %d lines", next, n)
			}
		})
	}
}

func TestAFollowerWaitsForAFileThatIsNotThereYet(t *testing.T) {
	drivers(t, func(t *testing.T, cfg Config) {
		r := NewReader()
		defer r.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		ended := make(chan struct{})
		started := make(chan struct{})
		got := make(chan string, 10)
		go func() {
			defer close(got)
			close(started)
			for e, err := range r.Read(ctx, cfg, Options{Tail: 0, Follow: true, Ended: ended}) {
				if err != nil {
					t.Error(err)
					return
				}
				got <- string(e.Line)
			}
		}()
		<-started
		w := open(t, cfg)
		// The follower may begin behind lines written before it looked (Tail
		// is 0), so they are written until one arrives.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for seen := false; !seen; {
			select {
			case <-tick.C:
				w.Write(Stdout, []byte("x\n"), noon)
			case l := <-got:
				if seen = true; l != "x\n" {
					t.Errorf("got %q", l)
				}
			case <-ctx.Done():
				t.Fatal("nothing arrived")
			}
		}
		close(ended)
		for range got {
		}
	})
}

func TestAFullDiskDropsAndCounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs in a private namespace")
	}
	drivers(t, func(t *testing.T, cfg Config) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			// The thread keeps its private namespace and ends with the goroutine.
			runtime.LockOSThread()
			dir := t.TempDir()
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				t.Errorf("unshare: %v", err)
				return
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				t.Error(err)
				return
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
				t.Error(err)
				return
			}
			cfg.Path = filepath.Join(dir, "c.log")
			w, err := Open(cfg)
			if err != nil {
				t.Error(err)
				return
			}
			block := bytes.Repeat([]byte(strings.Repeat("y", 99)+"\n"), 100)
			for range 30 {
				w.Write(Stdout, block, noon)
			}
			dropped := w.Dropped()
			if dropped == 0 || dropped%uint64(len(block)) != 0 {
				t.Errorf("dropped %d bytes", dropped)
			}
			n := len(lines(t, cfg, Options{Tail: -1}))
			if want := 30*100 - int(dropped)/100; n != want {
				t.Errorf("%d lines in the log, want %d", n, want)
			}
			w.Close(noon)
		}()
		<-done
	})
}

func TestNothingIsWrittenByDriverNone(t *testing.T) {
	cfg := Config{Driver: DriverNone, Path: filepath.Join(t.TempDir(), "c.log")}
	w := open(t, cfg)
	w.Write(Stdout, []byte("x\n"), noon)
	if _, err := os.Stat(cfg.Path); !os.IsNotExist(err) {
		t.Errorf("stat: %v", err)
	}
	for _, err := range NewReader().Read(context.Background(), cfg, Options{}) {
		if err == nil || !strings.Contains(err.Error(), "does not support reading") {
			t.Errorf("read: %v", err)
		}
	}
	if _, err := Open(Config{Driver: "nope"}); err == nil || !strings.Contains(err.Error(), "no log driver named 'nope' is registered") {
		t.Errorf("open: %v", err)
	}
}

func TestAContextEndsAFollower(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "c.log")}
	w := open(t, cfg)
	w.Write(Stdout, []byte("x\n"), noon)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := NewReader()
	defer r.Close()
	var last error
	for _, err := range r.Read(ctx, cfg, Options{Tail: -1, Follow: true}) {
		last = err
		cancel()
	}
	if last == nil || !strings.Contains(last.Error(), "canceled") {
		t.Errorf("ended with %v", last)
	}
}

func FuzzEscapingIsJSON(f *testing.F) {
	f.Add([]byte("a\"b\\\x00\xff\u2028\n"))
	f.Add([]byte(`\ud83d\ude00 😀`))
	f.Fuzz(func(t *testing.T, line []byte) {
		b := append(appendEscaped([]byte{'"'}, line), '"')
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if want := strings.ToValidUTF8(string(line), "\ufffd"); utf8Equal(line) && got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		var s scratch
		if rest, ok := s.unescape(b[1:]); !ok || len(rest) != 0 || string(s.line) != got {
			t.Fatalf("own decoder: %q, rest %q, want %q", s.line, rest, got)
		}
	})
}

// utf8Equal: ToValidUTF8 makes one replacement of a run, Docker one a byte.
func utf8Equal(b []byte) bool { return bytes.Equal(bytes.ToValidUTF8(b, nil), b) }

func FuzzDecodingNeverPanics(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-02T12:00:00Z"}`+"\n"), true)
	f.Add([]byte("\x00\x00\x00\x0a\x01\x00\x00\x00\x00\x00\x00\x00\x00x\x00\x00\x00\x0a"), false)
	f.Fuzz(func(t *testing.T, b []byte, isJSON bool) {
		var c codec = localCodec{}
		if isJSON {
			c = jsonCodec{}
		}
		// sound cuts at the end of an entry: what is left is sound.
		if n, err := c.sound(bytesAt(b), int64(len(b))); err == nil {
			if n < 0 || n > int64(len(b)) {
				t.Fatalf("%d of %d bytes are sound", n, len(b))
			}
			if again, err := c.sound(bytesAt(b[:n]), n); err != nil || again != n {
				t.Fatalf("%d bytes were sound, then %d: %v", n, again, err)
			}
		}
		if off, found, err := c.tail(bytesAt(b), int64(len(b)), 3); err == nil && (off < 0 || off > int64(len(b)) || found > 3) {
			t.Fatalf("tail of %d bytes: %d entries from %d", len(b), found, off)
		}
		var e Entry
		var s scratch
		for len(b) > 0 {
			used, _ := c.next(b, &e, &s)
			if used == 0 {
				return
			}
			if used < 0 || used > len(b) {
				t.Fatalf("took %d of %d bytes", used, len(b))
			}
			b = b[used:]
		}
	})
}

func BenchmarkWriteJSON(b *testing.B) {
	w := open(b, Config{Path: filepath.Join(b.TempDir(), "c.log"), MaxSize: 64 << 20, MaxFiles: 2})
	block := bytes.Repeat([]byte(strings.Repeat("y", 99)+"\n"), 320)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		w.Write(Stdout, block, noon)
	}
}

func BenchmarkReadJSON(b *testing.B) {
	cfg := Config{Path: filepath.Join(b.TempDir(), "c.log")}
	w := open(b, cfg)
	block := bytes.Repeat([]byte(strings.Repeat("y", 99)+"\n"), 10000)
	w.Write(Stdout, block, noon)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		for _, err := range NewReader().Read(context.Background(), cfg, Options{Tail: -1}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
