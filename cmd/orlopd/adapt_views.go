package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/mount"
)

// views is containers.Views: a root file system is mounted without being
// attached anywhere, so that only this process can reach it, through its
// descriptor, and it is gone when the descriptor is closed.
type views struct{}

func (views) View(_ context.Context, rootfs container.Rootfs, readOnly bool, fn func(dir string) error) error {
	if !rootfs.IDMap.Empty() {
		return errdefs.ErrNotImplemented.WithMessage("a root file system with translated ids cannot be viewed in this version of the engine")
	}
	lower, upper, work := rootfs.Lower, rootfs.Upper, rootfs.Work
	if readOnly && upper != "" {
		// The writable layer becomes the topmost of the read-only ones.
		lower, upper, work = append([]string{upper}, lower...), "", ""
	}
	if upper == "" && len(lower) == 1 {
		// One layer needs no overlay, which would refuse a single one.
		return fn(lower[0])
	}
	// Without an index the writable layer of a running container may be among
	// the read-only ones; with it the kernel says EBUSY.
	m, err := mount.Overlay(lower, upper, work, []string{"index=off"})
	if err != nil {
		return fmt.Errorf("mount a view of the layers: %w", err)
	}
	// The dot makes it the folder itself: without it, whoever looks before
	// walking sees the symbolic link that a descriptor is.
	err = fn(fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), m))
	return errors.Join(err, m.Close())
}
