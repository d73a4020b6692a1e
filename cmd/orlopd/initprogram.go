package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/orlop/orlop/internal/linux/childinit"
)

// defaultInit is how Docker calls the program of --init.
const defaultInit = "docker-init"

// initBinary is what /info shows as the program of --init.
func (c *Config) initBinary() string {
	if c.InitPath != "" {
		return c.InitPath
	}
	return defaultInit
}

// initProgram finds the program of --init, which is bound into containers: the
// one of --init-path, looked up in PATH as Docker does and "" when it is not
// there, or our own. That one lies in the data root, because /run is mounted
// noexec on some hosts.
func (c *Config) initProgram() (string, error) {
	if c.InitPath != "" {
		path, err := lookPath(c.InitPath)
		if err != nil {
			return "", nil //nolint:nilerr // told when a container wants it
		}
		return filepath.Abs(path)
	}
	program := childinit.Program()
	path := filepath.Join(c.DataRoot, defaultInit)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, program) && executable(path) {
		return path, nil
	}
	// Replaced, not written: the old one may be running.
	err := writeDurable(path, program)
	if err == nil {
		err = os.Chmod(path, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("write the program of --init: %w", err)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm() == 0o755
}
