package httpapi

import (
	"slices"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"
)

// compatContainerList shapes a list of containers for the client's version.
func compatContainerList(r *request, list []containertypes.Summary) []containertypes.Summary {
	for i := range list {
		c := &list[i]
		if r.before(46) {
			c.HostConfig.Annotations = nil
		}
		if r.before(48) {
			c.ImageManifestDescriptor = nil
		}
		if r.before(52) {
			c.Health = nil
		}
	}
	return emptyNotNull(list)
}

// compatContainerInspect shapes a container for the client's version.
func compatContainerInspect(r *request, c containertypes.InspectResponse) any {
	if c.Config == nil {
		c.Config = &containertypes.Config{}
	}
	if !r.before(56) {
		return c
	}
	if c.HostConfig != nil && c.HostConfig.Umask != nil {
		host := *c.HostConfig
		host.Umask = nil
		c.HostConfig = &host
	}
	if r.before(45) && c.NetworkSettings != nil {
		// Aliases had the short id and the host name in them.
		for name, ep := range c.NetworkSettings.Networks {
			if ep == nil || !containertypes.NetworkMode(name).IsUserDefined() {
				continue
			}
			for _, alias := range []string{shortID(c.ID), c.Config.Hostname} {
				if !slices.Contains(ep.Aliases, alias) {
					ep.Aliases = append(ep.Aliases, alias)
				}
			}
		}
	}
	if r.before(48) {
		c.ImageManifestDescriptor = nil
	}
	if !r.before(52) {
		return c
	}
	if c.GraphDriver == nil && c.Storage != nil && c.Storage.RootFS != nil && c.Storage.RootFS.Snapshot != nil {
		c.GraphDriver = &storage.DriverData{Name: c.Storage.RootFS.Snapshot.Name}
		c.Storage = nil
	}
	add := map[string]any{}
	if c.NetworkSettings != nil {
		if bridge := c.NetworkSettings.Networks["bridge"]; bridge != nil {
			add["NetworkSettings"] = map[string]any{
				"EndpointID":          bridge.EndpointID,
				"Gateway":             bridge.Gateway,
				"GlobalIPv6Address":   bridge.GlobalIPv6Address,
				"GlobalIPv6PrefixLen": bridge.GlobalIPv6PrefixLen,
				"IPAddress":           bridge.IPAddress,
				"IPPrefixLen":         bridge.IPPrefixLen,
				"IPv6Gateway":         bridge.IPv6Gateway,
				"MacAddress":          bridge.MacAddress,
			}
		}
		// Fields of NetworkSettings that were always empty and went in 1.52.
		legacy := map[string]any{
			"Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
			"SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil,
		}
		if fields, ok := add["NetworkSettings"].(map[string]any); ok {
			merge(fields, legacy)
		} else {
			add["NetworkSettings"] = legacy
		}
		if c.HostConfig != nil {
			mode := c.HostConfig.NetworkMode.NetworkName()
			if ep := c.NetworkSettings.Networks[mode]; ep != nil && len(ep.MacAddress) > 0 && r.before(44) {
				add["Config"] = map[string]any{"MacAddress": ep.MacAddress.String()}
			}
		}
	}
	return with(c, add)
}

// shortID is the first 12 characters of an id.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
