package containers

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
)

// processOf is the process of a container as its configuration makes it,
// without asking the host anything.
func (s *Service) processOf(snap *snapshot) (*specs.Process, error) {
	return container.BuildProcess(container.SpecInput{
		ID: snap.id, Config: snap.saved.Config, Host: snap.saved.HostConfig, Facts: s.facts, Defaults: s.settings.Load().Defaults,
		AppArmorProfile: s.cfg.AppArmorProfile,
	})
}
