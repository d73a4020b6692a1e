package images_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/registry/remote"
	"github.com/orlop/orlop/internal/store/layers"
	"github.com/orlop/orlop/internal/store/metadata"
	"github.com/orlop/orlop/internal/store/records"
)

// stack is an engine's image side over real stores.
type stack struct {
	*images.Service
	db         *metadata.DB
	layers     *layers.Store
	containers *records.Containers

	mu     sync.Mutex
	events []events.Message
	uses   map[digest.Digest][]images.Use
}

func (s *stack) Publish(m events.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, m)
}

// actions lists the events so far.
func (s *stack) actions() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.events {
		out = append(out, string(m.Action))
	}
	return strings.Join(out, " ")
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// noise is text that does not compress well.
func noise(t testing.TB, size int) string {
	t.Helper()
	b := make([]byte, size/2)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// needLayers skips where layers cannot be extracted: that needs attributes and
// device nodes only root may make.
func needLayers(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skipf("probed: trusted.* attributes: %v", err)
	}
	if err := unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("probed: device nodes: %v", err)
	}
}

func newStack(t testing.TB, root string) *stack {
	t.Helper()
	needLayers(t)
	s, err := openStack(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	return s
}

func openStack(root string) (*stack, error) {
	ctx := context.Background()
	s := &stack{uses: map[digest.Digest][]images.Use{}}
	start, ticks := time.Now(), atomic.Int64{}
	var err error
	if s.db, err = metadata.Open(ctx, metadata.Config{Root: root}); err != nil {
		return nil, err
	}
	s.layers, err = layers.New(layers.Config{
		Content: s.db.Content(), Snapshots: s.db.Snapshots(), Name: metadata.Snapshotter, UpperDirLabel: metadata.UpperDirLabel, NewID: newID,
	})
	if err != nil {
		return nil, err
	}
	if s.containers, err = records.OpenContainers(ctx, records.ContainersConfig{DB: s.db, Layers: s.layers}); err != nil {
		return nil, err
	}
	client, err := remote.New(remote.Config{Attempts: 2, After: func(time.Duration) <-chan time.Time {
		c := make(chan time.Time, 1)
		c <- time.Time{}
		return c
	}})
	if err != nil {
		return nil, err
	}
	s.Service, err = images.New(images.Config{
		Namespace: s.db.Namespace(), Content: s.db.Content(), Images: s.db.Images(), Leases: s.db.Leases(), Lease: s.db.Lease,
		Tx: func(ctx context.Context, fn func(context.Context) error) error {
			return s.db.Update(ctx, func(ctx context.Context, _ *bolt.Tx) error { return fn(ctx) })
		},
		Layers: s.layers,
		Registry: func(ctx context.Context, ref reference.Named, access image.Access) (images.Repository, error) {
			return client.Open(ctx, ref, access)
		},
		Events: s,
		InUse: func(id digest.Digest) []images.Use {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.uses[id]
		},
		Released: func(ctx context.Context) error {
			if err := s.containers.ReleaseUnused(ctx); err != nil {
				return err
			}
			return s.db.Collect(ctx)
		},
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		// Every look at the clock is a second later: no progress is left out.
		Now: func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Second) }, NewID: newID,
	})
	return s, err
}

// transcript collects messages as lines, byte counts left out.
type transcript struct {
	mu    sync.Mutex
	lines []string
}

func (tr *transcript) take(m jsonstream.Message) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	line := m.Status
	if m.ID != "" {
		line = m.ID + ": " + line
	}
	if m.Stream != "" {
		line = strings.TrimSuffix(m.Stream, "\n")
	}
	if len(tr.lines) == 0 || tr.lines[len(tr.lines)-1] != line {
		tr.lines = append(tr.lines, line)
	}
	return nil
}

// of lists the lines about one id (or those without, for "").
func (tr *transcript) of(id string) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var out []string
	for _, line := range tr.lines {
		who, what, ok := strings.Cut(line, ": ")
		if id == "" && (!ok || len(who) != 12) {
			out = append(out, line)
		}
		if id != "" && who == id && (len(out) == 0 || out[len(out)-1] != what) {
			out = append(out, what)
		}
	}
	return strings.Join(out, "\n")
}

func (s *stack) pull(t testing.TB, ref string) *transcript {
	t.Helper()
	tr := &transcript{}
	if err := s.Pull(context.Background(), images.PullOptions{Ref: ref, Progress: tr.take}); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	return tr
}

// files lists everything below a folder of the data root.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func mustRead(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func wantError(t testing.TB, err error, class func(error) bool, text string) {
	t.Helper()
	if err == nil || err.Error() != text || !class(err) {
		t.Fatalf("got  %v (class ok: %v)\nwant %s", err, err != nil && class(err), text)
	}
}
