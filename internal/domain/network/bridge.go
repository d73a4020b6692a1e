package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Option names of Docker's bridge driver.
const (
	OptBridgeName   = "com.docker.network.bridge.name"
	OptDefault      = "com.docker.network.bridge.default_bridge"
	OptICC          = "com.docker.network.bridge.enable_icc"
	OptMasquerade   = "com.docker.network.bridge.enable_ip_masquerade"
	OptHostIP       = "com.docker.network.bridge.host_binding_ipv4"
	OptGatewayMode4 = "com.docker.network.bridge.gateway_mode_ipv4"
	OptGatewayMode6 = "com.docker.network.bridge.gateway_mode_ipv6"
	OptInhibitIPv4  = "com.docker.network.bridge.inhibit_ipv4"
	OptTrusted      = "com.docker.network.bridge.trusted_host_interfaces"
)

// Option names that several drivers know.
const (
	OptMTU         = "com.docker.network.driver.mtu"
	OptIfacePrefix = "com.docker.network.container_iface_prefix"
	OptHostIPv4    = "com.docker.network.host_ipv4"
	OptHostIPv6    = "com.docker.network.host_ipv6"
	OptEnableIPv4  = "com.docker.network.enable_ipv4"
	OptEnableIPv6  = "com.docker.network.enable_ipv6"
	OptInternal    = "com.docker.network.internal"
)

// Option names of endpoints (--driver-opt of connect and --network).
const (
	OptEndpointIfname  = "com.docker.network.endpoint.ifname"
	OptEndpointSysctls = "com.docker.network.endpoint.sysctls"
	OptEndpointMAC     = "com.docker.network.endpoint.macaddress"
)

// GatewayMode says how a bridge network reaches what is outside.
type GatewayMode string

// Gateway modes of the bridge driver. The empty one is GatewayNAT.
const (
	// GatewayNAT: containers speak with the host's address, and are reached by
	// published ports only.
	GatewayNAT GatewayMode = "nat"
	// GatewayNATUnprotected: as NAT, but whoever has a route to a container
	// reaches all of its ports.
	GatewayNATUnprotected GatewayMode = "nat-unprotected"
	// GatewayRouted: containers speak with their own address; published ports
	// are those that are reached by it. Nothing is translated.
	GatewayRouted GatewayMode = "routed"
	// GatewayIsolated: the bridge has no address; only for internal networks.
	GatewayIsolated GatewayMode = "isolated"
)

// BridgeOptions are the options of a bridge network as values.
type BridgeOptions struct {
	// Name of the device; empty derives it from the network's id.
	Name string
	// MTU in bytes; 0 is 1500.
	MTU int
	// ICC lets containers of the network reach each other (true).
	ICC bool
	// Masquerade hides containers behind the host's address (true), HostIPv4
	// and HostIPv6 behind this one.
	Masquerade         bool
	HostIPv4, HostIPv6 netip.Addr
	// BindIP is where ports are published that name no address; invalid is the
	// daemon's default.
	BindIP       netip.Addr
	Mode4, Mode6 GatewayMode
	// InhibitIPv4: the bridge gets no IPv4 address.
	InhibitIPv4 bool
	// Prefix of interface names in containers; empty is "eth".
	Prefix string
	// Trusted interfaces may send to the containers' own addresses, to
	// published ports only.
	Trusted []string
	// Input of published ports; empty is the daemon's default.
	Input   Input
	Default bool
}

// ParseBridgeOptions reads the options of a bridge network; unknown ones are
// not its concern. ErrInvalidArgument with Docker's text.
func ParseBridgeOptions(options map[string]string) (BridgeOptions, error) {
	o := BridgeOptions{ICC: true, Masquerade: true}
	bad := func(key, value, why string) error {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("failed to parse %s value: %s (%s)", key, value, why))
	}
	var errs []error
	flag := func(key, v string, into *bool) {
		b, err := strconv.ParseBool(v)
		if err != nil {
			errs = append(errs, bad(key, v, err.Error()))
		}
		*into = b
	}
	addr := func(key, v string, into *netip.Addr) {
		a, err := netip.ParseAddr(v)
		if err != nil {
			errs = append(errs, bad(key, v, "nil ip"))
		}
		*into = a.Unmap()
	}
	mode := func(key, v string, into *GatewayMode) {
		switch m := GatewayMode(v); m {
		case GatewayNAT, GatewayNATUnprotected, GatewayRouted, GatewayIsolated:
			*into = m
		default:
			errs = append(errs, bad(key, v, "unknown gateway mode "+v))
		}
	}
	keys := make([]string, 0, len(options))
	for key := range options {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var ignored bool
	for _, key := range keys {
		v := options[key]
		switch key {
		case OptBridgeName:
			o.Name = v
		case OptMTU:
			n, err := strconv.Atoi(v)
			if err != nil {
				errs = append(errs, bad(key, v, err.Error()))
			}
			o.MTU = n
		case OptICC:
			flag(key, v, &o.ICC)
		case OptMasquerade:
			flag(key, v, &o.Masquerade)
		case OptInhibitIPv4:
			flag(key, v, &o.InhibitIPv4)
		case OptDefault:
			flag(key, v, &o.Default)
		case OptEnableIPv4, OptEnableIPv6:
			flag(key, v, &ignored)
		case OptHostIP:
			addr(key, v, &o.BindIP)
		case OptHostIPv4:
			addr(key, v, &o.HostIPv4)
		case OptHostIPv6:
			addr(key, v, &o.HostIPv6)
		case OptGatewayMode4:
			mode(key, v, &o.Mode4)
		case OptGatewayMode6:
			mode(key, v, &o.Mode6)
		case OptIfacePrefix:
			o.Prefix = v
		case OptTrusted:
			o.Trusted = strings.FieldsFunc(v, func(r rune) bool { return r == ':' })
		}
	}
	if len(errs) > 0 {
		return o, errs[0]
	}
	if _, err := ParseEgress(options); err != nil {
		return o, err
	}
	if v, ok := options[OptPublishInput]; ok {
		var err error
		if o.Input, err = ParseInput(OptPublishInput, v); err != nil {
			return o, err
		}
	}
	if o.Input == InputObey && (o.Mode4 == GatewayRouted || o.Mode6 == GatewayRouted) {
		return o, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s=%s is of no use with gateway mode routed: ports are reached by the containers' own addresses", OptPublishInput, InputObey))
	}
	if o.MTU < 0 {
		return o, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid MTU number: %d", o.MTU))
	}
	return o, nil
}

// DefaultMTU of interfaces, in bytes.
const DefaultMTU = 1500

// BridgeDevice is the device name of a network that names none: Docker's.
func BridgeDevice(id string) string {
	if len(id) > 12 {
		id = id[:12]
	}
	return "br-" + id
}

// Subnets are all subnets of the network.
func (r Record) Subnets() []netip.Prefix {
	var out []netip.Prefix
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() {
			out = append(out, c.Subnet)
		}
	}
	return out
}

// subnets of a record's family: the configured subnet, its gateway (invalid
// for none) and range.
func (r Record) subnets(ipv6 bool) (subnet netip.Prefix, gateway netip.Addr) {
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is6() == ipv6 {
			return c.Subnet, c.Gateway
		}
	}
	return netip.Prefix{}, netip.Addr{}
}

// BridgeOf is the wanted state of a bridge network's device. ports are the
// interfaces of running containers that belong to it.
func BridgeOf(r Record, ports []string) (Bridge, error) {
	o, err := ParseBridgeOptions(r.Options)
	if err != nil {
		return Bridge{}, err
	}
	b := Bridge{Device: r.Device, Foreign: r.Foreign && o.Default, MTU: cmp.Or(o.MTU, DefaultMTU), Isolated: !o.ICC, Ports: ports}
	if r.EnableIPv4 {
		own, gw := r.subnets(false)
		b.Localnet = own.IsValid()
		if own.IsValid() && gw.IsValid() && !o.InhibitIPv4 && o.Mode4 != GatewayIsolated {
			b.Addrs = append(b.Addrs, netip.PrefixFrom(cmp.Or(r.BridgeAddr4, gw), own.Bits()))
		}
	}
	if r.EnableIPv6 {
		own, gw := r.subnets(true)
		b.IPv6 = own.IsValid()
		if own.IsValid() && gw.IsValid() && o.Mode6 != GatewayIsolated {
			b.Addrs = append(b.Addrs, netip.PrefixFrom(cmp.Or(r.BridgeAddr6, gw), own.Bits()))
		}
	}
	return b, nil
}

// BridgeRulesOf are the firewall's rules of a bridge network.
func BridgeRulesOf(r Record) (BridgeRules, error) {
	o, err := ParseBridgeOptions(r.Options)
	if err != nil {
		return BridgeRules{}, err
	}
	b := BridgeRules{
		Device: r.Device, ICC: o.ICC, Masquerade: o.Masquerade, Internal: r.Internal,
		Mode4: o.Mode4, Mode6: o.Mode6, Source4: o.HostIPv4, Source6: o.HostIPv6, Trusted: o.Trusted,
	}
	if b.Egress, err = ParseEgress(r.Options); err != nil {
		return BridgeRules{}, err
	}
	for _, c := range r.IPAM.Config {
		b.Subnets = append(b.Subnets, c.Subnet)
	}
	return b, nil
}
