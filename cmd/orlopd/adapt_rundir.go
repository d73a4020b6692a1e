package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// runDir is containers.RunDir: files beside a container's monitor, on a tmpfs,
// never synced.
type runDir struct{ root string }

// path refuses what would lead out of the container's folder; ids come
// from records, which an old or damaged file could have made up.
func (d runDir) path(id, name string) (string, error) {
	if id == "" || name == "" || filepath.Base(id) != id || filepath.Base(name) != name || id == ".." || id == "." {
		return "", fmt.Errorf("run file %q of container %q: not a name", name, id)
	}
	return filepath.Join(d.root, "containers", id, name), nil
}

func (d runDir) Write(id, name string, data []byte) error {
	path, err := d.path(id, name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The engine writes a container's files one at a time, so the name of the
	// temporary file is free, or left behind by a daemon that was killed.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (d runDir) Read(id, name string) ([]byte, error) {
	path, err := d.path(id, name)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// shmMode: anybody may make files, only owners remove them.
const shmMode = 0o1777

func (d runDir) Shm(id string, size int64) (string, error) {
	path, err := d.path(id, "shm")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", err
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(path, &here), unix.Stat(filepath.Dir(path), &above)); err != nil {
		return "", err
	}
	if here.Dev != above.Dev {
		return path, nil // mounted already
	}
	options := fmt.Sprintf("mode=%o,size=%d", shmMode, size)
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return "", fmt.Errorf("mount shm of container %s: %w", id, err)
	}
	return path, nil
}

func (d runDir) DropShm(id string) error {
	path, err := d.path(id, "shm")
	if err != nil {
		return err
	}
	err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount shm of container %s: %w", id, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
