package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// Resolve returns the name of a network and whether a container may have an
// endpoint on it as asked, beside those on the networks of the names in others.
// ErrNotFound; ErrInvalidArgument with Docker's text.
func (s *Service) Resolve(_ context.Context, ref string, mode containertypes.NetworkMode, others []string, ask *networktypes.EndpointSettings) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ref == networktypes.NetworkDefault {
		ref = network.BridgeName
	}
	n, err := s.findLocked(ref)
	if err != nil {
		return "", err
	}
	if err := beside(mode, n.rec, others); err != nil {
		return "", err
	}
	return n.rec.Name, n.checkEndpoint(ask)
}

// beside says why a container cannot be on a network: those on the networks of
// the host, of another container, and on none are on no other.
func beside(mode containertypes.NetworkMode, rec network.Record, others []string) error {
	if rec.Driver == network.DriverHost && !mode.IsHost() {
		return errdefs.ErrInvalidArgument.WithMessage("cannot connect container to host network - container must be created in host network mode")
	}
	if mode.IsContainer() {
		return errShared
	}
	for _, o := range others {
		switch {
		case o == rec.Name:
		case o == network.HostName || rec.Driver == network.DriverHost:
			return errShared
		case o == network.NoneName || rec.Name == network.NoneName:
			return errdefs.ErrInvalidArgument.WithMessage("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

var errShared = errdefs.ErrInvalidArgument.WithMessage("container sharing network namespace with another container or host cannot be connected to any other network")

// live finds the sandbox of a running container and takes its turn: one change
// at a time. done gives it back.
func (s *Service) live(ctx context.Context, containerID string) (sb *sandbox, done func(), err error) {
	s.mu.Lock()
	sb = s.sandboxes[containerID]
	s.mu.Unlock()
	if sb == nil {
		return nil, nil, notFound(containerID)
	}
	select {
	case sb.turn <- struct{}{}:
		return sb, func() { <-sb.turn }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// current is what is known of a sandbox now; ok is false when it was closed.
func (s *Service) current(sb *sandbox) (att network.Attachment, pid int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sb.att, sb.pid, s.sandboxes[sb.att.ContainerID] == sb
}

// Connect gives a running container an endpoint on one more network: an
// interface in its namespace, names, and, where the new network has the default
// route, the published ports. On failure everything is as it was. The request
// is the container's as for Open; ask is about the new endpoint.
//
// ErrNotFound for an unknown network and a container without a sandbox;
// ErrPermissionDenied when it is on the network already.
func (s *Service) Connect(ctx context.Context, req SandboxRequest, ref string, ask *networktypes.EndpointSettings) (_ network.Change, err error) {
	sb, done, err := s.live(ctx, req.ContainerID)
	if err != nil {
		return network.Change{}, err
	}
	defer done()
	att, pid, ok := s.current(sb)
	if !ok || pid == 0 {
		return network.Change{}, notFound(req.ContainerID)
	}
	n, err := s.holdFor(containertypes.NetworkMode(req.Mode), att, ref)
	if err != nil {
		return network.Change{}, err
	}
	defer s.unhold(n)

	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(context.WithoutCancel(ctx), s.cfg.Logger)
		}
	}()
	ep, err := s.newEndpoint(ctx, req, n, ask, att.Endpoints)
	if err != nil {
		return network.Change{}, err
	}
	undo.add("release addresses", func(ctx context.Context) error {
		s.release(ctx, ep, false)
		return nil
	})
	// From here on it is finished, whoever waits for it or not.
	ctx = context.WithoutCancel(ctx)
	itf, err := s.join(ctx, sb, n, &ep, &undo)
	if err != nil {
		return network.Change{}, err
	}
	ns, err := s.cfg.Sandboxes.Enter(ctx, pid)
	if err != nil {
		return network.Change{}, err
	}
	defer func() { _ = ns.Close() }()
	hostLink := ""
	if ep.Kind == network.Moved {
		hostLink = ep.HostLink
	}
	if err := s.cfg.Sandboxes.Attach(ctx, ns, itf); err != nil {
		return network.Change{}, err
	}
	undo.add("remove interface", func(ctx context.Context) error {
		return s.cfg.Sandboxes.Detach(ctx, ns, ep.InnerLink, hostLink)
	})
	next := att
	next.Endpoints = network.ChooseDefaults(append(slices.Clone(att.Endpoints), ep))
	// Recorded before routes change: a daemon that is killed in here finds the
	// new interface as one of the container's, and its routes unfinished.
	undo.add("record", func(context.Context) error { return req.commit(att, false) })
	if err := req.commit(next, true); err != nil {
		return network.Change{}, err
	}
	change, err := s.switchOver(ctx, sb, req, att, next, pid, ns, &undo)
	if err != nil {
		return network.Change{}, err
	}
	if err := req.commit(change.Attachment, false); err != nil {
		return network.Change{}, err
	}
	if !s.record(sb, change.Attachment, n.rec.ID, ask) {
		err = notFound(req.ContainerID)
		return network.Change{}, err
	}
	s.releasePorts(withoutPorts(att.Ports, change.Attachment.Ports))
	s.announce(events.ActionConnect, req.ContainerID, ep)
	return change, nil
}

// commit records what a running container is attached to, or what its change
// begins with.
func (r SandboxRequest) commit(att network.Attachment, changing bool) error {
	if r.Commit == nil {
		return nil
	}
	att.Changing = changing
	return r.Commit(att)
}

// holdFor finds a network that a running container may join.
func (s *Service) holdFor(mode containertypes.NetworkMode, att network.Attachment, ref string) (*netState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.findLocked(ref)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, ep := range att.Endpoints {
		others = append(others, ep.NetworkName)
	}
	if err := beside(mode, n.rec, others); err != nil {
		return nil, err
	}
	if slices.Contains(others, n.rec.Name) {
		return nil, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("endpoint with name %s already exists in network %s", att.Name, n.rec.Name))
	}
	if err := n.joinable(); err != nil {
		return nil, err
	}
	n.joining++
	return n, nil
}

// switchOver brings default routes, names and published ports from one set of
// endpoints to the next.
func (s *Service) switchOver(ctx context.Context, sb *sandbox, req SandboxRequest, from, to network.Attachment, pid int, ns network.Handle, undo *undoStack) (network.Change, error) {
	before, after := network.Defaults(from.Endpoints), network.Defaults(to.Endpoints)
	if before != after {
		undo.add("default routes", func(ctx context.Context) error { return s.cfg.Sandboxes.SetDefault(ctx, ns, before) })
		if err := s.cfg.Sandboxes.SetDefault(ctx, ns, after); err != nil {
			return network.Change{}, err
		}
	}
	change := network.Change{}
	resolver, err := s.resolver(req, to)
	if err != nil {
		return change, err
	}
	if resolver.Embedded && !from.DNS {
		old, err := s.resolver(req, from)
		if err != nil {
			return change, err
		}
		to.DNS, to.Upstream, to.OwnRoot = true, resolver.Upstream, resolver.OwnRoot
		change.ResolvConf, change.ResolvConfBefore = resolver.File.Bytes(), old.File.Bytes()
	}
	if err := s.movePorts(ctx, req, from, &to, undo); err != nil {
		return change, err
	}
	names := s.names(to, pid)
	if !names.Empty() || !s.names(from, pid).Empty() {
		undo.add("names", func(ctx context.Context) error { return s.cfg.Nameserver.Put(ctx, s.names(from, pid), nil) })
		if err := s.cfg.Nameserver.Put(ctx, names, nil); err != nil {
			return change, err
		}
	}
	change.Attachment = to
	change.HostName = hostLine(req)
	change.Removed = without(from.Addrs(), to.Addrs())
	change.Added = without(to.Addrs(), from.Addrs())
	return change, nil
}

// movePorts has published ports lead to the endpoints with the default routes.
// Their host ports stay; where there was no way to the container they are chosen
// now, where there is none any more they are given up.
func (s *Service) movePorts(ctx context.Context, req SandboxRequest, from network.Attachment, to *network.Attachment, undo *undoStack) error {
	was, wasOK := s.leadOf(from.Endpoints)
	now, nowOK := s.leadOf(to.Endpoints)
	if wasOK == nowOK && was == now {
		return nil
	}
	switch {
	case nowOK:
		wanted, err := s.wantedPorts(req, now.bind)
		if err != nil {
			return err
		}
		for _, w := range wanted {
			for _, ip := range w.HostIPs {
				_, _, reserved := now.target(ip)
				if _, err := network.DecideInput(w, now.input(ip), s.cfg.PublishInput, reserved); err != nil {
					return err
				}
			}
		}
		to.Ports, wanted = keepPorts(from.Ports, wanted, now)
		fresh, err := s.takePorts(wanted, now, nil)
		if err != nil {
			return err
		}
		undo.add("release ports", func(context.Context) error {
			s.releasePorts(fresh)
			return nil
		})
		to.Ports = append(to.Ports, fresh...)
	default:
		to.Ports = nil
	}
	if len(from.Ports) > 0 {
		undo.add("publish ports again", func(ctx context.Context) error { return s.cfg.Firewall.Publish(ctx, from.Ports) })
		if err := s.cfg.Firewall.Unpublish(ctx, from.Ports); err != nil {
			return err
		}
	}
	if len(to.Ports) > 0 {
		undo.add("unpublish ports", func(ctx context.Context) error { return s.cfg.Firewall.Unpublish(ctx, to.Ports) })
		return s.cfg.Firewall.Publish(ctx, to.Ports)
	}
	return nil
}

// keepPorts redirects the bindings there are, and returns what of wanted is
// left: host addresses that have no port yet. Whether a port obeys the host's
// input rules was decided when it was published.
func keepPorts(have []network.Binding, wanted []network.WantedPort, to lead) (kept []network.Binding, left []network.WantedPort) {
	for _, b := range have {
		target, direct, reserved := to.target(b.HostIP)
		if !target.IsValid() {
			continue
		}
		b.ContainerIP, b.Direct = target, direct
		if !reserved {
			b.HostPort = 0
		}
		if reserved == (b.HostPort != 0) {
			kept = append(kept, b)
		}
	}
	for _, w := range wanted {
		w.HostIPs = slices.DeleteFunc(slices.Clone(w.HostIPs), func(ip netip.Addr) bool {
			return slices.ContainsFunc(kept, func(b network.Binding) bool {
				return b.Proto == w.Proto && b.ContainerPort == w.ContainerPort && b.HostIP == ip
			})
		})
		if len(w.HostIPs) > 0 {
			left = append(left, w)
		}
	}
	return kept, left
}

// record makes the outcome known; false when the sandbox was closed meanwhile.
func (s *Service) record(sb *sandbox, att network.Attachment, networkID string, ask *networktypes.EndpointSettings) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandboxes[att.ContainerID] != sb {
		return false
	}
	asked := map[string]*networktypes.EndpointSettings{}
	for id, a := range sb.asked {
		asked[id] = a
	}
	if ask != nil {
		asked[networkID] = ask
	} else {
		delete(asked, networkID)
	}
	sb.att, sb.asked = att, asked
	return true
}

// Disconnect takes a running container off a network. ErrNotFound; an error with
// Docker's text when it is not on it.
func (s *Service) Disconnect(ctx context.Context, req SandboxRequest, ref string) (_ network.Change, err error) {
	sb, done, err := s.live(ctx, req.ContainerID)
	if err != nil {
		return network.Change{}, err
	}
	defer done()
	att, pid, ok := s.current(sb)
	if !ok || pid == 0 {
		return network.Change{}, notFound(req.ContainerID)
	}
	s.mu.Lock()
	n, err := s.findLocked(ref)
	s.mu.Unlock()
	if err != nil {
		return network.Change{}, err
	}
	if containertypes.NetworkMode(req.Mode).IsHost() && n.rec.Driver == network.DriverHost {
		return network.Change{}, errdefs.ErrInvalidArgument.WithMessage("cannot disconnect container from host network - container was created in host network mode")
	}
	at := slices.IndexFunc(att.Endpoints, func(e network.Endpoint) bool { return e.NetworkID == n.rec.ID })
	if at < 0 {
		return network.Change{}, fmt.Errorf("container %s is not connected to network %s", req.ContainerID, n.rec.Name)
	}
	ctx = context.WithoutCancel(ctx)
	ep := att.Endpoints[at]
	next := att
	next.Endpoints = network.ChooseDefaults(slices.Delete(slices.Clone(att.Endpoints), at, at+1))

	var undo undoStack
	ns, err := s.cfg.Sandboxes.Enter(ctx, pid)
	if err != nil {
		return network.Change{}, err
	}
	defer func() { _ = ns.Close() }()
	undo.add("record", func(context.Context) error { return req.commit(att, false) })
	change, err := network.Change{}, req.commit(att, true)
	if err == nil {
		change, err = s.switchOver(ctx, sb, req, att, next, pid, ns, &undo)
	}
	// Recorded before the interface goes: one that a killed daemon leaves behind
	// belongs to nobody and is reaped.
	if err == nil {
		err = req.commit(change.Attachment, false)
	}
	if err != nil {
		undo.run(ctx, s.cfg.Logger)
		return network.Change{}, fmt.Errorf("container %s failed to leave network %s: %w", req.ContainerID, n.rec.Name, err)
	}
	// From here on it is off; what cannot be removed is swept later.
	var errs []error
	if ep.HostLink != "" {
		hostLink := ""
		if ep.Kind == network.Moved {
			hostLink = ep.HostLink
		}
		errs = append(errs, s.cfg.Sandboxes.Detach(ctx, ns, ep.InnerLink, hostLink))
	}
	if n.driver != nil {
		errs = append(errs, n.driver.Leave(ctx, n.rec, ep))
	}
	if !s.record(sb, change.Attachment, n.rec.ID, nil) {
		// Closed meanwhile, with this endpoint: its addresses went with it.
		return change, errors.Join(errs...)
	}
	s.releasePorts(withoutPorts(att.Ports, change.Attachment.Ports))
	s.release(ctx, ep, false)
	s.announce(events.ActionDisconnect, req.ContainerID, ep)
	for _, err := range errs {
		if err != nil {
			s.cfg.Logger.Warn("disconnect", "container", req.ContainerID, "network", n.rec.Name, "error", err)
		}
	}
	return change, nil
}

// Rename changes the name by which a running container is known in its
// networks.
func (s *Service) Rename(ctx context.Context, req SandboxRequest) (network.Attachment, error) {
	sb, done, err := s.live(ctx, req.ContainerID)
	if err != nil {
		return network.Attachment{}, err
	}
	defer done()
	att, pid, ok := s.current(sb)
	if !ok {
		return network.Attachment{}, notFound(req.ContainerID)
	}
	next := att
	next.Name = req.Name
	next.Endpoints = slices.Clone(att.Endpoints)
	for i := range next.Endpoints {
		if ep := &next.Endpoints[i]; !network.Predefined(ep.NetworkName) {
			ep.DNSNames = dnsNames(req, ep.Aliases)
		}
	}
	if names := s.names(next, pid); !names.Empty() {
		if err := s.cfg.Nameserver.Put(ctx, names, nil); err != nil {
			return att, err
		}
	}
	if err := req.commit(next, false); err != nil {
		return att, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandboxes[req.ContainerID] == sb {
		sb.att = next
	}
	return next, nil
}

// without are the addresses of a that b has not.
func without(a, b []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(a), func(x netip.Addr) bool { return slices.Contains(b, x) })
}

// withoutPorts are the host ports of a that b has not.
func withoutPorts(a, b []network.Binding) []network.Binding {
	return slices.DeleteFunc(slices.Clone(a), func(x network.Binding) bool {
		return slices.ContainsFunc(b, func(y network.Binding) bool {
			return x.Proto == y.Proto && x.HostIP == y.HostIP && x.HostPort == y.HostPort
		})
	})
}
