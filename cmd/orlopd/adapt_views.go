package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/linux/mount"
)

// views is containers.Views: a root file system is mounted without being
// attached anywhere, so that only this process can reach it, through its
// descriptor, and it is gone when the descriptor is closed.
type views struct{}

func (views) View(_ context.Context, rootfs container.Rootfs, how containers.ViewMode, fn func(dir string) error) error {
	if !rootfs.IDMap.Empty() {
		return errdefs.ErrNotImplemented.WithMessage("a root file system with translated ids cannot be viewed in this version of the engine")
	}
	lower, upper, work := rootfs.Lower, rootfs.Upper, rootfs.Work
	if how != containers.ViewWritable && upper != "" {
		// The writable layer becomes the topmost of the read-only ones.
		lower, upper, work = append([]string{upper}, lower...), "", ""
	}
	// Without an index the writable layer of a running container may be among
	// the read-only ones; with it the kernel says EBUSY.
	m, err := mount.Overlay(lower, upper, work, []string{"index=off"})
	if err != nil {
		return fmt.Errorf("mount a view of the layers: %w", err)
	}
	if how == containers.ViewExact {
		if err := mount.SetAttrs(m, false, unix.MOUNT_ATTR_NOSYMFOLLOW, 0); err != nil {
			return errors.Join(fmt.Errorf("mount a view of the layers: %w", err), m.Close())
		}
	}
	// The dot makes it the folder itself: without it, whoever looks before
	// walking sees the symbolic link that a descriptor is.
	err = fn(fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), m))
	return errors.Join(err, m.Close())
}
