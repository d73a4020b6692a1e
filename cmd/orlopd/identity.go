package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Identity is what keeps engines on one host apart: everything that an engine
// makes outside of its own folders carries its short id
// (docs/decisions/0061).
type Identity struct {
	// ID is 8 hex digits, drawn once per data root.
	ID string
	// Table is the nft table, CgroupParent the folder of its cgroups,
	// Namespace that of containerd's libraries.
	Table, CgroupParent, Namespace string
	// SystemdSlice is the parent where systemd manages cgroups.
	SystemdSlice string
}

// identity reads the engine's id from its data root, or draws one. wanted, from
// --engine-id, must be what the data root has; a fresh root takes it.
func identity(dataRoot, wanted string) (Identity, error) {
	path := filepath.Join(dataRoot, "engine-id")
	raw, err := os.ReadFile(path)
	id := strings.TrimSpace(string(raw))
	switch {
	case errors.Is(err, os.ErrNotExist):
		if id = wanted; id == "" {
			id = hex.EncodeToString(random(4))
		}
		if err := writeDurable(path, []byte(id+"\n")); err != nil {
			return Identity{}, fmt.Errorf("record the engine's id: %w", err)
		}
	case err != nil:
		return Identity{}, err
	case !engineIDPattern.MatchString(id):
		return Identity{}, fmt.Errorf("%s does not hold an engine id: %q", path, id)
	case wanted != "" && wanted != id:
		return Identity{}, fmt.Errorf("data root %s belongs to engine %s, not %s", dataRoot, id, wanted)
	}
	return Identity{
		ID:           id,
		Table:        "orlop-" + id,
		CgroupParent: "/orlop-" + id,
		Namespace:    "orlop-" + id,
		SystemdSlice: "orlop_" + id + ".slice",
	}, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	// Never fails (crypto/rand since Go 1.24).
	_, _ = rand.Read(b)
	return b
}

// newID draws the id of a container, an exec, a network: 64 hex digits.
func newID() string { return hex.EncodeToString(random(32)) }

// writeDurable replaces a file so that after a power failure it is either the
// old one or the new one, whole.
func writeDurable(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
