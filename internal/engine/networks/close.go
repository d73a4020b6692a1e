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
	s.mu.Lock()
	names := s.names(sb.att, pid)
	s.mu.Unlock()
	if names.DNS {
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
	var att network.Attachment
	if sb != nil {
		att = sb.att
		s.closing[sb] = make(chan struct{})
	}
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	defer func() {
		s.mu.Lock()
		close(s.closing[sb])
		delete(s.closing, sb)
		s.mu.Unlock()
	}()
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if len(att.Ports) > 0 {
		if err := s.cfg.Firewall.Unpublish(ctx, att.Ports); err != nil {
			errs = append(errs, fmt.Errorf("unpublish ports: %w", err))
		}
	}
	if err := s.dropNames(ctx, att); err != nil {
		errs = append(errs, fmt.Errorf("take names out: %w", err))
	}
	s.releasePorts(att.Ports)
	s.letGo(sb)
	for _, ep := range att.Endpoints {
		errs = append(errs, s.abandon(ctx, containerID, ep))
	}
	s.announce(events.ActionDisconnect, containerID, att.Endpoints...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close sandbox of container %s: %w", containerID, err)
	}
	return nil
}

// beingClosed are the ends of the sandboxes that are being closed and hold
// something.
func (s *Service) beingClosed(holds func(network.Attachment) bool) (ends []chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sb, end := range s.closing {
		if holds(sb.att) {
			ends = append(ends, end)
		}
	}
	return ends
}

// awaitAll waits until all have ended, and reports whether there were any.
func awaitAll(ctx context.Context, ends []chan struct{}) bool {
	for _, end := range ends {
		select {
		case <-end:
		case <-ctx.Done():
			return false
		}
	}
	return len(ends) > 0
}

// abandon ends an endpoint whose sandbox goes: its addresses are free when its
// link is gone.
func (s *Service) abandon(ctx context.Context, containerID string, ep network.Endpoint) error {
	if ep.HostLink == "" {
		return nil // host and none
	}
	if n := s.network(ep.NetworkID); n != nil && n.driver != nil {
		if err := n.driver.Leave(ctx, n.rec, ep); err != nil {
			return fmt.Errorf("leave network %s: %w", ep.NetworkName, err)
		}
	}
	if ep.Kind == "" || ep.Kind == network.Veth {
		s.drain(ctx, containerID, ep)
		return nil
	}
	s.release(ctx, ep, false)
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
func (s *Service) drain(ctx context.Context, containerID string, ep network.Endpoint) {
	s.release(ctx, ep, true)
	s.drainMu.Lock()
	s.draining[ep.HostLink] = drained{container: containerID, ep: ep, since: s.cfg.Now()}
	s.drainMu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// reclaim gives a container that is started again at once the addresses it just
// had, if it asks for no others, though their link still stands: the link is cut off, so that nothing of
// the old sandbox can answer any more, and its end frees nothing.
func (s *Service) reclaim(ctx context.Context, containerID string, n *netState, want4, want6 netip.Addr) (addr4, addr6 netip.Prefix, ok bool) {
	fits := func(want netip.Addr, had netip.Prefix) bool { return !want.IsValid() || want == had.Addr() }
	s.drainMu.Lock()
	name := ""
	var d drained
	for link, one := range s.draining {
		if one.container == containerID && one.ep.NetworkID == n.rec.ID && fits(want4, one.ep.IPv4) && fits(want6, one.ep.IPv6) {
			name, d = link, one
		}
	}
	if name == "" {
		s.drainMu.Unlock()
		return netip.Prefix{}, netip.Prefix{}, false
	}
	s.draining[name] = drained{since: d.since} // reaped, but it frees nothing
	s.drainMu.Unlock()
	if err := s.cfg.Sandboxes.CutLink(ctx, name); err != nil {
		s.cfg.Logger.Warn("cut link", "link", name, "error", err)
		s.release(ctx, d.ep, false)
		return netip.Prefix{}, netip.Prefix{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	back := func(a netip.Prefix) netip.Prefix {
		if p := n.poolOf(a.Addr()); p != nil && p.addrs != nil && p.addrs.Reclaim(a.Addr()) {
			ok = true
			return a
		}
		return netip.Prefix{}
	}
	return back(d.ep.IPv4), back(d.ep.IPv6), ok
}

// linkGone frees the addresses of a link that the kernel removed.
func (s *Service) linkGone(name string) {
	s.drainMu.Lock()
	d, ok := s.draining[name]
	delete(s.draining, name)
	s.drainMu.Unlock()
	if ok {
		s.release(context.Background(), d.ep, false)
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
		if err := s.cfg.Sandboxes.RemoveLink(ctx, name); err != nil {
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
	if sb == nil {
		s.mu.Unlock()
		return nil
	}
	att, asked, pid := sb.att, sb.asked, sb.pid
	s.mu.Unlock()
	out := &containertypes.NetworkSettings{
		SandboxID: att.SandboxID,
		Ports:     network.PortMap(portSet(att.Exposed), att.Ports),
		Networks:  map[string]*networktypes.EndpointSettings{},
	}
	if pid > 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	for _, ep := range att.Endpoints {
		settings, err := ep.EndpointSettings(asked[ep.NetworkID])
		if err != nil {
			s.cfg.Logger.Warn("endpoint of a container", "container", containerID, "error", err)
			continue
		}
		settings.DNSNames = ep.DNSNames
		out.Networks[ep.NetworkName] = settings
	}
	return out
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
