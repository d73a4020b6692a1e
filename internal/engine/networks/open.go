package networks

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// portAttempts is how often another ephemeral port is tried when the one that
// was chosen turns out to be bound by another program (as dockerd).
const portAttempts = 10

// drainWait bounds how long Open waits for the kernel to free an address of a
// subnet that is otherwise full.
const drainWait = 5 * time.Second

// sandbox is what the service knows of one container.
type sandbox struct {
	// att never changes after the sandbox is in Service.sandboxes.
	att network.Attachment
	// asked is the request's own view of the endpoints, for inspect.
	asked map[string]*networktypes.EndpointSettings
	// handle is closed when the container was started.
	handle network.Handle
	// pid is 0 before Started. Guarded by Service.mu.
	pid int
	// shared and host tell that the namespace is not ours to give back.
	shared bool
}

// mode is a parsed network mode.
type mode struct {
	// kind is "bridge" (networks), "host", "none" or "container".
	kind string
	// container is the id or name behind "container:".
	container string
	// networks are the networks to join, the one of the mode first.
	networks []*netState
}

func (s *Service) parseMode(req SandboxRequest) (mode, error) {
	nm := containertypes.NetworkMode(req.Mode)
	if req.Mode == "" {
		nm = networktypes.NetworkDefault
	}
	switch {
	case nm.IsHost():
		return mode{kind: "host"}, nil
	case nm.IsNone():
		return mode{kind: "none"}, nil
	case nm.IsContainer():
		return mode{kind: "container", container: nm.ConnectedContainer()}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := string(nm)
	if nm.IsDefault() {
		first = network.BridgeName
	}
	m := mode{kind: "bridge"}
	names := []string{first}
	for _, name := range slices.Sorted(maps.Keys(req.Endpoints)) {
		if name != first && !containertypes.NetworkMode(name).IsDefault() {
			names = append(names, name)
		}
	}
	for _, name := range names {
		n, err := s.findLocked(name)
		if err != nil {
			if name == network.BridgeName && s.cfg.Default.Disabled {
				return mode{kind: "none"}, nil
			}
			return mode{}, err
		}
		if n.rec.Driver != network.DriverBridge {
			return mode{}, errdefs.ErrInvalidArgument.WithMessage("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
		if !slices.Contains(m.networks, n) {
			m.networks = append(m.networks, n)
		}
	}
	return m, nil
}

// Check says whether a request could be opened, without changing anything.
// ErrNotFound for an unknown network; ErrInvalidArgument for what is malformed.
func (s *Service) Check(_ context.Context, req SandboxRequest) error {
	m, err := s.parseMode(req)
	if err != nil {
		return err
	}
	if _, err := s.wantedPorts(req); err != nil {
		return err
	}
	if _, err := network.ParseExtraHosts(req.ExtraHosts, []netip.Addr{netip.IPv4Unspecified()}); err != nil {
		return err
	}
	for _, n := range m.networks {
		if err := n.checkEndpoint(asked(req, n)); err != nil {
			return err
		}
	}
	return nil
}

// checkEndpoint validates what a request says about its endpoint on n.
func (n *netState) checkEndpoint(ep *networktypes.EndpointSettings) error {
	if ep == nil {
		return nil
	}
	var errs []error
	static := ep.IPAMConfig != nil && (ep.IPAMConfig.IPv4Address.IsValid() || ep.IPAMConfig.IPv6Address.IsValid())
	if n.rec.Predefined() {
		if static {
			errs = append(errs, errdefs.ErrInvalidArgument.WithMessage("user-specified IP address is supported on user-defined networks only"))
		}
		if len(ep.Aliases) > 0 {
			errs = append(errs, errdefs.ErrInvalidArgument.WithMessage("network-scoped aliases are only supported for user-defined networks"))
		}
	}
	if static {
		for _, a := range []netip.Addr{ep.IPAMConfig.IPv4Address, ep.IPAMConfig.IPv6Address} {
			if a.IsValid() && !n.contains(a) {
				errs = append(errs, errdefs.ErrInvalidArgument.WithMessage("no configured subnet contains IP address "+a.String()))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("invalid endpoint settings:\n%w", err)
	}
	return nil
}

// asked returns what the request says about one network, under its name, its
// id or "default".
func asked(req SandboxRequest, n *netState) *networktypes.EndpointSettings {
	for _, key := range []string{n.rec.Name, n.rec.ID, networktypes.NetworkDefault} {
		if key == networktypes.NetworkDefault && n.rec.Name != network.BridgeName {
			continue
		}
		if ep := req.Endpoints[key]; ep != nil {
			return ep
		}
	}
	return nil
}

func (s *Service) wantedPorts(req SandboxRequest) ([]network.WantedPort, error) {
	return network.WantedPorts(req.Exposed, req.Bindings, req.PublishAll, s.cfg.Default.HostIP, s.ipv6)
}

// Open makes the sandbox of a container: addresses and ports are decided,
// ports reserved, the namespace and its interfaces made, and ports published,
// in this order, so that a refused port leaves nothing behind. Its errors have
// Docker's text, complete with "failed to set up container networking".
//
// A container that has a sandbox already gets ErrConflict.
func (s *Service) Open(ctx context.Context, req SandboxRequest) (_ *Sandbox, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("failed to set up container networking: %w", err)
		}
	}()
	m, err := s.parseMode(req)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	_, exists := s.sandboxes[req.ContainerID]
	s.mu.Unlock()
	if exists {
		return nil, errdefs.ErrConflict.WithMessage("container " + req.ContainerID + " already has a sandbox")
	}
	sb := &sandbox{asked: req.Endpoints, att: network.Attachment{
		ContainerID: req.ContainerID, SandboxID: s.cfg.NewID(), Name: req.Name, Mode: req.Mode,
		Exposed: exposed(req),
	}}
	switch m.kind {
	case "host":
		return s.openHost(req, sb)
	case "container":
		return s.openShared(req, sb, m.container)
	case "none":
		return s.openNone(ctx, req, sb)
	}
	return s.openBridged(ctx, req, sb, m.networks)
}

func exposed(req SandboxRequest) []string {
	var out []string
	for p := range req.Exposed {
		out = append(out, p.String())
	}
	for p := range req.Bindings {
		if _, ok := req.Exposed[p]; !ok {
			out = append(out, p.String())
		}
	}
	slices.Sort(out)
	return out
}

// openHost shares the host's namespace: its resolver and, without extra hosts,
// its /etc/hosts are the container's.
func (s *Service) openHost(req SandboxRequest, sb *sandbox) (*Sandbox, error) {
	sb.shared = true
	sb.att.Endpoints = s.plainEndpoint(network.HostName)
	raw, err := s.cfg.Host.ResolvConf()
	if err != nil {
		return nil, err
	}
	servers, search, options := s.dns(req)
	out := &Sandbox{Attachment: sb.att, Release: func() {}}
	if len(servers)+len(search)+len(options) == 0 {
		out.ResolvConf = raw
	} else {
		out.ResolvConf = network.ParseResolvConf(raw).Override(servers, search, options).Bytes()
	}
	hostname := req.Hostname
	if hostname == "" {
		hostname = s.cfg.Host.Hostname()
	}
	out.Hostname = []byte(hostname + "\n")
	if len(req.ExtraHosts) == 0 {
		if out.Hosts, err = s.cfg.Host.Hosts(); err != nil {
			return nil, err
		}
	} else {
		extra, err := network.ParseExtraHosts(req.ExtraHosts, s.hostGateways())
		if err != nil {
			return nil, err
		}
		out.Hosts = network.HostsFile{IPv6: true, Extra: extra}.Bytes()
	}
	s.remember(sb)
	s.announce(events.ActionConnect, sb.att)
	return out, nil
}

// openShared joins another container's namespace; its files are the other
// container's too, which the caller knows.
func (s *Service) openShared(req SandboxRequest, sb *sandbox, other string) (*Sandbox, error) {
	sb.shared = true
	pid, ok := 0, false
	if req.Join != nil {
		pid, ok = req.Join(other)
	}
	if !ok {
		return nil, errdefs.ErrConflict.WithMessage("cannot join network of a non running container: " + other)
	}
	s.remember(sb)
	return &Sandbox{Path: fmt.Sprintf("/proc/%d/ns/net", pid), Attachment: sb.att, Release: func() {}}, nil
}

func (s *Service) openNone(ctx context.Context, req SandboxRequest, sb *sandbox) (*Sandbox, error) {
	sb.att.Endpoints = s.plainEndpoint(network.NoneName)
	out, err := s.files(req, sb, nil)
	if err != nil {
		return nil, err
	}
	h, err := s.cfg.Driver.OpenSandbox(ctx, network.SandboxPlan{})
	if err != nil {
		return nil, err
	}
	sb.handle = h
	s.remember(sb)
	s.announce(events.ActionConnect, sb.att)
	return s.opened(out, sb), nil
}

// plainEndpoint is the endpoint on a network that has no addresses.
func (s *Service) plainEndpoint(name string) []network.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.findLocked(name)
	if err != nil {
		return nil
	}
	return []network.Endpoint{{ID: s.cfg.NewID(), NetworkID: n.rec.ID, NetworkName: n.rec.Name}}
}

// openBridged is the sandbox with interfaces on bridge networks.
func (s *Service) openBridged(ctx context.Context, req SandboxRequest, sb *sandbox, nets []*netState) (_ *Sandbox, err error) {
	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(context.WithoutCancel(ctx), s.cfg.Logger)
		}
	}()

	var plan network.SandboxPlan
	for i, n := range nets {
		ep, itf, err := s.newEndpoint(ctx, req, n, i)
		if err != nil {
			return nil, err
		}
		undo.add("release addresses", func(context.Context) error {
			s.release(ep, false)
			return nil
		})
		sb.att.Endpoints = append(sb.att.Endpoints, ep)
		plan.Interfaces = append(plan.Interfaces, itf)
	}
	out, err := s.files(req, sb, nets)
	if err != nil {
		return nil, err
	}

	// Ports first: a port that is taken must be refused before anything changes.
	if err := s.reserve(ctx, req, sb, nets[0]); err != nil {
		return nil, s.portError(req, sb, err)
	}
	undo.add("release ports", func(ctx context.Context) error {
		s.releasePorts(sb.att.Ports)
		return s.dropNames(ctx, sb.att)
	})

	h, err := s.cfg.Driver.OpenSandbox(ctx, plan)
	if err != nil {
		return nil, err
	}
	undo.add("close sandbox", func(context.Context) error { return h.Close() })
	sb.handle = h
	if sb.att.DNS {
		if err := s.cfg.Nameserver.Put(ctx, s.names(sb), h); err != nil {
			return nil, err
		}
	}
	if len(sb.att.Ports) > 0 {
		if err := s.cfg.Firewall.Publish(ctx, sb.att.Ports); err != nil {
			return nil, s.portError(req, sb, err)
		}
		undo.add("unpublish ports", func(ctx context.Context) error {
			return s.cfg.Firewall.Unpublish(ctx, sb.att.Ports)
		})
	}
	out.Attachment = sb.att
	s.remember(sb)
	s.announce(events.ActionConnect, sb.att)
	return s.opened(out, sb), nil
}

// portError has the words that Docker's users search for.
func (s *Service) portError(req SandboxRequest, sb *sandbox, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w",
		req.Name, sb.att.Endpoints[0].ID, err)
}

// newEndpoint decides addresses and names of one endpoint. When the subnet is
// full of addresses that the kernel has not freed yet, it waits for them.
func (s *Service) newEndpoint(ctx context.Context, req SandboxRequest, n *netState, index int) (network.Endpoint, network.Interface, error) {
	ask := asked(req, n)
	if err := n.checkEndpoint(ask); err != nil {
		return network.Endpoint{}, network.Interface{}, err
	}
	var want4, want6 netip.Addr
	if ask != nil && ask.IPAMConfig != nil {
		want4, want6 = ask.IPAMConfig.IPv4Address.Unmap(), ask.IPAMConfig.IPv6Address
	}
	deadline := time.NewTimer(drainWait)
	defer deadline.Stop()
	var addr4, addr6 netip.Addr
	reclaimed := false
	if !want4.IsValid() && !want6.IsValid() {
		addr4, addr6, reclaimed = s.reclaim(ctx, req.ContainerID, n)
	}
	for !reclaimed {
		n.mu.Lock()
		var err error
		addr4, addr6, err = n.allocate(want4, want6)
		freed := n.freed
		n.mu.Unlock()
		if err == nil {
			break
		}
		if !errors.Is(err, network.ErrAddressesDrained) {
			return network.Endpoint{}, network.Interface{}, err
		}
		select {
		case <-freed:
		case <-deadline.C:
			return network.Endpoint{}, network.Interface{}, network.ErrNoAddresses
		case <-ctx.Done():
			return network.Endpoint{}, network.Interface{}, ctx.Err()
		}
	}
	var mac string
	switch {
	case ask != nil && len(ask.MacAddress) > 0:
		mac = ask.MacAddress.String()
	case index == 0 && req.MacAddress != "":
		mac = req.MacAddress
	case addr4.IsValid():
		mac = network.MAC(addr4)
	default:
		mac = network.MAC(addr6)
	}
	ep := network.Endpoint{
		ID: s.cfg.NewID(), NetworkID: n.rec.ID, NetworkName: n.rec.Name,
		HostLink: newLinkName(), InnerLink: fmt.Sprintf("eth%d", index), MAC: mac,
	}
	itf := network.Interface{
		HostLink: ep.HostLink, InnerLink: ep.InnerLink, Bridge: n.rec.Device, MAC: mac,
		MTU: n.mtu, Isolated: !n.icc,
	}
	if addr4.IsValid() {
		ep.IPv4 = netip.PrefixFrom(addr4, n.addr4.Subnet().Bits())
		ep.Gateway4 = n.gateway4
		itf.Addrs = append(itf.Addrs, ep.IPv4)
	}
	if addr6.IsValid() {
		ep.IPv6 = netip.PrefixFrom(addr6, n.addr6.Subnet().Bits())
		ep.Gateway6 = n.gateway6
		itf.Addrs = append(itf.Addrs, ep.IPv6)
	}
	if index == 0 && !n.rec.Internal {
		itf.Gateway4, itf.Gateway6 = ep.Gateway4, ep.Gateway6
	}
	n.mu.Lock()
	n.chosenMAC = n.chosenMAC || !derivedMAC(ep)
	itf.Announce = n.chosenMAC
	n.mu.Unlock()
	if ask != nil {
		ep.Aliases = slices.Clone(ask.Aliases)
	}
	if !n.rec.Predefined() {
		ep.DNSNames = dnsNames(req, ep.Aliases)
	}
	return ep, itf, nil
}

// dnsNames are the names of a container on a user-defined network, without
// doubles: its own, the aliases, the short id and its hostname.
func dnsNames(req SandboxRequest, aliases []string) []string {
	var out []string
	short := req.ContainerID
	if len(short) > 12 {
		short = short[:12]
	}
	for _, name := range slices.Concat([]string{req.Name}, aliases, []string{short, req.Hostname}) {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// newLinkName is "veth" and seven hexadecimal digits, as Docker's.
func newLinkName() string {
	var b [4]byte
	rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])[:7]
}

// reserve decides the host ports and has netd reserve them. Another ephemeral
// port is tried when somebody else has bound the one that was chosen.
func (s *Service) reserve(ctx context.Context, req SandboxRequest, sb *sandbox, gateway *netState) error {
	if gateway.rec.Internal {
		return nil
	}
	wanted, err := s.wantedPorts(req)
	if err != nil || len(wanted) == 0 {
		return err
	}
	ep := sb.att.Endpoints[0]
	var skip map[uint16]bool
	for attempt := 1; ; attempt++ {
		bindings, err := s.takePorts(wanted, ep, skip)
		if err != nil {
			return err
		}
		sb.att.Ports = bindings
		err = s.cfg.Nameserver.Put(ctx, s.names(sb), nil)
		if err == nil {
			return nil
		}
		s.releasePorts(bindings)
		sb.att.Ports = nil
		busy, ok := network.IsPortBusy(err)
		if !ok || attempt == portAttempts || fixedPort(wanted, busy) {
			return err
		}
		if skip == nil {
			skip = map[uint16]bool{}
		}
		skip[busy.HostPort] = true
	}
}

// fixedPort reports whether the request asked for exactly this host port.
func fixedPort(wanted []network.WantedPort, b network.Binding) bool {
	return slices.ContainsFunc(wanted, func(w network.WantedPort) bool {
		return w.Proto == b.Proto && w.ContainerPort == b.ContainerPort && w.First != 0 && w.First == w.Last && w.First == b.HostPort
	})
}

// takePorts decides all host ports of a request or none.
func (s *Service) takePorts(wanted []network.WantedPort, ep network.Endpoint, skip map[uint16]bool) (bindings []network.Binding, err error) {
	s.portsMu.Lock()
	defer s.portsMu.Unlock()
	for _, w := range wanted {
		port, err := s.ports.Take(w, skip)
		if err != nil {
			for _, b := range bindings {
				s.ports.Release(b.Proto, b.HostPort, b.HostIP)
			}
			return nil, err
		}
		for _, ip := range w.HostIPs {
			target := ep.IPv4.Addr()
			if ip.Is6() && ep.IPv6.IsValid() || !ep.IPv4.IsValid() {
				target = ep.IPv6.Addr()
			}
			bindings = append(bindings, network.Binding{
				Proto: w.Proto, HostIP: ip, HostPort: port, ContainerIP: target, ContainerPort: w.ContainerPort,
			})
		}
	}
	return bindings, nil
}

func (s *Service) releasePorts(bindings []network.Binding) {
	s.portsMu.Lock()
	defer s.portsMu.Unlock()
	for _, b := range bindings {
		s.ports.Release(b.Proto, b.HostPort, b.HostIP)
	}
}

// files renders the three files of a sandbox of its own and records how names
// are resolved in it.
func (s *Service) files(req SandboxRequest, sb *sandbox, nets []*netState) (*Sandbox, error) {
	extra, err := network.ParseExtraHosts(req.ExtraHosts, s.hostGateways())
	if err != nil {
		return nil, err
	}
	raw, err := s.cfg.Host.ResolvConf()
	if err != nil {
		return nil, err
	}
	servers, search, options := s.dns(req)
	rc := network.ParseResolvConf(raw).Override(servers, search, options)

	user, ipv6 := false, len(nets) == 0
	var addrs []netip.Addr
	for i, n := range nets {
		user = user || !n.rec.Predefined()
		for _, p := range []netip.Prefix{sb.att.Endpoints[i].IPv4, sb.att.Endpoints[i].IPv6} {
			if p.IsValid() {
				addrs = append(addrs, p.Addr())
				ipv6 = ipv6 || p.Addr().Is6()
			}
		}
	}
	var resolver network.Resolver
	switch {
	case len(nets) == 0:
		resolver = network.Resolver{File: rc}
	case user:
		resolver = network.EmbeddedResolver(rc, len(servers) > 0)
	default:
		resolver = network.LegacyResolver(rc, len(servers) > 0, ipv6)
	}
	sb.att.DNS, sb.att.Upstream = resolver.Embedded, resolver.Upstream

	hostname := req.Hostname
	if hostname == "" && len(req.ContainerID) >= 12 {
		hostname = req.ContainerID[:12]
	}
	return &Sandbox{
		// Docker writes the IPv6 lines for every sandbox that may have ::1.
		Hosts:      network.HostsFile{IPv6: s.ipv6, Extra: extra, Addrs: addrs, Hostname: hostname, Domainname: req.Domainname}.Bytes(),
		ResolvConf: resolver.File.Bytes(),
		Hostname:   []byte(hostname + "\n"),
		Attachment: sb.att,
	}, nil
}

// dns merges the container's settings with the daemon's.
func (s *Service) dns(req SandboxRequest) (servers []netip.Addr, search, options []string) {
	servers, search, options = req.DNS, req.DNSSearch, req.DNSOptions
	if len(servers) == 0 {
		servers = s.cfg.DNS
	}
	if len(search) == 0 {
		search = s.cfg.DNSSearch
	}
	if len(options) == 0 {
		options = s.cfg.DNSOptions
	}
	return servers, search, options
}

// hostGateways is what "host-gateway" stands for.
func (s *Service) hostGateways() []netip.Addr {
	if len(s.cfg.HostGateway) > 0 {
		return s.cfg.HostGateway
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.findLocked(network.BridgeName)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, p := range n.bridgeAddrs {
		out = append(out, p.Addr())
	}
	return out
}

// names is the name server's part of a sandbox.
func (s *Service) names(sb *sandbox) network.Names {
	n := network.Names{
		ContainerID: sb.att.ContainerID, Pid: sb.pid, DNS: sb.att.DNS, Upstream: sb.att.Upstream, Forward: true,
		Ports: sb.att.Ports,
	}
	for _, ep := range sb.att.Endpoints {
		if len(ep.DNSNames) == 0 {
			continue
		}
		known := network.NetworkNames{NetworkID: ep.NetworkID, NetworkName: ep.NetworkName, Names: ep.DNSNames}
		for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if p.IsValid() {
				known.Addrs = append(known.Addrs, p.Addr())
			}
		}
		n.Known = append(n.Known, known)
	}
	return n
}

// dropNames ends what the name server does for a sandbox, if it does anything.
func (s *Service) dropNames(ctx context.Context, att network.Attachment) error {
	if s.names(&sandbox{att: att}).Empty() {
		return nil
	}
	return s.cfg.Nameserver.Drop(ctx, att.ContainerID)
}

// opened completes the answer of Open.
func (s *Service) opened(out *Sandbox, sb *sandbox) *Sandbox {
	out.Handle = sb.handle
	out.Attachment = sb.att
	out.Release = func() { s.letGo(sb) }
	return out
}

// letGo closes the daemon's handle of a sandbox; it may be repeated.
func (s *Service) letGo(sb *sandbox) {
	s.mu.Lock()
	h := sb.handle
	sb.handle = nil
	s.mu.Unlock()
	if h != nil {
		if err := h.Close(); err != nil {
			s.cfg.Logger.Warn("close sandbox", "container", sb.att.ContainerID, "error", err)
		}
	}
}

func (s *Service) remember(sb *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes[sb.att.ContainerID] = sb
}

// announce publishes a network event per endpoint.
func (s *Service) announce(action events.Action, att network.Attachment) {
	now := s.cfg.Now()
	for _, ep := range att.Endpoints {
		driver := network.DriverBridge
		switch ep.NetworkName {
		case network.HostName:
			driver = network.DriverHost
		case network.NoneName:
			driver = network.DriverNull
		}
		s.cfg.Events.Publish(events.Message{
			Type: events.NetworkEventType, Action: action, Scope: "local",
			Time: now.Unix(), TimeNano: now.UnixNano(),
			Actor: events.Actor{ID: ep.NetworkID, Attributes: map[string]string{
				"container": att.ContainerID, "name": ep.NetworkName, "type": driver,
			}},
		})
	}
}
