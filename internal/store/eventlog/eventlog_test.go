package eventlog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/store/eventlog"
)

func open(t *testing.T, dir string) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(eventlog.Config{Root: dir, SegmentSize: 400, Segments: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func event(n int) events.Message {
	at := time.Unix(int64(n), 0)
	return events.Message{Type: events.ImageEventType, Action: events.ActionPull, Actor: events.Actor{ID: fmt.Sprint(n)}, Time: at.Unix(), TimeNano: at.UnixNano()}
}

func appendN(t *testing.T, l *eventlog.Log, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		seq, err := l.Append(event(n))
		if err != nil || seq != uint64(n) {
			t.Fatalf("Append(%d) = %d, %v", n, seq, err)
		}
	}
}

func read(l *eventlog.Log, since, until time.Time) (ids []string) {
	for seq, m := range l.Read(since, until) {
		ids = append(ids, fmt.Sprintf("%d:%s", seq, m.Actor.ID))
	}
	return ids
}

func TestNumbersGoOnAfterAReopen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	appendN(t, l, 1, 2)
	l.Close()
	l = open(t, dir)
	if got := l.Last(); got != 2 {
		t.Fatalf("Last() = %d", got)
	}
	appendN(t, l, 3, 3)
	if got := fmt.Sprint(read(l, time.Time{}, time.Time{})); got != "[1:1 2:2 3:3]" {
		t.Fatal(got)
	}
	if got := fmt.Sprint(read(l, time.Unix(2, 0), time.Unix(2, 0))); got != "[2:2]" {
		t.Fatal(got)
	}
}

func TestATornLastEventIsDroppedAndItsNumberIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	appendN(t, l, 1, 2)
	l.Close()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(files[0], info.Size()-5); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if got := l.Last(); got != 1 {
		t.Fatalf("Last() = %d", got)
	}
	appendN(t, l, 2, 2)
	if got := fmt.Sprint(read(l, time.Time{}, time.Time{})); got != "[1:1 2:2]" {
		t.Fatal(got)
	}
}

func TestTheLogIsBoundedAndKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	appendN(t, l, 1, 40)
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	got := read(l, time.Time{}, time.Time{})
	if len(got) == 0 || got[len(got)-1] != "40:40" || len(got) >= 40 {
		t.Fatal(got)
	}
}
