package monitorside

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func TestAQueueReturnsWhatItGotWhereverItWasKept(t *testing.T) {
	q := queue{folder: t.TempDir()}
	rng := rand.New(rand.NewPCG(1, 2))
	var want, got bytes.Buffer
	buf := make([]byte, pumpSize)
	for range 3000 {
		if rng.IntN(5) < 3 {
			p := make([]byte, 1+rng.IntN(pumpSize))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			want.Write(p)
			q.push(p)
		} else if part, err := q.peek(buf); err != nil {
			t.Fatal(err)
		} else if len(part) > 0 {
			n := 1 + rng.IntN(len(part))
			got.Write(part[:n])
			q.pop(n)
		}
		if len(q.mem) > 2*queueMemory {
			t.Fatalf("%d bytes in memory", len(q.mem))
		}
	}
	for {
		part, err := q.peek(buf)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		got.Write(part)
		q.pop(len(part))
	}
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Errorf("put in %d bytes, got %d others", want.Len(), got.Len())
	}
}

func TestAQueueWithoutAFolderIsFullEarly(t *testing.T) {
	q := queue{folder: filepath.Join(t.TempDir(), "gone")}
	for !q.full() {
		q.push(make([]byte, 1000))
	}
	if n := len(q.mem); n > queueMemory+1000 {
		t.Errorf("%d bytes in memory", n)
	}
	part, _ := q.peek(make([]byte, pumpSize))
	for len(part) > 0 {
		q.pop(len(part))
		part, _ = q.peek(make([]byte, pumpSize))
	}
	if q.full() {
		t.Error("full although empty")
	}
}

func TestAQueuesFileHasNoName(t *testing.T) {
	dir := t.TempDir()
	q := queue{folder: dir}
	q.push(make([]byte, queueMemory))
	q.push(make([]byte, queueMemory))
	if q.file == nil {
		t.Fatal("kept in memory")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("files: %v", left)
	}
	q.close()
}
