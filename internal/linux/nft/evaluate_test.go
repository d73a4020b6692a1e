package nft

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// forwardOf is the chain FORWARD of a table "filter".
func forwardOf(family nftables.TableFamily) ChainRef { return ChainRef{family, "filter", "FORWARD"} }

// ruleset has one base chain; rules are added to it and to chains by name.
func ruleset(t *testing.T, drops bool, rules map[string][][]expr.Any) (Foreign, BaseChain) {
	t.Helper()
	base := BaseChain{ChainRef: forwardOf(nftables.TableFamilyIPv4), Drops: drops}
	f := Foreign{Base: []BaseChain{base}}
	for chain, list := range rules {
		for _, exprs := range list {
			if err := f.Add(ChainRef{base.Family, base.Table, chain}, "", exprs...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f, base
}

func chains(refs []ChainRef) string {
	var out []string
	for _, r := range refs {
		out = append(out, r.Chain)
	}
	return strings.Join(out, " ")
}

func TestAPacketIsFollowedThroughAForeignChain(t *testing.T) {
	returns := Stmt(&expr.Verdict{Kind: expr.VerdictReturn})
	reject := Stmt(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH})
	markMatch := func(not bool) []expr.Any {
		// struct xt_mark_mtinfo1: mark, mask, invert.
		info := xt.Unknown(append(slices.Concat(native(4), native(4)), 0, 0, 0, 0))
		if not {
			info[8] = 1
		}
		return Stmt(&expr.Match{Name: "mark", Rev: 1, Info: &info})
	}
	somewhere := Net4(DstAddr4, []byte{10})
	type rules = map[string][][]expr.Any
	for _, c := range []struct {
		name    string
		drops   bool
		packet  Packet
		rules   rules
		dropped bool
		by      string
		entered string
	}{
		{"an empty chain that accepts", false, Packet{}, nil, false, "FORWARD", "FORWARD"},
		{"an empty chain that drops", true, Packet{}, nil, true, "FORWARD", "FORWARD"},
		{"another family", true, Packet{IPv6: true}, nil, false, "FORWARD", ""},
		{"a drop", false, Packet{}, rules{"FORWARD": {Drop()}}, true, "FORWARD", "FORWARD"},
		{"a reject", false, Packet{}, rules{"FORWARD": {reject}}, true, "FORWARD", "FORWARD"},
		{"the first verdict counts", true, Packet{}, rules{"FORWARD": {Accept(), Drop()}}, false, "FORWARD", "FORWARD"},
		{"a counter decides nothing", true, Packet{}, rules{"FORWARD": {Counter()}}, true, "FORWARD", "FORWARD"},
		{"a jump comes back", true, Packet{}, rules{"FORWARD": {Jump("a"), Accept()}, "a": {Counter()}}, false, "FORWARD", "FORWARD a"},
		{"a jump that returns", true, Packet{}, rules{"FORWARD": {Jump("a"), Accept()}, "a": {returns, Drop()}}, false, "FORWARD", "FORWARD a"},
		{"a jump that decides", true, Packet{}, rules{"FORWARD": {Jump("a"), Drop()}, "a": {Accept()}}, false, "a", "FORWARD a"},
		{"a goto does not come back", true, Packet{}, rules{"FORWARD": {Goto("a"), Accept()}, "a": {Counter()}}, true, "FORWARD", "FORWARD a"},
		{"a goto from a jump comes back to the first", true, Packet{}, rules{"FORWARD": {Jump("a"), Accept()}, "a": {Goto("b"), Drop()}, "b": nil}, false, "FORWARD", "FORWARD a b"},
		{"the incoming interface", true, Packet{In: "br0"}, rules{"FORWARD": {Exprs(IIFName("br0", false), Accept())}}, false, "FORWARD", "FORWARD"},
		{"another interface", true, Packet{In: "br1"}, rules{"FORWARD": {Exprs(IIFName("br0", false), Accept())}}, true, "FORWARD", "FORWARD"},
		{"any but an interface", true, Packet{In: "br1"}, rules{"FORWARD": {Exprs(IIFName("br0", true), Accept())}}, false, "FORWARD", "FORWARD"},
		{"an interface that is not known", false, Packet{Out: "br0"}, rules{"FORWARD": {Exprs(IIFName("br0", true), Drop())}}, false, "FORWARD", "FORWARD"},
		{"the mark", true, Packet{Mark: 6}, rules{"FORWARD": {Exprs(Marked(4), Accept())}}, false, "FORWARD", "FORWARD"},
		{"no mark", true, Packet{Mark: 2}, rules{"FORWARD": {Exprs(Marked(4), Accept())}}, true, "FORWARD", "FORWARD"},
		{"the mark, of iptables", true, Packet{Mark: 6}, rules{"FORWARD": {Exprs(markMatch(false), Accept())}}, false, "FORWARD", "FORWARD"},
		{"all but the mark, of iptables", true, Packet{Mark: 6}, rules{"FORWARD": {Exprs(markMatch(true), Accept())}}, true, "FORWARD", "FORWARD"},
		{"new connections", true, Packet{}, rules{"FORWARD": {Exprs(CTState(expr.CtStateBitNEW), Accept())}}, false, "FORWARD", "FORWARD"},
		{"answers", true, Packet{}, rules{"FORWARD": {Exprs(CTState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), Accept())}}, true, "FORWARD", "FORWARD"},
		{"what was translated", true, Packet{Translated: true}, rules{"FORWARD": {Exprs(CTTranslated(), Accept())}}, false, "FORWARD", "FORWARD"},
		{"what was not translated", true, Packet{}, rules{"FORWARD": {Exprs(CTTranslated(), Accept())}}, true, "FORWARD", "FORWARD"},
		{"the family", true, Packet{}, rules{"FORWARD": {Exprs(Family(false), Accept())}}, false, "FORWARD", "FORWARD"},
		{"an accept of what is not known", true, Packet{}, rules{"FORWARD": {Exprs(somewhere, Accept())}}, true, "FORWARD", "FORWARD"},
		{"a drop of what is not known", false, Packet{}, rules{"FORWARD": {Exprs(somewhere, Drop())}}, false, "FORWARD", "FORWARD"},
		{"a match of iptables that is not known", false, Packet{}, rules{"FORWARD": {Exprs(Stmt(&expr.Match{Name: "addrtype", Rev: 1, Info: &xt.Unknown{7: 0}}), Drop())}}, false, "FORWARD", "FORWARD"},
		{"a look-up in a set", false, Packet{In: "br0"}, rules{"FORWARD": {Exprs(IIFIn("s", false), Drop())}}, false, "FORWARD", "FORWARD"},
		{"a chain that leads to itself", true, Packet{}, rules{"FORWARD": {Jump("FORWARD")}}, true, "FORWARD", strings.TrimSpace(strings.Repeat("FORWARD ", maxJumps+1))},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, base := ruleset(t, c.drops, c.rules)
			got := f.Evaluate(base, c.packet, nil)
			if got.Dropped != c.dropped || got.By.Chain != c.by || chains(got.Entered) != c.entered {
				t.Errorf("dropped %v by %s after %q, want %v by %s after %q", got.Dropped, got.By.Chain, chains(got.Entered), c.dropped, c.by, c.entered)
			}
		})
	}
}

func TestRulesThatAreIgnoredDecideNothing(t *testing.T) {
	f, base := ruleset(t, true, nil)
	for _, r := range []struct {
		comment string
		exprs   []expr.Any
	}{{"ours", Accept()}, {"theirs", Counter()}} {
		if err := f.Add(base.ChainRef, r.comment, r.exprs...); err != nil {
			t.Fatal(err)
		}
	}
	if f.Evaluate(base, Packet{}, nil).Dropped {
		t.Error("the rule does not count")
	}
	var asked []string
	if !f.Evaluate(base, Packet{}, func(r ForeignRule) bool {
		asked = append(asked, r.Comment)
		return r.Comment == "ours"
	}).Dropped {
		t.Error("the ignored rule counts")
	}
	if !slices.Equal(asked, []string{"ours", "theirs"}) {
		t.Errorf("asked about %q", asked)
	}
}
