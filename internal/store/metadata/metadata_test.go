package metadata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/store/metadata"
)

func write(t *testing.T, ctx context.Context, db *metadata.DB, text string) digest.Digest {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	if err := content.WriteBlob(ctx, db.Content(), text, bytes.NewReader([]byte(text)), desc); err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func has(t *testing.T, db *metadata.DB, id digest.Digest) bool {
	t.Helper()
	_, err := db.Content().Info(db.Context(context.Background()), id)
	if err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestALeaseOfADeadDaemonEndsWithTheNext(t *testing.T) {
	root := t.TempDir()
	ctx := context.Background()
	db, err := metadata.Open(ctx, metadata.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	leased, end, err := db.Lease(ctx, "act")
	if err != nil {
		t.Fatal(err)
	}
	kept := write(t, leased, db, "kept")
	if err := db.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if !has(t, db, kept) {
		t.Fatal("a lease did not protect")
	}
	// The daemon dies without ending its lease.
	_ = end
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = metadata.Open(ctx, metadata.Config{Root: root}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if has(t, db, kept) {
		t.Fatal("a dead daemon's lease still protects")
	}
}

// A daemon that is killed while it makes or removes an ingest leaves a folder that
// the content store cannot find again.
func TestAnIngestWithoutItsNameIsRemoved(t *testing.T) {
	root := t.TempDir()
	ingests := filepath.Join(root, "content", "ingest")
	folder := func(dir string, files map[string]string) string {
		t.Helper()
		dir = filepath.Join(ingests, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	whole := folder(digest.FromString("default/1/a").Encoded(), map[string]string{"ref": "default/1/a", "startedat": "x", "data": "half"})
	gone := []string{
		folder(digest.FromString("default/1/b").Encoded(), nil),
		folder(digest.FromString("default/1/c").Encoded(), map[string]string{"startedat": "x"}),
		folder(digest.FromString("default/1/d").Encoded(), map[string]string{"ref": "", "startedat": "x", "data": "half"}),
		folder(digest.FromString("default/1/e").Encoded(), map[string]string{"ref": "default/1", "data": "half"}),
	}
	db, err := metadata.Open(context.Background(), metadata.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if body, err := os.ReadFile(filepath.Join(whole, "data")); err != nil || string(body) != "half" {
		t.Errorf("the ingest that is whole: %q, %v", body, err)
	}
	for _, dir := range gone {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

// A daemon that is killed in the middle of making a snapshot leaves the folder of a
// number that the next one gets.
func TestASnapshotIsMadeWhereAKilledDaemonBeganOne(t *testing.T) {
	for _, before := range []int{0, 2} {
		root, ctx := t.TempDir(), context.Background()
		db, err := metadata.Open(ctx, metadata.Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		for i := range before {
			if _, err := db.Snapshots().Prepare(db.Context(ctx), fmt.Sprint("kept ", i), ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		folders := filepath.Join(root, "snapshots", "snapshots")
		if err := os.MkdirAll(filepath.Join(folders, strconv.Itoa(before+1), "fs"), 0o711); err != nil {
			t.Fatal(err)
		}
		if db, err = metadata.Open(ctx, metadata.Config{Root: root}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Snapshots().Prepare(db.Context(ctx), "next", ""); err != nil {
			t.Errorf("after %d snapshots: %v", before, err)
		}
		for i := range before {
			if _, err := db.Snapshots().Mounts(db.Context(ctx), fmt.Sprint("kept ", i)); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(folders, strconv.Itoa(i+1), "fs")); err != nil {
				t.Error(err)
			}
		}
		if err := db.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(folders)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if strings.HasPrefix(e.Name(), "aside-") {
				t.Errorf("%s is left", e.Name())
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The clock of this test only moves when the test lets it.
func TestGarbageIsCollectedWhenTheStoreIsQuiet(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	pause := make(chan chan time.Time)
	db, err := metadata.Open(ctx, metadata.Config{Root: t.TempDir(), After: func(time.Duration) <-chan time.Time {
		c := make(chan time.Time, 1)
		select {
		case pause <- c:
		case <-ctx.Done():
		}
		return c
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	collected := func(id digest.Digest) {
		t.Helper()
		for end := time.Now().Add(time.Minute); has(t, db, id); {
			if time.Now().After(end) {
				t.Fatal("garbage is still there")
			}
		}
	}
	first := write(t, db.Context(ctx), db, "left by a daemon that died")
	ended := make(chan error, 1)
	go func() { ended <- db.Run(ctx) }()
	(<-pause) <- time.Time{}
	collected(first)
	leased, end, err := db.Lease(ctx, "act")
	if err != nil {
		t.Fatal(err)
	}
	id := write(t, leased, db, "garbage soon")
	if err := end(); err != nil {
		t.Fatal(err)
	}
	waiting := <-pause
	// Something changes while it waits for quiet: it waits once more.
	leased, end, err = db.Lease(ctx, "another")
	if err != nil {
		t.Fatal(err)
	}
	write(t, leased, db, "in use")
	waiting <- time.Time{}
	waiting = <-pause
	if !has(t, db, id) {
		t.Fatal("collected although the store was busy")
	}
	waiting <- time.Time{}
	collected(id)
	if err := end(); err != nil {
		t.Fatal(err)
	}
	<-pause // it waits again
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
