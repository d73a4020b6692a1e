package firewall

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/linux/nft"
)

const testMark = 1 << 28

// foreign builds what other tables are: base chains and rules, by "family
// table chain".
type foreign struct {
	t *testing.T
	nft.Foreign
}

func ref(t *testing.T, name string) nft.ChainRef {
	t.Helper()
	f := strings.Fields(name)
	family, ok := map[string]nftables.TableFamily{
		"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet,
	}[f[0]]
	if !ok || len(f) != 3 {
		t.Fatalf("chain %q", name)
	}
	return nft.ChainRef{Family: family, Table: f[1], Chain: f[2]}
}

func tables(t *testing.T) *foreign {
	return &foreign{t, nft.Foreign{Rules: map[nft.ChainRef][]nft.ForeignRule{}, Owned: map[nft.ChainRef]bool{}}}
}

// base declares a chain of the forward hook.
func (f *foreign) base(name string, drops bool) *foreign {
	f.Base = append(f.Base, nft.BaseChain{ChainRef: ref(f.t, name), Drops: drops})
	return f
}

func (f *foreign) rule(chain, comment string, parts ...[]expr.Any) *foreign {
	f.t.Helper()
	if err := f.Add(ref(f.t, chain), comment, nft.Exprs(parts...)...); err != nil {
		f.t.Fatal(err)
	}
	return f
}

// own is the engine's rule.
func (f *foreign) own(chain string) *foreign {
	f.t.Helper()
	return f.rule(chain, comment("orlop-t"), nft.Marked(testMark), nft.Counter(), nft.Accept())
}

// owned says that a program owns the table.
func (f *foreign) owned(table string) *foreign {
	r := ref(f.t, table+" x")
	r.Chain = ""
	f.Owned[r] = true
	return f
}

func TestOtherTablesGetOneRuleWhereTheyDrop(t *testing.T) {
	four := network.BridgeRules{Device: "br4", ICC: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	both := network.BridgeRules{Device: "br6", Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("fd00:2::/64")}}
	inside := network.BridgeRules{Device: "brin", ICC: true, Internal: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/24")}}
	const insert, remove = `insert rule %s "orlop-t let it through"`, `delete rule %s handle %s`
	add := func(chain string) string { return strings.Replace(insert, "%s", chain, 1) + "\n" }
	del := func(chain, handle string) string {
		return strings.Replace(strings.Replace(remove, "%s", chain, 1), "%s", handle, 1) + "\n"
	}
	answers := nft.CTState(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	for _, c := range []struct {
		name     string
		bridges  []network.BridgeRules
		filtered bool
		warnOnly bool
		got      *foreign
		plan     string
		warning  string // a part of the only one
	}{
		{name: "nobody drops", bridges: []network.BridgeRules{four}, got: tables(t).base("ip filter FORWARD", false)},
		{name: "no network", got: tables(t).base("ip filter FORWARD", true)},
		{name: "policy drop", bridges: []network.BridgeRules{four}, got: tables(t).base("ip filter FORWARD", true), plan: add("ip filter FORWARD")},
		{
			name: "the rule is there", bridges: []network.BridgeRules{four},
			got: tables(t).base("ip filter FORWARD", true).own("ip filter FORWARD").rule("ip filter FORWARD", "", answers, nft.Accept()),
		},
		{
			name: "the rule is there twice", bridges: []network.BridgeRules{four},
			got: tables(t).base("ip filter FORWARD", true).own("ip filter FORWARD").own("ip filter FORWARD"), plan: del("ip filter FORWARD", "2"),
		},
		{
			name: "the rule is not needed any more", bridges: []network.BridgeRules{four},
			got: tables(t).base("ip filter FORWARD", false).own("ip filter FORWARD"), plan: del("ip filter FORWARD", "1"),
		},
		{
			name: "the last network went", got: tables(t).base("ip filter FORWARD", true).own("ip filter FORWARD"), plan: del("ip filter FORWARD", "1"),
		},
		{
			name: "somebody put a drop above the rule", bridges: []network.BridgeRules{four},
			got:  tables(t).base("ip filter FORWARD", true).rule("ip filter FORWARD", "", nft.Drop()).own("ip filter FORWARD"),
			plan: del("ip filter FORWARD", "2") + add("ip filter FORWARD"),
		},
		{
			name: "Docker's chain is meant for it", bridges: []network.BridgeRules{four},
			got:  tables(t).base("ip filter FORWARD", true).rule("ip filter FORWARD", "", nft.Jump("DOCKER-USER")).rule("ip filter DOCKER-USER", "", nft.Stmt(&expr.Verdict{Kind: expr.VerdictReturn})),
			plan: add("ip filter DOCKER-USER"),
		},
		{
			name: "Docker's chain came later", bridges: []network.BridgeRules{four},
			got: tables(t).base("ip filter FORWARD", true).own("ip filter FORWARD").rule("ip filter FORWARD", "", nft.Jump("DOCKER-USER")).
				rule("ip filter DOCKER-USER", "", nft.Stmt(&expr.Verdict{Kind: expr.VerdictReturn})),
			plan: del("ip filter FORWARD", "1") + add("ip filter DOCKER-USER"),
		},
		{
			name: "a chain of that name that is not reached", bridges: []network.BridgeRules{four},
			got: tables(t).base("ip filter FORWARD", true).rule("ip filter DOCKER-USER", "", nft.Counter()), plan: add("ip filter FORWARD"),
		},
		{
			name: "both families", bridges: []network.BridgeRules{four, both},
			got:  tables(t).base("ip filter FORWARD", true).base("ip6 filter FORWARD", true),
			plan: add("ip filter FORWARD") + add("ip6 filter FORWARD"),
		},
		{
			name: "IPv6 drops, no network has it", bridges: []network.BridgeRules{four}, got: tables(t).base("ip6 filter FORWARD", true),
		},
		{
			name: "another engine's rule helps nobody else", bridges: []network.BridgeRules{four},
			got:  tables(t).base("ip filter FORWARD", true).rule("ip filter FORWARD", comment("orlop-other"), nft.Marked(testMark), nft.Accept()),
			plan: add("ip filter FORWARD"),
		},
		{
			name: "an accept of the administrator's is enough", bridges: []network.BridgeRules{both},
			got: tables(t).base("inet mine forward", true).rule("inet mine forward", "", nft.Marked(testMark), nft.Accept()),
		},
		{
			name: "an internal network, frames are not filtered", bridges: []network.BridgeRules{inside}, got: tables(t).base("ip filter FORWARD", true),
		},
		{
			name: "an internal network, frames are filtered", bridges: []network.BridgeRules{inside}, filtered: true,
			got: tables(t).base("ip filter FORWARD", true), plan: add("ip filter FORWARD"),
		},
		{
			name: "firewalld that takes rules", bridges: []network.BridgeRules{four},
			got: tables(t).base("inet firewalld filter_FORWARD", false).rule("inet firewalld filter_FORWARD", "", answers, nft.Accept()).
				rule("inet firewalld filter_FORWARD", "", nft.Stmt(&expr.Reject{})),
			plan: add("inet firewalld filter_FORWARD"),
		},
		{
			name: "firewalld that owns its table", bridges: []network.BridgeRules{four},
			got:     tables(t).base("inet firewalld filter_FORWARD", true).owned("inet firewalld"),
			warning: `nft chain "inet firewalld filter_FORWARD" drops packets from containers of br4, to published ports of br4; to let pass what the engine allows: nft insert rule inet firewalld filter_FORWARD meta mark and 0x10000000 == 0x10000000 accept`,
		},
		{
			name: "a table of the administrator's", bridges: []network.BridgeRules{four, both},
			got:     tables(t).base("inet mine forward", true),
			warning: `nft chain "inet mine forward" drops packets from containers of br4, to published ports of br4, from containers of br6 and 1 more;`,
		},
		{
			name: "only warnings are wanted", bridges: []network.BridgeRules{four}, warnOnly: true,
			got: tables(t).base("ip filter FORWARD", true).own("ip filter FORWARD"), plan: del("ip filter FORWARD", "1"),
			warning: `nft chain "ip filter FORWARD" drops`,
		},
		{
			name:    "a routed network is reached by its own addresses",
			bridges: []network.BridgeRules{{Device: "brr", Mode4: network.GatewayRouted, Subnets: []netip.Prefix{netip.MustParsePrefix("10.4.0.0/24")}}},
			got: tables(t).base("inet mine forward", true).rule("inet mine forward", "", nft.IIFName("brr", false), nft.Accept()).
				rule("inet mine forward", "", nft.CTTranslated(), nft.Accept()),
			warning: "drops packets to containers' own addresses of brr;",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := PlanForeign("orlop-t", testMark, !c.warnOnly, c.bridges, c.filtered, c.got.Foreign)
			if got.String() != c.plan || got.Empty() != (c.plan == "") {
				t.Errorf("plan:\n%swant:\n%s", got, c.plan)
			}
			switch {
			case c.warning == "" && len(got.Warnings) > 0, len(got.Warnings) > 1:
				t.Errorf("warnings: %q", got.Warnings)
			case c.warning != "" && (len(got.Warnings) == 0 || !strings.HasPrefix(got.Warnings[0], "WARNING: ") || !strings.Contains(got.Warnings[0], c.warning)):
				t.Errorf("warnings: %q, want %q", got.Warnings, c.warning)
			}
		})
	}
}
