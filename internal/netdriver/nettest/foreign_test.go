package nettest_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/netdriver/firewall"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// tool runs a firewall's own program in this namespace.
func tool(t *testing.T, line string) string {
	t.Helper()
	args := strings.Fields(line)
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("the program %s is not installed; make test installs it", args[0])
	}
	var warnings strings.Builder // iptables has some, in the middle of what it prints
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, out, &warnings)
	}
	return string(out)
}

// flushed leaves no rule in this namespace, of nftables and iptables-legacy.
func flushed(t *testing.T) {
	t.Helper()
	tool(t, "nft flush ruleset")
	t.Cleanup(func() { _ = exec.Command("nft", "flush", "ruleset").Run() })
}

// listTable shows the engine's own table, without counters.
const listTable = "nft -s list table inet " + tableName

// tableIs waits until the engine's own table is this again.
func tableIs(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the table is as it was", func() bool {
		args := strings.Fields(listTable)
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).Output()
		return err == nil && string(out) == want
	})
}

func TestRulesComeBackWhenSomebodyRemovesThem(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	defer func() { e.close(web); e.finish() }()
	nettest.Serve(t, web.ns, "web", 80)
	before := tool(t, listTable)
	for _, act := range []string{
		"nft flush ruleset",
		"nft delete table inet " + tableName,
		"nft flush chain inet " + tableName + " containers",
		"nft flush map inet " + tableName + " published_any4",
		"nft add rule inet " + tableName + " forward accept",
		"nft add element inet " + tableName + " bridges { eth0 }",
	} {
		t.Run(act, func(t *testing.T) {
			tool(t, act)
			tableIs(t, before)
			check(t, "web", []path{{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()}})
		})
	}
	t.Run("while the daemon was away", func(t *testing.T) {
		e.die()
		tool(t, "nft flush ruleset")
		e = start(t, e, nil, networks.LiveSandbox{Attachment: web.Attachment})
		if got := tool(t, listTable); got != before {
			t.Errorf("the table is\n%s\nwant\n%s", got, before)
		}
	})
}

// others are rulesets of other programs that drop what is forwarded.
var others = []struct {
	name string
	// set up with iptables-nft, and in tables where the output of show says
	// what there is.
	setup []string
	show  []string
	// place is where the engine's rule is found; "" for nowhere, with a warning.
	place string
}{
	{
		name:  "policy of iptables",
		setup: []string{"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -i lo -j ACCEPT"},
		show:  []string{"iptables-nft-save"}, place: "ip filter FORWARD",
	},
	{
		name: "Docker",
		setup: []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N DOCKER-USER", "iptables-nft -A DOCKER-USER -j RETURN",
			"iptables-nft -A FORWARD -j DOCKER-USER", "iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		},
		show: []string{"iptables-nft-save"}, place: "ip filter DOCKER-USER",
	},
	{
		name: "ufw",
		setup: []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N ufw-before-logging-forward", "iptables-nft -N ufw-before-forward", "iptables-nft -N ufw-reject-forward",
			"iptables-nft -A FORWARD -j ufw-before-logging-forward", "iptables-nft -A FORWARD -j ufw-before-forward", "iptables-nft -A FORWARD -j ufw-reject-forward",
			"iptables-nft -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "iptables-nft -A ufw-reject-forward -j REJECT",
		},
		show: []string{"iptables-nft-save"}, place: "ip filter ufw-before-forward",
	},
	{
		name: "a table of the administrator's",
		setup: []string{
			"nft add table inet filter", "nft add chain inet filter forward { type filter hook forward priority 0 ; policy drop ; }",
			"nft add rule inet filter forward ct state established,related accept",
		},
		show: []string{"nft -s list table inet filter"},
	},
	{
		name: "a table that rejects in the end",
		setup: []string{
			"nft add table inet guard", "nft add chain inet guard f { type filter hook forward priority 10 ; }", "nft add chain inet guard rest",
			"nft add rule inet guard f ct state established,related accept", "nft add rule inet guard f jump rest", "nft add rule inet guard rest reject",
		},
		show: []string{"nft -s list table inet guard"},
	},
}

// ownRules lists where the engine's rules stand in other tables.
func ownRules(t *testing.T) (places []string) {
	t.Helper()
	table, chain := "", ""
	for line := range strings.Lines(tool(t, "nft list ruleset")) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "table":
			table = f[1] + " " + f[2]
		case len(f) > 1 && f[0] == "chain":
			chain = f[1]
		case strings.Contains(line, tableName+" let it through"):
			places = append(places, table+" "+chain)
		}
	}
	return places
}

func TestContainersAreReachedThroughFirewallsThatDrop(t *testing.T) {
	for _, other := range others {
		t.Run(other.name, func(t *testing.T) {
			for _, nf := range []string{"0", "1"} {
				for _, order := range []string{"before", "after"} {
					t.Run("bridge-nf-call-iptables "+nf+" "+order+" the engine", func(t *testing.T) {
						nettest.Need(t)
						if !bridgeNF(t, nf) {
							t.Skip("the kernel has no br_netfilter")
						}
						flushed(t)
						setup := func() {
							for _, line := range other.setup {
								tool(t, line)
							}
						}
						show := func() (out string) {
							for _, line := range other.show {
								out += tool(t, line)
							}
							return withoutTimes(out)
						}
						if order == "before" {
							setup()
						}
						w := nettest.NewWorld(t)
						e := start(t, nil, nil)
						if order == "after" {
							setup()
						}
						web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
						client := e.run("client")
						nettest.Serve(t, web.ns, "web", 80)
						nettest.Serve(t, w.Outside, "world", 7000)
						if other.place == "" {
							eventually(t, "a warning", func() bool { return len(e.rules.Warnings()) > 0 })
							refuse(t, "outside", w.Outside, w.Host.String()+":8080")
							// The warning says what to do.
							_, act, ok := strings.Cut(e.rules.Warnings()[0], "allows: ")
							if !ok {
								t.Fatalf("warnings: %q", e.rules.Warnings())
							}
							tool(t, act)
						}
						eventually(t, "no warning", func() bool { return len(e.rules.Warnings()) == 0 })
						if other.place != "" {
							eventually(t, "the rule is in its place", func() bool {
								p := ownRules(t)
								return len(p) == 1 && p[0] == other.place
							})
						}
						gateway := web.Attachment.Endpoints[0].Gateway4.String()
						check(t, "web", []path{
							{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
							{"host", nil, "127.0.0.1:8080", gateway},
							{"another container", client.ns, web.ip.String() + ":80", client.ip.String()},
							{"another container, published", client.ns, w.Host.String() + ":8080", gateway},
						})
						check(t, "world", []path{{"a container", client.ns, w.Peer.String() + ":7000", w.Host.String()}})
						// What is ours is the mark; everything else stays as forbidden as it was.
						refuse(t, "outside, the container's own address", w.Outside, web.ip.String()+":80")

						e.close(web)
						e.close(client)
						e.finish()
						if p := ownRules(t); len(p) != 0 {
							t.Errorf("rules left in %v", p)
						}
						if other.place == "" {
							return // the administrator's own rule is there now
						}
						got := show()
						flushed(t)
						setup()
						if want := show(); got != want {
							t.Errorf("the other's ruleset is\n%s\nwant\n%s", got, want)
						}
					})
				}
			}
		})
	}
}

// withoutTimes removes the lines of iptables-save that tell the time, and
// counters.
func withoutTimes(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if i := strings.Index(line, " ["); strings.HasPrefix(line, ":") && i > 0 {
			line = line[:i] + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestForeignForwardOffOnlyWarns(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	tool(t, "iptables-nft -P FORWARD DROP")
	e := start(t, nil, nil)
	if p := ownRules(t); len(p) != 1 {
		t.Fatalf("rules in %v", p)
	}
	e.die()
	// The next life of the daemon takes back what the one before did.
	e = start(t, e, func(c *networks.Config) {
		f, err := firewall.New(firewall.Config{Table: tableName, WarnOnly: true})
		must(t, err)
		t.Cleanup(func() { f.Close() })
		c.Firewall = f
	})
	defer e.finish()
	if p := ownRules(t); len(p) != 0 {
		t.Errorf("rules in %v", p)
	}
	got := e.svc.Warnings()
	if len(got) != 1 || !strings.Contains(got[0], `"ip filter FORWARD" drops packets from containers of orlop0`) {
		t.Errorf("warnings: %q", got)
	}
}

func TestRuleGoesWhenItIsNotNeededAnyMore(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	e := start(t, nil, nil)
	defer e.finish()
	tool(t, "iptables-nft -P FORWARD DROP")
	eventually(t, "a rule", func() bool { return len(ownRules(t)) == 1 })
	// Somebody puts a drop above it.
	tool(t, "iptables-nft -I FORWARD -j DROP")
	eventually(t, "the rule is on top again", func() bool {
		return strings.HasPrefix(tool(t, "iptables-nft -S FORWARD 1"), "-A FORWARD -m mark")
	})
	tool(t, "iptables-nft -F FORWARD")
	eventually(t, "a rule after a flush", func() bool { return len(ownRules(t)) == 1 })
	tool(t, "iptables-nft -P FORWARD ACCEPT")
	eventually(t, "no rule", func() bool { return len(ownRules(t)) == 0 })
}

func TestLegacyIptablesThatDropsIsToldOf(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	if out, err := exec.CommandContext(t.Context(), "iptables-legacy", "-S").CombinedOutput(); err != nil {
		t.Skipf("the kernel has no iptables-legacy: %s", out)
	}
	tool(t, "iptables-legacy -P FORWARD DROP")
	defer tool(t, "iptables-legacy -P FORWARD ACCEPT")
	tool(t, "iptables-legacy -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	defer tool(t, "iptables-legacy -F FORWARD")
	// All of its tables, as bytes: nothing of it is ever changed.
	saved := func() string { return withoutTimes(tool(t, "iptables-legacy-save")) }
	before := saved()
	if !strings.Contains(before, ":FORWARD DROP\n") {
		t.Fatalf("iptables-legacy-save says\n%s", before)
	}
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	nettest.Serve(t, web.ns, "web", 80)
	refuse(t, "outside", w.Outside, w.Host.String()+":8080")
	got := e.rules.Warnings()
	if len(got) != 1 || !strings.Contains(got[0], "chain FORWARD of iptables-legacy drops") {
		t.Fatalf("warnings: %q", got)
	}
	if now := saved(); now != before {
		t.Errorf("beside the engine it is\n%s\nwas\n%s", now, before)
	}
	_, act, _ := strings.Cut(got[0], "allows: ")
	tool(t, act)
	check(t, "web", []path{{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()}})
	// iptables-legacy does not say when it changes; any other change of rules has
	// the engine look again.
	tool(t, "nft add table ip nudge")
	eventually(t, "no warning", func() bool { return len(e.rules.Warnings()) == 0 })
	with := saved()
	e.close(web)
	e.finish()
	if now := saved(); now != with {
		t.Errorf("without the engine it is\n%s\nwas\n%s", now, with)
	}
}
