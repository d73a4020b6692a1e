package records_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/store/layers"
	"github.com/orlop/orlop/internal/store/metadata"
	"github.com/orlop/orlop/internal/store/records"
)

var _ containers.Store = (*records.Containers)(nil)

func openDB(t testing.TB, root string) *metadata.DB {
	t.Helper()
	db, err := metadata.Open(context.Background(), metadata.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openContainers(t testing.TB, db *metadata.DB, cfg records.ContainersConfig) *records.Containers {
	t.Helper()
	store, err := layers.New(layers.Config{
		Content: db.Content(), Snapshots: db.Snapshots(), Name: metadata.Snapshotter, UpperDirLabel: metadata.UpperDirLabel,
		NewID: func() string { return "unused" },
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.DB, cfg.Layers = db, store
	c, err := records.OpenContainers(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

// request has what JSON encoders like to change.
const request = `{ "Image":"redis",   "Cmd":["a<b>&c"],"Unknown":{"kept":1e3}}`

func create(t testing.TB, c *records.Containers, n int, name string) {
	t.Helper()
	rec := container.Record{ID: id(n), Name: name, Request: json.RawMessage(request), State: json.RawMessage(`{"status":"created"}`)}
	if err := c.Create(context.Background(), rec, container.ImageUse{ID: "sha256:00"}); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, c *records.Containers) map[string]container.Record {
	t.Helper()
	list, broken, err := c.Load(context.Background())
	if err != nil || len(broken) != 0 {
		t.Fatal(broken, err)
	}
	out := map[string]container.Record{}
	for _, rec := range list {
		out[rec.Name] = rec
	}
	return out
}

func TestARecordComesBackByteForByte(t *testing.T) {
	root := t.TempDir()
	db := openDB(t, root)
	c := openContainers(t, db, records.ContainersConfig{})
	create(t, c, 1, "web")
	if err := c.Save(context.Background(), container.Record{ID: id(1), Name: "ignored", State: json.RawMessage(`{"status":"running"}`)}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	c = openContainers(t, openDB(t, root), records.ContainersConfig{})
	rec := load(t, c)["web"]
	if string(rec.Request) != request || string(rec.State) != `{"status":"running"}` || rec.ID != id(1) || rec.Schema != 1 {
		t.Fatalf("%+v", rec)
	}
	rootfs, err := c.Rootfs(context.Background(), id(1))
	if err != nil || len(rootfs.Lower) != 1 || rootfs.Upper != filepath.Join(c.Dir(id(1)), "upper") {
		t.Fatal(rootfs, err)
	}
}

func TestANameBelongsToOneContainer(t *testing.T) {
	c := openContainers(t, openDB(t, t.TempDir()), records.ContainersConfig{})
	ctx := context.Background()
	create(t, c, 1, "web")
	create(t, c, 2, "db")
	var taken container.NameTaken
	err := c.Create(ctx, container.Record{ID: id(3), Name: "web"}, container.ImageUse{})
	if !errors.As(err, &taken) || taken.ID != id(1) || !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir(id(3))); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a container that was not created left a folder", err)
	}
	if err := c.Rename(ctx, id(2), "web"); !errors.As(err, &taken) {
		t.Fatal(err)
	}
	if err := c.Rename(ctx, id(2), "db"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rename(ctx, id(1), "www"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rename(ctx, id(2), "web"); err != nil {
		t.Fatal(err)
	}
	if got := load(t, c); got["www"].ID != id(1) || got["web"].ID != id(2) || len(got) != 2 {
		t.Fatal(got)
	}
	if err := c.Rename(ctx, id(9), "x"); !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, id(2)); err != nil {
		t.Fatal(err)
	}
	create(t, c, 4, "web")
}

func TestOneOfManyWhoWantANameGetsIt(t *testing.T) {
	c := openContainers(t, openDB(t, t.TempDir()), records.ContainersConfig{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for n := range 8 {
		wg.Go(func() {
			err := c.Create(context.Background(), container.Record{ID: id(n), Name: "web"}, container.ImageUse{})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errdefs.IsAlreadyExists(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || len(load(t, c)) != 1 {
		t.Fatal(won)
	}
}

func TestCreateAndDeleteAreTwoCommits(t *testing.T) {
	db := openDB(t, t.TempDir())
	c := openContainers(t, db, records.ContainersConfig{})
	create(t, c, 1, "first")
	before := db.Commits()
	create(t, c, 2, "web")
	if err := c.Delete(context.Background(), id(2)); err != nil {
		t.Fatal(err)
	}
	if got := db.Commits() - before; got != 2 {
		t.Fatalf("%d commits", got)
	}
	if err := c.Delete(context.Background(), id(2)); err != nil {
		t.Fatal("deleting again:", err)
	}
	if got := db.Commits() - before; got != 2 {
		t.Fatalf("%d commits", got)
	}
}

func TestLeftoversWithoutARecordGoAndRecordsWithoutFoldersAreReported(t *testing.T) {
	root := t.TempDir()
	db := openDB(t, root)
	c := openContainers(t, db, records.ContainersConfig{})
	create(t, c, 1, "web")
	create(t, c, 2, "lost")
	if err := os.MkdirAll(filepath.Join(c.Dir(id(7)), "upper", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.Dir(id(2))); err != nil {
		t.Fatal(err)
	}
	c = openContainers(t, db, records.ContainersConfig{})
	if _, err := os.Stat(c.Dir(id(7))); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a folder without a record is still there", err)
	}
	if _, err := os.Stat(c.Dir(id(1))); err != nil {
		t.Fatal(err)
	}
	list, broken, err := c.Load(context.Background())
	if err != nil || len(list) != 2 || len(broken) != 1 || !strings.Contains(broken[0].Error(), "lost") {
		t.Fatal(list, broken, err)
	}
}

func TestADamagedRecordIsReportedAndHidesNoOther(t *testing.T) {
	db := openDB(t, t.TempDir())
	c := openContainers(t, db, records.ContainersConfig{})
	create(t, c, 1, "web")
	create(t, c, 2, "db")
	err := db.Update(context.Background(), func(_ context.Context, tx *bolt.Tx) error {
		return tx.Bucket([]byte("orlop")).Bucket([]byte("containers")).Bucket([]byte("items")).Put([]byte(id(2)), []byte(`{"schema":1`))
	})
	if err != nil {
		t.Fatal(err)
	}
	c = openContainers(t, db, records.ContainersConfig{})
	list, broken, err := c.Load(context.Background())
	if err != nil || len(list) != 1 || len(broken) != 1 || !errdefs.IsDataLoss(broken[0]) {
		t.Fatal(list, broken, err)
	}
	// Its name can be had back by removing it.
	if err := c.Delete(context.Background(), id(2)); err != nil {
		t.Fatal(err)
	}
	create(t, c, 3, "db")
}

// The next release has a migration that adds a key and one that fills another.
func nextRelease() []records.Migration {
	return []records.Migration{
		{Number: 2, Reads: 1, Apply: func(r map[string]json.RawMessage) error {
			if r["color"] == nil {
				r["color"] = json.RawMessage(`"blue"`)
			}
			return nil
		}},
		{Number: 3, Reads: 1, Apply: func(r map[string]json.RawMessage) error {
			r["shape"] = json.RawMessage(`"round"`)
			return nil
		}},
	}
}

func TestThePreviousReleaseReadsWhatThisOneWrote(t *testing.T) {
	db := openDB(t, t.TempDir())
	ctx := context.Background()
	open := func(migrations []records.Migration, known ...string) *records.Bucket {
		t.Helper()
		b, err := records.OpenBucket(ctx, db, records.BucketConfig{Name: "things", Known: known, Migrations: migrations})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	get := func(b *records.Bucket, key string) map[string]string {
		t.Helper()
		raw, err := b.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := open(nil, "name").Put(ctx, "a", json.RawMessage(`{"name":"one"}`)); err != nil {
		t.Fatal(err)
	}
	next := open(nextRelease(), "name", "color", "shape")
	if got := get(next, "a"); got["color"] != "blue" || got["shape"] != "round" {
		t.Fatal(got)
	}
	if err := next.Put(ctx, "b", json.RawMessage(`{"name":"two","color":"red","shape":"flat"}`)); err != nil {
		t.Fatal(err)
	}
	// Back to the previous release: it reads both and changes one.
	old := open(nil, "name")
	if got := get(old, "b"); got["name"] != "two" {
		t.Fatal(got)
	}
	if err := old.Put(ctx, "b", json.RawMessage(`{"name":"zwei"}`)); err != nil {
		t.Fatal(err)
	}
	// And forward again: what the old one did not know is still there.
	next = open(nextRelease(), "name", "color", "shape")
	if got := get(next, "b"); got["name"] != "zwei" || got["color"] != "red" {
		t.Fatal(got)
	}
	// A key the release knows and leaves out is gone.
	if err := next.Put(ctx, "b", json.RawMessage(`{"name":"zwei"}`)); err != nil {
		t.Fatal(err)
	}
	if got := get(next, "b"); got["color"] != "" {
		t.Fatal(got)
	}
}

func TestARecordNoOlderReleaseCanReadStopsItsStart(t *testing.T) {
	db := openDB(t, t.TempDir())
	ctx := context.Background()
	breaking := []records.Migration{{Number: 2, Reads: 2, Apply: func(map[string]json.RawMessage) error { return nil }}}
	b, err := records.OpenBucket(ctx, db, records.BucketConfig{Name: "things", Migrations: breaking})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(ctx, "a", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	_, err = records.OpenBucket(ctx, db, records.BucketConfig{Name: "things"})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "record has schema 2, this release reads up to 1") {
		t.Fatal(err)
	}
}

func TestKeysOfAStateThatThisReleaseDoesNotKnowSurvive(t *testing.T) {
	c := openContainers(t, openDB(t, t.TempDir()), records.ContainersConfig{StateKeys: []string{"status", "exitCode"}})
	ctx := context.Background()
	create(t, c, 1, "web")
	save := func(state string) {
		t.Helper()
		if err := c.Save(ctx, container.Record{ID: id(1), State: json.RawMessage(state)}); err != nil {
			t.Fatal(err)
		}
	}
	save(`{"status":"exited","exitCode":3,"fromTheFuture":[1]}`)
	save(`{"status":"running"}`)
	var state map[string]any
	if err := json.Unmarshal(load(t, c)["web"].State, &state); err != nil {
		t.Fatal(err)
	}
	if state["status"] != "running" || state["exitCode"] != nil || fmt.Sprint(state["fromTheFuture"]) != "[1]" {
		t.Fatal(state)
	}
	if err := c.Save(ctx, container.Record{ID: id(9), State: json.RawMessage(`{}`)}); !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
}

func TestSizesCountHardLinksOnce(t *testing.T) {
	c := openContainers(t, openDB(t, t.TempDir()), records.ContainersConfig{})
	create(t, c, 1, "web")
	upper := filepath.Join(c.Dir(id(1)), "upper")
	if err := os.WriteFile(filepath.Join(upper, "a"), make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(upper, "a"), filepath.Join(upper, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "c"), make([]byte, 10), 0o644); err != nil {
		t.Fatal(err)
	}
	rw, rootfs, err := c.Sizes(context.Background(), id(1))
	if err != nil || rw != 1010 || rootfs != 1010 {
		t.Fatal(rw, rootfs, err)
	}
}

func TestASecondDaemonIsToldWhy(t *testing.T) {
	root := t.TempDir()
	openDB(t, root)
	_, err := metadata.Open(context.Background(), metadata.Config{Root: root, LockTimeout: 1})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "another daemon uses this data root") {
		t.Fatal(err)
	}
}

func TestKeysOf(t *testing.T) {
	type inner struct {
		B string `json:"b"`
	}
	type outer struct {
		inner
		A     string `json:"a,omitempty"`
		C     string
		Skip  string `json:"-"`
		quiet string
	}
	if got := fmt.Sprint(records.KeysOf(outer{quiet: ""})); got != "[b a C]" {
		t.Fatal(got)
	}
}

func BenchmarkCreateAndDelete(b *testing.B) {
	c := openContainers(b, openDB(b, b.TempDir()), records.ContainersConfig{})
	n := 0
	for b.Loop() {
		n++
		create(b, c, n, "web")
		if err := c.Delete(context.Background(), id(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenWithAThousandContainers(b *testing.B) {
	root := b.TempDir()
	db := openDB(b, root)
	c := openContainers(b, db, records.ContainersConfig{})
	for n := range 1000 {
		create(b, c, n, fmt.Sprint("c", n))
	}
	db.Close()
	for b.Loop() {
		db := openDB(b, root)
		c := openContainers(b, db, records.ContainersConfig{})
		if got := load(b, c); len(got) != 1000 {
			b.Fatal(len(got))
		}
		db.Close()
	}
}
