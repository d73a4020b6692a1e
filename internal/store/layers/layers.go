// Package layers turns the transported layers of images into folders that the
// overlay file system can stack: it decompresses, extracts, verifies and
// commits them as snapshots named by their chain id.
//
// The entry point is [New]; [Store.Unpack] is the verb. Layers of one image are
// extracted at the same time, each as soon as its blob is there, and committed
// bottom first; a snapshot is only committed when its files are on disk.
//
// Lock order: [Store.chains] (per chain id, held while one layer is extracted)
// before [Store.syncs]; the lock of a chain is only taken while holding those of
// chains below it, so two images that share layers cannot block each other.
package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// Config of a Store.
type Config struct {
	// Content is the namespaced content store, Snapshots the namespaced
	// snapshotter that is registered as Name; UpperDirLabel is the label in
	// which it tells where a snapshot's files are.
	Content       content.Provider
	Snapshots     snapshots.Snapshotter
	Name          string
	UpperDirLabel string
	// Parallel bounds the layers that are extracted at the same time in the
	// whole engine; default the number of processors.
	Parallel int
	// NewID makes a unique name, required.
	NewID  func() string
	Logger *slog.Logger
}

// Store is the unpacked layers. It is safe for concurrent use.
type Store struct {
	cfg    Config
	slots  *semaphore.Weighted
	chains keyedLock
	syncs  groupSync
}

// New makes a Store over open stores.
func New(cfg Config) (*Store, error) {
	if cfg.Content == nil || cfg.Snapshots == nil || cfg.Name == "" || cfg.UpperDirLabel == "" || cfg.NewID == nil {
		return nil, errors.New("layers: incomplete configuration")
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = runtime.NumCPU()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, slots: semaphore.NewWeighted(int64(cfg.Parallel))}, nil
}

// Label is the label which, set on a blob (an image's configuration), keeps
// the chain from being collected for as long as the blob is there.
func (s *Store) Label(chain digest.Digest) (name, value string) {
	return "containerd.io/gc.ref.snapshot." + s.cfg.Name, chain.String()
}

// Decompress is the function of that name, for those who hold the store as an
// interface.
func (s *Store) Decompress(r io.Reader) (io.ReadCloser, error) { return Decompress(r) }

// Has reports whether the chain is unpacked. The chain of no layers is.
func (s *Store) Has(ctx context.Context, chain digest.Digest) (bool, error) {
	if chain == "" {
		return true, nil
	}
	info, err := s.cfg.Snapshots.Stat(ctx, chain.String())
	switch {
	case errdefs.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up layer %s: %w", chain, err)
	}
	return info.Kind == snapshots.KindCommitted, nil
}

// walk visits the snapshots of a chain, the topmost first.
func (s *Store) walk(ctx context.Context, chain digest.Digest, visit func(snapshots.Info) error) error {
	for name := chain.String(); name != ""; {
		info, err := s.cfg.Snapshots.Stat(ctx, name)
		if err != nil {
			return fmt.Errorf("look up layer %s: %w", name, err)
		}
		if err := visit(info); err != nil {
			return err
		}
		name = info.Parent
	}
	return nil
}

// Sizes returns the disk space in bytes of every layer of the chain, bottom
// first; nil for the chain of no layers. ErrNotFound.
func (s *Store) Sizes(ctx context.Context, chain digest.Digest) ([]int64, error) {
	var sizes []int64
	err := s.walk(ctx, chain, func(info snapshots.Info) error {
		usage, err := s.cfg.Snapshots.Usage(ctx, info.Name)
		if err != nil {
			return fmt.Errorf("size of layer %s: %w", info.Name, err)
		}
		sizes = append([]int64{usage.Size}, sizes...)
		return nil
	})
	return sizes, err
}

// Dirs returns the folders of the chain, the topmost first; nil for the chain
// of no layers. They stay for as long as something refers to the chain.
// ErrNotFound.
func (s *Store) Dirs(ctx context.Context, chain digest.Digest) ([]string, error) {
	var dirs []string
	err := s.walk(ctx, chain, func(info snapshots.Info) error {
		dir := info.Labels[s.cfg.UpperDirLabel]
		if dir == "" {
			return fmt.Errorf("layer %s has no folder: %w", info.Name, errdefs.ErrNotFound)
		}
		dirs = append(dirs, dir)
		return nil
	})
	return dirs, err
}

// LowerDirs returns the read-only folders of mounts as a View returns them,
// the topmost first. ErrNotImplemented for mounts of another kind.
func LowerDirs(mounts []mount.Mount) ([]string, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("%d mounts for one view: %w", len(mounts), errdefs.ErrNotImplemented)
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		return []string{m.Source}, nil
	case "overlay":
		for _, option := range m.Options {
			if list, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return strings.Split(list, ":"), nil
			}
		}
	}
	return nil, fmt.Errorf("view mounted as %s: %w", m.Type, errdefs.ErrNotImplemented)
}
