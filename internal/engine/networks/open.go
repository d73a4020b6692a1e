package networks

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
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
	// att is replaced, never changed in place, once the sandbox is in
	// Service.sandboxes. Guarded by Service.mu.
	att network.Attachment
	// asked is the request's own view of the endpoints by network id, for
	// inspect. Replaced like att.
	asked map[string]*networktypes.EndpointSettings
	// req is what the sandbox was opened with; its zero value for one that was
	// taken over.
	req SandboxRequest
	// turn is taken by who connects or disconnects: one change at a time.
	turn chan struct{}
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

// parseMode finds the networks of a request. With hold they cannot be removed
// until unhold.
func (s *Service) parseMode(req SandboxRequest, hold bool) (mode, error) {
	nm := containertypes.NetworkMode(req.Mode)
	if req.Mode == "" {
		nm = networktypes.NetworkDefault
	}
	switch {
	case nm.IsHost():
		return mode{kind: "host"}, nil
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
	// The network of the mode comes first. Who was taken off it is on the
	// others only.
	var names []string
	_, under := req.Endpoints[first]
	_, byDefault := req.Endpoints[networktypes.NetworkDefault]
	if req.Endpoints == nil || under || first == network.BridgeName && byDefault || s.anyIsLocked(req.Endpoints, first) {
		names = append(names, first)
	}
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
		if n.rec.Driver == network.DriverNull && n.rec.Name == network.NoneName && len(names) == 1 {
			return mode{kind: "none"}, nil
		}
		if err := n.joinable(); err != nil {
			return mode{}, err
		}
		if !slices.Contains(m.networks, n) {
			m.networks = append(m.networks, n)
		}
	}
	if hold {
		for _, n := range m.networks {
			n.joining++
		}
	}
	return m, nil
}

// anyIsLocked reports whether one of the endpoints is on the network ref, under
// another of its names; Service.mu is held.
func (s *Service) anyIsLocked(endpoints map[string]*networktypes.EndpointSettings, ref string) bool {
	n, err := s.findLocked(ref)
	if err != nil {
		return false
	}
	for name := range endpoints {
		if other, err := s.findLocked(name); err == nil && other == n {
			return true
		}
	}
	return false
}

// joinable says why a container cannot get an endpoint on a network beside
// others.
func (n *netState) joinable() error {
	switch {
	case n.rec.ConfigOnly:
		return errdefs.ErrPermissionDenied.WithMessage("cannot create endpoint on configuration-only network")
	case n.rec.Driver == network.DriverHost:
		return errdefs.ErrInvalidArgument.WithMessage("cannot connect container to host network - container must be created in host network mode")
	case n.rec.Driver == network.DriverNull && n.rec.Name == network.NoneName:
		return errdefs.ErrInvalidArgument.WithMessage("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case n.broken != nil:
		return fmt.Errorf("network %s could not be set up when the engine started: %w", n.rec.Name, n.broken)
	}
	return nil
}

func (s *Service) unhold(nets ...*netState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nets {
		n.joining--
	}
}

// Check says whether a request could be opened, without changing anything.
// ErrNotFound for an unknown network; ErrInvalidArgument for what is malformed.
func (s *Service) Check(_ context.Context, req SandboxRequest) error {
	m, err := s.parseMode(req, false)
	if err != nil {
		return err
	}
	if _, err := s.wantedPorts(req, netip.Addr{}); err != nil {
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
	subnets := []netip.Prefix{}
	for _, p := range n.pools {
		subnets = append(subnets, p.subnet)
	}
	return network.CheckEndpoint(ep, n.rec.Predefined(), subnets)
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

// wantedPorts reads what a request publishes; bind, when valid, replaces the
// daemon's address for ports that name none.
func (s *Service) wantedPorts(req SandboxRequest, bind netip.Addr) ([]network.WantedPort, error) {
	if !bind.IsValid() {
		bind = s.cfg.Default.HostIP
	}
	rules, err := network.ParsePublish(req.Publish)
	if err != nil {
		return nil, err
	}
	wanted, err := network.WantedPorts(req.Exposed, req.Bindings, req.PublishAll, bind, s.ipv6)
	for i, w := range wanted {
		wanted[i].Input = rules.Of(w.Proto, w.ContainerPort)
	}
	return wanted, err
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
	m, err := s.parseMode(req, true)
	if err != nil {
		return nil, err
	}
	defer s.unhold(m.networks...)
	s.mu.Lock()
	_, exists := s.sandboxes[req.ContainerID]
	s.mu.Unlock()
	if exists {
		return nil, errdefs.ErrConflict.WithMessage("container " + req.ContainerID + " already has a sandbox")
	}
	sb := &sandbox{asked: map[string]*networktypes.EndpointSettings{}, req: req, turn: make(chan struct{}, 1), att: network.Attachment{
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
	raw, source, err := s.cfg.Host.ResolvConf()
	if err != nil {
		return nil, err
	}
	servers, search, options := s.dns(req)
	out := &Sandbox{Attachment: sb.att, Release: func() {}}
	out.ResolvConf = network.ParseResolvConf(raw, source).Override(servers, search, options).Bytes()
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
	s.announce(events.ActionConnect, sb.att.ContainerID, sb.att.Endpoints...)
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
	out, err := s.files(req, sb)
	if err != nil {
		return nil, err
	}
	h, err := s.cfg.Sandboxes.Open(ctx, network.SandboxPlan{Remapped: req.Remapped, UserNSPath: req.UserNSPath})
	if err != nil {
		return nil, err
	}
	sb.handle = h
	s.remember(sb)
	s.announce(events.ActionConnect, sb.att.ContainerID, sb.att.Endpoints...)
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
	return []network.Endpoint{{ID: s.cfg.NewID(), NetworkID: n.rec.ID, NetworkName: n.rec.Name, Driver: n.rec.Driver}}
}

// openBridged is the sandbox with interfaces on networks.
func (s *Service) openBridged(ctx context.Context, req SandboxRequest, sb *sandbox, nets []*netState) (_ *Sandbox, err error) {
	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(context.WithoutCancel(ctx), s.cfg.Logger)
		}
	}()

	for i, n := range nets {
		ask := asked(req, n)
		if i == 0 && req.MacAddress != "" && (ask == nil || len(ask.MacAddress) == 0) {
			if ask, err = withMAC(ask, req.MacAddress); err != nil {
				return nil, err
			}
		}
		ep, err := s.newEndpoint(ctx, req, n, ask, sb.att.Endpoints)
		if err != nil {
			return nil, err
		}
		undo.add("release addresses", func(ctx context.Context) error {
			s.release(ctx, ep, false)
			return nil
		})
		sb.att.Endpoints = append(sb.att.Endpoints, ep)
		sb.asked[n.rec.ID] = asked(req, n)
	}
	sb.att.Endpoints = network.ChooseDefaults(sb.att.Endpoints)
	out, err := s.files(req, sb)
	if err != nil {
		return nil, err
	}

	// Ports first: a port that is taken must be refused before anything changes.
	if err := s.reserve(ctx, req, sb); err != nil {
		return nil, s.portError(req.Name, sb.att, err)
	}
	undo.add("release ports", func(ctx context.Context) error {
		s.releasePorts(sb.att.Ports)
		return s.dropNames(ctx, sb.att)
	})

	var plan network.SandboxPlan
	for i, n := range nets {
		itf, err := s.join(ctx, sb, n, &sb.att.Endpoints[i], &undo)
		if err != nil {
			return nil, err
		}
		plan.Interfaces = append(plan.Interfaces, itf)
	}
	// Drivers may have named gateways.
	sb.att.Endpoints = network.ChooseDefaults(sb.att.Endpoints)
	for i, ep := range sb.att.Endpoints {
		itf := &plan.Interfaces[i]
		if ep.Default4 {
			itf.Gateway4, itf.OnLink4 = ep.Gateway4, ep.OnLink4
		}
		if ep.Default6 {
			itf.Gateway6, itf.OnLink6 = ep.Gateway6, ep.OnLink6
		}
	}
	plan.Remapped, plan.UserNSPath = req.Remapped, req.UserNSPath
	h, err := s.cfg.Sandboxes.Open(ctx, plan)
	if err != nil {
		return nil, err
	}
	undo.add("close sandbox", func(context.Context) error { return h.Close() })
	for i, itf := range plan.Interfaces {
		if itf.Kind != network.Moved {
			sb.att.Endpoints[i].HostLink = itf.HostLink
		}
	}
	sb.handle = h
	if sb.att.DNS {
		if err := s.cfg.Nameserver.Put(ctx, s.names(sb.att, 0), h); err != nil {
			return nil, err
		}
	}
	if len(sb.att.Ports) > 0 {
		if err := s.cfg.Firewall.Publish(ctx, sb.att.Ports); err != nil {
			return nil, s.portError(req.Name, sb.att, err)
		}
		undo.add("unpublish ports", func(ctx context.Context) error {
			return s.cfg.Firewall.Unpublish(ctx, sb.att.Ports)
		})
		if err := s.cfg.Nameserver.Settle(ctx); err != nil {
			return nil, s.portError(req.Name, sb.att, err)
		}
	}
	out.Attachment = sb.att
	s.remember(sb)
	s.announce(events.ActionConnect, sb.att.ContainerID, sb.att.Endpoints...)
	return s.opened(out, sb), nil
}

// join has the network's driver say how an endpoint is connected.
func (s *Service) join(ctx context.Context, sb *sandbox, n *netState, ep *network.Endpoint, undo *undoStack) (network.Interface, error) {
	// A driver may have begun when it fails.
	undo.add("leave network", func(ctx context.Context) error { return n.driver.Leave(ctx, n.rec, *ep) })
	itf, err := n.driver.Join(ctx, network.Join{
		Network: n.rec, ContainerID: sb.att.ContainerID, SandboxKey: sb.att.SandboxID, Endpoint: ep,
		Ports: sb.att.Ports, Exposed: sb.att.Exposed,
	})
	if err != nil {
		return network.Interface{}, fmt.Errorf("failed to create endpoint %s on network %s: %w", sb.att.Name, n.rec.Name, err)
	}
	ep.Kind = itf.Kind
	itf.InnerLink, itf.MAC, itf.Routes = ep.InnerLink, ep.MAC, ep.Routes
	for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
		if p.IsValid() {
			itf.Addrs = append(itf.Addrs, p)
		}
	}
	for _, a := range ep.LinkLocal {
		itf.Addrs = append(itf.Addrs, linkLocal(a))
	}
	if itf.Sysctls, err = network.Sysctls(ep.Options); err != nil {
		return network.Interface{}, err
	}
	n.mu.Lock()
	n.chosenMAC = n.chosenMAC || !derivedMAC(*ep)
	itf.Announce = n.chosenMAC
	n.mu.Unlock()
	return itf, nil
}

// linkLocal is an address of --link-local-ip with the prefix that Docker gives
// it.
func linkLocal(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 16)
	}
	return netip.PrefixFrom(a, 64)
}

func withMAC(ask *networktypes.EndpointSettings, mac string) (*networktypes.EndpointSettings, error) {
	out := ask.Copy()
	if out == nil {
		out = &networktypes.EndpointSettings{}
	}
	if err := out.MacAddress.UnmarshalText([]byte(mac)); err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage("invalid MAC address " + mac)
	}
	return out, nil
}

// portError has the words that Docker's users search for.
func (s *Service) portError(name string, att network.Attachment, err error) error {
	id := ""
	for _, ep := range att.Endpoints {
		if ep.Default4 || ep.Default6 && id == "" {
			id = ep.ID
		}
	}
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", name, id, err)
}

// newEndpoint decides addresses and names of one endpoint. others are those
// that the sandbox has already.
func (s *Service) newEndpoint(ctx context.Context, req SandboxRequest, n *netState, ask *networktypes.EndpointSettings, others []network.Endpoint) (network.Endpoint, error) {
	if err := n.checkEndpoint(ask); err != nil {
		return network.Endpoint{}, err
	}
	if ask == nil {
		ask = &networktypes.EndpointSettings{}
	}
	name, err := s.linkName(n, ask.DriverOpts, others)
	if err != nil {
		return network.Endpoint{}, err
	}
	mac := ""
	if len(ask.MacAddress) > 0 {
		mac = ask.MacAddress.String()
	}
	addr4, addr6, err := s.addresses(ctx, req, n, ask, mac)
	if err != nil {
		return network.Endpoint{}, err
	}
	switch {
	case mac != "":
	case addr4.IsValid():
		mac = network.MAC(addr4.Addr())
	case addr6.IsValid():
		mac = network.MAC(addr6.Addr())
	}
	ep := network.Endpoint{
		ID: s.cfg.NewID(), NetworkID: n.rec.ID, NetworkName: n.rec.Name, Driver: n.rec.Driver,
		HostLink: newLinkName(), InnerLink: name, MAC: mac, IPv4: addr4, IPv6: addr6,
		Priority: ask.GwPriority, Options: ask.DriverOpts, Aliases: slices.Clone(ask.Aliases),
		NoGateway: n.rec.Internal,
	}
	if addr4.IsValid() {
		ep.Gateway4 = n.gatewayOf(addr4)
	}
	if addr6.IsValid() {
		ep.Gateway6 = n.gatewayOf(addr6)
	}
	if ask.IPAMConfig != nil {
		ep.LinkLocal = slices.Clone(ask.IPAMConfig.LinkLocalIPs)
	}
	if !n.rec.Predefined() {
		ep.DNSNames = dnsNames(req, ep.Aliases)
		if ep.Links, err = network.ParseLinks(ask.Links); err != nil {
			return network.Endpoint{}, err
		}
	}
	return ep, nil
}

// addresses decides the addresses of an endpoint: those asked for, those the
// container just had, those it had before if they are free, or the lowest.
func (s *Service) addresses(ctx context.Context, req SandboxRequest, n *netState, ask *networktypes.EndpointSettings, mac string) (addr4, addr6 netip.Prefix, err error) {
	var want4, want6 netip.Addr
	if ask.IPAMConfig != nil {
		want4, want6 = ask.IPAMConfig.IPv4Address.Unmap(), ask.IPAMConfig.IPv6Address
	}
	if addr4, addr6, ok := s.reclaim(ctx, req.ContainerID, n, want4, want6); ok {
		return addr4, addr6, nil
	}
	if !want4.IsValid() && !want6.IsValid() {
		if addr4, addr6, ok := n.previous(req.Previous); ok {
			return addr4, addr6, nil
		}
	}
	return n.allocate(ctx, want4, want6, mac)
}

// linkName is the interface's name in the sandbox: the one asked for, or the
// prefix of the network with the first number that is free.
func (s *Service) linkName(n *netState, options map[string]string, others []network.Endpoint) (string, error) {
	taken := func(name string) bool {
		return name == "lo" || slices.ContainsFunc(others, func(e network.Endpoint) bool { return e.InnerLink == name })
	}
	if name := options[network.OptEndpointIfname]; name != "" {
		if taken(name) {
			return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("network interface name %q is already in use in the sandbox", name))
		}
		return name, nil
	}
	prefix := cmp.Or(n.rec.Options[network.OptIfacePrefix], "eth")
	for i := 0; ; i++ {
		if name := fmt.Sprintf("%s%d", prefix, i); !taken(name) {
			return name, nil
		}
	}
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
func (s *Service) reserve(ctx context.Context, req SandboxRequest, sb *sandbox) error {
	if len(req.Bindings) == 0 && !req.PublishAll {
		return nil
	}
	to, ok := s.leadOf(sb.att.Endpoints)
	if !ok {
		return nil
	}
	wanted, err := s.wantedPorts(req, to.bind)
	if err != nil || len(wanted) == 0 {
		return err
	}
	// Who was told of a container's end may have its ports, though they are only
	// about to be given back. Whose they may be is looked at before they are
	// asked for: later it may have given them back already.
	holders := s.beingClosed(func(att network.Attachment) bool { return len(att.Ports) > 0 })
	givenBack := func() bool {
		ends := holders
		holders = nil
		return awaitAll(ctx, ends)
	}
	var skip map[uint16]bool
	for attempt := 1; ; attempt++ {
		bindings, err := s.takePorts(wanted, to, skip)
		if err != nil && givenBack() {
			continue
		}
		if err != nil {
			return err
		}
		sb.att.Ports = bindings
		err = s.cfg.Nameserver.Put(ctx, s.names(sb.att, 0), nil)
		if err == nil {
			return nil
		}
		s.releasePorts(bindings)
		sb.att.Ports = nil
		busy, ok := network.IsPortBusy(err)
		if ok && givenBack() {
			continue
		}
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
func (s *Service) takePorts(wanted []network.WantedPort, to lead, skip map[uint16]bool) (bindings []network.Binding, err error) {
	s.portsMu.Lock()
	defer s.portsMu.Unlock()
	n := 0
	for _, w := range wanted {
		n += len(w.HostIPs)
	}
	bindings = make([]network.Binding, 0, n)
	var ips []netip.Addr
	var obeys []bool
	for _, w := range wanted {
		one := w
		one.HostIPs = ips[:0]
		obeys = append(obeys[:0], make([]bool, len(w.HostIPs))...)
		for i, ip := range w.HostIPs {
			_, _, reserved := to.target(ip)
			if obeys[i], err = network.DecideInput(w, to.input(ip), s.cfg.PublishInput, reserved); err != nil {
				break
			}
			if reserved {
				one.HostIPs = append(one.HostIPs, ip)
			}
		}
		ips = one.HostIPs
		port := uint16(0)
		if err == nil && len(one.HostIPs) > 0 {
			port, err = s.ports.Take(one, skip)
		}
		if err != nil {
			for _, b := range network.Reserved(bindings) {
				s.ports.Release(b.Proto, b.HostPort, b.HostIP)
			}
			return nil, err
		}
		for i, ip := range w.HostIPs {
			b := network.Binding{Proto: w.Proto, HostIP: ip, HostPort: port, ContainerPort: w.ContainerPort, ObeysInput: obeys[i]}
			target, direct, reserved := to.target(ip)
			if b.ContainerIP, b.Direct = target, direct; !reserved {
				b.HostPort = 0
			}
			bindings = append(bindings, b)
		}
	}
	return bindings, nil
}

func (s *Service) releasePorts(bindings []network.Binding) {
	s.portsMu.Lock()
	defer s.portsMu.Unlock()
	for _, b := range network.Reserved(bindings) {
		s.ports.Release(b.Proto, b.HostPort, b.HostIP)
	}
}

// files renders the three files of a sandbox of its own and records how names
// are resolved in it.
func (s *Service) files(req SandboxRequest, sb *sandbox) (*Sandbox, error) {
	extra, err := network.ParseExtraHosts(req.ExtraHosts, s.hostGateways())
	if err != nil {
		return nil, err
	}
	resolver, err := s.resolver(req, sb.att)
	if err != nil {
		return nil, err
	}
	sb.att.DNS, sb.att.Upstream, sb.att.OwnRoot = resolver.Embedded, resolver.Upstream, resolver.OwnRoot
	hostname := hostname(req)
	return &Sandbox{
		// Docker writes the IPv6 lines for every sandbox that may have ::1.
		Hosts:      network.HostsFile{IPv6: s.ipv6, Extra: extra, Addrs: sb.att.Addrs(), Hostname: hostname, Domainname: req.Domainname}.Bytes(),
		ResolvConf: resolver.File.Bytes(),
		Hostname:   []byte(hostname + "\n"),
		Attachment: sb.att,
	}, nil
}

func hostname(req SandboxRequest) string {
	if req.Hostname == "" && len(req.ContainerID) >= 12 {
		return req.ContainerID[:12]
	}
	return req.Hostname
}

// hostLine is what a container is called in its own /etc/hosts.
func hostLine(req SandboxRequest) string {
	return network.HostNames(hostname(req), req.Domainname)
}

// resolver decides how names are resolved in a sandbox with these endpoints.
func (s *Service) resolver(req SandboxRequest, att network.Attachment) (network.Resolver, error) {
	raw, source, err := s.cfg.Host.ResolvConf()
	if err != nil {
		return network.Resolver{}, err
	}
	servers, search, options := s.dns(req)
	rc := network.ParseResolvConf(raw, source).Override(servers, search, options)
	user, ipv6 := false, false
	for _, ep := range att.Endpoints {
		user = user || !network.Predefined(ep.NetworkName)
		ipv6 = ipv6 || ep.IPv6.IsValid()
	}
	switch {
	case att.Plain():
		return network.Resolver{File: rc}, nil
	case user:
		return network.EmbeddedResolver(rc, len(servers) > 0), nil
	}
	return network.LegacyResolver(rc, len(servers) > 0, ipv6), nil
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
	b, err := network.BridgeOf(n.rec, nil)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, p := range b.Addrs {
		out = append(out, p.Addr())
	}
	return out
}

// names is the name server's part of a sandbox.
func (s *Service) names(att network.Attachment, pid int) network.Names {
	n := network.Names{
		ContainerID: att.ContainerID, Pid: pid, DNS: att.DNS, Upstream: att.Upstream, OwnRoot: att.OwnRoot, Ports: network.Reserved(att.Ports),
	}
	for _, ep := range att.Endpoints {
		// A sandbox that is only on internal networks asks nobody outside.
		n.Forward = n.Forward || !ep.NoGateway
		if len(ep.DNSNames) == 0 {
			continue
		}
		known := network.NetworkNames{NetworkID: ep.NetworkID, NetworkName: ep.NetworkName, Names: ep.DNSNames, Links: ep.Links}
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
	if s.names(att, 0).Empty() {
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
func (s *Service) announce(action events.Action, containerID string, eps ...network.Endpoint) {
	for _, ep := range eps {
		s.tell(action, ep.NetworkID, ep.NetworkName, ep.Driver, containerID)
	}
}

func (s *Service) tell(action events.Action, id, name, driver, containerID string) {
	attributes := map[string]string{"name": name, "type": driver}
	if containerID != "" {
		attributes["container"] = containerID
	}
	now := s.cfg.Now()
	s.cfg.Events.Publish(events.Message{
		Type: events.NetworkEventType, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{ID: id, Attributes: attributes},
	})
}
