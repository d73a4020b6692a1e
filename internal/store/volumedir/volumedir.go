// Package volumedir keeps local volumes as folders: volumes/<name>/_data holds
// the files, volume.json beside it what is known about the volume.
//
// The entry point is New. A volume's folder appears under its name by one
// rename, whole or not at all, so that a daemon that dies leaves no half made
// volume; there is no lock.
package volumedir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	continuityfs "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// Config of a Store.
type Config struct {
	// Root is the folder of the volumes; it is made (0701).
	Root string
	Now  func() time.Time
	// NewID draws the id of a volume, and the name of an anonymous one.
	NewID func() string
}

// Store is safe for concurrent use.
type Store struct{ cfg Config }

// Volume is what is known about a volume.
type Volume struct {
	// ID never changes and is never used again; Name can be.
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Anonymous: the name was drawn by the engine.
	Anonymous bool `json:"anonymous,omitempty"`
}

// New makes the folder of the volumes.
func New(cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Root, 0o701); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	return &Store{cfg}, nil
}

// namePattern is Docker's for names of volumes.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Path is the folder with a volume's files.
func (s *Store) Path(name string) string { return filepath.Join(s.cfg.Root, name, "_data") }

// Ensure makes the volume name, or finds it; an empty name draws one. created
// tells that it is new. ErrInvalidArgument for a name that cannot be.
func (s *Store) Ensure(_ context.Context, name string, labels map[string]string) (v Volume, created bool, err error) {
	id := s.cfg.NewID()
	v = Volume{ID: id, Name: name, Created: s.cfg.Now().UTC(), Labels: labels}
	if name == "" {
		v.Name, v.Anonymous = id, true
	} else if !namePattern.MatchString(name) {
		return v, false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]"))
	}
	if old, err := s.Load(v.Name); !errdefs.IsNotFound(err) {
		return old, false, err
	}
	tmp, err := os.MkdirTemp(s.cfg.Root, ".new-")
	if err != nil {
		return v, false, fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	raw, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, "volume.json"), raw, 0o600)
	}
	if err == nil {
		// Mkdir is subject to the umask, so the mode is set.
		if err = os.Mkdir(filepath.Join(tmp, "_data"), 0o755); err == nil {
			err = errors.Join(os.Chmod(filepath.Join(tmp, "_data"), 0o755), os.Chmod(tmp, 0o701))
		}
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.cfg.Root, v.Name))
	}
	switch {
	case errors.Is(err, os.ErrExist): // somebody else made it meanwhile
		old, err := s.Load(v.Name)
		return old, false, err
	case err != nil:
		return v, false, fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	return v, true, nil
}

// Load reads what is known about a volume. ErrNotFound. A folder without our
// file (restored from a backup of its files, say) is a volume all the same.
func (s *Store) Load(name string) (Volume, error) {
	v := Volume{Name: name}
	if !namePattern.MatchString(name) {
		return v, notFound(name)
	}
	raw, err := os.ReadFile(filepath.Join(s.cfg.Root, name, "volume.json"))
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, &v); err != nil {
			return v, fmt.Errorf("read volume %s: %w: %w", name, err, errdefs.ErrDataLoss)
		}
		return v, nil
	case !errors.Is(err, os.ErrNotExist):
		return v, fmt.Errorf("read volume %s: %w", name, err)
	}
	info, err := os.Stat(s.Path(name))
	if err != nil || !info.IsDir() {
		return v, notFound(name)
	}
	v.ID, v.Created = name, info.ModTime().UTC()
	return v, nil
}

// List returns every volume, ordered by name.
func (s *Store) List() ([]Volume, error) {
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Volume
	for _, e := range entries {
		v, err := s.Load(e.Name())
		switch {
		case errdefs.IsNotFound(err): // no volume, or gone meanwhile
			continue
		case err != nil:
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Size counts the bytes of a volume's files; one with several names counts
// once. Files that vanish meanwhile are left out.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	usage, err := continuityfs.DiskUsage(ctx, s.Path(name))
	if err != nil {
		return 0, fmt.Errorf("measure volume %s: %w", name, err)
	}
	return usage.Size, nil
}

// Remove deletes a volume with its files. ErrNotFound.
func (s *Store) Remove(_ context.Context, name string) error {
	if _, err := s.Load(name); errdefs.IsNotFound(err) {
		return err
	}
	// The name is free at once, however long the files take.
	doomed := filepath.Join(s.cfg.Root, ".gone-"+s.cfg.NewID())
	if err := os.Rename(filepath.Join(s.cfg.Root, name), doomed); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.RemoveAll(doomed); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// Sweep removes what a daemon that died left half made or half removed.
func (s *Store) Sweep() error {
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return fmt.Errorf("open volumes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name()[0] == '.' {
			errs = append(errs, os.RemoveAll(filepath.Join(s.cfg.Root, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func notFound(name string) error {
	return errdefs.ErrNotFound.WithMessage("get " + name + ": no such volume")
}
