package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/nft"
)

// DefaultMark is the bit of the packet mark that tells other tables what this
// engine's table has let through.
const DefaultMark uint32 = 1 << 28

// marker is how comments of rules in other tables begin, whichever engine of
// ours put them there.
const marker = "orlop-"

// comment of an engine's rule in somebody else's chain.
func comment(table string) string { return table + " let it through" }

// places are chains whose owner wants others to put their rules there, by
// name; the first that a packet comes through is taken.
//
// DOCKER-USER is Docker's chain for what its user wants accepted or dropped
// first; ufw-before-forward is the first chain of ufw's rules. FORWARD of
// iptables' own table is everybody's. firewalld's table has no such chain, but
// takes rules of others where it does not own its table (before 2.1).
var places = []string{"DOCKER-USER", "ufw-before-forward", "ufw6-before-forward", "FORWARD", "filter_FORWARD"}

// isPlace says whether a chain of that name is such a place in this table.
func isPlace(ref nft.ChainRef, owned bool) bool {
	if !slices.Contains(places, ref.Chain) || owned {
		return false
	}
	if ref.Chain == "filter_FORWARD" {
		return ref.Family == nftables.TableFamilyINet && ref.Table == "firewalld"
	}
	return ref.Table == "filter" && ref.Family != nftables.TableFamilyINet
}

// ForeignPlan is what has to be done in other tables, and what cannot be.
type ForeignPlan struct {
	changes []nft.ForeignChange
	// Warnings name the chains that drop packets of containers.
	Warnings []string
}

// Empty reports whether nothing has to be done.
func (p ForeignPlan) Empty() bool { return len(p.changes) == 0 }

// String lists the changes, one line each.
func (p ForeignPlan) String() string {
	var b strings.Builder
	for _, c := range p.changes {
		if c.Handle != 0 {
			fmt.Fprintf(&b, "delete rule %s handle %d\n", c.Chain, c.Handle)
		} else {
			fmt.Fprintf(&b, "insert rule %s %q\n", c.Chain, c.Comment)
		}
	}
	return b.String()
}

// passage is a kind of packet that this engine lets through.
type passage struct {
	nft.Packet
	what string
}

// passages of one network.
func passages(b network.BridgeRules) []passage {
	var out []passage
	for _, ipv6 := range []bool{false, true} {
		if !slices.ContainsFunc(b.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() == ipv6 }) {
			continue
		}
		if !b.Internal {
			out = append(out,
				passage{nft.Packet{IPv6: ipv6, In: b.Device}, "from containers"},
				passage{nft.Packet{IPv6: ipv6, Out: b.Device, Translated: true}, "to published ports"})
		}
		mode := b.Mode4
		if ipv6 {
			mode = b.Mode6
		}
		if !b.Internal && (mode == network.GatewayRouted || mode == network.GatewayNATUnprotected || len(b.Trusted) > 0) {
			out = append(out, passage{nft.Packet{IPv6: ipv6, Out: b.Device}, "to containers' own addresses"})
		}
		if b.ICC {
			out = append(out, passage{nft.Packet{IPv6: ipv6, In: b.Device, Out: b.Device}, "between containers"})
		}
	}
	return out
}

// PlanForeign decides what other tables need so that packets of the engine's
// networks get through: mark is the bit that these packets have, auto allows
// rules of ours in the places that their owners provide. It removes rules of
// ours that are not needed any more.
func PlanForeign(table string, mark uint32, auto bool, bridges []network.BridgeRules, filtered bool, got nft.Foreign) ForeignPlan {
	own := comment(table)
	ours := func(r nft.ForeignRule) bool { return strings.HasPrefix(r.Comment, marker) }
	wanted := map[nft.ChainRef]bool{}
	blocked := map[nft.ChainRef][]string{}
	var order []nft.ChainRef
	effective := map[nft.ChainRef]bool{}
	for _, base := range got.Base {
		for _, b := range bridges {
			for _, p := range passages(b) {
				if p.what == "between containers" && !filtered {
					continue // frames within a bridge do not come here
				}
				p.Mark = mark
				fate := got.Evaluate(base, p.Packet, ours)
				if !fate.Dropped {
					continue
				}
				place, found := choose(fate.Entered, got)
				if found && auto {
					wanted[place] = true
					// What stands above our rule by now may drop.
					if got.Evaluate(base, p.Packet, nil).Dropped {
						effective[place] = false
					} else if _, known := effective[place]; !known {
						effective[place] = true
					}
					continue
				}
				if blocked[base.ChainRef] == nil {
					order = append(order, base.ChainRef)
				}
				if text := p.what + " of " + b.Device; !slices.Contains(blocked[base.ChainRef], text) {
					blocked[base.ChainRef] = append(blocked[base.ChainRef], text)
				}
			}
		}
	}
	var plan ForeignPlan
	have := map[nft.ChainRef]bool{}
	for _, ref := range sorted(got.Rules) {
		for _, r := range got.Rules[ref] {
			if r.Comment != own {
				continue
			}
			if wanted[ref] && !have[ref] && effective[ref] {
				have[ref] = true
				continue
			}
			plan.changes = append(plan.changes, nft.ForeignChange{Chain: ref, Handle: r.Handle, Comment: own})
		}
	}
	for _, ref := range sorted(wanted) {
		if !have[ref] {
			plan.changes = append(plan.changes, nft.ForeignChange{
				Chain: ref, Comment: own, Exprs: nft.Exprs(nft.Marked(mark), nft.Counter(), nft.Accept()),
			})
		}
	}
	for _, ref := range order {
		plan.Warnings = append(plan.Warnings, warning(ref, blocked[ref], mark))
	}
	return plan
}

// choose returns the first place of the list that the packet came through.
func choose(entered []nft.ChainRef, got nft.Foreign) (nft.ChainRef, bool) {
	for _, name := range places {
		for _, ref := range entered {
			if ref.Chain == name && isPlace(ref, got.Owned[nft.ChainRef{Family: ref.Family, Table: ref.Table}]) {
				return ref, true
			}
		}
	}
	return nft.ChainRef{}, false
}

// maxNamed bounds how many networks a warning names.
const maxNamed = 3

func warning(ref nft.ChainRef, what []string, mark uint32) string {
	list := strings.Join(what, ", ")
	if len(what) > maxNamed {
		list = fmt.Sprintf("%s and %d more", strings.Join(what[:maxNamed], ", "), len(what)-maxNamed)
	}
	return fmt.Sprintf("WARNING: nft chain %q drops packets %s; to let pass what the engine allows: nft insert rule %s meta mark and %#x == %#x accept",
		ref, list, ref, mark, mark)
}

// sorted lists the keys of a map in a fixed order.
func sorted[V any](m map[nft.ChainRef]V) []nft.ChainRef {
	out := make([]nft.ChainRef, 0, len(m))
	for ref := range m {
		out = append(out, ref)
	}
	slices.SortFunc(out, func(a, b nft.ChainRef) int { return strings.Compare(a.String(), b.String()) })
	return out
}
