package plugin

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
)

const kindNetwork = "NetworkDriver"

// NetworkDriver is networks.Driver by a plugin's NetworkDriver methods. It is
// safe for concurrent use.
type NetworkDriver struct {
	reg  *Registry
	name string

	mu sync.Mutex
	// fresh are networks that are being made in this life of the daemon: only
	// those does Ensure tell the plugin about, which remembers its own.
	fresh map[string]bool
	// gateways: the plugin decides whether gateways are set aside.
	gateways bool
}

// NetworkDriver finds a plugin and asks what it can do. ErrNotFound when there
// is none of that name, or it is no network driver.
func (r *Registry) NetworkDriver(ctx context.Context, name string) (*NetworkDriver, error) {
	if _, err := r.get(ctx, name, kindNetwork); err != nil {
		return nil, err
	}
	return r.NetworkDriverLater(name), nil
}

// NetworkDriverLater is a driver that is looked for when it is needed: for
// networks of an earlier life of the daemon, whose plugin may start after it.
func (r *Registry) NetworkDriverLater(name string) *NetworkDriver {
	return &NetworkDriver{reg: r, name: name, fresh: map[string]bool{}}
}

// call calls a method; an answer's Err is an error.
func (d *NetworkDriver) call(ctx context.Context, method string, args any, answer interface{ failure() string }) error {
	c, err := d.reg.get(ctx, d.name, kindNetwork)
	if err != nil {
		return err
	}
	if err := c.call(ctx, kindNetwork+"."+method, args, answer); err != nil {
		return err
	}
	if text := answer.failure(); text != "" {
		return errdefs.ErrInternal.WithMessage("remote: " + text)
	}
	return nil
}

// result is what every answer of a network driver may have.
type result struct{ Err string }

func (r *result) failure() string { return r.Err }

// Capabilities asks for the scope of the plugin's networks.
func (d *NetworkDriver) Capabilities(ctx context.Context) (network.Capabilities, error) {
	var a struct {
		result
		Scope          string
		GwAllocChecker bool
	}
	if err := d.call(ctx, "GetCapabilities", nil, &a); err != nil {
		return network.Capabilities{}, err
	}
	if a.Scope != "local" && a.Scope != "global" {
		return network.Capabilities{}, errdefs.ErrInternal.WithMessage("invalid capability: expecting 'local' or 'global', got " + a.Scope)
	}
	d.mu.Lock()
	d.gateways = a.GwAllocChecker
	d.mu.Unlock()
	return network.Capabilities{Scope: a.Scope}, nil
}

// options of a network as the protocol has them.
func options(rec network.Record) map[string]any {
	generic := maps.Clone(rec.Options)
	if generic == nil {
		generic = map[string]string{}
	}
	out := map[string]any{
		"com.docker.network.generic":     generic,
		"com.docker.network.enable_ipv4": rec.EnableIPv4,
		"com.docker.network.enable_ipv6": rec.EnableIPv6,
	}
	if rec.Internal {
		out["com.docker.network.internal"] = true
	}
	return out
}

// Prepare asks whether gateways are wanted.
func (d *NetworkDriver) Prepare(ctx context.Context, rec *network.Record) (network.Wants, error) {
	d.mu.Lock()
	d.fresh[rec.ID] = true
	ask := d.gateways
	d.mu.Unlock()
	if !ask {
		return network.Wants{Gateway4: true, Gateway6: true}, nil
	}
	var a struct {
		result
		SkipIPv4, SkipIPv6 bool
	}
	err := d.call(ctx, "GwAllocCheck", map[string]any{"Options": options(*rec)}, &a)
	return network.Wants{Gateway4: !a.SkipIPv4, Gateway6: !a.SkipIPv6}, err
}

// ipamData is one subnet.
type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

func subnets(rec network.Record, ipv6 bool) []ipamData {
	out := []ipamData{}
	for _, c := range rec.IPAM.Config {
		if !c.Subnet.IsValid() || c.Subnet.Addr().Is6() != ipv6 {
			continue
		}
		d := ipamData{AddressSpace: "LocalDefault", Pool: c.Subnet.String()}
		if c.Gateway.IsValid() {
			d.Gateway = netip.PrefixFrom(c.Gateway, c.Subnet.Bits()).String()
		}
		for name, aux := range c.AuxAddress {
			if d.AuxAddresses == nil {
				d.AuxAddresses = map[string]string{}
			}
			d.AuxAddresses[name] = netip.PrefixFrom(aux.Unmap(), c.Subnet.Bits()).String()
		}
		out = append(out, d)
	}
	return out
}

// Ensure tells the plugin of a new network; it remembers those it was told of.
func (d *NetworkDriver) Ensure(ctx context.Context, rec network.Record, _ []network.Endpoint) error {
	d.mu.Lock()
	fresh := d.fresh[rec.ID]
	delete(d.fresh, rec.ID)
	d.mu.Unlock()
	if !fresh {
		return nil
	}
	return d.call(ctx, "CreateNetwork", map[string]any{
		"NetworkID": rec.ID, "Options": options(rec), "IPv4Data": subnets(rec, false), "IPv6Data": subnets(rec, true),
	}, &result{})
}

// Remove tells the plugin that a network is gone.
func (d *NetworkDriver) Remove(ctx context.Context, rec network.Record) error {
	return d.call(ctx, "DeleteNetwork", map[string]any{"NetworkID": rec.ID}, &result{})
}

// endpointInterface is an endpoint's part of both directions.
type endpointInterface struct{ Address, AddressIPv6, MacAddress string }

// Join creates the endpoint and joins it to its sandbox.
func (d *NetworkDriver) Join(ctx context.Context, j network.Join) (network.Interface, error) {
	ep := j.Endpoint
	ids := func(more map[string]any) map[string]any {
		out := map[string]any{"NetworkID": j.Network.ID, "EndpointID": ep.ID}
		maps.Copy(out, more)
		return out
	}
	opts := map[string]any{}
	for k, v := range ep.Options {
		opts[k] = v
	}
	portOptions(opts, j)
	ask := endpointInterface{}
	if ep.IPv4.IsValid() {
		ask.Address = ep.IPv4.String()
	}
	if ep.IPv6.IsValid() {
		ask.AddressIPv6 = ep.IPv6.String()
	}
	// Without a wish of the user the plugin chooses.
	if ep.MAC != "" && !derived(*ep) {
		ask.MacAddress = ep.MAC
	}
	var made struct {
		result
		Interface *endpointInterface
	}
	if err := d.call(ctx, "CreateEndpoint", ids(map[string]any{"Interface": ask, "Options": opts}), &made); err != nil {
		return network.Interface{}, err
	}
	ep.MAC = ask.MacAddress
	if err := take(ep, ask, made.Interface); err != nil {
		return network.Interface{}, err
	}
	var a struct {
		result
		InterfaceName         *struct{ SrcName, DstName, DstPrefix string }
		Gateway, GatewayIPv6  string
		StaticRoutes          []staticRoute
		DisableGatewayService bool
	}
	if err := d.call(ctx, "Join", ids(map[string]any{"SandboxKey": j.SandboxKey, "Options": opts}), &a); err != nil {
		return network.Interface{}, err
	}
	if a.InterfaceName == nil || a.InterfaceName.SrcName == "" {
		return network.Interface{}, errdefs.ErrInternal.WithMessage(fmt.Sprintf("network driver %s named no interface", d.name))
	}
	ep.HostLink = a.InterfaceName.SrcName
	if name := a.InterfaceName.DstName; name != "" {
		ep.InnerLink = name
	} else if prefix := a.InterfaceName.DstPrefix; prefix != "" {
		ep.InnerLink = prefix + strings.TrimLeft(ep.InnerLink, "abcdefghijklmnopqrstuvwxyz")
	}
	var err error
	if ep.Gateway4, err = gateway(a.Gateway, "Gateway"); err != nil {
		return network.Interface{}, err
	}
	if ep.Gateway6, err = gateway(a.GatewayIPv6, "GatewayIPv6"); err != nil {
		return network.Interface{}, err
	}
	for _, r := range a.StaticRoutes {
		route, err := r.route()
		if err != nil {
			return network.Interface{}, err
		}
		ep.Routes = append(ep.Routes, route)
	}
	if ep.Default4 || ep.Default6 {
		err := d.call(ctx, "ProgramExternalConnectivity", ids(map[string]any{"Options": opts}), &result{})
		if err != nil && !missing(err) {
			return network.Interface{}, err
		}
	}
	return network.Interface{Kind: network.Moved, HostLink: ep.HostLink, InnerLink: ep.InnerLink, MAC: ep.MAC}, nil
}

func derived(ep network.Endpoint) bool {
	return ep.IPv4.IsValid() && ep.MAC == network.MAC(ep.IPv4.Addr()) || ep.IPv6.IsValid() && ep.MAC == network.MAC(ep.IPv6.Addr())
}

// portOptions adds exposed and published ports in the protocol's form.
func portOptions(opts map[string]any, j network.Join) {
	numbers := map[string]int{"tcp": 6, "udp": 17, "sctp": 132}
	type port struct{ Proto, Port int }
	exposed := []port{}
	for _, e := range j.Exposed {
		number, proto, _ := strings.Cut(e, "/")
		n, err := strconv.Atoi(number)
		if err == nil && numbers[proto] != 0 {
			exposed = append(exposed, port{numbers[proto], n})
		}
	}
	if len(exposed) > 0 {
		opts["com.docker.network.endpoint.exposedports"] = exposed
	}
	type binding struct {
		Proto                 int
		IP                    string
		Port                  int
		HostIP                string
		HostPort, HostPortEnd int
	}
	bindings := []binding{}
	for _, b := range j.Ports {
		bindings = append(bindings, binding{
			Proto: numbers[b.Proto], IP: b.ContainerIP.String(), Port: int(b.ContainerPort),
			HostIP: b.HostIP.String(), HostPort: int(b.HostPort), HostPortEnd: int(b.HostPort),
		})
	}
	if len(bindings) > 0 {
		opts["com.docker.network.portmap"] = bindings
	}
}

// take enters what the plugin decided: only what was left to it.
func take(ep *network.Endpoint, asked endpointInterface, got *endpointInterface) error {
	if got == nil {
		return nil
	}
	modified := func(what string) error {
		return errdefs.ErrInternal.WithMessage("driver modified interface " + what)
	}
	if got.MacAddress != "" {
		mac, err := net.ParseMAC(got.MacAddress)
		if err != nil {
			return errdefs.ErrInternal.WithMessage(err.Error())
		}
		if asked.MacAddress != "" {
			return modified("MAC address")
		}
		ep.MAC = mac.String()
	}
	for _, a := range []struct {
		asked, got string
		into       *netip.Prefix
	}{{asked.Address, got.Address, &ep.IPv4}, {asked.AddressIPv6, got.AddressIPv6, &ep.IPv6}} {
		if a.got == "" {
			continue
		}
		p, err := netip.ParsePrefix(a.got)
		if err != nil {
			return errdefs.ErrInternal.WithMessage(err.Error())
		}
		if a.asked != "" {
			return modified("address")
		}
		*a.into = p
	}
	return nil
}

func gateway(text, name string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, errdefs.ErrInternal.WithMessage(fmt.Sprintf("unable to parse %s %q", name, text))
	}
	return a.Unmap(), nil
}

// staticRoute of an answer to Join; type 1 is on the link.
type staticRoute struct {
	Destination string
	RouteType   int
	NextHop     string
}

func (r staticRoute) route() (network.Route, error) {
	to, err := netip.ParsePrefix(r.Destination)
	if err != nil {
		return network.Route{}, errdefs.ErrInternal.WithMessage(err.Error())
	}
	out := network.Route{To: to}
	if r.NextHop != "" {
		if out.Via, err = netip.ParseAddr(r.NextHop); err != nil {
			return network.Route{}, errdefs.ErrInternal.WithMessage("failed to parse nexthop IP " + r.NextHop)
		}
	}
	return out, nil
}

// Leave takes the endpoint out of its sandbox and deletes it.
func (d *NetworkDriver) Leave(ctx context.Context, rec network.Record, ep network.Endpoint) error {
	ids := map[string]any{"NetworkID": rec.ID, "EndpointID": ep.ID}
	if ep.Default4 || ep.Default6 {
		if err := d.call(ctx, "RevokeExternalConnectivity", ids, &result{}); err != nil && !missing(err) {
			return err
		}
	}
	if err := d.call(ctx, "Leave", ids, &result{}); err != nil {
		return err
	}
	return d.call(ctx, "DeleteEndpoint", ids, &result{})
}

// Info is what the plugin tells of an endpoint.
func (d *NetworkDriver) Info(ctx context.Context, rec network.Record, ep network.Endpoint) (map[string]string, error) {
	var a struct {
		result
		Value map[string]any
	}
	if err := d.call(ctx, "EndpointOperInfo", map[string]any{"NetworkID": rec.ID, "EndpointID": ep.ID}, &a); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(a.Value)) {
		out[k] = fmt.Sprint(a.Value[k])
	}
	return out, nil
}

// Links of the plugin's are its own.
func (d *NetworkDriver) Links(context.Context, network.Record) ([]string, error) { return nil, nil }
