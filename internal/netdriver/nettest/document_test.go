package nettest_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

var update = flag.Bool("update", false, "rewrite docs/firewall.md from the rules in the kernel")

const document = "../../../docs/firewall.md"

// scenarios of the document: what a user does, and what the rules are then.
var scenarios = []struct {
	title, text string
	setup       []string
	// run returns what takes everything away again.
	run func(t *testing.T, e *engine) func()
}{
	{
		title: "A container with a published port",
		text:  "`orlop run -d -p 8080:80 -p 127.0.0.1:5353:53/udp …` on the default network.",
		run: func(_ *testing.T, e *engine) func() {
			b := e.run("web", ":8080:80/tcp", "127.0.0.1:5353:53/udp")
			return func() { e.close(b) }
		},
	},
	{
		title: "Networks of users",
		text: "`front` may reach 192.0.2.0/24 only, and not 192.0.2.66 (`-o orlop.egress.allow=192.0.2.0/24 -o orlop.egress.deny=192.0.2.66`); `back` is\n" +
			"internal and its containers do not reach each other; `routed` is reached by the containers' own addresses, on published ports (here 80).",
		run: func(t *testing.T, e *engine) func() {
			for _, options := range [][]string{
				{"front", "com.docker.network.bridge.name=br-front", "orlop.egress.allow=192.0.2.0/24", "orlop.egress.deny=192.0.2.66"},
				{"back", "com.docker.network.bridge.name=br-back", "internal", "com.docker.network.bridge.enable_icc=false"},
				{"routed", "com.docker.network.bridge.name=br-routed", "com.docker.network.bridge.gateway_mode_ipv4=routed"},
			} {
				_, err := e.make(options[0], "bridge", options[1:]...)
				must(t, err)
			}
			req := networks.SandboxRequest{ContainerID: newID(), Name: "api", Mode: "routed", Bindings: networktypes.PortMap{}}
			addBinding(t, req.Bindings, ":8081:80/tcp")
			b, err := e.open(req)
			must(t, err)
			return func() {
				e.close(b)
				for _, name := range []string{"front", "back", "routed"} {
					must(t, e.svc.Remove(t.Context(), name))
				}
			}
		},
	},
	{
		title: "Beside Docker",
		text:  "Docker has set the policy of iptables' FORWARD to drop. The rule in its chain DOCKER-USER is ours, and is all that we change in other tables.",
		setup: []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N DOCKER-USER", "iptables-nft -A DOCKER-USER -j RETURN", "iptables-nft -A FORWARD -j DOCKER-USER",
		},
		run: func(*testing.T, *engine) func() { return func() {} },
	},
}

// TestDocumentShowsTheRulesOfTheKernel prints docs/firewall.md from the live
// ruleset of a few scenarios; -update rewrites it.
func TestDocumentShowsTheRulesOfTheKernel(t *testing.T) {
	nettest.Need(t)
	old, err := os.ReadFile(document)
	if err != nil {
		t.Skipf("no sources here: %v", err)
	}
	const begin = "<!-- The rest of this file is printed by a test: internal/netdriver/nettest, -run Document -update -->\n"
	head, _, ok := strings.Cut(string(old), begin)
	if !ok {
		t.Fatal("the document has lost its mark")
	}
	var b strings.Builder
	b.WriteString(head + begin)
	for _, s := range scenarios {
		t.Run(s.title, func(t *testing.T) {
			flushed(t)
			must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
			for _, line := range s.setup {
				tool(t, line)
			}
			e := start(t, nil, nil)
			away := s.run(t, e)
			b.WriteString("\n## " + s.title + "\n\n" + s.text + "\n\n")
			if len(s.setup) > 0 {
				b.WriteString("```\n" + withoutTimes(tool(t, "iptables-nft-save -t filter")) + "```\n")
			} else {
				rules, err := e.rules.Show()
				must(t, err)
				b.WriteString("```\n" + rules + "```\n")
			}
			away()
			e.finish()
		})
	}
	if got := b.String(); got != string(old) {
		if *update {
			must(t, os.WriteFile(document, []byte(got), 0o600))
			return
		}
		t.Errorf("docs/firewall.md is not what the kernel has; run: go test ./internal/netdriver/nettest -run Document -update\n%s", got)
	}
}
