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

// pins is the folder of what is bound for the moment of a start. It is no
// container's run folder: those are removed with what is in them.
func (d runDir) pins() string { return filepath.Join(d.root, "pins") }

func (d runDir) Pin(id string, n int, f *os.File) (string, func() error, error) {
	if _, err := d.path(id, "pin"); err != nil {
		return "", nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(d.pins(), 0o700); err != nil {
		return "", nil, err
	}
	path := filepath.Join(d.pins(), fmt.Sprintf("%s-%d", id, n))
	if err := dropPin(path); err != nil { // of a daemon that was killed
		return "", nil, err
	}
	if info.IsDir() {
		err = os.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		return "", nil, err
	}
	drop := func() error { return dropPin(path) }
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", nil, errors.Join(fmt.Errorf("bind %s: %w", f.Name(), err), drop())
	}
	return path, drop, nil
}

// dropPin undoes Pin; what is not there is fine. It never removes anything but an
// empty folder or the file that was made for it.
func dropPin(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sweepPins removes what a daemon that was killed during a start has left.
func (d runDir) sweepPins() error {
	entries, err := os.ReadDir(d.pins())
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var all []error
	for _, e := range entries {
		all = append(all, dropPin(filepath.Join(d.pins(), e.Name())))
	}
	return errors.Join(all...)
}
