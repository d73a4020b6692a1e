package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Dir is the table's folder. The daemon writes, netd reads; both may die at
// any moment, so every file is complete or not there. It lies on a tmpfs and
// is not synced: a reboot ends every sandbox anyway.
type Dir string

const suffix = ".json"

func (d Dir) file(id string) string { return filepath.Join(string(d), id+suffix) }

// Write replaces a sandbox's file; one that says the same already is left as it
// is: a daemon that comes back writes all of them.
func (d Dir) Write(s Sandbox) error {
	s.Schema, s.Ports = Schema, Pack(s.Ports)
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write table of sandbox %s: %w", s.ID, err)
	}
	if before, err := os.ReadFile(d.file(s.ID)); err == nil && bytes.Equal(before, data) {
		return nil
	}
	tmp := filepath.Join(string(d), "."+s.ID+".tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write table of sandbox %s: %w", s.ID, err)
	}
	if err := os.Rename(tmp, d.file(s.ID)); err != nil {
		return fmt.Errorf("write table of sandbox %s: %w", s.ID, err)
	}
	return nil
}

// Remove deletes a sandbox's file; one that is not there is no error.
func (d Dir) Remove(id string) error {
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove table of sandbox %s: %w", id, err)
	}
	return nil
}

// Read returns a sandbox; os.ErrNotExist when it has no file, an error that
// names the file when its schema is not one of ours.
func (d Dir) Read(id string) (Sandbox, error) {
	data, err := os.ReadFile(d.file(id))
	if err != nil {
		return Sandbox{}, err
	}
	var s Sandbox
	if err := json.Unmarshal(data, &s); err != nil {
		return Sandbox{}, fmt.Errorf("read %s: %w", d.file(id), err)
	}
	if s.Schema < OldestSchema || s.Schema > Schema {
		return Sandbox{}, fmt.Errorf("read %s: schema %d is not between %d and %d", d.file(id), s.Schema, OldestSchema, Schema)
	}
	if s.ID != id {
		return Sandbox{}, fmt.Errorf("read %s: it is about sandbox %s", d.file(id), s.ID)
	}
	s.Ports = Unpack(s.Ports)
	return s, nil
}

// List returns the ids of the sandboxes that have a file.
func (d Dir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("list table: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
