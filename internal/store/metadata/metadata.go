// Package metadata opens the stores of an engine: containerd's metadata
// database in one bbolt file, the content store, the snapshotter, leases and
// garbage collection, all in this process and in one namespace.
//
// The entry point is [Open]. Records of ours live in the same file (package
// records), so that a change which touches both is one transaction: [DB.Update].
//
// Garbage collection is scheduled here because containerd's scheduler is not
// exported: [DB.Run] collects when references were removed and the store has
// been quiet for a moment, [DB.Collect] at once.
//
// Lock order: the write lock of the database (held inside Update) before
// nothing of ours; [DB.mu] guards the scheduler's bookkeeping and is a leaf.
package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	c8dmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	errbolt "go.etcd.io/bbolt/errors"
)

// Snapshotter is the name under which the overlay snapshotter is registered.
const Snapshotter = "overlay"

// UpperDirLabel is set on what Stat returns of a snapshot: the folder that
// holds the snapshot's own files (containerd overlay snapshotter,
// WithUpperdirLabel).
const UpperDirLabel = "containerd.io/snapshot/overlay.upperdir"

// transientLabel marks leases that belong to a running act of the daemon. On
// start every one of them is left over from a daemon that died.
const transientLabel = "io.orlop.transient"

// Config of a DB.
type Config struct {
	// Root is the data root of the engine; it is created (0711).
	Root string
	// Namespace of containerd; default "orlop".
	Namespace string
	// LockTimeout bounds the wait for another daemon to let go of the file;
	// default 1 s.
	LockTimeout time.Duration
	// Quiet is how long nothing must have changed before garbage is
	// collected, and MaxDelay after how long it is collected anyway; defaults
	// 2 s and 30 s.
	Quiet, MaxDelay time.Duration
	// Now defaults to time.Now, After to time.After: tests move a clock.
	Now    func() time.Time
	After  func(time.Duration) <-chan time.Time
	Logger *slog.Logger
}

// DB is the open stores. It is safe for concurrent use.
type DB struct {
	cfg     Config
	bolt    *bolt.DB
	meta    *c8dmetadata.DB
	overlay snapshots.Snapshotter
	leases  leases.Manager
	images  images.Store
	changed chan struct{}

	mu sync.Mutex
	// commits counts write transactions, for tests and the benchmark.
	commits uint64
	dirty   bool
}

// Open opens or makes the stores below cfg.Root. It fails with ErrUnavailable
// when another daemon has them open, with ErrFailedPrecondition when the file
// system cannot hold overlay layers.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Root == "" {
		return nil, errors.New("open stores: no data root")
	}
	if cfg.Namespace == "" {
		cfg.Namespace = "orlop"
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	if cfg.Quiet == 0 {
		cfg.Quiet = 2 * time.Second
	}
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// 0711: a container's user may have to walk through to bind-mounted files,
	// but never list what is there.
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("open stores: %w", err)
	}
	d := &DB{cfg: cfg, changed: make(chan struct{}, 1)}
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *DB) open(ctx context.Context) error {
	path := filepath.Join(d.cfg.Root, "meta.db")
	options := *bolt.DefaultOptions
	options.Timeout = d.cfg.LockTimeout
	// The list of free pages is rebuilt on open instead of written with every
	// commit: a commit is then a few pages, and opening scans a small file.
	options.NoFreelistSync = true
	options.FreelistType = bolt.FreelistMapType
	db, err := bolt.Open(path, 0o600, &options)
	if errors.Is(err, errbolt.ErrTimeout) {
		return fmt.Errorf("open %s: another daemon uses this data root: %w", path, errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	d.bolt = db

	contentRoot := filepath.Join(d.cfg.Root, "content")
	if err := os.MkdirAll(contentRoot, 0o700); err != nil {
		return fmt.Errorf("open content store: %w", err)
	}
	if err := dropNameless(filepath.Join(contentRoot, "ingest")); err != nil {
		return fmt.Errorf("open content store: %w", err)
	}
	blobs, err := local.NewStore(contentRoot)
	if err != nil {
		return fmt.Errorf("open content store: %w", err)
	}
	if err := d.openSnapshotter(ctx, filepath.Join(d.cfg.Root, "snapshots")); err != nil {
		return fmt.Errorf("open snapshotter: %w", err)
	}
	d.meta = c8dmetadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{Snapshotter: d.overlay})
	if err := d.meta.Init(ctx); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	d.leases = c8dmetadata.NewLeaseManager(d.meta)
	d.images = c8dmetadata.NewImageStore(d.meta)
	d.meta.RegisterMutationCallback(d.mutated)
	return d.dropTransient(ctx)
}

func (d *DB) openSnapshotter(ctx context.Context, root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	store, err := storage.NewMetaStore(filepath.Join(root, "metadata.db"))
	if err != nil {
		return err
	}
	if err := setAside(ctx, store, filepath.Join(root, "snapshots")); err != nil {
		return errors.Join(err, store.Close())
	}
	d.overlay, err = overlay.NewSnapshotter(root, overlay.AsynchronousRemove, overlay.WithUpperdirLabel, overlay.WithMetaStore(store))
	if err != nil {
		return errors.Join(err, store.Close())
	}
	return nil
}

// setAside renames the folders of snapshots that the store does not know, for the
// next collection to remove: a daemon was killed between making one and the
// transaction that numbers it, so the next snapshot gets the same number and would
// fail on the folder.
func setAside(ctx context.Context, store *storage.MetaStore, folders string) error {
	entries, err := os.ReadDir(folders)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var known map[string]string
	err = store.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		known, err = storage.IDMap(ctx)
		return err
	})
	if err != nil && !errdefs.IsNotFound(err) { // not found: there never was a snapshot
		return err
	}
	for _, e := range entries {
		if _, ok := known[e.Name()]; ok || strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		aside, err := os.MkdirTemp(folders, "aside-")
		if err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(folders, e.Name()), filepath.Join(aside, e.Name())); err != nil {
			return errors.Join(err, os.Remove(aside))
		}
	}
	return nil
}

// dropNameless removes the folders of ingests whose file ref does not say what they
// are called after: a daemon was killed while it made or removed them, or the power
// failed. The content store finds an ingest by its ref only, so nobody would ever.
func dropNameless(ingests string) error {
	entries, err := os.ReadDir(ingests)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(ingests, e.Name())
		ref, err := os.ReadFile(filepath.Join(dir, "ref"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && digest.FromBytes(ref).Encoded() == e.Name() {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files. No transaction may be open.
func (d *DB) Close() error {
	var errs []error
	if d.overlay != nil {
		errs = append(errs, d.overlay.Close())
		d.overlay = nil
	}
	if d.bolt != nil {
		errs = append(errs, d.bolt.Close())
		d.bolt = nil
	}
	return errors.Join(errs...)
}

// Root is the data root.
func (d *DB) Root() string { return d.cfg.Root }

// Namespace is the containerd namespace of the engine.
func (d *DB) Namespace() string { return d.cfg.Namespace }

// Context returns ctx with the namespace; every call to a store needs it.
func (d *DB) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.cfg.Namespace)
}

// Content is the namespaced content store.
func (d *DB) Content() content.Store { return d.meta.ContentStore() }

// Snapshots is the namespaced snapshotter.
func (d *DB) Snapshots() snapshots.Snapshotter { return d.meta.Snapshotter(Snapshotter) }

// Leases is the namespaced lease manager.
func (d *DB) Leases() leases.Manager { return d.leases }

// Images is the namespaced image store.
func (d *DB) Images() images.Store { return d.images }

// View runs fn in a read transaction; the context given to fn makes
// containerd's stores take part in it.
func (d *DB) View(ctx context.Context, fn func(ctx context.Context, tx *bolt.Tx) error) error {
	return d.meta.View(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(d.Context(ctx), tx), tx)
	})
}

// Update runs fn in one write transaction that containerd's stores take part
// in: either everything fn changed is on disk when Update returns nil, or
// nothing. fn must not wait for the network or for a child.
func (d *DB) Update(ctx context.Context, fn func(ctx context.Context, tx *bolt.Tx) error) error {
	return d.meta.Update(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(d.Context(ctx), tx), tx)
	})
}

// Commits is the number of write transactions since Open.
func (d *DB) Commits() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.commits
}

// Lease makes a lease for the time of one act and returns a context that
// protects whatever is made or found with it from garbage collection, the
// lease's id, and the function that ends it (also on a canceled ctx). A
// daemon that dies meanwhile leaves a lease that the next Open removes.
func (d *DB) Lease(ctx context.Context, id string) (context.Context, func() error, error) {
	ctx = d.Context(ctx)
	lease, err := d.leases.Create(ctx, leases.WithID(id), leases.WithLabel(transientLabel, "1"))
	if err != nil {
		return nil, nil, fmt.Errorf("lease %s: %w", id, err)
	}
	end := func() error {
		err := d.leases.Delete(context.WithoutCancel(ctx), lease)
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("end lease %s: %w", id, err)
		}
		return nil
	}
	return leases.WithLease(ctx, lease.ID), end, nil
}

func (d *DB) dropTransient(ctx context.Context) error {
	ctx = d.Context(ctx)
	left, err := d.leases.List(ctx, `labels."`+transientLabel+`"==1`)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if len(left) == 0 {
		return nil
	}
	return d.Update(ctx, func(ctx context.Context, _ *bolt.Tx) error {
		for _, lease := range left {
			if err := d.leases.Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove lease %s: %w", lease.ID, err)
			}
		}
		return nil
	})
}
