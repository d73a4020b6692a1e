package protocol

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

func pair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*Conn
	for i, fd := range fds {
		if conns[i], err = NewConn(fd, "test"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

func TestFramesOfEverySizeArriveInOrder(t *testing.T) {
	a, b := pair(t)
	sizes := []int{0, 1, 511, 512, 4096, 65535, 65536, 1 << 20, MaxPayload, 3}
	go func() {
		for i, n := range sizes {
			a.Write(Frame{Kind: KindRequest, Op: uint16(i), ID: uint32(n), Payload: bytes.Repeat([]byte{byte(i)}, n)})
		}
		a.Close()
	}()
	for i, n := range sizes {
		f, files, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Op != uint16(i) || f.ID != uint32(n) || len(f.Payload) != n || len(files) != 0 || (n > 0 && f.Payload[n-1] != byte(i)) {
			t.Fatalf("frame %d: op %d id %d of %d bytes", i, f.Op, f.ID, len(f.Payload))
		}
	}
	if _, _, err := b.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if cap(b.buf) > 2*readStep {
		t.Errorf("keeps %d bytes", cap(b.buf))
	}
}

func TestDescriptorsStayWithTheirFrame(t *testing.T) {
	a, b := pair(t)
	var names []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		names = append(names, w)
	}
	// All in the socket before anything is read, plain frames between.
	fd := func(i int) int { return int(names[i].Fd()) }
	a.Write(Frame{Kind: KindRequest, ID: 1})
	a.Write(Frame{Kind: KindRequest, ID: 2, Payload: []byte("x")}, fd(0))
	a.Write(Frame{Kind: KindRequest, ID: 3})
	a.Write(Frame{Kind: KindRequest, ID: 4}, fd(1), fd(2))
	for _, want := range []struct {
		id    uint32
		files int
	}{{1, 0}, {2, 1}, {3, 0}, {4, 2}} {
		f, files, err := b.Read()
		if err != nil || f.ID != want.id || len(files) != want.files {
			t.Fatalf("frame %d with %d descriptors, %v; want %+v", f.ID, len(files), err, want)
		}
		for i, file := range files {
			var is, was syscall.Stat_t
			syscall.Fstat(int(file.Fd()), &is)
			syscall.Fstat(fd(int(want.id)/2-1+i), &was)
			if is.Ino != was.Ino {
				t.Errorf("frame %d: descriptor %d is another one", f.ID, i)
			}
			file.Close()
		}
	}
}

func TestBrokenFramesAreErrorsNotCrashes(t *testing.T) {
	for name, wire := range map[string][]byte{
		"length":      AppendHeader(nil, Header{Length: MaxPayload + 1, Kind: KindHello}),
		"files":       AppendHeader(nil, Header{Kind: KindHello, Files: MaxFiles + 1}),
		"files amiss": AppendHeader(nil, Header{Kind: KindHello, Files: 1}),
	} {
		a, b := pair(t)
		a.raw.Write(func(fd uintptr) bool { syscall.Write(int(fd), wire); return true })
		if _, _, err := b.Read(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := pair(t)
	a.raw.Write(func(fd uintptr) bool { syscall.Write(int(fd), []byte{0, 0, 0}); return true })
	a.Close()
	if _, _, err := b.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a header: %v", err)
	}
}

func TestAWriteToSomebodyWhoDoesNotReadTimesOut(t *testing.T) {
	a, _ := pair(t)
	a.SetWriteTimeout(10 * time.Millisecond)
	var err error
	for err == nil {
		err = a.Write(Frame{Kind: KindEvent, Payload: make([]byte, 64<<10)})
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestVersionsAreNegotiated(t *testing.T) {
	for _, c := range []struct {
		version, min, want int
	}{{1, 1, 1}, {9, 1, 1}, {9, 2, 0}, {0, 0, 0}} {
		got, err := Hello{Version: c.version, MinVersion: c.min}.Negotiate()
		if (err == nil) != (c.want > 0) || (err == nil && got != c.want) {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
}

func TestEveryOperationHasACapabilityThatMonitorsList(t *testing.T) {
	listed := map[string]bool{}
	for _, c := range Capabilities() {
		listed[c] = true
	}
	for op, e := range operations {
		if !listed[e.capability] {
			t.Errorf("%s: capability %q is not listed", op, e.capability)
		}
	}
}

func FuzzRead(f *testing.F) {
	good := AppendHeader(nil, Header{Length: 2, Kind: KindRequest, Op: 1, ID: 7})
	f.Add(append(good, "{}"...))
	f.Add(AppendHeader(nil, Header{Length: 1 << 31, Kind: 9}))
	f.Add([]byte{0, 0, 0, 5, 1})
	f.Fuzz(func(t *testing.T, wire []byte) {
		if len(wire) > 64<<10 {
			return
		}
		a, b := pair(t)
		a.raw.Write(func(fd uintptr) bool { syscall.Write(int(fd), wire); return true })
		a.Close()
		total := 0
		for {
			fr, files, err := b.Read()
			if err != nil {
				break
			}
			if len(files) != 0 {
				t.Fatal("descriptors out of nothing")
			}
			total += HeaderSize + len(fr.Payload)
		}
		if total > len(wire) {
			t.Fatalf("%d bytes out of %d", total, len(wire))
		}
		if h, err := ParseHeader(wire); err == nil && !bytes.Equal(AppendHeader(nil, h), wire[:HeaderSize]) {
			t.Fatal("a header changes its form")
		}
		if stream, n, err := ParseStreamHeader(wire); err == nil && n > MaxChunk {
			t.Fatalf("stream %d, %d bytes", stream, n)
		}
	})
}
