package records

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/store/layers"
	"github.com/orlop/orlop/internal/store/metadata"
)

// useLabel marks the lease that holds an image's layers for its containers;
// its value is the chain id.
const useLabel = "io.orlop.use"

var keyRequests = []byte("requests")

// ContainersConfig is what Containers stand on.
type ContainersConfig struct {
	DB     *metadata.DB
	Layers *layers.Store
	// Snapshotter is the name the layers' snapshotter is registered under;
	// default metadata.Snapshotter.
	Snapshotter string
	// StateKeys lists the top-level keys of Record.State that this release
	// writes ([KeysOf]); others are kept when a state is saved. Nil means that
	// the engine keeps them itself.
	StateKeys []string
	// Migrations of stored containers; they see {id, name, image, state}.
	Migrations []Migration
	Logger     *slog.Logger
}

// stored is the record as it lies in the bucket; the request's bytes lie
// beside it, because JSON inside JSON would not stay the bytes that came.
type stored struct {
	ID    string             `json:"id"`
	Name  string             `json:"name"`
	Image container.ImageUse `json:"image"`
	State json.RawMessage    `json:"state,omitempty"`
}

// Containers are the records, names and folders of an engine's containers. It
// is safe for concurrent use.
type Containers struct {
	cfg    ContainersConfig
	bucket *Bucket
	root   string

	mu sync.Mutex
	// lowers caches the folders of chains that a container's lease holds;
	// released counts ReleaseUnused, which empties it.
	lowers   map[digest.Digest][]string
	released uint64
}

// OpenContainers opens the containers of the engine and removes what a daemon
// that died left behind without a record: folders and leases. A record without
// its folder is reported by Load and never removed.
func OpenContainers(ctx context.Context, cfg ContainersConfig) (*Containers, error) {
	if cfg.DB == nil || cfg.Layers == nil {
		return nil, errors.New("open containers: incomplete configuration")
	}
	if cfg.Snapshotter == "" {
		cfg.Snapshotter = metadata.Snapshotter
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	bucket, err := OpenBucket(ctx, cfg.DB, BucketConfig{Name: "containers", Known: KeysOf(stored{}), Migrations: cfg.Migrations})
	if err != nil {
		return nil, err
	}
	c := &Containers{cfg: cfg, bucket: bucket, root: filepath.Join(cfg.DB.Root(), "containers"), lowers: map[digest.Digest][]string{}}
	// 0711 as the data root: the way to a container's hosts file.
	if err := os.MkdirAll(c.root, 0o711); err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	if err := c.sweep(ctx); err != nil {
		return nil, err
	}
	return c, c.ReleaseUnused(ctx)
}

// sweep removes folders without a record.
func (c *Containers) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return fmt.Errorf("open containers: %w", err)
	}
	var orphans []string
	err = c.cfg.DB.View(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items := c.bucket.items(tx)
		for _, entry := range entries {
			if items == nil || items.Get([]byte(entry.Name())) == nil {
				orphans = append(orphans, entry.Name())
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("open containers: %w", err)
	}
	for _, name := range orphans {
		c.cfg.Logger.InfoContext(ctx, "removing the folder of a container that has no record", "container", name)
		if err := os.RemoveAll(filepath.Join(c.root, name)); err != nil {
			c.cfg.Logger.WarnContext(ctx, "cannot remove the folder of a container that has no record", "container", name, "error", err)
		}
	}
	return nil
}

// Dir is the folder of the container below the data root.
func (c *Containers) Dir(id string) string { return filepath.Join(c.root, id) }

func (c *Containers) upper(id string) string { return filepath.Join(c.Dir(id), "upper") }
func (c *Containers) work(id string) string  { return filepath.Join(c.Dir(id), "work") }

// Create makes the folders and then, in one transaction, the record, its name
// and the hold on the image's layers. It fails with container.NameTaken, or
// with ErrNotFound when the layers are gone, and leaves nothing then.
func (c *Containers) Create(ctx context.Context, rec container.Record, image container.ImageUse) error {
	if !validID(rec.ID) {
		return fmt.Errorf("create container: id %q: %w", rec.ID, errdefs.ErrInvalidArgument)
	}
	if rec.Name == "" {
		return fmt.Errorf("create container %s: no name: %w", rec.ID, errdefs.ErrInvalidArgument)
	}
	const tries = 3
	for try := 1; ; try++ {
		err := c.create(ctx, rec, image)
		if !errors.Is(err, errMoved) || try == tries {
			return err
		}
	}
}

// errMoved says that the layers were removed and pulled again while a
// container was created on them: they lie in other folders now.
var errMoved = errors.New("layers have moved")

func (c *Containers) create(ctx context.Context, rec container.Record, image container.ImageUse) (err error) {
	// Folders first: should we die between the two, the next start removes
	// folders that no record names, while a record always has its folders.
	lower, err := c.makeFolders(ctx, rec.ID, image.ChainID)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.Dir(rec.ID)))
		}
	}()
	return c.cfg.DB.Update(ctx, func(ctx context.Context, tx *bolt.Tx) error {
		if items := c.bucket.items(tx); items != nil && items.Get([]byte(rec.ID)) != nil {
			return fmt.Errorf("create container %s: %w", rec.ID, errdefs.ErrAlreadyExists)
		}
		if err := c.reserve(tx, rec.Name, rec.ID); err != nil {
			return err
		}
		if err := c.hold(ctx, image.ChainID, lower); err != nil {
			return err
		}
		requests, err := c.bucket.sub(tx, keyRequests)
		if err != nil {
			return err
		}
		if err := requests.Put([]byte(rec.ID), rec.Request); err != nil {
			return fmt.Errorf("create container %s: %w", rec.ID, err)
		}
		return c.write(tx, stored{ID: rec.ID, Name: rec.Name, Image: image, State: rec.State})
	})
}

// validID keeps ids that are used as names of folders from being anything
// else; the engine makes them (64 hex digits).
func validID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' {
			return false
		}
	}
	return true
}

// makeFolders returns the image's folders, too.
func (c *Containers) makeFolders(ctx context.Context, id string, chain digest.Digest) ([]string, error) {
	lower, err := c.lower(ctx, chain)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", id, err)
	}
	if err := os.Mkdir(c.Dir(id), 0o711); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create container %s: %w", id, errdefs.ErrAlreadyExists)
		}
		return nil, fmt.Errorf("create container %s: %w", id, err)
	}
	err = errors.Join(
		os.Mkdir(c.upper(id), 0o755),
		os.Mkdir(c.work(id), 0o700),
	)
	if err == nil {
		// The root of an overlay shows the upper folder's mode and owner.
		err = copyRoot(lower[0], c.upper(id))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create container %s: %w", id, err), os.RemoveAll(c.Dir(id)))
	}
	return lower, nil
}

// reserve gives name to id; container.NameTaken when another one has it.
func (c *Containers) reserve(tx *bolt.Tx, name, id string) error {
	names, err := c.bucket.sub(tx, keyNames)
	if err != nil {
		return err
	}
	if owner := names.Get([]byte(name)); owner != nil && string(owner) != id {
		return container.NameTaken{Name: name, ID: string(owner)}
	}
	if err := names.Put([]byte(name), []byte(id)); err != nil {
		return fmt.Errorf("reserve name %s: %w", name, err)
	}
	return nil
}

// hold puts the image's layers under the lease of its containers. ctx carries
// the transaction. No method of the snapshotter that takes its lock may be
// called here: garbage collection takes that lock before a transaction.
func (c *Containers) hold(ctx context.Context, chain digest.Digest, lower []string) error {
	if chain == "" {
		return nil
	}
	info, err := c.cfg.DB.Snapshots().Stat(ctx, chain.String())
	if err != nil {
		return fmt.Errorf("hold layers %s: %w", chain, err)
	}
	if info.Labels[metadata.UpperDirLabel] != lower[0] {
		c.mu.Lock()
		delete(c.lowers, chain)
		c.mu.Unlock()
		return fmt.Errorf("hold layers %s: %w", chain, errMoved)
	}
	lease := leases.Lease{ID: leaseID(chain)}
	_, err = c.cfg.DB.Leases().Create(ctx, leases.WithID(lease.ID), leases.WithLabel(useLabel, chain.String()))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		err = c.cfg.DB.Leases().AddResource(ctx, lease, leases.Resource{ID: chain.String(), Type: "snapshots/" + c.cfg.Snapshotter})
	}
	if err != nil {
		return fmt.Errorf("hold layers %s: %w", chain, err)
	}
	return nil
}

func leaseID(chain digest.Digest) string { return "use-" + chain.String() }

func (c *Containers) write(tx *bolt.Tx, s stored) error {
	data, err := marshal(s)
	if err != nil {
		return fmt.Errorf("write container %s: %w", s.ID, err)
	}
	return c.bucket.put(tx, s.ID, data)
}

func (c *Containers) read(tx *bolt.Tx, id string) (stored, error) {
	data, err := c.bucket.get(tx, id)
	if err != nil {
		return stored{}, err
	}
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return stored{}, fmt.Errorf("read container %s: %w: %w", id, err, errdefs.ErrDataLoss)
	}
	return s, nil
}

// Save replaces the state of a record; its name, request and image stay.
// ErrNotFound when it is gone.
func (c *Containers) Save(ctx context.Context, rec container.Record) error {
	return c.cfg.DB.Update(ctx, func(_ context.Context, tx *bolt.Tx) error {
		s, err := c.read(tx, rec.ID)
		if err != nil {
			return err
		}
		if s.State, err = c.mergeState(s.State, rec.State); err != nil {
			return fmt.Errorf("write container %s: %w", rec.ID, err)
		}
		return c.write(tx, s)
	})
}

// mergeState returns the new state with the keys of the old one that this
// release does not know.
func (c *Containers) mergeState(before, now json.RawMessage) (json.RawMessage, error) {
	if c.cfg.StateKeys == nil || len(before) == 0 {
		return now, nil
	}
	var old, fields map[string]json.RawMessage
	if err := json.Unmarshal(now, &fields); err != nil {
		return nil, fmt.Errorf("state: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if json.Unmarshal(before, &old) != nil {
		return now, nil
	}
	kept := false
	for key, value := range old {
		if _, written := fields[key]; !written && !slices.Contains(c.cfg.StateKeys, key) {
			fields[key], kept = value, true
		}
	}
	if !kept {
		return now, nil
	}
	return marshal(fields)
}

// Rename gives the container another name. container.NameTaken when it belongs
// to another one, ErrNotFound when the container is gone; its own name is no
// change.
func (c *Containers) Rename(ctx context.Context, id, name string) error {
	if name == "" {
		return fmt.Errorf("rename container %s: no name: %w", id, errdefs.ErrInvalidArgument)
	}
	return c.cfg.DB.Update(ctx, func(_ context.Context, tx *bolt.Tx) error {
		s, err := c.read(tx, id)
		if err != nil {
			return err
		}
		if s.Name == name {
			return nil
		}
		if err := c.reserve(tx, name, id); err != nil {
			return err
		}
		if err := c.unreserve(tx, s.Name, id); err != nil {
			return err
		}
		s.Name = name
		return c.write(tx, s)
	})
}

func (c *Containers) unreserve(tx *bolt.Tx, name, id string) error {
	names, err := c.bucket.sub(tx, keyNames)
	if err != nil {
		return err
	}
	if !bytes.Equal(names.Get([]byte(name)), []byte(id)) {
		return nil
	}
	return names.Delete([]byte(name))
}

// Delete removes record and name in one transaction and then the folders. A
// container that is not there is not an error; when it fails, repeating it (or
// the next start) removes what is left. The hold on the image's layers ends
// with [Containers.ReleaseUnused]: a removal costs one commit, and the next container of the
// image finds it.
func (c *Containers) Delete(ctx context.Context, id string) error {
	if !validID(id) {
		return fmt.Errorf("delete container: id %q: %w", id, errdefs.ErrInvalidArgument)
	}
	known := false
	err := c.cfg.DB.View(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items := c.bucket.items(tx)
		known = items != nil && items.Get([]byte(id)) != nil
		return nil
	})
	if err == nil && known {
		err = c.cfg.DB.Update(ctx, func(_ context.Context, tx *bolt.Tx) error { return c.forget(tx, id) })
	}
	if err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if err := os.RemoveAll(c.Dir(id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

func (c *Containers) forget(tx *bolt.Tx, id string) error {
	items := c.bucket.items(tx)
	if items == nil || items.Get([]byte(id)) == nil {
		return nil
	}
	s, err := c.read(tx, id)
	switch {
	case err == nil:
		err = c.unreserve(tx, s.Name, id)
	case errdefs.IsDataLoss(err):
		// Whoever removes a record that cannot be read wants its name back.
		err = c.unreserveAll(tx, id)
	}
	if err != nil {
		return err
	}
	requests, err := c.bucket.sub(tx, keyRequests)
	if err != nil {
		return err
	}
	return errors.Join(requests.Delete([]byte(id)), items.Delete([]byte(id)))
}

func (c *Containers) unreserveAll(tx *bolt.Tx, id string) error {
	names, err := c.bucket.sub(tx, keyNames)
	if err != nil {
		return err
	}
	var mine [][]byte
	err = names.ForEach(func(name, owner []byte) error {
		if string(owner) == id {
			mine = append(mine, bytes.Clone(name))
		}
		return nil
	})
	for _, name := range mine {
		err = errors.Join(err, names.Delete(name))
	}
	return err
}

// Load returns every record, in no order, and beside them one error for each
// record that cannot be read and for each whose folder is missing (that one is
// among the records too).
func (c *Containers) Load(ctx context.Context) ([]container.Record, []error, error) {
	var records []container.Record
	var broken []error
	err := c.cfg.DB.View(ctx, func(_ context.Context, tx *bolt.Tx) error {
		items := c.bucket.items(tx)
		if items == nil {
			return nil
		}
		requests := c.bucket.root(tx).Bucket(keyRequests)
		return items.ForEach(func(key, _ []byte) error {
			s, err := c.read(tx, string(key))
			if err != nil {
				broken = append(broken, err)
				return nil
			}
			rec := container.Record{Schema: c.bucket.number, ID: s.ID, Name: s.Name, State: s.State}
			if requests != nil {
				rec.Request = bytes.Clone(requests.Get(key))
			}
			records = append(records, rec)
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("load containers: %w", err)
	}
	for _, rec := range records {
		if _, err := os.Lstat(c.upper(rec.ID)); err != nil {
			broken = append(broken, fmt.Errorf("container %s (%s): its folder is missing: %w", rec.ID, rec.Name, err))
		}
	}
	return records, broken, nil
}

// Image returns the image the container was created from. ErrNotFound.
func (c *Containers) Image(ctx context.Context, id string) (container.ImageUse, error) {
	var s stored
	err := c.cfg.DB.View(ctx, func(_ context.Context, tx *bolt.Tx) (err error) {
		s, err = c.read(tx, id)
		return err
	})
	return s.Image, err
}

// Rootfs returns the layers of the container, the topmost first. ErrNotFound
// when the container is gone.
func (c *Containers) Rootfs(ctx context.Context, id string) (container.Rootfs, error) {
	image, err := c.Image(ctx, id)
	if err != nil {
		return container.Rootfs{}, err
	}
	lower, err := c.lower(ctx, image.ChainID)
	if err != nil {
		return container.Rootfs{}, fmt.Errorf("layers of container %s: %w", id, err)
	}
	return container.Rootfs{Lower: slices.Clone(lower), Upper: c.upper(id), Work: c.work(id)}, nil
}

// lower returns the folders of a chain. An image without layers gets one empty
// folder, because an overlay needs something below.
func (c *Containers) lower(ctx context.Context, chain digest.Digest) ([]string, error) {
	if chain == "" {
		empty := filepath.Join(c.cfg.DB.Root(), "empty")
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return []string{empty}, nil
	}
	c.mu.Lock()
	dirs, released := c.lowers[chain], c.released
	c.mu.Unlock()
	if dirs != nil {
		return dirs, nil
	}
	dirs, err := c.cfg.Layers.Dirs(c.cfg.DB.Context(ctx), chain)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was removed and pulled again lies in other folders.
	if c.released == released {
		c.lowers[chain] = dirs
	}
	return dirs, nil
}

// ReleaseUnused ends the hold on the layers of images that no container uses
// any more, so that garbage collection may take them once their image is gone.
func (c *Containers) ReleaseUnused(ctx context.Context) error {
	ctx = c.cfg.DB.Context(ctx)
	held, err := c.cfg.DB.Leases().List(ctx, `labels."`+useLabel+`"`)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if len(held) == 0 {
		return nil
	}
	var unused []leases.Lease
	find := func(ctx context.Context, tx *bolt.Tx) error {
		used := map[string]bool{}
		unused = nil
		if items := c.bucket.items(tx); items != nil {
			err := items.ForEach(func(key, _ []byte) error {
				s, err := c.read(tx, string(key))
				if err != nil {
					// Its layers are unknown: better to keep too much.
					return err
				}
				used[s.Image.ChainID.String()] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
		for _, lease := range held {
			if !used[lease.Labels[useLabel]] {
				unused = append(unused, lease)
			}
		}
		return nil
	}
	err = c.cfg.DB.View(ctx, find)
	if errdefs.IsDataLoss(err) {
		c.cfg.Logger.WarnContext(ctx, "keeping the layers of every image: a container cannot be read", "error", err)
		return nil
	}
	if err != nil || len(unused) == 0 {
		return err
	}
	c.mu.Lock()
	c.released++
	c.lowers = map[digest.Digest][]string{}
	c.mu.Unlock()
	return c.cfg.DB.Update(ctx, func(ctx context.Context, tx *bolt.Tx) error {
		if err := find(ctx, tx); err != nil {
			return err
		}
		for _, lease := range unused {
			if err := c.cfg.DB.Leases().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("release layers %s: %w", lease.Labels[useLabel], err)
			}
		}
		return nil
	})
}
