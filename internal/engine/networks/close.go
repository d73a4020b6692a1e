package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// Started tells that the container runs: from now on its process holds the
// namespace, so the daemon's handle is closed, and netd watches the process.
// ErrNotFound when the container has no sandbox.
func (s *Service) Started(ctx context.Context, containerID string, pid int) error {
	s.mu.Lock()
	sb := s.sandboxes[containerID]
	if sb != nil {
		sb.pid = pid
	}
	s.mu.Unlock()
	if sb == nil {
		return notFound(containerID)
	}
	defer s.letGo(sb)
	if names := s.names(sb); names.DNS {
		return s.cfg.Nameserver.Put(ctx, names, nil)
	}
	return nil
}

// Close takes a container out of its networks: ports first, so that nothing
// new reaches it; the kernel removes namespace and links when the last process
// is gone, and the addresses are free then. It may be repeated.
func (s *Service) Close(ctx context.Context, containerID string) error {
	s.mu.Lock()
	sb := s.sandboxes[containerID]
	delete(s.sandboxes, containerID)
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if len(sb.att.Ports) > 0 {
		if err := s.cfg.Firewall.Unpublish(ctx, sb.att.Ports); err != nil {
			errs = append(errs, fmt.Errorf("unpublish ports: %w", err))
		}
	}
	if err := s.dropNames(ctx, sb.att); err != nil {
		errs = append(errs, fmt.Errorf("take names out: %w", err))
	}
	s.releasePorts(sb.att.Ports)
	for _, ep := range sb.att.Endpoints {
		if ep.HostLink != "" {
			s.drain(containerID, ep)
		}
	}
	s.letGo(sb)
	s.announce(events.ActionDisconnect, sb.att)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close sandbox of container %s: %w", containerID, err)
	}
	return nil
}

// reapAfter is how long the kernel gets to remove a link by itself: it does so
// in the background when the namespace is gone, which costs nobody anything,
// while removing it on request takes 12 to 28 ms.
const reapAfter = time.Second

// drained is a link that should vanish.
type drained struct {
	container string
	ep        network.Endpoint
	since     time.Time
}

// drain marks the addresses of an endpoint and has the reaper look after its
// link.
func (s *Service) drain(containerID string, ep network.Endpoint) {
	s.release(ep, true)
	s.drainMu.Lock()
	s.draining[ep.HostLink] = drained{container: containerID, ep: ep, since: s.cfg.Now()}
	s.drainMu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// reclaim gives a container that is started again at once the addresses it just
// had, though their link still stands: the link is cut off, so that nothing of
// the old sandbox can answer any more, and its end frees nothing.
func (s *Service) reclaim(ctx context.Context, containerID string, n *netState) (addr4, addr6 netip.Addr, ok bool) {
	s.drainMu.Lock()
	name := ""
	var d drained
	for link, one := range s.draining {
		if one.container == containerID && one.ep.NetworkID == n.rec.ID {
			name, d = link, one
		}
	}
	if name == "" {
		s.drainMu.Unlock()
		return netip.Addr{}, netip.Addr{}, false
	}
	s.draining[name] = drained{since: d.since} // reaped, but it frees nothing
	s.drainMu.Unlock()
	if err := s.cfg.Driver.CutLink(ctx, name); err != nil {
		s.cfg.Logger.Warn("cut link", "link", name, "error", err)
		s.release(d.ep, false)
		return netip.Addr{}, netip.Addr{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.ep.IPv4.IsValid() && n.addr4 != nil && n.addr4.Reclaim(d.ep.IPv4.Addr()) {
		addr4, ok = d.ep.IPv4.Addr(), true
	}
	if d.ep.IPv6.IsValid() && n.addr6 != nil && n.addr6.Reclaim(d.ep.IPv6.Addr()) {
		addr6, ok = d.ep.IPv6.Addr(), true
	}
	return addr4, addr6, ok
}

// linkGone frees the addresses of a link that the kernel removed.
func (s *Service) linkGone(name string) {
	s.drainMu.Lock()
	d, ok := s.draining[name]
	delete(s.draining, name)
	s.drainMu.Unlock()
	if ok {
		s.release(d.ep, false)
	}
}

// reap removes the links that still stand a second after they should have
// vanished, and reports whether some are left to look after.
func (s *Service) reap(ctx context.Context) (left bool) {
	now := s.cfg.Now()
	var due []string
	s.drainMu.Lock()
	for name, d := range s.draining {
		if now.Sub(d.since) >= reapAfter {
			due = append(due, name)
		}
	}
	s.drainMu.Unlock()
	for _, name := range due {
		if err := s.cfg.Driver.RemoveLink(ctx, name); err != nil {
			s.cfg.Logger.Warn("remove link", "link", name, "error", err)
			continue
		}
		s.linkGone(name)
	}
	s.drainMu.Lock()
	defer s.drainMu.Unlock()
	return len(s.draining) > 0
}

// Settings is a running container's network as inspect shows it; nil when it
// has no sandbox.
func (s *Service) Settings(containerID string) *containertypes.NetworkSettings {
	s.mu.Lock()
	sb := s.sandboxes[containerID]
	pid := 0
	if sb != nil {
		pid = sb.pid
	}
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	out := &containertypes.NetworkSettings{
		SandboxID: sb.att.SandboxID,
		Ports:     network.PortMap(portSet(sb.att.Exposed), sb.att.Ports),
		Networks:  map[string]*networktypes.EndpointSettings{},
	}
	if pid > 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	for _, ep := range sb.att.Endpoints {
		settings, err := ep.EndpointSettings(s.askedFor(sb, ep))
		if err != nil {
			s.cfg.Logger.Warn("endpoint of a container", "container", containerID, "error", err)
			continue
		}
		settings.DNSNames = ep.DNSNames
		out.Networks[ep.NetworkName] = settings
	}
	return out
}

func (s *Service) askedFor(sb *sandbox, ep network.Endpoint) *networktypes.EndpointSettings {
	for _, key := range []string{ep.NetworkName, ep.NetworkID} {
		if a := sb.asked[key]; a != nil {
			return a
		}
	}
	if ep.NetworkName == network.BridgeName {
		return sb.asked[networktypes.NetworkDefault]
	}
	return nil
}

func portSet(ports []string) networktypes.PortSet {
	set := networktypes.PortSet{}
	for _, p := range ports {
		if port, err := networktypes.ParsePort(p); err == nil {
			set[port] = struct{}{}
		}
	}
	return set
}
