package sandbox

import (
	"net/netip"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/domain/network"
)

func plan(change func(*network.Interface)) network.SandboxPlan {
	itf := network.Interface{
		Bridge: "br0", InnerLink: "eth0", MTU: 1500, MAC: "02:42:ac:11:00:02", HostLink: "veth1",
		Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.2/16")}, Gateway4: netip.MustParseAddr("172.17.0.1"),
	}
	if change != nil {
		change(&itf)
	}
	return network.SandboxPlan{Interfaces: []network.Interface{itf}}
}

func TestWhatNeedsOtherDefaultsBypassesThePool(t *testing.T) {
	if k, ok := suits(plan(nil), true); !ok || k != (kind{"br0", 1500, false, true}) {
		t.Errorf("an ordinary sandbox: %v %v", k, ok)
	}
	for what, change := range map[string]func(*network.Interface){
		"IPv6":           func(i *network.Interface) { i.Addrs = append(i.Addrs, netip.MustParsePrefix("fd00::2/64")) },
		"an IPv6 router": func(i *network.Interface) { i.Gateway6 = netip.MustParseAddr("fd00::1") },
		"another name":   func(i *network.Interface) { i.InnerLink = "net0" },
		"a setting": func(i *network.Interface) {
			i.Sysctls = []network.Sysctl{{Key: "net.ipv4.conf.IFNAME.rp_filter", Value: "0"}}
		},
		"a moved link": func(i *network.Interface) { i.Kind = network.Moved },
		"no address":   func(i *network.Interface) { i.Addrs = nil },
	} {
		if k, ok := suits(plan(change), false); ok {
			t.Errorf("%s is made of a spare of kind %v", what, k)
		}
	}
	if _, ok := suits(network.SandboxPlan{}, false); ok {
		t.Error("a sandbox without interfaces is made of a spare")
	}
	if _, ok := suits(network.SandboxPlan{Interfaces: append(plan(nil).Interfaces, plan(nil).Interfaces...)}, false); ok {
		t.Error("a sandbox with two interfaces is made of a spare")
	}
}

func TestPoolIsFilledWhenNobodyWaitsAndEmptiedWhenNobodyComes(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPool(func() time.Time { return now })
	if _, wanted, wait, _ := p.next(); wanted || wait != 0 {
		t.Error("a pool that nobody asked makes spares")
	}
	fill := func() (made int) {
		for {
			k, wanted, _, _ := p.next()
			if !wanted {
				return made
			}
			if !p.put(k, &spare{hostLink: k.bridge}) {
				t.Fatal("a wanted spare is not taken")
			}
			made++
		}
	}
	for i := range 6 {
		if p.take(kind{bridge: string(rune('a' + i))}) != nil {
			t.Fatal("a spare out of nothing")
		}
		now = now.Add(time.Millisecond)
	}
	if _, wanted, wait, _ := p.next(); wanted || wait <= 0 || wait > quiet {
		t.Errorf("while sandboxes are being made: wanted %v, wait %s", wanted, wait)
	}
	now = now.Add(quiet)
	if made := fill(); made != inAll {
		t.Errorf("%d spares, the bound is %d", made, inAll)
	}
	// The networks that were used last have theirs.
	if n := len(p.spares[kind{bridge: "f"}]); n != perNetwork {
		t.Errorf("%d spares of the network that was used last", n)
	}
	if sp := p.take(kind{bridge: "f"}); sp == nil || sp.hostLink != "f" || p.count != inAll-1 {
		t.Errorf("took %v, %d left", sp, p.count)
	}
	if p.take(kind{bridge: "f", filtered: true}) != nil {
		t.Error("a spare of another kind")
	}
	if gone := p.drain("e", false); len(gone) != perNetwork || p.take(kind{bridge: "e"}) != nil {
		t.Errorf("%d spares of a removed bridge", len(gone))
	}
	now = now.Add(keep)
	_, wanted, wait, old := p.next()
	if wanted || wait != 0 || len(old) != inAll-1-perNetwork || p.count != 0 || len(p.wanted) != 0 {
		t.Errorf("after a while: wanted %v, %d given up, %d counted", wanted, len(old), p.count)
	}
	p.take(kind{bridge: "g"})
	p.drain("", true)
	if p.put(kind{bridge: "g"}, &spare{}) {
		t.Error("a closed pool takes a spare")
	}
}
