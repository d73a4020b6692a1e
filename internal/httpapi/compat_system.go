package httpapi

import (
	"github.com/moby/moby/api/types/build"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// compatInfo shapes /info for the client's version.
func compatInfo(r *request, info systemtypes.Info) any {
	if r.before(53) {
		info.NRI = nil
	}
	if !r.before(50) {
		return info
	}
	info.DiscoveredDevices = nil
	add := map[string]any{"BridgeNfIptables": false, "BridgeNfIp6tables": false}
	if r.before(49) {
		info.FirewallBackend = nil
		add["ContainerdCommit"] = map[string]any{"Expected": info.ContainerdCommit.ID}
		add["RuncCommit"] = map[string]any{"Expected": info.RuncCommit.ID}
		add["InitCommit"] = map[string]any{"Expected": info.InitCommit.ID}
	}
	if r.before(47) {
		add["RegistryConfig"] = map[string]any{
			"AllowNondistributableArtifactsCIDRs":     nil,
			"AllowNondistributableArtifactsHostnames": nil,
		}
	}
	if r.before(46) {
		info.Containerd = nil
	}
	if r.before(44) {
		runtimes := make(map[string]systemtypes.RuntimeWithStatus, len(info.Runtimes))
		for name, rt := range info.Runtimes {
			runtimes[name] = systemtypes.RuntimeWithStatus{Runtime: rt.Runtime}
		}
		info.Runtimes = runtimes
	}
	return with(info, add)
}

// legacyDiskUsage is /system/df before API 1.52.
type legacyDiskUsage struct {
	LayersSize int64                    `json:",omitempty"`
	Images     any                      `json:",omitempty"`
	Containers []containertypes.Summary `json:",omitzero"`
	Volumes    []volume.Volume          `json:",omitzero"`
	BuildCache []build.CacheRecord      `json:",omitzero"`
}

// compatDiskUsage shapes /system/df for the client's version: the old lists,
// the new totals, or both for clients that do not say what they know.
func compatDiskUsage(r *request, du systemtypes.DiskUsage, legacy bool) any {
	var old legacyDiskUsage
	if legacy {
		if du.ImageUsage != nil {
			old.LayersSize = du.ImageUsage.TotalSize
			old.Images = emptyNotNull[imagetypes.Summary](du.ImageUsage.Items)
			if r.before(44) {
				old.Images = virtualSizes(du.ImageUsage.Items)
			}
		}
		if du.ContainerUsage != nil {
			old.Containers = emptyNotNull(du.ContainerUsage.Items)
		}
		if du.VolumeUsage != nil {
			old.Volumes = emptyNotNull(du.VolumeUsage.Items)
		}
		if du.BuildCacheUsage != nil {
			old.BuildCache = emptyNotNull(du.BuildCacheUsage.Items)
		}
	}
	if r.before(52) {
		return old
	}
	return struct {
		legacyDiskUsage
		systemtypes.DiskUsage
	}{old, du}
}

// compatEvent adds the fields that API 1.22 replaced and that clients read
// until 25.0; they went with API 1.52.
func compatEvent(r *request, m events.Message) any {
	if !r.before(52) {
		return m
	}
	add := map[string]any{"id": m.Actor.ID, "status": m.Action}
	switch m.Type {
	case events.ContainerEventType:
		add["from"] = m.Actor.Attributes["image"]
	case events.ImageEventType:
	default:
		return m
	}
	return with(m, add)
}
