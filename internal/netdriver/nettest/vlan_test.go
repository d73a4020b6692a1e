package nettest_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// needLink skips a test of a kind of interface that the kernel does not have.
func needLink(t *testing.T, kind string) {
	t.Helper()
	if !hasLink(t, kind) {
		t.Skipf("the kernel has no %s", kind)
	}
}

func hasLink(t *testing.T, kind string) bool {
	t.Helper()
	nettest.Need(t)
	ns, err := netns.New(func(*netns.NS) error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.AddBridge("probe0", []byte{2, 0, 0, 0, 0, 1}, 1500); err != nil {
			return err
		}
		parent, err := c.Link("probe0")
		if err != nil {
			return err
		}
		switch kind {
		case "dummy":
			return c.AddDummy("probe1")
		case "vlan":
			return c.AddVLAN("probe1", parent.Index, 5)
		}
		return c.AddSub(rtnl.Sub{Kind: kind, Name: "probe1", Parent: parent.Index, Mode: map[string]string{"macvlan": "bridge", "ipvlan": "l2"}[kind], Flag: "bridge"})
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	must(t, err)
	must(t, ns.Close())
	return true
}

// make makes a network; options are "key=value", and internal, subnet=, gateway=, aux=.
func (e *engine) make(name, driver string, options ...string) (string, error) {
	req := networktypes.CreateRequest{Name: name, Driver: driver, Options: map[string]string{}, IPAM: &networktypes.IPAM{}}
	cfg := networktypes.IPAMConfig{}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "internal":
			req.Internal = true
		case "subnet":
			cfg.Subnet = netip.MustParsePrefix(value)
		case "range":
			cfg.IPRange = netip.MustParsePrefix(value)
		case "gateway":
			cfg.Gateway = netip.MustParseAddr(value)
		case "aux":
			cfg.AuxAddress = map[string]netip.Addr{"host": netip.MustParseAddr(value)}
		default:
			req.Options[key] = value
		}
	}
	if cfg.Subnet.IsValid() {
		req.IPAM.Config = []networktypes.IPAMConfig{cfg}
	}
	resp, err := e.svc.Create(e.t.Context(), req, nil)
	return resp.ID, err
}

// on opens a sandbox on a network.
func (e *engine) on(name, net string) *box {
	e.t.Helper()
	b, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: name, Mode: net})
	must(e.t, err)
	e.t.Cleanup(func() { b.Release() })
	return b
}

// exists reports whether the host has an interface.
func exists(t *testing.T, name string) bool {
	t.Helper()
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	_, err = c.Link(name)
	if err != nil && !rtnl.IsGone(err) {
		t.Fatal(err)
	}
	return err == nil
}

// wire are the options of a network on the cable to the machine outside.
var wire = []string{"parent=ext0", "subnet=192.0.2.0/24", "range=192.0.2.64/26", "gateway=192.0.2.9", "aux=192.0.2.100"}

func TestContainersShareTheWireOfAnInterface(t *testing.T) {
	for _, c := range []struct {
		driver, mode string
		options      []string
		// together: containers of the network reach each other. The machine
		// outside sends nothing back, so with vepa they do not.
		together bool
	}{
		{"macvlan", "default", nil, true},
		{"macvlan", "bridge", []string{"macvlan_mode=bridge"}, true},
		{"macvlan", "private", []string{"macvlan_mode=private"}, false},
		{"macvlan", "vepa", []string{"macvlan_mode=vepa"}, false},
		{"ipvlan", "default", nil, true},
		{"ipvlan", "l2 private", []string{"ipvlan_flag=private"}, false},
		{"ipvlan", "l2 vepa", []string{"ipvlan_flag=vepa"}, false},
		{"ipvlan", "l3", []string{"ipvlan_mode=l3"}, true},
		{"ipvlan", "l3s", []string{"ipvlan_mode=l3s"}, true},
	} {
		t.Run(c.driver+" "+c.mode, func(t *testing.T) {
			needLink(t, c.driver)
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			defer e.finish()
			nettest.Serve(t, w.Outside, "world", 7000)
			options := append(c.options, wire...)
			if strings.HasPrefix(c.mode, "l3") {
				// Another subnet than the host's: the machine outside has a route
				// to it by the host's interface, which answers for it.
				options = append(c.options, "parent=ext0", "subnet=198.51.100.0/24")
				must(t, w.Outside.Do(func() error {
					in, err := rtnl.Open()
					if err != nil {
						return err
					}
					defer in.Close()
					l, err := in.Link("eth0")
					if err != nil {
						return err
					}
					return in.AddRoute(l.Index, netip.MustParsePrefix("198.51.100.0/24"), w.Host)
				}))
			}
			_, err := e.make("wire", c.driver, options...)
			must(t, err)
			a, b := e.on("a", "wire"), e.on("b", "wire")
			stop := nettest.Serve(t, a.ns, "a", 80)
			if !strings.HasPrefix(c.mode, "l3") {
				// With l3 the container does not answer ARP; nor does it ask.
				check(t, "world", []path{{"a container", b.ns, w.Peer.String() + ":7000", b.ip.String()}})
			}
			check(t, "a", []path{{"outside", w.Outside, a.ip.String() + ":80", w.Peer.String()}})
			if c.together {
				check(t, "a", []path{{"another container", b.ns, a.ip.String() + ":80", b.ip.String()}})
			} else {
				refuse(t, "another container", b.ns, a.ip.String()+":80")
			}
			refuse(t, "the host", nil, a.ip.String()+":80")
			// Started again at once: the address is free although the kernel has
			// not removed the interface yet.
			ip := a.ip
			stop()
			e.close(a)
			a.Release()
			again := e.on("again", "wire")
			if again.ip != ip {
				t.Errorf("address %s, want %s", again.ip, ip)
			}
			e.close(again)
			e.close(b)
			must(t, e.svc.Remove(t.Context(), "wire"))
			if !exists(t, "ext0") {
				t.Error("the parent was removed")
			}
		})
	}
}

func TestHostReachesContainersByAnInterfaceOfItsOwn(t *testing.T) {
	for _, driver := range []string{"macvlan", "ipvlan"} {
		t.Run(driver, func(t *testing.T) {
			needLink(t, driver)
			nettest.NewWorld(t)
			e := start(t, nil, nil)
			defer func() { e.finish() }()
			id, err := e.make("wire", driver, append(wire, "orlop.host_address=192.0.2.100")...)
			must(t, err)
			link := "host-" + id[:10]
			if !exists(t, link) {
				t.Fatal("no interface of the host's own")
			}
			a := e.on("a", "wire")
			nettest.Serve(t, a.ns, "a", 80)
			nettest.Serve(t, nil, "host", 7001)
			check(t, "a", []path{{"host", nil, a.ip.String() + ":80", "192.0.2.100"}})
			check(t, "host", []path{{"container", a.ns, "192.0.2.100:7001", a.ip.String()}})
			// The next life of the daemon has them too.
			e.die()
			c, err := rtnl.Open()
			must(t, err)
			must(t, c.Delete(link))
			c.Close()
			e = start(t, e, nil, networks.LiveSandbox{Attachment: a.Attachment})
			check(t, "a", []path{{"host, after a restart", nil, a.ip.String() + ":80", "192.0.2.100"}})
			e.close(a)
			must(t, e.svc.Remove(t.Context(), "wire"))
			if exists(t, link) {
				t.Error("the host's own interface was left")
			}
			if _, err := e.make("wire", driver, "parent=ext0", "subnet=192.0.2.0/24", "orlop.host_address=192.0.2.100"); err == nil || !strings.Contains(err.Error(), "has to be set aside") {
				t.Errorf("an address that containers may get: %v", err)
			}
		})
	}
}

func TestParentsThatAreMadeAreRemoved(t *testing.T) {
	for _, driver := range []string{"macvlan", "ipvlan"} {
		t.Run(driver+" 802.1q", func(t *testing.T) {
			needLink(t, driver)
			needLink(t, "vlan")
			w := nettest.NewWorld(t)
			e := start(t, nil, nil)
			defer e.finish()
			must(t, w.Outside.Do(func() error {
				in, err := rtnl.Open()
				if err != nil {
					return err
				}
				defer in.Close()
				l, err := in.Link("eth0")
				if err != nil {
					return err
				}
				if err := in.AddVLAN("eth0.10", l.Index, 10); err != nil {
					return err
				}
				if l, err = in.Link("eth0.10"); err != nil {
					return err
				}
				return in.AddAddr(l.Index, netip.MustParsePrefix("203.0.113.9/24"))
			}))
			nettest.Serve(t, w.Outside, "world", 7000)
			_, err := e.make("tagged", driver, "parent=ext0.10", "subnet=203.0.113.0/24", "gateway=203.0.113.9")
			must(t, err)
			a := e.on("a", "tagged")
			nettest.Serve(t, a.ns, "a", 80)
			check(t, "a", []path{{"outside, tagged", w.Outside, a.ip.String() + ":80", "203.0.113.9"}})
			check(t, "world", []path{{"container", a.ns, "203.0.113.9:7000", a.ip.String()}})
			if driver == "macvlan" {
				_, err := e.make("second", driver, "parent=ext0.10", "subnet=203.0.114.0/24")
				must(t, err)
				e.close(a)
				must(t, e.svc.Remove(t.Context(), "tagged"))
				if !exists(t, "ext0.10") {
					t.Error("the sub-interface was removed under another network")
				}
				must(t, e.svc.Remove(t.Context(), "second"))
			} else {
				e.close(a)
				must(t, e.svc.Remove(t.Context(), "tagged"))
			}
			if exists(t, "ext0.10") {
				t.Error("the sub-interface was left")
			}
		})
		t.Run(driver+" dummy", func(t *testing.T) {
			needLink(t, driver)
			needLink(t, "dummy")
			e := start(t, nil, nil)
			defer e.finish()
			id, err := e.make("alone", driver)
			must(t, err)
			dev := map[string]string{"macvlan": "dm-", "ipvlan": "di-"}[driver] + id[:12]
			if !exists(t, dev) {
				t.Fatalf("no %s", dev)
			}
			a, b := e.on("a", "alone"), e.on("b", "alone")
			nettest.Serve(t, a.ns, "a", 80)
			check(t, "a", []path{{"another container", b.ns, a.ip.String() + ":80", b.ip.String()}})
			refuse(t, "the host", nil, a.ip.String()+":80")
			if gw := a.Attachment.Endpoints[0].Gateway4; gw.IsValid() {
				t.Errorf("gateway %s of a network that leads nowhere", gw)
			}
			e.close(a)
			e.close(b)
			must(t, e.svc.Remove(t.Context(), "alone"))
			if exists(t, dev) {
				t.Error("the dummy was left")
			}
		})
	}
}

func TestParentsAreRefusedInDockersWords(t *testing.T) {
	nettest.Need(t)
	nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	if _, err := e.make("taken", "macvlan", "parent=ext0", "subnet=10.9.0.0/24"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ driver, options, want string }{
		{"macvlan", "parent=ext0 macvlan_mode=nope", "requested macvlan mode 'nope' is not valid, 'bridge' mode is the macvlan driver default"},
		{"macvlan", "parent=lo", "loopback interface is not a valid macvlan parent link"},
		{"macvlan", "parent=ext9", "invalid subinterface vlan name ext9, example formatting is eth0.10"},
		{"macvlan", "parent=ext0.1.2", "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received ext0.1.2"},
		{"macvlan", "parent=ext0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"},
		{"macvlan", "parent=ext0.4095", "vlan id must be between 1-4094, received: 4095"},
		{"macvlan", "parent=ext9.5", "-o parent interface was not found on the host: ext9"},
		{"macvlan", "parent=ext0 macvlan_mode=passthru", "cannot use mode passthru, macvlan network"},
		{"ipvlan", "parent=ext1 ipvlan_mode=l4", "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default"},
		{"ipvlan", "parent=ext1 ipvlan_flag=x", "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"},
		{"ipvlan", "parent=ext0", "is already using parent interface ext0"},
	} {
		t.Run(c.driver+" "+c.options, func(t *testing.T) {
			_, err := e.make("bad", c.driver, append(strings.Fields(c.options), "subnet=10.10.0.0/24")...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if exists(t, "ext0.4095") || exists(t, "ext9") {
				t.Error("an interface was left")
			}
		})
	}
	must(t, e.svc.Remove(t.Context(), "taken"))
}
