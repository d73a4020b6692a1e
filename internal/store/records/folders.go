package records

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyRoot gives the folder to the mode and owner of from.
func copyRoot(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: from, Err: err}
	}
	// Owner first: chown clears the set-id bits.
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: to, Err: err}
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: to, Err: err}
	}
	return nil
}

// Sizes returns in bytes what the container's writable layer holds (the
// length of its files, each hard-linked one once, as Docker counts), and that together
// with its image's layers. ErrNotFound.
func (c *Containers) Sizes(ctx context.Context, id string) (rw, rootfs int64, err error) {
	image, err := c.Image(ctx, id)
	if err != nil {
		return 0, 0, err
	}
	rw, err = treeSize(ctx, c.upper(id))
	if err != nil {
		return 0, 0, fmt.Errorf("size of container %s: %w", id, err)
	}
	rootfs = rw
	if image.ChainID != "" {
		sizes, err := c.cfg.Layers.Sizes(c.cfg.DB.Context(ctx), image.ChainID)
		if err != nil {
			return 0, 0, fmt.Errorf("size of container %s: %w", id, err)
		}
		for _, size := range sizes {
			rootfs += size
		}
	}
	return rw, rootfs, nil
}

type inode struct{ dev, ino uint64 }

// treeSize adds up the lengths of the files below dir. The container may be
// changing them meanwhile: what vanishes is not counted.
func treeSize(ctx context.Context, dir string) (int64, error) {
	var total int64
	linked := map[inode]struct{}{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil
			}
			return err
		}
		if entry.IsDir() {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Nlink > 1 {
			key := inode{st.Dev, st.Ino}
			if _, seen := linked[key]; seen {
				return nil
			}
			linked[key] = struct{}{}
		}
		total += st.Size
		return nil
	})
	return total, err
}
