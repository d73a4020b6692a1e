package containers

import (
	"errors"
	"os"
	"path/filepath"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/domain/container"
)

// owner is who owns what the engine makes on the host for a container in a user
// namespace: its root. A nil owner is the engine's own user.
type owner struct{ uid, gid int }

// ownerFor is the owner of what is made for a container.
func (s *Service) ownerFor(h *containertypes.HostConfig) *owner {
	if !container.Remapped(h, s.settings.Load().Defaults) {
		return nil
	}
	uid, gid := s.settings.Load().Defaults.IDMap.RootPair()
	return &owner{uid, gid}
}

// take gives a file to the owner.
func (o *owner) take(path string) error {
	if o == nil {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// mkdirAll makes a folder and those above it; what is new is the owner's.
func (o *owner) mkdirAll(path string) error {
	if o == nil {
		return os.MkdirAll(path, 0o755)
	}
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return os.ErrExist
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if up := filepath.Dir(path); up != path {
		if err := o.mkdirAll(up); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return o.take(path)
}
