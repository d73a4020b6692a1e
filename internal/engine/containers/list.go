package containers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
)

// ListOptions select containers.
type ListOptions struct {
	// All lists those that do not run, too.
	All bool
	// Limit of the newest containers, whatever their state; 0 is none.
	Limit int
	// Size measures their files, which is slow.
	Size    bool
	Filters map[string][]string
}

// listFilters are the keys that List knows.
var listFilters = []string{
	"ancestor", "annotation", "before", "exited", "id", "isolation", "label", "name", "status", "health", "since",
	"volume", "network", "is-task", "publish", "expose",
}

// List lists containers, the newest first. It reads snapshots and takes no
// container's lock.
func (s *Service) List(ctx context.Context, opts ListOptions) ([]containertypes.Summary, error) {
	sel, err := s.newSelection(ctx, opts)
	if err != nil {
		return nil, err
	}
	snaps := s.snapshots()
	images := map[string]string{}
	out := []containertypes.Summary{}
	for _, snap := range snaps {
		if sel.stop(snap) || opts.Limit > 0 && len(out) == opts.Limit {
			break
		}
		if !sel.cheap(snap) {
			continue
		}
		summary := s.summary(ctx, snap, images)
		if !sel.costly(&summary) {
			continue
		}
		if opts.Size {
			summary.SizeRw, summary.SizeRootFs, err = s.cfg.Store.Sizes(ctx, snap.id)
			if errdefs.IsNotFound(err) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("measure container %s: %w", snap.name, err)
			}
		}
		out = append(out, summary)
	}
	return out, nil
}

// snapshots of every container, the newest first.
func (s *Service) snapshots() []*snapshot {
	objects := s.objects()
	snaps := make([]*snapshot, len(objects))
	for i, o := range objects {
		snaps[i] = o.snapshot()
	}
	slices.SortFunc(snaps, func(a, b *snapshot) int {
		if n := b.saved.Created.Compare(a.saved.Created); n != 0 {
			return n
		}
		return strings.Compare(a.id, b.id)
	})
	return snaps
}

// selection is a list request that has been understood.
type selection struct {
	filters       container.Filters
	all           bool
	limit         int
	exited        []int
	before, since *snapshot
	passedBefore  bool
	isTask        bool
	ancestors     map[string]bool
	ids           map[string]bool
	ports         map[string]bool // published
	exposed       map[string]bool
}

func (s *Service) newSelection(ctx context.Context, opts ListOptions) (*selection, error) {
	f := container.Filters(opts.Filters)
	if err := f.Validate(listFilters...); err != nil {
		return nil, err
	}
	sel := &selection{filters: f, all: opts.All, limit: opts.Limit, passedBefore: true}
	for _, v := range f["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalid("invalid filter 'exited=%s': %v", v, err)
		}
		sel.exited = append(sel.exited, code)
	}
	for _, v := range f["status"] {
		if err := containertypes.ValidateContainerState(containertypes.ContainerState(v)); err != nil {
			return nil, invalid("invalid filter 'status=%s': %v", v, err)
		}
		sel.all = true
	}
	for _, v := range f["health"] {
		if err := containertypes.ValidateHealthStatus(containertypes.HealthStatus(v)); err != nil {
			return nil, invalid("invalid filter 'health=%s': %v", v, err)
		}
	}
	var err error
	if sel.isTask, err = f.Bool("is-task", false); err != nil {
		return nil, err
	}
	for _, v := range f["before"] {
		o, err := s.find(v)
		if err != nil {
			return nil, err
		}
		sel.before, sel.passedBefore = o.snapshot(), false
	}
	for _, v := range f["since"] {
		o, err := s.find(v)
		if err != nil {
			return nil, err
		}
		sel.since = o.snapshot()
	}
	if f.Has("ancestor") {
		sel.ancestors = map[string]bool{}
		for _, v := range f["ancestor"] {
			image, err := s.cfg.Images.Resolve(ctx, v, nil)
			if err != nil {
				s.cfg.Logger.Debug("list containers: ancestor is not an image", "image", v, "error", err)
				continue
			}
			sel.ancestors[image.ID.String()] = true
			sel.ancestors[image.Manifest.Digest.String()] = true
		}
	}
	if len(f["id"]) > 0 {
		sel.ids = map[string]bool{}
		for _, v := range f["id"] {
			if o, err := s.find(v); err == nil && strings.HasPrefix(o.id, v) {
				sel.ids[o.id] = true
			}
		}
	}
	if sel.ports, err = portFilter("publish", f["publish"]); err != nil {
		return nil, err
	}
	if sel.exposed, err = portFilter("expose", f["expose"]); err != nil {
		return nil, err
	}
	return sel, nil
}

// portFilter reads "80", "80/udp" or "80-90/tcp".
func portFilter(key string, values []string) (map[string]bool, error) {
	ports := map[string]bool{}
	for _, v := range values {
		if strings.Contains(v, ":") {
			return nil, invalid("filter for '%s' should not contain ':': %s", key, v)
		}
		r, err := networktypes.ParsePortRange(v)
		if err != nil {
			return nil, invalid("error while looking up for %s %s: %v", key, v, err)
		}
		for p := range r.All() {
			ports[p.String()] = true
		}
	}
	return ports, nil
}

// stop: the list is over at the container of "since".
func (sel *selection) stop(snap *snapshot) bool {
	return sel.since != nil && snap.id == sel.since.id
}

// cheap filters by what the snapshot holds.
func (sel *selection) cheap(snap *snapshot) bool {
	if !sel.passedBefore {
		sel.passedBefore = snap.id == sel.before.id
		return false
	}
	saved := &snap.saved
	if !snap.state.WireRunning() && !sel.all && sel.limit <= 0 {
		return false
	}
	f := sel.filters
	if !f.Pattern("name", snap.name) && !f.Pattern("name", "/"+snap.name) {
		return false
	}
	if sel.ids != nil && !sel.ids[snap.id] {
		return false
	}
	if f.Has("is-task") && sel.isTask {
		return false // there are no tasks outside of swarm
	}
	if !f.Labels("label", saved.Config.Labels) || !f.Labels("annotation", saved.HostConfig.Annotations) {
		return false
	}
	if !f.Pattern("isolation", string(saved.HostConfig.Isolation)) {
		return false
	}
	if len(sel.exited) > 0 && (snap.state.WireRunning() || saved.StartedAt.IsZero() || !slices.Contains(sel.exited, saved.ExitCode)) {
		return false
	}
	if !f.Exact("status", string(snap.state.Wire(!saved.StartedAt.IsZero()))) {
		return false
	}
	if !f.Exact("health", string(healthOf(snap).Status)) {
		return false
	}
	if sel.ancestors != nil && !sel.ancestors[saved.Image.ID.String()] && !sel.ancestors[saved.Image.Manifest.String()] {
		return false
	}
	if wanted := f["volume"]; len(wanted) > 0 {
		found := slices.ContainsFunc(saved.Mounts, func(m container.Mount) bool {
			name := m.Name
			if name == "" {
				name = m.Source
			}
			return slices.Contains(wanted, m.Destination) || slices.Contains(wanted, name)
		})
		if !found {
			return false
		}
	}
	return true
}

// costly filters by what only the networks know.
func (sel *selection) costly(summary *containertypes.Summary) bool {
	if wanted := sel.filters["network"]; len(wanted) > 0 {
		found := false
		for name, ep := range summary.NetworkSettings.Networks {
			found = found || slices.Contains(wanted, name) ||
				ep != nil && ep.NetworkID != "" && slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(ep.NetworkID, w) })
		}
		if !found {
			return false
		}
	}
	if len(sel.ports)+len(sel.exposed) == 0 {
		return true
	}
	return slices.ContainsFunc(summary.Ports, func(p containertypes.PortSummary) bool {
		return sel.ports[fmt.Sprintf("%d/%s", p.PublicPort, p.Type)] || sel.exposed[fmt.Sprintf("%d/%s", p.PrivatePort, p.Type)]
	})
}

// summary shows a container as list does. images remembers what names resolve
// to during one request.
func (s *Service) summary(ctx context.Context, snap *snapshot, images map[string]string) containertypes.Summary {
	saved := &snap.saved
	settings := s.networkSettings(snap)
	out := containertypes.Summary{
		ID:                      snap.id,
		Names:                   []string{"/" + snap.name},
		Image:                   saved.Config.Image,
		ImageID:                 saved.Image.ID.String(),
		ImageManifestDescriptor: saved.ImageManifest,
		Command:                 commandLine(saved.Config),
		Created:                 saved.Created.Unix(),
		Ports:                   portSummary(settings.Ports),
		Labels:                  saved.Config.Labels,
		State:                   snap.state.Wire(!saved.StartedAt.IsZero()),
		Status:                  container.Status(snap.state, *saved, snap.health, s.cfg.Now()),
		Health:                  healthOf(snap),
		NetworkSettings:         &containertypes.NetworkSettingsSummary{Networks: settings.Networks},
		Mounts:                  container.MountPoints(saved.Mounts),
	}
	out.HostConfig.NetworkMode = string(saved.HostConfig.NetworkMode)
	out.HostConfig.Annotations = saved.HostConfig.Annotations
	// A name that now means another image is not shown.
	if name := saved.Config.Image; name != "" && name != out.ImageID {
		id, known := images[name]
		if !known {
			image, err := s.cfg.Images.Resolve(ctx, name, nil)
			switch {
			case err == nil:
				id = image.ID.String()
			case !errdefs.IsNotFound(err) && !errors.Is(err, context.Canceled):
				s.cfg.Logger.Warn("list containers: resolve image", "image", name, "error", err)
			}
			images[name] = id
		}
		if id != out.ImageID {
			out.Image = out.ImageID
		}
	}
	return out
}

func healthOf(snap *snapshot) *containertypes.HealthSummary {
	if snap.health == nil {
		return &containertypes.HealthSummary{Status: containertypes.NoHealthcheck}
	}
	return &containertypes.HealthSummary{Status: snap.health.Status, FailingStreak: snap.health.FailingStreak}
}

// portSummary flattens ports: one entry per binding, or one for a port that is
// exposed only.
func portSummary(ports networktypes.PortMap) []containertypes.PortSummary {
	out := []containertypes.PortSummary{}
	for p, bindings := range ports {
		if len(bindings) == 0 {
			out = append(out, containertypes.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			public, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue // not bound yet
			}
			out = append(out, containertypes.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(public), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b containertypes.PortSummary) int {
		if n := int(a.PrivatePort) - int(b.PrivatePort); n != 0 {
			return n
		}
		if n := strings.Compare(a.Type, b.Type); n != 0 {
			return n
		}
		if n := int(a.PublicPort) - int(b.PublicPort); n != 0 {
			return n
		}
		return a.IP.Compare(b.IP)
	})
	return out
}

// Counts are the numbers of containers by state, for /info.
func (s *Service) Counts() (all, running, paused, stopped int) {
	c := s.Count()
	return c.All, c.Running, c.Paused, c.Stopped
}

// Sizes lists every container with its sizes, for /system/df.
func (s *Service) Sizes(ctx context.Context) ([]containertypes.Summary, error) {
	return s.List(ctx, ListOptions{All: true, Size: true})
}
