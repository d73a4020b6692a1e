package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// mutated is called by containerd after every write transaction; dirty says
// that references were removed since the last collection. It must not block.
func (d *DB) mutated(dirty bool) {
	d.mu.Lock()
	d.commits++
	d.dirty = d.dirty || dirty
	wake := d.dirty
	d.mu.Unlock()
	if !wake {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Run collects garbage until ctx ends: once in the beginning (a daemon that
// died may have left some), then whenever references were removed and either
// nothing has changed for Config.Quiet or Config.MaxDelay has passed.
func (d *DB) Run(ctx context.Context) error {
	if err := d.wait(ctx, d.cfg.Quiet); err != nil {
		return nil
	}
	d.collectAndLog(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		}
		deadline := d.cfg.Now().Add(d.cfg.MaxDelay)
		for d.cfg.Now().Before(deadline) {
			before := d.Commits()
			if err := d.wait(ctx, d.cfg.Quiet); err != nil {
				return nil
			}
			if d.Commits() == before {
				break
			}
		}
		d.collectAndLog(ctx)
	}
}

func (d *DB) wait(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.cfg.After(pause):
		return nil
	}
}

func (d *DB) collectAndLog(ctx context.Context) {
	if err := d.Collect(ctx); err != nil && ctx.Err() == nil {
		d.cfg.Logger.WarnContext(ctx, "garbage collection failed", "error", err)
	}
}

// Collect removes every snapshot, blob and ingest that nothing refers to and
// waits until their files are gone. It may be repeated and may run at the same
// time as anything else: what a lease holds is safe.
func (d *DB) Collect(ctx context.Context) error {
	d.mu.Lock()
	d.dirty = false
	d.mu.Unlock()
	ctx = d.Context(ctx)
	if _, err := d.meta.GarbageCollect(ctx); err != nil {
		d.mu.Lock()
		d.dirty = true
		d.mu.Unlock()
		return fmt.Errorf("collect garbage: %w", err)
	}
	// Folders of snapshots whose transaction never happened are only known to
	// the snapshotter itself.
	if cleaner, ok := d.overlay.(snapshots.Cleaner); ok {
		// Not found: there never was a snapshot.
		if err := cleaner.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("clean snapshots: %w", err)
		}
	}
	return nil
}
