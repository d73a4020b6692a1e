package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
)

// Scopes of networks.
const (
	ScopeLocal = "local"
	ScopeSwarm = "swarm"
)

// ErrOverlap is the error of a subnet that another network has.
var ErrOverlap = errdefs.ErrPermissionDenied.WithMessage("Pool overlaps with other one on this address space")

// NameTaken is the error of a second network with a name.
func NameTaken(name string) error {
	return errdefs.ErrConflict.WithMessage("network with name " + name + " already exists")
}

func forbidden(format string, args ...any) error {
	return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf(format, args...))
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// NewRecord reads a create request as dockerd does: what is left to decide are
// the addresses, and what the driver knows better. Its subnets are those that
// were asked for. defaults are the daemon's options of each driver
// (--default-network-opt). config finds a configuration network by its name.
//
// ErrPermissionDenied, ErrInvalidArgument and ErrNotFound have Docker's text.
func NewRecord(req networktypes.CreateRequest, defaults map[string]map[string]string, config func(name string) (Record, bool)) (Record, error) {
	rec := Record{
		Schema: RecordSchema, Name: req.Name, Driver: req.Driver, Internal: req.Internal, Attachable: req.Attachable,
		Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels), ConfigOnly: req.ConfigOnly,
	}
	switch {
	case req.Name == "container" || strings.HasPrefix(req.Name, "container:"):
		return rec, forbidden("network name %q is reserved and cannot be created", req.Name)
	case Predefined(req.Name) || req.Name == networktypes.NetworkDefault:
		return rec, forbidden("operation is not permitted on predefined %s network ", req.Name)
	}
	if rec.Driver == "" {
		rec.Driver = DriverBridge
	}
	if rec.Driver == "overlay" {
		return rec, forbidden(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	}
	if rec.Options == nil {
		rec.Options = map[string]string{}
	}
	if req.ConfigFrom == nil {
		for k, v := range defaults[rec.Driver] {
			if _, ok := rec.Options[k]; !ok {
				rec.Options[k] = v
			}
		}
	}
	var err error
	if rec.EnableIPv4, err = family(req.EnableIPv4, rec.Options, OptEnableIPv4, true); err != nil {
		return rec, err
	}
	if rec.EnableIPv6, err = family(req.EnableIPv6, rec.Options, OptEnableIPv6, false); err != nil {
		return rec, err
	}
	rec.IPAM = networktypes.IPAM{Driver: IPAMDefault}
	if req.IPAM != nil {
		if err := checkIPAM(req.IPAM.Config, rec.EnableIPv6); err != nil {
			return rec, err
		}
		if req.IPAM.Driver != "" {
			rec.IPAM.Driver = req.IPAM.Driver
		}
		rec.IPAM.Options = maps.Clone(req.IPAM.Options)
		for _, c := range req.IPAM.Config {
			c.Subnet, c.IPRange, c.Gateway = unmap(c.Subnet).Masked(), unmap(c.IPRange).Masked(), c.Gateway.Unmap()
			rec.IPAM.Config = append(rec.IPAM.Config, c)
		}
	}
	if strings.TrimSpace(req.Name) == "" {
		return rec, invalid("invalid name: name is empty")
	}
	if err := checkConfigurations(req, rec); err != nil {
		return rec, err
	}
	if rec.ConfigOnly {
		rec.Driver, rec.Scope = DriverNull, ScopeLocal
		return rec, nil
	}
	if rec.Driver == DriverHost || rec.Driver == DriverNull {
		return rec, forbidden("only one instance of %q network is allowed", rec.Driver)
	}
	if req.ConfigFrom != nil && req.ConfigFrom.Network != "" {
		from, ok := config(req.ConfigFrom.Network)
		if !ok {
			return rec, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("configuration network %q does not exist", req.ConfigFrom.Network))
		}
		rec.ConfigFrom = req.ConfigFrom.Network
		rec.EnableIPv4, rec.EnableIPv6 = from.EnableIPv4, from.EnableIPv6
		rec.Labels, rec.Options = maps.Clone(from.Labels), maps.Clone(from.Options)
		rec.IPAM = from.IPAM
		rec.IPAM.Config = slices.Clone(from.IPAM.Config)
		if rec.Options == nil {
			rec.Options = map[string]string{}
		}
	}
	return rec, nil
}

// CheckScope refuses what the driver's networks cannot be, and what needs a
// cluster.
func CheckScope(req networktypes.CreateRequest, caps Capabilities) error {
	switch {
	case req.Scope != "" && !slices.Contains([]string{ScopeLocal, ScopeSwarm, "global"}, req.Scope):
		return invalid("invalid scope %q: it must be one of local, global, swarm", req.Scope)
	case req.Scope == ScopeLocal && caps.Scope == "global":
		return forbidden("cannot downgrade network scope for %s networks", req.Driver)
	case req.Ingress && caps.Scope != "global":
		return forbidden("Ingress network can only be global scope network")
	case req.Scope == ScopeSwarm:
		return forbidden("cannot create a swarm scoped network when swarm is not active")
	}
	return nil
}

// family decides whether a network has one: by the field, then by the option.
func family(asked *bool, options map[string]string, option string, otherwise bool) (bool, error) {
	if asked != nil {
		delete(options, option)
		return *asked, nil
	}
	v, ok := options[option]
	if !ok {
		return otherwise, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, invalid("driver-opt %q is not a valid bool", option)
	}
	return on, nil
}

func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func checkConfigurations(req networktypes.CreateRequest, rec Record) error {
	if req.ConfigOnly && (req.Ingress || req.Internal || req.Attachable || req.Scope != "") {
		return forbidden("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	}
	if req.ConfigFrom == nil || req.ConfigFrom.Network == "" {
		return nil
	}
	switch {
	case req.ConfigOnly:
		return forbidden("a configuration network cannot depend on another configuration network")
	case rec.IPAM.Driver != IPAMDefault || !rec.EnableIPv4 || rec.EnableIPv6 || len(rec.Labels) > 0 || len(rec.IPAM.Options) > 0 || len(rec.IPAM.Config) > 0:
		return forbidden("user-specified configurations are not supported if the network depends on a configuration network")
	case len(rec.Options) > 0:
		return forbidden("network driver options are not supported if the network depends on a configuration network")
	}
	return nil
}

// checkIPAM validates subnets, ranges, gateways and auxiliary addresses. What
// it finds is one error with a line for each.
func checkIPAM(configs []networktypes.IPAMConfig, enableIPv6 bool) error {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, c := range configs {
		version := 4
		if c.Subnet.Addr().Is6() {
			version = 6
		}
		if !enableIPv6 && version == 6 {
			continue
		}
		if c.Subnet != c.Subnet.Masked() {
			add("invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		}
		if c.IPRange.IsValid() {
			switch {
			case c.IPRange.Addr().Is6() != (version == 6):
				add("invalid ip-range %s: parent subnet is an IPv%d block", c.IPRange, version)
			default:
				if c.IPRange.Bits() < c.Subnet.Bits() {
					add("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", c.IPRange, c.Subnet)
				}
				if c.IPRange != c.IPRange.Masked() {
					add("invalid ip-range %s: it should be %s", c.IPRange, c.IPRange.Masked())
				}
				if !c.Subnet.Overlaps(c.IPRange) {
					add("invalid ip-range %s: parent subnet %s doesn't contain ip-range", c.IPRange, c.Subnet)
				}
			}
		}
		if why := outside(c.Gateway, c.Subnet, version); why != "" {
			add("invalid gateway %s: %s", c.Gateway, why)
		}
		names := slices.Sorted(maps.Keys(c.AuxAddress))
		for _, name := range names {
			if why := outside(c.AuxAddress[name], c.Subnet, version); why != "" {
				add("invalid auxiliary address %s: %s", name, why)
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return invalid("invalid network config:\n%s", Lines(lines))
}

// outside tells why an address cannot be one of a subnet; "" when it can.
func outside(a netip.Addr, subnet netip.Prefix, version int) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Is6() != (version == 6):
		return fmt.Sprintf("parent subnet is an IPv%d block", version)
	case !subnet.Contains(a):
		return fmt.Sprintf("parent subnet %s doesn't contain this address", subnet)
	}
	return ""
}

// Lines joins messages as Docker does: one stands alone, several are a list.
func Lines(messages []string) string {
	if len(messages) == 1 {
		return messages[0]
	}
	return "* " + strings.Join(messages, "\n* ")
}

// CheckBridge refuses a bridge network that contradicts itself or another one,
// once its addresses are decided.
func CheckBridge(rec Record, others []Record) error {
	if !rec.EnableIPv4 && !rec.EnableIPv6 {
		return invalid("IPv4 or IPv6 must be enabled")
	}
	count := map[bool]int{}
	for _, c := range rec.IPAM.Config {
		if c.Subnet.IsValid() {
			count[c.Subnet.Addr().Is6()]++
		}
	}
	switch {
	case rec.EnableIPv4 && count[false] == 0:
		return invalid("ipv4 pool is empty")
	case rec.EnableIPv6 && count[true] == 0:
		return invalid("ipv6 pool is empty")
	case count[false] > 1 || count[true] > 1:
		return forbidden("bridge driver doesn't support multiple subnets")
	}
	linkLocal := netip.MustParsePrefix("fe80::/64")
	for _, c := range rec.IPAM.Config {
		switch a := c.Subnet; {
		case !a.Addr().Is6():
		case a.Addr().IsMulticast():
			return invalid("multicast subnet '%s' is not allowed", a)
		case a != linkLocal && linkLocal.Overlaps(a):
			return invalid("'%s' clashes with the Link-Local prefix 'fe80::/64'", a)
		}
	}
	for _, o := range others {
		if o.Driver == DriverBridge && o.Device != "" && o.Device == rec.Device {
			return forbidden("cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name", rec.ID, rec.Device, o.ID, o.Device)
		}
	}
	return nil
}
