// Package firewall is the engine's one table of nftables rules: what may be
// forwarded to and from containers, what is translated, and what is dropped.
// The rules never change while containers come and go; only elements of sets
// and maps do.
//
// Entry points: Table (pure) and Firewall (New, Apply, Publish, Unpublish).
//
// An accept of ours cannot override a drop in another table, and a drop of
// ours cannot be overridden: so ours touch only packets of our own bridges, of
// 127.0.0.0/8, and, where this engine switched forwarding on, those between
// interfaces that are no bridges. What is let through gets a bit of the packet
// mark, before other tables see it, so that one rule in a table that drops what
// it does not know is enough (PlanForeign).
package firewall

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/netdriver/portmap"
)

// Sets of interface names.
const (
	setBridges     = "bridges"
	setMasquerade4 = "masquerade4"
	setMasquerade6 = "masquerade6"
	setInternal    = "internal"
	// Networks that are reached by the containers' own addresses: on published
	// ports only, or on all.
	setRouted4 = "routed4"
	setRouted6 = "routed6"
	setOpen4   = "open4"
	setOpen6   = "open6"
	// Interfaces of the host . networks whose published ports they may reach by
	// the containers' own addresses.
	setTrusted = "trusted"
	// Addresses that networks speak with, by the network's interface.
	mapSource4 = "source4"
	mapSource6 = "source6"
	setICC     = "icc"
	// Networks with a list of what they may reach; what that is, and what they
	// may not.
	setListed   = "egress_listed"
	setAllow4   = "egress_allow4"
	setAllow6   = "egress_allow6"
	setDeny4    = "egress_deny4"
	setDeny6    = "egress_deny6"
	setHairpin4 = "hairpin4"
	setHairpin6 = "hairpin6"
)

// commentForeign marks the rule that exists only where the engine switched
// forwarding on; it is found again by this comment.
const commentForeign = "forwarding was off: stay no router"

// forwardPriority is before mangle (-150) and after connection tracking (-200):
// other tables see the mark.
var forwardPriority = nftables.ChainPriorityRef(-160)

// Table is the ruleset as nftables; mark is set on what it lets through.
func Table(name string, mark uint32, rules network.Ruleset) nft.Table {
	t := nft.Table{
		Name: name,
		Sets: append(bridgeSets(rules.Bridges), portmap.Sets(rules.Ports)...),
	}

	loop4 := []byte{127}
	rule := func(comment, text string, parts ...[]expr.Any) nft.Rule {
		return nft.Rule{Comment: comment, Text: text, Exprs: nft.Exprs(parts...)}
	}
	t.Chains = []nft.Chain{
		{
			Name: "raw_prerouting",
			Hook: &nft.Hook{Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw},
			Rules: []nft.Rule{
				rule("loopback is reached from this host only", `meta nfproto ipv4 iifname != "lo" ip daddr 127.0.0.0/8 drop`,
					nft.Family(false), nft.IIFName("lo", true), nft.Net4(nft.DstAddr4, loop4), nft.Drop()),
				rule("nobody else speaks as loopback", `meta nfproto ipv4 iifname != "lo" ip saddr 127.0.0.0/8 drop`,
					nft.Family(false), nft.IIFName("lo", true), nft.Net4(nft.SrcAddr4, loop4), nft.Drop()),
			},
		},
		{
			Name: "nat_prerouting",
			Hook: &nft.Hook{Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest},
			Rules: []nft.Rule{
				rule("published ports", `jump published`, nft.Jump("published")),
			},
		},
		{
			Name: "nat_output",
			Hook: &nft.Hook{Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest},
			Rules: []nft.Rule{
				rule("published ports, from this host", `jump published`, nft.Jump("published")),
			},
		},
		{
			Name: "nat_postrouting",
			Hook: &nft.Hook{Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource},
			Rules: []nft.Rule{
				rule("from 127.0.0.1 to a published port", `meta nfproto ipv4 oifname @bridges ip saddr 127.0.0.0/8 masquerade`,
					nft.Family(false), nft.OIFIn(setBridges, false), nft.Net4(nft.SrcAddr4, loop4), nft.Masquerade()),
				// The source decides, not the incoming interface: with
				// bridge-nf-call-iptables the packet is translated inside the
				// bridge and has none here.
				rule("to a published port of the own network", `meta nfproto ipv4 oifname . ip saddr @hairpin4 ct status dnat masquerade`,
					nft.Family(false), nft.OutWithSource(setHairpin4, false), nft.CTTranslated(), nft.Masquerade()),
				rule("to a published port of the own network, IPv6", `meta nfproto ipv6 oifname . ip6 saddr @hairpin6 ct status dnat masquerade`,
					nft.Family(true), nft.OutWithSource(setHairpin6, true), nft.CTTranslated(), nft.Masquerade()),
				rule("from containers to the world, by an address of their own", `meta nfproto ipv4 oifname != @bridges snat ip to iifname map @source4`,
					nft.Family(false), nft.OIFIn(setBridges, true), nft.SNATByIIF(mapSource4, false)),
				rule("from containers to the world, by an IPv6 address of their own", `meta nfproto ipv6 oifname != @bridges snat ip6 to iifname map @source6`,
					nft.Family(true), nft.OIFIn(setBridges, true), nft.SNATByIIF(mapSource6, true)),
				rule("from containers to the world", `meta nfproto ipv4 iifname @masquerade4 oifname != @bridges masquerade`,
					nft.Family(false), nft.IIFIn(setMasquerade4, false), nft.OIFIn(setBridges, true), nft.Masquerade()),
				rule("from containers to the world, IPv6", `meta nfproto ipv6 iifname @masquerade6 oifname != @bridges masquerade`,
					nft.Family(true), nft.IIFIn(setMasquerade6, false), nft.OIFIn(setBridges, true), nft.Masquerade()),
			},
		},
		{
			Name: "published",
			Rules: []nft.Rule{
				rule("on one address", `meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published_addr4`,
					nft.Family(false), nft.DNATByAddr(portmap.Addr4, false)),
				rule("on every address", `meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @published_any4`,
					nft.Family(false), nft.DstLocal(), nft.DNATByPort(portmap.Any4, false)),
				rule("on one IPv6 address", `meta nfproto ipv6 ip6 saddr != fe80::/10 dnat ip6 to ip6 daddr . meta l4proto . th dport map @published_addr6`,
					nft.Family(true), nft.NotLinkLocal6(), nft.DNATByAddr(portmap.Addr6, true)),
				rule("on every IPv6 address", `meta nfproto ipv6 ip6 saddr != fe80::/10 ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @published_any6`,
					nft.Family(true), nft.NotLinkLocal6(), nft.NotLoopback6(), nft.DstLocal(), nft.DNATByPort(portmap.Any6, true)),
			},
		},
		{
			Name: "forward",
			Hook: &nft.Hook{Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: forwardPriority},
			Rules: []nft.Rule{
				rule("to containers", `oifname @bridges jump containers`, nft.OIFIn(setBridges, false), nft.Jump("containers")),
				rule("from containers", `iifname @bridges jump containers`, nft.IIFIn(setBridges, false), nft.Jump("containers")),
			},
		},
		{
			Name: "containers",
			Rules: []nft.Rule{
				rule("answers", `ct state established,related goto allowed`,
					nft.CTState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), nft.Goto("allowed")),
				rule("published ports", `oifname @bridges ct status dnat goto allowed`,
					nft.OIFIn(setBridges, false), nft.CTTranslated(), nft.Goto("allowed")),
				rule("within a network", `iifname . oifname @icc goto allowed`, nft.PairIn(setICC), nft.Goto("allowed")),
				rule("internal networks stay inside", `iifname @internal drop`, nft.IIFIn(setInternal, false), nft.Drop()),
				rule("published ports of routed networks", `meta nfproto ipv4 oifname @routed4 ip daddr . meta l4proto . th dport @direct4 goto allowed`,
					nft.Family(false), nft.OIFIn(setRouted4, false), nft.ToPort(portmap.Direct4, false), nft.Goto("allowed")),
				rule("published ports of routed networks, IPv6", `meta nfproto ipv6 oifname @routed6 ip6 daddr . meta l4proto . th dport @direct6 goto allowed`,
					nft.Family(true), nft.OIFIn(setRouted6, false), nft.ToPort(portmap.Direct6, true), nft.Goto("allowed")),
				rule("routed networks answer ping", `meta nfproto ipv4 oifname @routed4 meta l4proto icmp goto allowed`,
					nft.Family(false), nft.OIFIn(setRouted4, false), nft.Protocol(unix.IPPROTO_ICMP), nft.Goto("allowed")),
				rule("routed networks answer ping, IPv6", `meta nfproto ipv6 oifname @routed6 meta l4proto ipv6-icmp goto allowed`,
					nft.Family(true), nft.OIFIn(setRouted6, false), nft.Protocol(unix.IPPROTO_ICMPV6), nft.Goto("allowed")),
				rule("published ports, from trusted interfaces", `meta nfproto ipv4 iifname . oifname @trusted ip daddr . meta l4proto . th dport @direct4 goto allowed`,
					nft.Family(false), nft.PairIn(setTrusted), nft.ToPort(portmap.Direct4, false), nft.Goto("allowed")),
				rule("published ports, from trusted interfaces, IPv6", `meta nfproto ipv6 iifname . oifname @trusted ip6 daddr . meta l4proto . th dport @direct6 goto allowed`,
					nft.Family(true), nft.PairIn(setTrusted), nft.ToPort(portmap.Direct6, true), nft.Goto("allowed")),
				rule("unprotected networks", `meta nfproto ipv4 oifname @open4 goto allowed`,
					nft.Family(false), nft.OIFIn(setOpen4, false), nft.Goto("allowed")),
				rule("unprotected networks, IPv6", `meta nfproto ipv6 oifname @open6 goto allowed`,
					nft.Family(true), nft.OIFIn(setOpen6, false), nft.Goto("allowed")),
				rule("other networks, direct access from outside", `oifname @bridges drop`,
					nft.OIFIn(setBridges, false), nft.Drop()),
				rule("what a network must not reach", `meta nfproto ipv4 iifname . ip daddr @egress_deny4 drop`,
					nft.Family(false), nft.InWithDestination(setDeny4, false), nft.Drop()),
				rule("what a network must not reach, IPv6", `meta nfproto ipv6 iifname . ip6 daddr @egress_deny6 drop`,
					nft.Family(true), nft.InWithDestination(setDeny6, true), nft.Drop()),
				rule("what a network may reach", `meta nfproto ipv4 iifname . ip daddr @egress_allow4 goto allowed`,
					nft.Family(false), nft.InWithDestination(setAllow4, false), nft.Goto("allowed")),
				rule("what a network may reach, IPv6", `meta nfproto ipv6 iifname . ip6 daddr @egress_allow6 goto allowed`,
					nft.Family(true), nft.InWithDestination(setAllow6, true), nft.Goto("allowed")),
				rule("networks with a list reach nothing else", `iifname @egress_listed drop`, nft.IIFIn(setListed, false), nft.Drop()),
				rule("from containers to the world", `goto allowed`, nft.Goto("allowed")),
			},
		},
		{
			Name: "allowed",
			Rules: []nft.Rule{
				rule("other tables may ask for this bit", fmt.Sprintf("meta mark set meta mark or %#x accept", mark), nft.SetMark(mark, true), nft.Accept()),
			},
		},
		{
			Name: "postrouting",
			Hook: &nft.Hook{Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRaw},
			Rules: []nft.Rule{
				rule("the bit is nobody's after the forward hook", fmt.Sprintf("meta mark and %#x == %#x meta mark set meta mark and %#x", mark, mark, ^mark),
					nft.Marked(mark), nft.SetMark(mark, false)),
			},
		},
	}
	if rules.DropForeign {
		for i := range t.Chains {
			if t.Chains[i].Name == "forward" {
				t.Chains[i].Rules = append(t.Chains[i].Rules, rule(commentForeign,
					`meta iifkind != "bridge" meta oifkind != "bridge" drop`, nft.NotBetweenKind("bridge"), nft.Drop()))
			}
		}
	}
	return t
}

// bridgeSets are the sets that say which rules hold for which network.
func bridgeSets(rules []network.BridgeRules) []nft.Set {
	names := []nftables.SetDatatype{nft.TypeIfName}
	pairs := []nftables.SetDatatype{nft.TypeIfName, nft.TypeIfName}
	bridges := nft.Set{Name: setBridges, Key: names}
	sets := map[string]*nft.Set{}
	for _, name := range []string{setMasquerade4, setMasquerade6, setRouted4, setRouted6, setOpen4, setOpen6} {
		sets[name] = &nft.Set{Name: name, Key: names}
	}
	trusted := nft.Set{Name: setTrusted, Key: pairs}
	source4 := nft.Set{Name: mapSource4, Key: names, Value: []nftables.SetDatatype{nft.TypeIPv4}}
	source6 := nft.Set{Name: mapSource6, Key: names, Value: []nftables.SetDatatype{nft.TypeIPv6}}
	internal := nft.Set{Name: setInternal, Key: names}
	icc := nft.Set{Name: setICC, Key: pairs}
	hairpin4 := nft.Set{Name: setHairpin4, Key: []nftables.SetDatatype{nft.TypeIfName, nft.TypeIPv4}, Interval: true}
	hairpin6 := nft.Set{Name: setHairpin6, Key: []nftables.SetDatatype{nft.TypeIfName, nft.TypeIPv6}, Interval: true}
	listed := nft.Set{Name: setListed, Key: names}
	for _, name := range []string{setAllow4, setDeny4} {
		sets[name] = &nft.Set{Name: name, Key: hairpin4.Key, Interval: true}
	}
	for _, name := range []string{setAllow6, setDeny6} {
		sets[name] = &nft.Set{Name: name, Key: hairpin6.Key, Interval: true}
	}
	add := func(s *nft.Set, key []byte) { s.Elements = append(s.Elements, nft.Element{Key: key}) }
	for _, b := range rules {
		dev := nft.IfName(b.Device)
		pair := nft.Concat(dev, dev)
		add(&bridges, dev)
		span := func(p netip.Prefix) nft.Element {
			return nft.Element{
				Key:    nft.Concat(dev, p.Masked().Addr().AsSlice()),
				KeyEnd: nft.Concat(dev, network.LastAddr(p).AsSlice()),
			}
		}
		if b.Egress.Listed {
			add(&listed, dev)
		}
		for _, e := range []struct {
			list       []netip.Prefix
			set4, set6 string
		}{{b.Egress.Allow, setAllow4, setAllow6}, {b.Egress.Deny, setDeny4, setDeny6}} {
			for _, p := range e.list {
				s := sets[e.set4]
				if p.Addr().Is6() {
					s = sets[e.set6]
				}
				s.Elements = append(s.Elements, span(p))
			}
		}
		for _, sub := range b.Subnets {
			e := span(sub)
			if sub.Addr().Is4() {
				hairpin4.Elements = append(hairpin4.Elements, e)
			} else {
				hairpin6.Elements = append(hairpin6.Elements, e)
			}
		}
		if b.Internal {
			add(&internal, dev)
		} else {
			families := []struct {
				mode                     network.GatewayMode
				source                   netip.Addr
				masquerade, routed, open string
				snat                     *nft.Set
			}{
				{b.Mode4, b.Source4, setMasquerade4, setRouted4, setOpen4, &source4},
				{b.Mode6, b.Source6, setMasquerade6, setRouted6, setOpen6, &source6},
			}
			for _, f := range families {
				switch {
				case f.mode == network.GatewayRouted:
					add(sets[f.routed], dev)
				case b.Masquerade && f.source.IsValid():
					f.snat.Elements = append(f.snat.Elements, nft.Element{Key: dev, Value: f.source.AsSlice()})
				case b.Masquerade:
					add(sets[f.masquerade], dev)
				}
				if f.mode == network.GatewayNATUnprotected {
					add(sets[f.open], dev)
				}
			}
			for _, from := range b.Trusted {
				if len(from) < unix.IFNAMSIZ {
					add(&trusted, nft.Concat(nft.IfName(from), dev))
				}
			}
		}
		if b.ICC {
			add(&icc, pair)
		}
	}
	return []nft.Set{
		bridges, *sets[setMasquerade4], *sets[setMasquerade6], internal, icc, hairpin4, hairpin6,
		*sets[setRouted4], *sets[setRouted6], *sets[setOpen4], *sets[setOpen6], trusted, source4, source6,
		listed, *sets[setAllow4], *sets[setAllow6], *sets[setDeny4], *sets[setDeny6],
	}
}
