package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/linux/mount"
	program "github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
)

// views is containers.Views: a root file system is mounted without being
// attached anywhere, so that only this process can reach it, through its
// descriptor, and it is gone when the descriptor is closed.
type views struct{}

func (views) View(_ context.Context, rootfs container.Rootfs, how containers.ViewMode, fn func(dir string) error) error {
	if !rootfs.IDMap.Empty() {
		return translatedView(rootfs, fn)
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

// translatedView shows layers with the owners that their files have outside of
// the user namespace of a container.
func translatedView(rootfs container.Rootfs, fn func(dir string) error) error {
	user, err := program.NewUserNamespace(idMap(rootfs.IDMap.UIDs), idMap(rootfs.IDMap.GIDs))
	if err != nil {
		return err
	}
	defer user.Close()
	type result struct {
		fd  safepath.FD
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread, with its mount namespace, ends with us.
		runtime.LockOSThread()
		fd, err := translatedLayers(rootfs, user.Fd())
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return fmt.Errorf("mount a view of the layers: %w", r.err)
	}
	err = fn(fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), r.fd))
	return errors.Join(err, r.fd.Close())
}

// translatedLayers runs on a thread of its own.
func translatedLayers(rootfs container.Rootfs, userns uintptr) (safepath.FD, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return safepath.None, fmt.Errorf("private mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return safepath.None, fmt.Errorf("private mount namespace: %w", err)
	}
	uid, gid := rootfs.IDMap.RootPair()
	return mount.Translated{
		Lower: rootfs.Lower, Upper: rootfs.Upper, Work: rootfs.Work, Options: []string{"index=off"},
		UserNS: userns, UID: uid, GID: gid,
	}.Overlay()
}
