package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/image"
)

// errNeedsParent says that a layer relies on folders of the layers below it
// and cannot be extracted before they are committed.
var errNeedsParent = errors.New("layer needs the folders of its parent")

// errCollected says that a layer was removed between the look and the lease.
var errCollected = errors.New("layer was collected meanwhile")

// Unpack makes the chain of snapshots of the layers, bottom first, and returns
// its chain id. Layers that are there are reported as such and not extracted
// again. On failure every layer below the failed one stays (under the lease of
// ctx, which should have one), nothing of the others is left, and the call may
// be repeated.
func (s *Store) Unpack(ctx context.Context, layers []image.Layer, report image.LayerReport) (digest.Digest, error) {
	if report == nil {
		report = func(int, image.Phase, int64, int64) {}
	}
	const tries = 3
	for try := 1; ; try++ {
		chain, err := s.unpack(ctx, layers, report)
		if !errors.Is(err, errCollected) || try == tries {
			return chain, err
		}
	}
}

func (s *Store) unpack(ctx context.Context, layers []image.Layer, report image.LayerReport) (digest.Digest, error) {
	diffIDs := make([]digest.Digest, len(layers))
	for i, layer := range layers {
		if err := layer.DiffID.Validate(); err != nil {
			return "", fmt.Errorf("unpack layer %d: diff id %q: %w: %w", i, layer.DiffID, err, errdefs.ErrInvalidArgument)
		}
		diffIDs[i] = layer.DiffID
	}
	chains := identity.ChainIDs(diffIDs)
	if len(chains) == 0 {
		return "", nil
	}

	// Every missing layer is locked from the bottom up and unlocked when it is
	// committed. Whoever wants a chain that shares its bottom waits at the same
	// layer, so there is one order.
	unlocks := make([]func(), len(layers))
	defer func() {
		for _, unlock := range unlocks {
			if unlock != nil {
				unlock()
			}
		}
	}()
	first, err := s.lockMissing(ctx, chains, unlocks)
	if err != nil {
		return "", err
	}
	for i := range first {
		report(i, image.PhaseExists, 0, 0)
	}
	if first == len(layers) {
		return chains[first-1], nil
	}

	group, gctx := errgroup.WithContext(ctx)
	staged := make([]*stage, len(layers))
	applied := make([]chan error, len(layers))
	for i := first; i < len(layers); i++ {
		applied[i] = make(chan error, 1)
		staged[i] = &stage{store: s, index: i, layer: layers[i], chain: chains[i].String(), report: report}
		if i > 0 {
			staged[i].parent = chains[i-1].String()
		}
	}
	for i := first; i < len(layers); i++ {
		group.Go(func() error {
			err := staged[i].arrive(gctx)
			if err == nil {
				err = staged[i].extract(gctx, i == first)
			}
			applied[i] <- err
			if errors.Is(err, errNeedsParent) {
				return nil
			}
			return err
		})
	}
	group.Go(func() error {
		for i := first; i < len(layers); i++ {
			var err error
			select {
			case err = <-applied[i]:
			case <-gctx.Done():
				return gctx.Err()
			}
			if errors.Is(err, errNeedsParent) {
				err = staged[i].extract(gctx, true)
			}
			if err != nil {
				return err
			}
			if err := staged[i].commit(gctx); err != nil {
				return err
			}
			unlocks[i]()
			unlocks[i] = nil
			report(i, image.PhaseComplete, 0, 0)
		}
		return nil
	})
	err = group.Wait()
	for _, st := range staged[first:] {
		err = errors.Join(err, st.discard(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return "", err
	}
	return chains[len(chains)-1], nil
}

// lockMissing returns the index of the first layer that is not there, having
// locked it and those above it; what is below is under the lease of ctx.
func (s *Store) lockMissing(ctx context.Context, chains []digest.Digest, unlocks []func()) (int, error) {
	first := 0
	for i, chain := range chains {
		has, err := s.Has(ctx, chain)
		if err != nil {
			return 0, err
		}
		if has && first == i {
			first = i + 1
			continue
		}
		if unlocks[i], err = s.chains.lock(ctx, chain.String()); err != nil {
			return 0, err
		}
		// Somebody may have made it while we waited.
		if has, err = s.Has(ctx, chain); err != nil {
			return 0, err
		}
		if has && first == i {
			unlocks[i]()
			unlocks[i] = nil
			first = i + 1
		}
	}
	if first == 0 {
		return 0, nil
	}
	return first, s.keep(ctx, chains[first-1])
}

// keep puts an existing chain under the lease of ctx: asking for it by the
// label a snapshotter knows its target by does that in containerd's database.
func (s *Store) keep(ctx context.Context, chain digest.Digest) error {
	key := "keep-" + s.cfg.NewID()
	_, err := s.cfg.Snapshots.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: chain.String()}))
	switch {
	case errdefs.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("keep layer %s: %w", chain, err)
	}
	return errors.Join(fmt.Errorf("keep layer %s: %w", chain, errCollected), s.cfg.Snapshots.Remove(ctx, key))
}

// stage is one layer that is being made.
type stage struct {
	store  *Store
	index  int
	layer  image.Layer
	chain  string
	parent string
	report image.LayerReport

	// key of the active snapshot; empty when there is none.
	key string
	// rebase: the snapshot was made without its parent.
	rebase bool
	dir    string
}

// arrive waits for the blob.
func (st *stage) arrive(ctx context.Context) error {
	if st.layer.Ready == nil {
		return nil
	}
	return st.layer.Ready(ctx)
}

// extract extracts the blob into a new snapshot. With
// withParent the layer below is committed already; without, it fails with
// errNeedsParent for layers that leave out folders they put files into.
func (st *stage) extract(ctx context.Context, withParent bool) error {
	if err := st.store.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer st.store.slots.Release(1)
	if err := st.prepare(ctx, withParent); err != nil {
		return err
	}
	err := st.apply(ctx, withParent || st.index == 0)
	if err == nil {
		return nil
	}
	if derr := st.discard(context.WithoutCancel(ctx)); derr != nil {
		return errors.Join(err, derr)
	}
	return err
}

func (st *stage) prepare(ctx context.Context, withParent bool) error {
	parent := ""
	if withParent {
		parent = st.parent
	}
	key := "unpack-" + st.store.cfg.NewID() + " " + st.chain
	mounts, err := st.store.cfg.Snapshots.Prepare(ctx, key, parent)
	if err != nil {
		return fmt.Errorf("prepare layer %s: %w", st.chain, err)
	}
	st.key, st.rebase = key, st.parent != "" && parent == ""
	st.dir, err = upperDir(mounts)
	if err != nil {
		return fmt.Errorf("prepare layer %s: %w", st.chain, err)
	}
	return nil
}

func upperDir(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		switch mounts[0].Type {
		case "bind":
			return mounts[0].Source, nil
		case "overlay":
			for _, option := range mounts[0].Options {
				if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
					return dir, nil
				}
			}
		}
	}
	return "", fmt.Errorf("snapshot has no folder of its own: %w", errdefs.ErrNotImplemented)
}

// apply extracts the layer into st.dir and verifies its diff id.
func (st *stage) apply(ctx context.Context, complete bool) error {
	blob, err := st.store.cfg.Content.ReaderAt(ctx, st.layer.Blob)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", st.layer.Blob.Digest, err)
	}
	defer blob.Close()
	st.report(st.index, image.PhaseExtracting, 0, blob.Size())
	source := &meter{r: content.NewReader(blob), tell: func(done int64) {
		st.report(st.index, image.PhaseExtracting, done, blob.Size())
	}}
	plain, err := Decompress(source)
	if err != nil {
		return fmt.Errorf("extract layer %s: %w", st.layer.Blob.Digest, err)
	}
	defer plain.Close()
	digester := st.layer.DiffID.Algorithm().Digester()
	stream := io.TeeReader(plain, digester.Hash())

	opts := []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
	filters := []archive.Filter{withoutOverlayAttributes}
	if complete {
		if st.parent != "" {
			parents, err := st.store.Dirs(ctx, digest.Digest(st.parent))
			if err != nil {
				return err
			}
			opts = append(opts, archive.WithParents(parents))
		}
	} else {
		filters = append(filters, ownFolders())
	}
	opts = append(opts, archive.WithFilter(all(filters)))
	if _, err := archive.Apply(ctx, st.dir, stream, opts...); err != nil {
		return st.applyError(err)
	}
	// What follows the end marker of a tar belongs to the digest too.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return st.applyError(err)
	}
	if got := digester.Digest(); got != st.layer.DiffID {
		return fmt.Errorf("layer %s: wrong diff id calculated on extraction, expected %s, got %s: %w",
			st.layer.Blob.Digest, st.layer.DiffID, got, errdefs.ErrInvalidArgument)
	}
	st.report(st.index, image.PhaseExtracting, blob.Size(), blob.Size())
	return nil
}

func (st *stage) applyError(err error) error {
	if errors.Is(err, errNeedsParent) {
		return err
	}
	var class error = errdefs.ErrUnknown
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		class = errdefs.ErrInvalidArgument
	}
	return fmt.Errorf("failed to register layer: extract %s: %w: %w", st.layer.Blob.Digest, err, class)
}

func all(filters []archive.Filter) archive.Filter {
	return func(header *tar.Header) (bool, error) {
		for _, filter := range filters {
			if accept, err := filter(header); err != nil || !accept {
				return accept, err
			}
		}
		return true, nil
	}
}

// withoutOverlayAttributes takes the overlay file system's own attributes out
// of a layer: an image must not tell the kernel where to find its files.
func withoutOverlayAttributes(header *tar.Header) (bool, error) {
	for key := range header.PAXRecords {
		name := strings.TrimPrefix(key, "SCHILY.xattr.")
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			delete(header.PAXRecords, key)
		}
	}
	return true, nil
}

// ownFolders fails for an entry whose folder the layer has not brought itself:
// the folder's mode and owner would have to come from the layer below, which
// is not there yet when layers are extracted at the same time.
func ownFolders() archive.Filter {
	brought := map[string]struct{}{".": {}}
	return func(header *tar.Header) (bool, error) {
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		if name == "" {
			return true, nil
		}
		if _, ok := brought[path.Dir(name)]; !ok {
			return false, errNeedsParent
		}
		if header.Typeflag == tar.TypeDir {
			brought[name] = struct{}{}
		}
		return true, nil
	}
}

// commit makes the extracted files durable and then visible.
func (st *stage) commit(ctx context.Context) error {
	if err := st.store.syncs.do(func() error { return syncFS(st.dir) }); err != nil {
		return fmt.Errorf("sync layer %s: %w", st.chain, err)
	}
	var opts []snapshots.Opt
	if st.rebase {
		opts = append(opts, snapshots.WithParent(st.parent))
	}
	err := st.store.cfg.Snapshots.Commit(ctx, st.chain, st.key, opts...)
	if errdefs.IsAlreadyExists(err) {
		// Made by somebody who does not share our locks (the builder).
		return st.discard(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit layer %s: %w", st.chain, err)
	}
	st.key = ""
	return nil
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// discard removes an uncommitted snapshot; it may be repeated.
func (st *stage) discard(ctx context.Context) error {
	if st.key == "" {
		return nil
	}
	key := st.key
	st.key = ""
	if err := st.store.cfg.Snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("discard layer %s: %w", st.chain, err)
	}
	return nil
}

// meter tells how much was read, about every 512 KiB.
type meter struct {
	r    io.Reader
	tell func(done int64)
	done int64
	told int64
}

const meterStep = 512 << 10

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done += int64(n)
	if m.done-m.told >= meterStep {
		m.told = m.done
		m.tell(m.done)
	}
	return n, err
}
