package containers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
)

// CreateOptions are a create request.
type CreateOptions struct {
	// Name may have a leading slash; "" draws one.
	Name     string
	Platform *ocispec.Platform
	Request  containertypes.CreateRequest
	// Raw is the body of the request as it came; nil encodes Request.
	Raw json.RawMessage
}

// generatedTries is how many names are drawn before the id becomes the name.
const generatedTries = 6

// Create makes a container: its record, name, writable layer and anonymous
// volumes. Nothing is left of one that could not be made. The request is
// adapted in place and belongs to the service afterwards.
func (s *Service) Create(ctx context.Context, opts CreateOptions) (containertypes.CreateResponse, error) {
	resp := containertypes.CreateResponse{Warnings: []string{}}
	req := opts.Request
	raw := opts.Raw
	if raw == nil {
		var err error
		if raw, err = json.Marshal(req); err != nil {
			return resp, fmt.Errorf("create container: encode request: %w", err)
		}
	}
	if err := container.ValidateConfig(req.Config); err != nil {
		return resp, err
	}
	host := req.HostConfig
	if host == nil {
		host = &containertypes.HostConfig{}
	}
	if err := container.ValidateModes(req.Config, host); err != nil {
		return resp, err
	}
	warnings, err := container.ValidateHostConfig(host, s.facts, s.settings.Load().Defaults)
	resp.Warnings = append(resp.Warnings, warnings...)
	if err != nil {
		return resp, err
	}
	for _, d := range host.BlkioWeightDevice {
		if !s.cfg.Host.Weighs(d.Path) {
			resp.Warnings = append(resp.Warnings, fmt.Sprintf("The I/O scheduler of %s is not bfq. Its weight has no effect.", d.Path))
		}
	}
	name := ""
	if opts.Name != "" {
		if name, err = container.ParseName(opts.Name); err != nil {
			return resp, err
		}
	}
	if err := s.checkEndpoints(ctx, req.NetworkingConfig); err != nil {
		return resp, err
	}

	image, err := s.imageOf(ctx, req.Config.Image, opts.Platform)
	if err != nil {
		return resp, err
	}
	if opts.Platform == nil && req.Config.Image != "" {
		resp.Warnings = append(resp.Warnings, platformWarnings(image.Config.Platform)...)
	}
	// Before the image's labels join them.
	publish := network.PublishLabels(req.Config.Labels)
	config, err := container.Merge(*req.Config, container.ImageDefaults(image.Config.Config))
	if err != nil {
		return resp, err
	}
	container.Adapt(host, s.facts, s.settings.Load().Defaults, func(ref string) (string, bool) {
		other, err := s.find(ref)
		if err != nil {
			return "", false
		}
		return other.id, true
	})
	id := s.cfg.NewID()
	if err := s.checkLinks(host); err != nil {
		return resp, err
	}
	mounts, err := container.ResolveMounts(host, &config, s.settings.Load().Defaults, s.mountsOf)
	if err != nil {
		return resp, err
	}
	if err := checkSources(mounts); err != nil {
		return resp, err
	}
	if err := checkPublish(publish, &config, host); err != nil {
		return resp, err
	}
	if config.Hostname == "" {
		config.Hostname = container.ShortID(id)
		if host.NetworkMode.IsHost() {
			config.Hostname = s.cfg.Host.Hostname()
		}
	}
	if (host.NetworkMode.IsDefault() || host.NetworkMode == networktypes.NetworkBridge) && len(host.Links) > 0 {
		resp.Warnings = append(resp.Warnings, "Links on the default bridge network are deprecated and will be removed in a future release. Use a custom network instead.")
	}

	if s.cfg.NetworkWarnings != nil && !host.NetworkMode.IsHost() && !host.NetworkMode.IsNone() && !host.NetworkMode.IsContainer() {
		resp.Warnings = append(resp.Warnings, s.cfg.NetworkWarnings()...)
	}

	saved := container.Saved{
		State:         container.StateCreated,
		Created:       s.cfg.Now().UTC(),
		Image:         container.ImageUse{ID: image.ID, Manifest: image.Manifest.Digest, ChainID: image.ChainID},
		Platform:      image.Config.Platform,
		Config:        &config,
		HostConfig:    host,
		Mounts:        mounts,
		ImageManifest: manifestOf(image),
		Publish:       publish,
	}
	saved.Endpoints = endpointsOf(host.NetworkMode, req.NetworkingConfig)
	if _, err := s.logConfig(id, cmp.Or(name, id), &saved); err != nil {
		return resp, err
	}
	name, err = s.takeName(name, id)
	if err != nil {
		return resp, err
	}
	o := newObject(container.Record{ID: id, Name: name, Request: raw}, saved)
	if err := s.make(ctx, o); err != nil {
		s.release(name, id)
		return resp, err
	}
	s.enter(o)
	s.tell(o.snapshot(), events.ActionCreate, nil)
	resp.ID = id
	return resp, nil
}

// make writes the record and fills the volumes; all or nothing.
func (s *Service) make(ctx context.Context, o *object) (err error) {
	made, err := s.makeVolumes(ctx, o)
	defer func() {
		if err == nil {
			return
		}
		undo := context.WithoutCancel(ctx)
		for _, v := range made {
			err = errors.Join(err, s.cfg.Volumes.Remove(undo, v))
		}
	}()
	if err != nil {
		return err
	}
	rec, err := o.record()
	if err != nil {
		return err
	}
	if err := s.cfg.Store.Create(ctx, rec, o.saved.Image); err != nil {
		var taken container.NameTaken
		if errors.As(err, &taken) {
			return container.NameConflict(taken.Name, taken.ID)
		}
		return fmt.Errorf("create container %s: %w", o.name, err)
	}
	if err := errors.Join(s.markRoot(ctx, o.id), s.fillVolumes(ctx, o, made)); err != nil {
		return errors.Join(err, s.cfg.Store.Delete(context.WithoutCancel(ctx), o.id))
	}
	return nil
}

// imageOf resolves the image; a container without one starts from nothing.
func (s *Service) imageOf(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	if ref == "" {
		return Image{Config: emptyImage()}, nil
	}
	return s.cfg.Images.Resolve(ctx, ref, platform)
}

// takeName reserves the name asked for, or draws one that is free.
func (s *Service) takeName(name, id string) (string, error) {
	if name != "" {
		return name, s.reserve(name, id)
	}
	for try := range generatedTries {
		drawn := drawName(id, try)
		if s.reserve(drawn, id) == nil {
			return drawn, nil
		}
	}
	name = container.ShortID(id)
	return name, s.reserve(name, id)
}

// mountsOf finds the mounts of another container, for --volumes-from.
func (s *Service) mountsOf(ref string) ([]container.Mount, error) {
	o, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return o.snapshot().saved.Mounts, nil
}

// checkSources refuses a --mount of a folder that is not there; -v makes it at
// the start.
func checkSources(mounts []container.Mount) error {
	for _, m := range mounts {
		if m.Type != mount.TypeBind || m.CreateSource {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return invalid("invalid mount config for type %q: bind source path does not exist: %s", m.Type, m.Source)
			}
			return invalid("invalid mount config for type %q: %v", m.Type, err)
		}
	}
	return nil
}

// checkPublish validates labels that say how ports are published.
func checkPublish(labels map[string]string, config *containertypes.Config, host *containertypes.HostConfig) error {
	rules, err := network.ParsePublish(labels)
	if err != nil || len(labels) == 0 {
		return err
	}
	wanted, err := network.WantedPorts(config.ExposedPorts, host.PortBindings, host.PublishAllPorts, netip.Addr{}, false)
	if err != nil {
		return err
	}
	return rules.Check(wanted)
}

// checkEndpoints validates what a request says about its endpoints. A network
// need not exist before the start.
func (s *Service) checkEndpoints(ctx context.Context, n *networktypes.NetworkingConfig) error {
	if n == nil {
		return nil
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(n.EndpointsConfig)) {
		ep := n.EndpointsConfig[name]
		if ep == nil {
			lines = append(lines, "invalid config for network "+name+": EndpointsConfig is nil")
			continue
		}
		err := network.CheckEndpoint(ep, !containertypes.NetworkMode(name).IsUserDefined(), nil)
		if err == nil {
			_, err = s.cfg.Networks.Resolve(ctx, name, containertypes.NetworkMode(name), nil, ep)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			lines = append(lines, fmt.Sprintf("invalid config for network %s: %v", name, err))
		}
	}
	if len(lines) > 0 {
		return invalid("%s", network.Lines(lines))
	}
	return nil
}

func manifestOf(image Image) *ocispec.Descriptor {
	if image.Manifest.Digest == "" {
		return nil
	}
	m := image.Manifest
	if m.Platform == nil {
		p := image.Config.Platform
		m.Platform = &p
	}
	return &m
}

func platformWarnings(image ocispec.Platform) []string {
	host := platforms.DefaultSpec()
	if image.Architecture == "" || platforms.Only(host).Match(image) {
		return nil
	}
	return []string{fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		platforms.FormatAll(image), platforms.FormatAll(host))}
}

// etcOwner is the container whose hosts, hostname and resolv.conf a container
// sees: its own, or those of the one whose network it joins.
func (s *Service) etcOwner(id string, mode containertypes.NetworkMode) string {
	if joined := mode.ConnectedContainer(); joined != "" {
		if o, err := s.find(joined); err == nil {
			return o.id
		}
	}
	return id
}

// etcPath is where one of the files bound into /etc lies.
func (s *Service) etcPath(id, name string) string { return filepath.Join(s.cfg.Store.Dir(id), name) }
