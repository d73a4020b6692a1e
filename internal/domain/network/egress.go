package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Option names of Orlop's own for bridge networks: lists of addresses and
// networks in CIDR form, separated by commas.
const (
	// OptEgressAllow: containers may open connections to these only.
	OptEgressAllow = "orlop.egress.allow"
	// OptEgressDeny: to these they may not, whatever is allowed.
	OptEgressDeny = "orlop.egress.deny"
)

// Egress says where containers of a network may open connections to, outside
// of the engine's networks. The host's own addresses and published ports of
// other networks are no matter of it: the host's input rules, and the ports'
// publisher, decide there.
type Egress struct {
	// Listed: only what Allow has is allowed; without it everything is.
	Listed      bool
	Allow, Deny []netip.Prefix
}

// ParseEgress reads the options. Prefixes that lie in others are left out.
// ErrInvalidArgument for what is no address.
func ParseEgress(options map[string]string) (Egress, error) {
	var e Egress
	var err error
	_, e.Listed = options[OptEgressAllow]
	if e.Allow, err = parsePrefixes(OptEgressAllow, options[OptEgressAllow]); err != nil {
		return Egress{}, err
	}
	e.Deny, err = parsePrefixes(OptEgressDeny, options[OptEgressDeny])
	return e, err
}

func parsePrefixes(option, list string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if addr, aerr := netip.ParseAddr(text); aerr == nil && addr.Zone() == "" {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid value of %s: %q is no address and no network", option, text))
		}
		all = append(all, p.Masked())
	}
	// Wide ones first; what they contain says nothing new.
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var out []netip.Prefix
	for _, p := range all {
		if !slices.ContainsFunc(out, func(q netip.Prefix) bool { return q.Overlaps(p) }) {
			out = append(out, p)
		}
	}
	return out, nil
}

// Allows reports whether a connection to an address outside may be opened.
func (e Egress) Allows(to netip.Addr) bool {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(to) })
	}
	return !in(e.Deny) && (!e.Listed || in(e.Allow))
}

// String lists what is allowed and denied.
func (e Egress) String() string {
	join := func(list []netip.Prefix) string {
		text := make([]string, len(list))
		for i, p := range list {
			text[i] = p.String()
		}
		return strings.Join(text, ",")
	}
	var parts []string
	if e.Listed {
		parts = append(parts, "allow="+join(e.Allow))
	}
	if len(e.Deny) > 0 {
		parts = append(parts, "deny="+join(e.Deny))
	}
	return strings.Join(parts, " ")
}
