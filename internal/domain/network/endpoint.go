package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
)

// CheckEndpoint validates what a request says about an endpoint. predefined
// tells that the network is one of bridge, host and none; subnets are the
// network's, nil when they are not known. ErrInvalidArgument with Docker's text.
func CheckEndpoint(ep *networktypes.EndpointSettings, predefined bool, subnets []netip.Prefix) error {
	if ep == nil {
		return nil
	}
	var errs []string
	add := func(format string, args ...any) { errs = append(errs, fmt.Sprintf(format, args...)) }
	var ipam networktypes.EndpointIPAMConfig
	if ep.IPAMConfig != nil {
		ipam = *ep.IPAMConfig
	}
	v4, v6 := ipam.IPv4Address, ipam.IPv6Address
	if predefined {
		if v4.IsValid() || v6.IsValid() {
			add("user-specified IP address is supported on user-defined networks only")
		}
		if len(ep.Aliases) > 0 {
			add("network-scoped aliases are only supported for user-defined networks")
		}
	}
	if v4.IsValid() && (!v4.Is4() && !v4.Is4In6() || v4.IsUnspecified()) {
		add("invalid IPv4 address: %s", v4)
	}
	if v6.IsValid() && (!v6.Is6() || v6.Is4In6() || v6.IsUnspecified() || v6.Zone() != "") {
		add("invalid IPv6 address: %s", v6)
	}
	for _, a := range ipam.LinkLocalIPs {
		if !a.IsValid() || a.IsUnspecified() {
			add("invalid link-local IP address: %s", a)
		}
	}
	if subnets != nil {
		for _, a := range []netip.Addr{v4.Unmap(), v6.Unmap()} {
			if a.IsValid() && !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
				add("no configured subnet contains IP address %s", a)
			}
		}
	}
	if text, ok := ep.DriverOpts[OptEndpointSysctls]; ok {
		for one := range strings.SplitSeq(text, ",") {
			if _, err := parseSysctl(one); err != nil {
				errs = append(errs, err.Error())
			}
		}
	}
	if name, ok := ep.DriverOpts[OptEndpointIfname]; ok && !ValidLinkName(name) {
		add("invalid interface name %q", name)
	}
	if len(errs) == 0 {
		return nil
	}
	return errdefs.ErrInvalidArgument.WithMessage("invalid endpoint settings:\n" + strings.Join(errs, "\n"))
}

// ValidLinkName reports whether the kernel takes an interface's name
// (dev_valid_name: at most 15 bytes, not "." or "..", no slash, colon or space).
func ValidLinkName(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

// parseSysctl reads "net.X.Y.IFNAME.Z=V".
func parseSysctl(text string) (Sysctl, error) {
	key, value, _ := strings.Cut(strings.TrimSpace(text), "=")
	part := strings.SplitN(key, ".", 5)
	if len(part) != 5 || part[0] != "net" || !slices.Contains([]string{"ipv4", "ipv6", "mpls"}, part[1]) || !strings.EqualFold(part[3], "IFNAME") ||
		strings.ContainsAny(key, "/ \t") || slices.Contains(part, "") {
		//nolint:misspell // Docker's word
		return Sysctl{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", text))
	}
	part[3] = "IFNAME"
	return Sysctl{Key: strings.Join(part, "."), Value: value}, nil
}

// Sysctls of an endpoint's options, in their order.
func Sysctls(options map[string]string) ([]Sysctl, error) {
	text, ok := options[OptEndpointSysctls]
	if !ok {
		return nil, nil
	}
	var out []Sysctl
	for one := range strings.SplitSeq(text, ",") {
		s, err := parseSysctl(one)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// ChooseDefaults marks the endpoints that have the default routes: for each
// family the first that has a gateway, in the order of priority (highest
// first), then those that lead out of the host, then those with gateways of both
// families, then by the name of the network: Docker's order since 28.
func ChooseDefaults(eps []Endpoint) []Endpoint {
	out := slices.Clone(eps)
	order := make([]int, len(out))
	for i := range out {
		order[i] = i
		out[i].Default4, out[i].Default6 = false, false
	}
	gateways := func(e Endpoint) int {
		n := 0
		for _, has := range []bool{e.leads(false), e.leads(true)} {
			if has {
				n++
			}
		}
		return n
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := out[i], out[j]
		return cmp.Or(
			cmp.Compare(b.Priority, a.Priority),
			compareBool(a.NoGateway, b.NoGateway),
			cmp.Compare(gateways(b), gateways(a)),
			cmp.Compare(a.NetworkName, b.NetworkName),
		)
	})
	for _, ipv6 := range []bool{false, true} {
		for _, i := range order {
			if out[i].leads(ipv6) {
				if ipv6 {
					out[i].Default6 = true
				} else {
					out[i].Default4 = true
				}
				break
			}
		}
	}
	return out
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// leads reports whether the endpoint may have the default route of a family.
func (e Endpoint) leads(ipv6 bool) bool {
	if e.NoGateway {
		return false
	}
	if ipv6 {
		return e.IPv6.IsValid() && e.Gateway6.IsValid() || e.OnLink6
	}
	return e.IPv4.IsValid() && e.Gateway4.IsValid() || e.OnLink4
}

// Defaults are the default routes of a sandbox with these endpoints.
func Defaults(eps []Endpoint) Default {
	var d Default
	for _, e := range eps {
		if e.Default4 {
			d.Link4 = e.InnerLink
			if !e.OnLink4 {
				d.Gateway4 = e.Gateway4
			}
		}
		if e.Default6 {
			d.Link6 = e.InnerLink
			if !e.OnLink6 {
				d.Gateway6 = e.Gateway6
			}
		}
	}
	return d
}
