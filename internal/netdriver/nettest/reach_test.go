package nettest_test

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// bridgeNF sets bridge-nf-call-iptables of this namespace; false where the
// kernel has no br_netfilter, which is the same as 0.
func bridgeNF(t *testing.T, value string) bool {
	t.Helper()
	for _, f := range []string{"iptables", "ip6tables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+f, []byte(value), 0)
		if os.IsNotExist(err) {
			return value == "0"
		}
		must(t, err)
	}
	return true
}

// path is one way to a published port.
type path struct {
	from   string
	ns     *netns.NS
	to     string
	client string // the address the container sees
}

// check asks along every path, by both protocols.
func check(t *testing.T, server string, paths []path) {
	t.Helper()
	for _, c := range paths {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(fmt.Sprintf("%s %s", c.from, proto), func(t *testing.T) {
				got, err := nettest.Ask(c.ns, proto, c.to)
				if err != nil {
					t.Fatalf("ask %s: %v", c.to, err)
				}
				if got.Server != server || got.Client != c.client {
					t.Errorf("answered by %s for client %s, want %s for %s", got.Server, got.Client, server, c.client)
				}
			})
		}
	}
}

// refuse expects that nobody answers. Silence takes its time, so both protocols
// wait together.
func refuse(t *testing.T, from string, ns *netns.NS, to string) {
	t.Helper()
	t.Run("not "+from, func(t *testing.T) {
		var wg sync.WaitGroup
		for _, proto := range []string{"tcp", "udp"} {
			wg.Go(func() {
				if got, err := nettest.Silent(ns, proto, to); err == nil {
					t.Errorf("%s %s answered %s for client %s", proto, to, got.Server, got.Client)
				}
			})
		}
		wg.Wait()
	})
}

func TestPublishedPortIsReachedFromEverywhere(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+nf, func(t *testing.T) {
			nettest.Need(t)
			if !bridgeNF(t, nf) {
				t.Skip("the kernel has no br_netfilter")
			}
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			defer e.finish()
			web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
			defer e.close(web)
			other := e.run("other")
			defer e.close(other)
			nettest.Serve(t, web.ns, "web", 80)

			gateway := web.Attachment.Endpoints[0].Gateway4.String()
			check(t, "web", []path{
				{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
				{"outside by IPv6", w.Outside, "[" + w.Host6.String() + "]:8080", gateway},
				{"host's address", nil, w.Host.String() + ":8080", w.Host.String()},
				{"host's IPv6 address", nil, "[" + w.Host6.String() + "]:8080", gateway},
				{"127.0.0.1", nil, "127.0.0.1:8080", gateway},
				{"another address of loopback", nil, "127.0.0.2:8080", gateway},
				{"[::1]", nil, "[::1]:8080", gateway},
				{"the bridge's address", nil, gateway + ":8080", gateway},
				{"the container's own address, from the host", nil, web.ip.String() + ":80", gateway},
				{"another container, by the host's address", other.ns, w.Host.String() + ":8080", gateway},
				{"another container, by the bridge's address", other.ns, gateway + ":8080", gateway},
				{"another container, directly", other.ns, web.ip.String() + ":80", other.ip.String()},
				{"itself, by the host's address", web.ns, w.Host.String() + ":8080", gateway},
			})
			refuse(t, "outside, the container's own address", w.Outside, web.ip.String()+":80")
			refuse(t, "a port that is not published", w.Outside, w.Host.String()+":80")
		})
	}
}

func TestContainersReachTheWorldBehindTheHostsAddress(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	c := e.run("client")
	defer e.close(c)
	nettest.Serve(t, w.Outside, "world", 7000)
	nettest.Serve(t, nil, "host", 7001)
	gateway := c.Attachment.Endpoints[0].Gateway4.String()
	check(t, "world", []path{{"to a machine outside", c.ns, w.Peer.String() + ":7000", w.Host.String()}})
	check(t, "host", []path{{"to a server of the host", c.ns, gateway + ":7001", c.ip.String()}})
}

func TestIPv6NetworkIsTranslatedByTheKernel(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Default.IPv6, c.Default.Address6 = true, netip.MustParsePrefix("fd77::1/64")
	})
	defer e.finish()
	web := e.run("web", ":8080:80/tcp", ":8080:80/udp", "[2001:db8:2::1]:8081:80/tcp", "[2001:db8:2::1]:8081:80/udp")
	defer e.close(web)
	other := e.run("other")
	defer e.close(other)
	nettest.Serve(t, web.ns, "web", 80)
	nettest.Serve(t, w.Outside, "world", 7000)
	ip6 := func(b *box) string { return b.Attachment.Endpoints[0].IPv6.Addr().String() }
	gateway := "fd77::1"
	check(t, "web", []path{
		{"outside", w.Outside, "[" + w.Host6.String() + "]:8080", w.Peer6.String()},
		{"outside, one address", w.Outside, "[" + w.Host6.String() + "]:8081", w.Peer6.String()},
		{"host's address", nil, "[" + w.Host6.String() + "]:8080", w.Host6.String()},
		{"[::1], by the relay", nil, "[::1]:8080", gateway},
		{"another container, by the host's address", other.ns, "[" + w.Host6.String() + "]:8080", gateway},
		{"another container, directly", other.ns, "[" + ip6(web) + "]:80", ip6(other)},
		{"itself", web.ns, "[" + w.Host6.String() + "]:8080", gateway},
		{"outside, IPv4", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
	})
	check(t, "world", []path{{"to a machine outside", web.ns, "[" + w.Peer6.String() + "]:7000", w.Host6.String()}})
	refuse(t, "outside, the container's own address", w.Outside, "["+ip6(web)+"]:80")
}

func TestPortOfOneAddressIsNotReachedByAnother(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	local := e.run("local", "127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/udp")
	defer e.close(local)
	public := e.run("public", w.Host.String()+":8080:80/tcp", w.Host.String()+":8080:80/udp")
	defer e.close(public)
	nettest.Serve(t, local.ns, "local", 80)
	nettest.Serve(t, public.ns, "public", 80)
	gateway := local.Attachment.Endpoints[0].Gateway4.String()
	check(t, "local", []path{{"127.0.0.1", nil, "127.0.0.1:8080", gateway}})
	check(t, "public", []path{
		{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
		{"host's address", nil, w.Host.String() + ":8080", w.Host.String()},
		{"a container", local.ns, w.Host.String() + ":8080", gateway},
	})
	refuse(t, "[::1]", nil, "[::1]:8080")
	refuse(t, "another address of loopback", nil, "127.0.0.2:8080")
	refuse(t, "outside, the container's own address", w.Outside, local.ip.String()+":80")

	// A neighbor on the cable that sends packets for 127.0.0.1 to our MAC
	// address (CVE-2024-29018 and its kin).
	must(t, w.Outside.Do(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		return c.DelAddr(1, netip.MustParsePrefix("127.0.0.1/8"))
	}))
	refuse(t, "outside, 127.0.0.1 by the cable", w.Outside, "127.0.0.1:8080")
}

func TestContainersWithoutICCReachPublishedPortsOnly(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+nf, func(t *testing.T) {
			nettest.Need(t)
			if !bridgeNF(t, nf) {
				t.Skip("the kernel has no br_netfilter")
			}
			w := nettest.NewWorld(t)
			e := start(t, nil, func(c *networks.Config) { c.Default.ICC = false })
			defer e.finish()
			web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
			defer e.close(web)
			other := e.run("other")
			defer e.close(other)
			nettest.Serve(t, web.ns, "web", 80)
			gateway := web.Attachment.Endpoints[0].Gateway4.String()
			check(t, "web", []path{
				{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
				{"127.0.0.1", nil, "127.0.0.1:8080", gateway},
				{"another container, published", other.ns, w.Host.String() + ":8080", gateway},
			})
			refuse(t, "another container, directly", other.ns, web.ip.String()+":80")
		})
	}
}

func TestHostThatDidNotForwardStaysNoRouter(t *testing.T) {
	nettest.Need(t)
	forward := func() string {
		data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		must(t, err)
		return string(data[:1])
	}
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	w := nettest.NewWorld(t)
	// A second machine outside, on another cable.
	host, err := rtnl.Open()
	must(t, err)
	defer host.Close()
	second, err := netns.New(func(ns *netns.NS) error {
		if err := host.AddVeth(rtnl.Veth{Name: "ext1", MTU: 1500, Peer: "eth0", PeerMAC: []byte{2, 0, 0, 0, 0, 8}, PeerNS: ns.Fd()}); err != nil {
			return err
		}
		in, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.Link("eth0")
		if err != nil {
			return err
		}
		must(t, in.AddAddr(l.Index, netip.MustParsePrefix("198.51.100.9/24")))
		must(t, in.SetUp(l.Index))
		return in.AddDefaultRoute(false, l.Index, netip.MustParseAddr("198.51.100.1"))
	})
	must(t, err)
	defer second.Close()
	l, err := host.Link("ext1")
	must(t, err)
	must(t, host.AddAddr(l.Index, netip.MustParsePrefix("198.51.100.1/24")))
	defer host.Delete("ext1")
	nettest.Serve(t, second, "second", 7000)

	e := start(t, nil, nil)
	if forward() != "1" {
		t.Error("forwarding is off")
	}
	c := e.run("client")
	check(t, "second", []path{{"a container", c.ns, "198.51.100.9:7000", "198.51.100.1"}})
	refuse(t, "between two machines outside", w.Outside, "198.51.100.9:7000")

	// The rule stays when the daemon comes back and finds forwarding on.
	e.die()
	e = start(t, e, nil, networks.LiveSandbox{Attachment: c.Attachment})
	refuse(t, "between two machines outside, after a restart", w.Outside, "198.51.100.9:7000")
	e.close(c)
	e.finish()
	c.Release()
	if _, err := nettest.Ask(w.Outside, "tcp", "198.51.100.9:7000"); err != nil {
		t.Errorf("with the engine gone the host does what it is told: %v", err)
	}
}
