package container

import (
	"errors"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
)

// ValidateModes refuses settings that a mode of the container leaves no room
// for: who joins another container's network has its name, hosts, DNS and ports.
// What an image exposes does not count, so it is to be called with what was
// asked for. Failures are ErrInvalidArgument in Docker's words (API 1.56).
func ValidateModes(c *containertypes.Config, h *containertypes.HostConfig) error {
	if err := validateModes(c, h); err != nil {
		return withText(errdefs.ErrInvalidArgument, err.Error())
	}
	return nil
}

func validateModes(c *containertypes.Config, h *containertypes.HostConfig) error {
	// "container" without a name is taken for the mode, not for a network.
	if joins := h.NetworkMode == "container" || h.NetworkMode.IsContainer(); joins {
		switch {
		case h.NetworkMode.ConnectedContainer() == "":
			return errors.New("invalid network mode: invalid container format container:<name|id>")
		case c.Hostname != "":
			return errors.New("conflicting options: hostname and the network mode")
		case len(h.Links) > 0:
			return errors.New("conflicting options: container type network can't be used with links. This would result in undefined behavior")
		case len(h.DNS) > 0:
			return errors.New("conflicting options: dns and the network mode")
		case len(h.ExtraHosts) > 0:
			return errors.New("conflicting options: custom host-to-IP mapping and the network mode")
		case len(h.PortBindings) > 0 || h.PublishAllPorts:
			return errors.New("conflicting options: port publishing and the container type network mode")
		case len(c.ExposedPorts) > 0:
			return errors.New("conflicting options: port exposing and the container type network mode")
		}
	}
	switch {
	case h.UTSMode.IsHost() && c.Hostname != "":
		return errors.New("conflicting options: hostname and the UTS mode")
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return errors.New("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	}
	return nil
}
