package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A named pipe that nobody reads is a disk that hangs.
func TestABufferedWriterDoesNotWaitForTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(Config{Driver: DriverJSON, Path: path, Buffer: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	now := time.Unix(1, 0)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const lines = 1000
	for i := range lines {
		copy(line, []byte{byte('a' + i%26)}) // the caller's buffer is used again
		w.Write(Stdout, line, now)
	}
	w.Write(Stdout, []byte("the end"), now)
	w.End(Stdout, now)
	dropped := w.Dropped()
	if dropped == 0 || dropped >= lines*1024 {
		t.Errorf("%d bytes dropped of %d", dropped, lines*1024)
	}
	if _, ok := w.State(); ok {
		t.Error("a writer that holds output can be left behind")
	}

	// The disk comes back: everything that was kept is there, the last too.
	got := make(chan []byte)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(reader)
		got <- all.Bytes()
	}()
	if err := w.Close(now); err != nil {
		t.Fatal(err)
	}
	all := <-got
	entries := bytes.Split(bytes.TrimSuffix(all, []byte("\n")), []byte("\n"))
	if kept := uint64(lines*1024 - (len(entries)-1)*1024); kept != dropped {
		t.Errorf("%d bytes are missing, %d were counted", kept, dropped)
	}
	if last := string(entries[len(entries)-1]); !strings.HasPrefix(last, `{"log":"the end","stream":"stdout"`) {
		t.Errorf("last entry %s", last)
	}
}

func TestABufferIsBoundedAlsoForSinglesBytes(t *testing.T) {
	hang, on := make(chan struct{}), make(chan struct{}, 1)
	r := &ring{max: 64 << 10, write: func(byte, []byte, time.Time) {
		select {
		case on <- struct{}{}:
		default:
		}
		<-hang
	}}
	r.put(piece{stream: Stdout, data: []byte("x")})
	<-on
	for range 1 << 20 {
		r.put(piece{stream: Stdout, data: []byte("x")})
	}
	if n := len(r.queue); n > 1<<10 {
		t.Errorf("%d pieces of a byte wait in a buffer of 64 KiB", n)
	}
	if kept := uint64(len(r.queue)); r.lost() != 1<<20-kept {
		t.Errorf("%d bytes dropped, %d kept", r.lost(), kept)
	}
	close(hang)
	r.wait(-1)
}

func TestALostLogCountsWhatComes(t *testing.T) {
	w := Lost(Config{Driver: DriverJSON, Path: "/nowhere/log"})
	w.Resume(State{Dropped: 5})
	w.Write(Stdout, []byte("seven77"), time.Unix(1, 0))
	w.End(Stdout, time.Unix(1, 0))
	if n := w.Dropped(); n != 12 {
		t.Errorf("%d bytes dropped", n)
	}
	if err := w.Close(time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
}

func TestABufferedWriterKeepsEverythingOnADiskThatKeepsUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Open(Config{Driver: DriverLocal, Path: path, Buffer: 1})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	for range 100 {
		w.Write(Stderr, []byte("one\ntwo\n"), now)
		w.ring.wait(-1)
	}
	if err := w.Close(now); err != nil || w.Dropped() != 0 {
		t.Fatal(err, w.Dropped())
	}
	if err := w.Close(now); err != nil {
		t.Error(err)
	}
	if body, err := os.ReadFile(path); err != nil || bytes.Count(body, []byte("two")) != 100 {
		t.Error(err, len(body))
	}
}

// Processes that outlive a container write while its end waits for the log.
func TestABufferIsWaitedForWhileOthersWrite(t *testing.T) {
	var written atomic.Int64
	r := &ring{max: 4 << 20, write: func(byte, []byte, time.Time) { written.Add(1) }, end: func(byte, time.Time) {}}
	const pieces = 20000
	var writer sync.WaitGroup
	writer.Go(func() {
		for range pieces {
			r.put(piece{stream: 1, data: []byte("x")})
			if r.busy() {
				runtime.Gosched()
			}
		}
	})
	for range pieces {
		r.wait(time.Minute)
	}
	writer.Wait()
	r.wait(-1)
	if n := written.Load(); n != pieces {
		t.Errorf("%d pieces of %d were written", n, pieces)
	}
	r.wait(0) // at once: nothing is there
}
