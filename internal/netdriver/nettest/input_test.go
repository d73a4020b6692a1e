package nettest_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// obeying opens a sandbox whose ports are published as its labels say.
func (e *engine) obeying(name, mode string, labels map[string]string, publish ...string) (*box, error) {
	e.t.Helper()
	req := networks.SandboxRequest{ContainerID: newID(), Name: name, Mode: mode, Bindings: networktypes.PortMap{}, Publish: labels}
	for _, p := range publish {
		addBinding(e.t, req.Bindings, p)
	}
	return e.open(req)
}

var obey = map[string]string{"orlop.publish.80/tcp.input": "obey", "orlop.publish.80/udp.input": "obey"}

// inputs are firewalls whose input rules drop what they do not know. What comes
// by lo, answers, and what IPv6 needs, are accepted.
var inputs = []struct {
	name, needs string
	// drop sets them up, allow accepts port 8080, deny forbids it again.
	drop, allow, deny []string
}{
	{
		name: "nftables", needs: "nft list ruleset",
		drop: []string{
			"nft add table inet guard", "nft add chain inet guard input { type filter hook input priority 0 ; policy drop ; }",
			"nft add rule inet guard input iifname lo accept", "nft add rule inet guard input ct state established,related accept",
			"nft add rule inet guard input meta l4proto ipv6-icmp accept", "nft add chain inet guard mine", "nft add rule inet guard input jump mine",
		},
		allow: []string{"nft add rule inet guard mine meta l4proto { tcp, udp } th dport 8080 accept"},
		deny:  []string{"nft flush chain inet guard mine"},
	},
	iptables("nft"), iptables("legacy"),
}

func iptables(kind string) (f struct {
	name, needs       string
	drop, allow, deny []string
}) {
	f.name, f.needs = "iptables-"+kind, "iptables-"+kind+" -S"
	for _, family := range []string{"iptables-", "ip6tables-"} {
		line := func(rule string) string { return family + kind + " " + rule }
		f.drop = append(f.drop, line("-A INPUT -i lo -j ACCEPT"), line("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"))
		if family == "ip6tables-" {
			f.drop = append(f.drop, line("-A INPUT -p ipv6-icmp -j ACCEPT"))
		}
		f.drop = append(f.drop, line("-P INPUT DROP"))
		for _, proto := range []string{"tcp", "udp"} {
			f.allow = append(f.allow, line("-A INPUT -p "+proto+" --dport 8080 -j ACCEPT"))
			f.deny = append(f.deny, line("-D INPUT -p "+proto+" --dport 8080 -j ACCEPT"))
		}
	}
	return f
}

func tools(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		tool(t, line)
	}
}

// visits are the ways by which others than the host come to port 8080 of it.
type visits struct {
	w       *nettest.World
	gateway string
	other   *netns.NS
}

func (v visits) open(t *testing.T, server string) {
	t.Helper()
	check(t, server, []path{
		{"outside", v.w.Outside, v.w.Host.String() + ":8080", v.gateway},
		{"outside by IPv6", v.w.Outside, "[" + v.w.Host6.String() + "]:8080", v.gateway},
		{"another container, by the host's address", v.other, v.w.Host.String() + ":8080", v.gateway},
	})
	v.host(t, server)
}

// host is the host itself, whose packets come by lo.
func (v visits) host(t *testing.T, server string) {
	t.Helper()
	check(t, server, []path{
		{"127.0.0.1", nil, "127.0.0.1:8080", v.gateway},
		{"[::1]", nil, "[::1]:8080", v.gateway},
		{"the host's own address", nil, v.w.Host.String() + ":8080", v.gateway},
	})
}

func (v visits) closed(t *testing.T) {
	t.Helper()
	refuse(t, "outside", v.w.Outside, v.w.Host.String()+":8080")
	refuse(t, "outside by IPv6", v.w.Outside, "["+v.w.Host6.String()+"]:8080")
	refuse(t, "another container, by the host's address", v.other, v.w.Host.String()+":8080")
	v.host(t, "web")
}

func TestPublishedPortObeysTheHostsInputRules(t *testing.T) {
	for _, fw := range inputs {
		t.Run(fw.name, func(t *testing.T) {
			nettest.Need(t)
			if out, err := exec.CommandContext(t.Context(), strings.Fields(fw.needs)[0], strings.Fields(fw.needs)[1:]...).CombinedOutput(); err != nil {
				t.Skipf("the kernel has no %s: %s", fw.name, out)
			}
			flushed(t)
			if fw.name == "iptables-legacy" {
				defer tools(t, []string{
					"iptables-legacy -P INPUT ACCEPT", "iptables-legacy -F INPUT", "ip6tables-legacy -P INPUT ACCEPT", "ip6tables-legacy -F INPUT",
				})
			}
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			web, err := e.obeying("web", "default", obey, ":8080:80/tcp", ":8080:80/udp")
			must(t, err)
			other := e.run("other", ":8081:80/tcp", ":8081:80/udp")
			nettest.Serve(t, web.ns, "web", 80)
			nettest.Serve(t, other.ns, "other", 80)
			v := visits{w: w, gateway: web.Attachment.Endpoints[0].Gateway4.String(), other: other.ns}
			if n := e.elements(); n != 2 {
				t.Errorf("%d ports are translated, want those of the other container", n)
			}
			t.Run("without rules", func(t *testing.T) { v.open(t, "web") })
			tools(t, fw.drop)
			t.Run("dropped", func(t *testing.T) {
				v.closed(t)
				// As Docker's, it is open whatever the rules say.
				check(t, "other", []path{{"outside, a port that does not obey", w.Outside, w.Host.String() + ":8081", w.Peer.String()}})
			})
			tools(t, fw.allow)
			t.Run("accepted", func(t *testing.T) { v.open(t, "web") })
			conn, err := dialFrom(w.Outside, w.Host.String()+":8080")
			must(t, err)
			defer conn.Close()
			talk(t, conn, "web ", "")

			t.Run("the daemon is killed", func(t *testing.T) {
				e.die()
				v.open(t, "web")
				tools(t, fw.deny)
				v.closed(t)
				tools(t, fw.allow)
			})
			t.Run("the daemon comes back", func(t *testing.T) {
				e = start(t, e, nil, networks.LiveSandbox{Attachment: web.Attachment}, networks.LiveSandbox{Attachment: other.Attachment})
				v.open(t, "web")
				if n := e.elements(); n != 2 {
					t.Errorf("%d ports are translated, want those of the other container", n)
				}
			})
			t.Run("another netd takes over", func(t *testing.T) {
				before := hello(t, e).Pid
				rebuild(t, e)
				e.die()
				e = start(t, e, nil, networks.LiveSandbox{Attachment: web.Attachment}, networks.LiveSandbox{Attachment: other.Attachment})
				if hello(t, e).Pid == before {
					t.Error("netd was not replaced")
				}
				v.open(t, "web")
				talk(t, conn, "", "still there\n")
			})
			tools(t, fw.deny)
			t.Run("forbidden again", v.closed)
			e.close(web)
			e.close(other)
			web.Release()
			other.Release()
			e.finish()
		})
	}
}

// dialFrom connects by TCP from a namespace.
func dialFrom(ns *netns.NS, to string) (c net.Conn, err error) {
	err = nettest.Inside(ns, func() (err error) {
		c, err = net.Dial("tcp", to)
		return err
	})
	return c, err
}

// rebuild has the next life of the daemon find another build of netd.
func rebuild(t *testing.T, e *engine) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	must(t, err)
	data, err := os.ReadFile(exe)
	must(t, err)
	link := filepath.Join(e.dir, "orlop-netd")
	must(t, os.Remove(link))
	must(t, os.Symlink(filepath.Join(t.TempDir(), "orlop-netd"), link))
	fresh, err := os.Readlink(link)
	must(t, err)
	must(t, os.WriteFile(fresh, data, 0o755))
}

func TestWhoSaysThatPortsObeyTheHostsInputRules(t *testing.T) {
	obeying := func(ports []network.Binding) string {
		yes, no := 0, 0
		for _, b := range ports {
			if b.ObeysInput {
				yes++
			} else {
				no++
			}
		}
		return fmt.Sprintf("%d obey, %d do not", yes, no)
	}
	const all, none, half = "4 obey, 0 do not", "0 obey, 4 do not", "2 obey, 2 do not"
	tcp := map[string]string{"orlop.publish.80.input": "obey"}
	bypass := map[string]string{"orlop.publish.input": "bypass"}
	for _, c := range []struct {
		name   string
		daemon network.Input
		option string
		labels map[string]string
		want   string
	}{
		{"nobody", "", "", nil, none},
		{"the daemon", network.InputObey, "", nil, all},
		{"the network", "", "obey", nil, all},
		{"the network, against the daemon", network.InputObey, "bypass", nil, none},
		{"a label about a port", "", "", tcp, half},
		{"a label, against network and daemon", network.InputObey, "obey", bypass, none},
		{"labels, the one about a port first", "", "obey", merged(tcp, bypass), half},
	} {
		t.Run(c.name, func(t *testing.T) {
			nettest.Need(t)
			flushed(t)
			w := nettest.NewWorld(t)
			e := start(t, nil, func(cfg *networks.Config) { cfg.PublishInput = c.daemon })
			options := []string{"subnet=10.77.0.0/24"}
			if c.option != "" {
				options = append(options, "orlop.publish.input="+c.option)
			}
			_, err := e.make("mynet", "bridge", options...)
			must(t, err)
			web, err := e.obeying("web", "mynet", c.labels, ":8080:80/tcp", ":8080:80/udp")
			must(t, err)
			nettest.Serve(t, web.ns, "web", 80)
			if got := obeying(web.Attachment.Ports); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			seen := func(i int) string {
				if web.Attachment.Ports[i].ObeysInput {
					return web.Attachment.Endpoints[0].Gateway4.String()
				}
				return w.Peer.String()
			}
			for i, b := range web.Attachment.Ports {
				if !b.HostIP.Is4() {
					continue
				}
				got, err := nettest.Ask(w.Outside, b.Proto, w.Host.String()+":8080")
				if err != nil || got.Client != seen(i) {
					t.Errorf("%s: %v %v, want client %s", b, got, err, seen(i))
				}
			}
			audit, err := e.svc.Audit(t.Context())
			must(t, err)
			lines := 0
			for _, r := range audit.Reach {
				if r.To == "container web" && strings.Contains(r.Why, "obeys the host's input rules") {
					lines++
				}
			}
			if want := strings.Fields(c.want)[0]; fmt.Sprint(lines) != want {
				t.Errorf("the audit names %d such ports, want %s", lines, want)
			}
			e.close(web)
			web.Release()
			must(t, e.svc.Remove(t.Context(), "mynet"))
			e.finish()
		})
	}
}

func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

func TestPortsThatCannotObeyAreRefusedBeforeAnythingChanges(t *testing.T) {
	e := start(t, nil, func(c *networks.Config) { c.PublishInput = network.InputObey })
	defer e.finish()
	_, err := e.make("routed", "bridge", "subnet=10.77.0.0/24", network.OptGatewayMode4+"=routed")
	must(t, err)
	defer func() { must(t, e.svc.Remove(t.Context(), "routed")) }()
	for _, c := range []struct{ mode, publish, says string }{
		{"default", ":5000:5000/sctp", "port 5000/sctp cannot obey the host's input rules: SCTP is not relayed"},
		{"routed", ":8080:80/tcp", "port 80/tcp cannot obey the host's input rules: the network's gateway mode is routed"},
	} {
		_, err := e.obeying("web", c.mode, map[string]string{"orlop.publish.input": "obey"}, ":9000:9000/tcp", c.publish)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s on %s: %v", c.publish, c.mode, err)
		}
	}
	if _, err := e.make("both", "bridge", network.OptGatewayMode4+"=routed", "orlop.publish.input=obey"); err == nil {
		t.Error("a routed network whose ports obey was made")
	}
	if _, err := e.make("odd", "bridge", "orlop.publish.input=perhaps"); err == nil || !strings.Contains(err.Error(), `"perhaps" is neither obey nor bypass`) {
		t.Errorf("a network with a value that is none: %v", err)
	}
	// Nothing is left of them: the port is free, and the daemon's default is no
	// reason to refuse a routed network.
	b, err := e.obeying("next", "routed", nil, ":9000:9000/tcp")
	must(t, err)
	e.close(b)
	b.Release()
	b = e.run("web", ":9000:9000/tcp")
	e.close(b)
	b.Release()
}

func TestAPortThatObeysIsHandedOverAsOne(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	blue, err := e.obeying("blue", "default", obey, ":8080:80/tcp", ":8080:80/udp")
	must(t, err)
	green := e.run("green")
	for _, b := range []*box{blue, green} {
		pid := process(t, b).Pid
		must(t, e.svc.Started(t.Context(), b.Attachment.ContainerID, pid))
		b.ns, err = netns.OfPid(pid)
		must(t, err)
		defer b.ns.Close()
	}
	nettest.Serve(t, blue.ns, "blue", 80)
	nettest.Serve(t, green.ns, "green", 80)
	v := visits{w: w, gateway: blue.Attachment.Endpoints[0].Gateway4.String(), other: green.ns}
	v.open(t, "blue")
	conn, err := dialFrom(w.Outside, w.Host.String()+":8080")
	must(t, err)
	defer conn.Close()
	talk(t, conn, "blue ", "")
	_, after, err := e.svc.HandOver(t.Context(), blue.Attachment.ContainerID, green.Attachment.ContainerID)
	must(t, err)
	v.open(t, "green")
	talk(t, conn, "", "still there\n")
	for _, b := range after.Ports {
		if !b.ObeysInput {
			t.Errorf("%s does not obey any more", b)
		}
	}
	tools(t, inputs[0].drop)
	refuse(t, "outside", w.Outside, w.Host.String()+":8080")
	v.host(t, "green")
	e.close(blue)
	e.close(green)
	e.finish()
}

func TestAPortOnOneAddressObeysThere(t *testing.T) {
	nettest.Need(t)
	flushed(t)
	w := nettest.NewWorld(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Default.IPv6, c.Default.Address6 = true, netip.MustParsePrefix("fd77::1/64")
	})
	// A network with IPv6: the kernel would translate this family too.
	web, err := e.obeying("web", "default", obey, "192.0.2.1:8080:80/tcp", "192.0.2.1:8080:80/udp",
		"[2001:db8:2::1]:8080:80/tcp", "[2001:db8:2::1]:8080:80/udp", "127.0.0.1:8081:80/tcp", "127.0.0.1:8081:80/udp")
	must(t, err)
	nettest.Serve(t, web.ns, "web", 80)
	if n := e.elements(); n != 0 {
		t.Errorf("%d ports are translated", n)
	}
	other := e.run("other", ":8090:80/tcp", ":8090:80/udp")
	nettest.Serve(t, other.ns, "other", 80)
	gateway := web.Attachment.Endpoints[0].Gateway4.String()
	check(t, "web", []path{
		{"outside", w.Outside, "192.0.2.1:8080", gateway},
		{"outside by IPv6", w.Outside, "[2001:db8:2::1]:8080", "fd77::1"},
		{"the host", nil, "127.0.0.1:8081", gateway},
	})
	refuse(t, "outside, a port of loopback", w.Outside, "192.0.2.1:8081")
	refuse(t, "the host, at another address", nil, "127.0.0.1:8080")
	tools(t, inputs[0].drop)
	refuse(t, "outside", w.Outside, "192.0.2.1:8080")
	refuse(t, "outside by IPv6", w.Outside, "[2001:db8:2::1]:8080")
	check(t, "other", []path{
		{"outside, a port that does not obey", w.Outside, "192.0.2.1:8090", w.Peer.String()},
		{"outside by IPv6, a port that does not obey", w.Outside, "[2001:db8:2::1]:8090", w.Peer6.String()},
	})
	tools(t, inputs[0].allow)
	check(t, "web", []path{
		{"outside, allowed", w.Outside, "192.0.2.1:8080", gateway},
		{"outside by IPv6, allowed", w.Outside, "[2001:db8:2::1]:8080", "fd77::1"},
	})
	e.close(web)
	e.close(other)
	web.Release()
	other.Release()
	e.finish()
}
