package containers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
)

// Inspect tells everything about a container; its sizes only when asked for,
// because that walks its files.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (containertypes.InspectResponse, error) {
	o, err := s.find(ref)
	if err != nil {
		return containertypes.InspectResponse{}, err
	}
	snap := o.snapshot()
	saved := snap.saved
	// Copies: the answer is changed for older versions of the API.
	config, host := *saved.Config, *saved.HostConfig
	host.Links = s.inspectLinks(snap)
	for _, u := range s.settings.Load().Defaults.Ulimits {
		given := slices.ContainsFunc(host.Ulimits, func(have *containertypes.Ulimit) bool { return have.Name == u.Name })
		if !given {
			host.Ulimits = append(slices.Clone(host.Ulimits), u)
		}
	}
	program, args := container.Command(&config)
	started := !saved.StartedAt.IsZero()
	resp := containertypes.InspectResponse{
		ID:      snap.id,
		Created: saved.Created.Format(time.RFC3339Nano),
		Path:    program,
		Args:    args,
		State: &containertypes.State{
			Status:     snap.state.Wire(started),
			Running:    snap.state.WireRunning(),
			Paused:     snap.state == container.StatePaused || snap.state == container.StateUnpausing,
			Restarting: snap.state == container.StateRestarting || snap.state == container.StateRelaunching,
			OOMKilled:  saved.OOMKilled,
			Dead:       snap.state == container.StateDead,
			Pid:        snap.pid,
			ExitCode:   saved.ExitCode,
			Error:      saved.Error,
			StartedAt:  saved.StartedAt.Format(time.RFC3339Nano),
			FinishedAt: saved.FinishedAt.Format(time.RFC3339Nano),
			Health:     snap.health,
		},
		Image:                   saved.Image.ID.String(),
		Name:                    "/" + snap.name,
		RestartCount:            saved.RestartCount,
		Driver:                  s.cfg.Storage.Driver(),
		Platform:                "linux",
		ExecIDs:                 s.execIDs(snap.id),
		HostConfig:              &host,
		Mounts:                  container.MountPoints(saved.Mounts),
		Config:                  &config,
		NetworkSettings:         s.networkSettings(snap),
		ImageManifestDescriptor: saved.ImageManifest,
	}
	if saved.Platform.OS != "" {
		resp.Platform = saved.Platform.OS
	}
	if started {
		owner := s.etcOwner(snap.id, host.NetworkMode)
		resp.HostnamePath, resp.HostsPath = s.etcPath(owner, "hostname"), s.etcPath(owner, "hosts")
		resp.ResolvConfPath = s.etcPath(owner, "resolv.conf")
	}
	if log := host.LogConfig.Type; log == "json-file" {
		resp.LogPath = s.logPath(snap.id, log)
	}
	if process, err := s.processOf(snap); err == nil {
		resp.AppArmorProfile, resp.ProcessLabel = process.ApparmorProfile, process.SelinuxLabel
	}
	rootfs, err := s.cfg.Store.Rootfs(ctx, snap.id)
	if err == nil {
		resp.GraphDriver, resp.Storage = s.cfg.Storage.Describe(rootfs)
	}
	if size {
		rw, root, err := s.cfg.Store.Sizes(ctx, snap.id)
		if err != nil {
			return resp, fmt.Errorf("measure container %s: %w", snap.name, err)
		}
		resp.SizeRw, resp.SizeRootFs = &rw, &root
	}
	return resp, nil
}

// LogDropped counts the bytes of a container's last run that are missing in its
// log; 0 for a container that is not there.
func (s *Service) LogDropped(ref string) uint64 {
	o, err := s.find(ref)
	if err != nil {
		return 0
	}
	return o.snapshot().saved.LogDropped
}

// networkSettings of a container: those of its sandbox, or what it asked for.
func (s *Service) networkSettings(snap *snapshot) *containertypes.NetworkSettings {
	if snap.state.Alive() {
		if settings := s.cfg.Networks.Settings(snap.id); settings != nil {
			return settings
		}
	}
	settings := &containertypes.NetworkSettings{
		Ports:    networktypes.PortMap{},
		Networks: map[string]*networktypes.EndpointSettings{},
	}
	for name, ep := range snap.saved.Endpoints {
		if name == networktypes.NetworkDefault {
			name = networktypes.NetworkBridge
		}
		asked := ep.Copy()
		settings.Networks[name] = asked
	}
	if snap.saved.Endpoints == nil { // recorded by an older release
		settings.Networks = endpointsOf(snap.saved.HostConfig.NetworkMode, nil)
	}
	return settings
}

func (s *Service) inspectLinks(snap *snapshot) []string {
	var links []string
	for _, raw := range snap.saved.HostConfig.Links {
		ref, alias, err := parseLink(raw)
		if err != nil {
			continue
		}
		if o, err := s.find(ref); err == nil {
			ref = o.snapshot().name
		}
		links = append(links, "/"+ref+":/"+snap.name+"/"+alias)
	}
	return links
}

// commandLine shows a command as list does: parts with spaces are quoted.
func commandLine(c *containertypes.Config) string {
	program, args := container.Command(c)
	parts := []string{program}
	for _, a := range args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		parts = append(parts, a)
	}
	return strings.Join(parts, " ")
}
