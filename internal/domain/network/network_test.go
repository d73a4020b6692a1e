package network

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	networktypes "github.com/moby/moby/api/types/network"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestChooseSubnetTakesTheFirstThatNobodyUses(t *testing.T) {
	for _, c := range []struct {
		used []string
		want string
	}{
		{nil, "172.17.0.0/16"},
		{[]string{"0.0.0.0/0"}, "172.17.0.0/16"}, // a default route takes nothing
		{[]string{"172.17.0.0/16"}, "172.18.0.0/24"},
		{[]string{"172.17.3.0/24"}, "172.18.0.0/24"},
		{[]string{"172.16.0.0/12"}, "192.168.0.0/24"},
		{[]string{"172.16.0.0/12", "192.168.1.0/24", "192.168.0.0/24"}, "192.168.2.0/24"},
		{[]string{"172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16", "172.22.0.0/16"}, "172.21.0.0/24"},
	} {
		got, err := ChooseSubnet(DefaultPools(), false, 0, prefixes(c.used...))
		if err != nil || got.String() != c.want {
			t.Errorf("with %v in use: %v %v, want %s", c.used, got, err, c.want)
		}
	}
	if _, err := ChooseSubnet(DefaultPools(), false, 0, prefixes("172.16.0.0/12", "192.168.0.0/16")); !errors.Is(err, ErrNoMoreSubnets) {
		t.Errorf("with all pools in use: %v", err)
	}
	if _, err := ChooseSubnet(DefaultPools(), true, 0, nil); !errors.Is(err, ErrNoMoreSubnets) {
		t.Errorf("IPv6 without such a pool: %v", err)
	}
}

func TestChooseSubnetFindsEverySubnetOfAPool(t *testing.T) {
	pools := []Pool{{Base: netip.MustParsePrefix("10.0.0.0/24"), Size: 28}}
	var used []netip.Prefix
	for i := range 16 {
		got, err := ChooseSubnet(pools, false, 0, used)
		if err != nil || got.String() != fmt.Sprintf("10.0.0.%d/28", i*16) {
			t.Fatalf("subnet %d: %v %v", i, got, err)
		}
		used = append(used, got)
	}
	if _, err := ChooseSubnet(pools, false, 0, used); !errors.Is(err, ErrNoMoreSubnets) {
		t.Errorf("subnet 17: %v", err)
	}
}

func TestAddressesComeLowestFirstAndReturnWhenTheirLinkIsGone(t *testing.T) {
	a := NewAddresses(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{}, netip.MustParseAddr("10.0.0.1"))
	take := func() string {
		t.Helper()
		addr, err := a.Allocate()
		if err != nil {
			return err.Error()
		}
		return addr.String()
	}
	for i := 2; i <= 6; i++ {
		if got := take(); got != fmt.Sprintf("10.0.0.%d", i) {
			t.Fatalf("address %d: %s", i, got)
		}
	}
	if got := take(); got != "no available addresses on this pool" {
		t.Errorf("full: %s", got)
	}
	three := netip.MustParseAddr("10.0.0.3")
	a.Drain(three)
	if _, err := a.Allocate(); !errors.Is(err, ErrAddressesDrained) {
		t.Errorf("while the link stands: %v", err)
	}
	if err := a.Take(three); !errors.Is(err, ErrAddressesDrained) {
		t.Errorf("taking an address that drains: %v", err)
	}
	a.Release(three)
	a.Release(three)
	if got := take(); got != "10.0.0.3" {
		t.Errorf("after the link is gone: %s", got)
	}
	a.Release(netip.MustParseAddr("10.0.0.1"))
	if err := a.Take(netip.MustParseAddr("10.0.0.1")); !errors.Is(err, ErrAddressTaken) {
		t.Errorf("the gateway was given away: %v", err)
	}
	if err := a.Take(netip.MustParseAddr("10.0.1.1")); !errors.Is(err, ErrAddressOutside) {
		t.Errorf("an address outside: %v", err)
	}
}

func TestAddressesOfARangeLeaveTheRestToWhoeverAsksForIt(t *testing.T) {
	a := NewAddresses(netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.0.5.0/30"), netip.MustParseAddr("10.0.0.1"))
	var got []string
	for {
		addr, err := a.Allocate()
		if err != nil {
			break
		}
		got = append(got, addr.String())
	}
	if want := []string{"10.0.5.0", "10.0.5.1", "10.0.5.2", "10.0.5.3"}; !cmp.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if err := a.Take(netip.MustParseAddr("10.0.9.9")); err != nil {
		t.Errorf("a static address of the subnet: %v", err)
	}
}

func port(s string) networktypes.Port { return networktypes.MustParsePort(s) }

func TestWantedPortsAreDockers(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	local := netip.MustParseAddr("127.0.0.1")
	for name, c := range map[string]struct {
		exposed []string
		bind    networktypes.PortMap
		all     bool
		hostIP  netip.Addr
		want    []WantedPort
	}{
		"an address for each family":     {bind: networktypes.PortMap{port("80/tcp"): {{HostPort: "8080"}}}, want: []WantedPort{{"tcp", 80, 8080, 8080, []netip.Addr{any4, any6}, ""}}},
		"one address":                    {bind: networktypes.PortMap{port("80/tcp"): {{HostIP: local, HostPort: "8080"}}}, want: []WantedPort{{"tcp", 80, 8080, 8080, []netip.Addr{local}, ""}}},
		"two addresses, one port":        {bind: networktypes.PortMap{port("80/tcp"): {{HostIP: local}, {HostIP: netip.MustParseAddr("10.0.0.1")}}}, want: []WantedPort{{"tcp", 80, 0, 0, []netip.Addr{local, netip.MustParseAddr("10.0.0.1")}, ""}}},
		"a range":                        {bind: networktypes.PortMap{port("80/udp"): {{HostIP: local, HostPort: "8000-8010"}}}, want: []WantedPort{{"udp", 80, 8000, 8010, []netip.Addr{local}, ""}}},
		"default address of --ip":        {bind: networktypes.PortMap{port("80/tcp"): {{HostPort: "1"}}}, hostIP: local, want: []WantedPort{{"tcp", 80, 1, 1, []netip.Addr{local}, ""}}},
		"-P publishes what is exposed":   {exposed: []string{"81/tcp"}, all: true, want: []WantedPort{{"tcp", 81, 0, 0, []netip.Addr{any4, any6}, ""}}},
		"exposed alone is not published": {exposed: []string{"81/tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			exposed := networktypes.PortSet{}
			for _, e := range c.exposed {
				exposed[port(e)] = struct{}{}
			}
			got, err := WantedPorts(exposed, c.bind, c.all, c.hostIP, true)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	_, err := WantedPorts(nil, networktypes.PortMap{port("80/tcp"): {{HostPort: "70000"}}}, false, netip.Addr{}, true)
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("port 70000: %v", err)
	}
}

func TestPortTableRefusesWhatOverlaps(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	tab := NewPortTable(40000, 40003, 40001)
	take := func(w WantedPort) (uint16, error) { return tab.Take(w, nil) }
	fixed := func(port uint16, ips ...netip.Addr) WantedPort { return WantedPort{"tcp", 80, port, port, ips, ""} }

	if _, err := take(fixed(80, one)); err != nil {
		t.Fatal(err)
	}
	if _, err := take(fixed(80, two)); err != nil {
		t.Errorf("the same port of another address: %v", err)
	}
	if _, err := take(fixed(80, any6)); err != nil {
		t.Errorf("the same port of the other family: %v", err)
	}
	if _, err := take(WantedPort{"udp", 80, 80, 80, []netip.Addr{any4}, ""}); err != nil {
		t.Errorf("the same port of another protocol: %v", err)
	}
	_, err := take(fixed(80, any4))
	if err == nil || err.Error() != "Bind for 10.0.0.1:80 failed: port is already allocated" || !errors.Is(err, errdefs.ErrInternal) {
		t.Errorf("every address while two are taken: %v", err)
	}
	n := tab.Len()
	if _, err := take(fixed(80, two, netip.MustParseAddr("10.0.0.3"))); err == nil || tab.Len() != n {
		t.Errorf("half of a request was taken: %v, %d of %d", err, tab.Len(), n)
	}

	var got []uint16
	for range 4 {
		p, err := take(WantedPort{"tcp", 80, 0, 0, []netip.Addr{any4, any6}, ""})
		if err != nil {
			if !errors.Is(err, ErrAllPortsAllocated) {
				t.Error(err)
			}
			break
		}
		got = append(got, p)
	}
	if !cmp.Equal(got, []uint16{40000, 40002, 40003}) {
		t.Errorf("ephemeral ports %v: 40001 is excluded", got)
	}
	tab.Release("tcp", 40000, any4, any6)
	if p, err := take(WantedPort{"tcp", 80, 0, 0, []netip.Addr{any4, any6}, ""}); p != 40000 {
		t.Errorf("port %d %v, want the one that is free again", p, err)
	}
}

func TestHostsFileIsDockers(t *testing.T) {
	extra, err := ParseExtraHosts([]string{"db:10.0.0.9", "gw:host-gateway", "six=[2001:db8::1]"}, []netip.Addr{netip.MustParseAddr("172.17.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	f := HostsFile{IPv6: true, Extra: extra, Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.2")}, Hostname: "web", Domainname: "example.org"}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.9\tdb\n172.17.0.1\tgw\n2001:db8::1\tsix\n172.17.0.2\tweb.example.org web\n"
	if diff := cmp.Diff(want, string(f.Bytes())); diff != "" {
		t.Error(diff)
	}
	f.IPv6 = false
	if got := string(f.Bytes()); strings.Contains(got, "::") {
		t.Errorf("IPv6 in a sandbox without it:\n%s", got)
	}
	for _, bad := range []string{"nocolon", ":10.0.0.1", "x:not-an-address"} {
		if _, err := ParseExtraHosts([]string{bad}, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestResolverOfTheDefaultBridge(t *testing.T) {
	for name, c := range map[string]struct {
		host string
		dns  []netip.Addr
		want string
		up   []Upstream
	}{
		"host's servers":             {host: "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n", want: "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"},
		"loopback is left out":       {host: "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", want: "nameserver 192.0.2.1\n"},
		"nothing but loopback":       {host: "nameserver 127.0.0.53\noptions edns0\n", want: "nameserver 127.0.0.11\noptions edns0\n", up: []Upstream{{netip.MustParseAddr("127.0.0.53"), true}}},
		"nothing at all":             {want: "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		"IPv6 needs an IPv6 network": {host: "nameserver 2001:db8::1\nnameserver 192.0.2.1\n", want: "nameserver 192.0.2.1\n"},
		"--dns is never changed":     {host: "nameserver 192.0.2.1\n", dns: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, want: "nameserver 127.0.0.1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rc := ParseResolvConf([]byte("# a comment\n"+c.host), "/etc/resolv.conf").Override(c.dns, nil, nil)
			r := LegacyResolver(rc, len(c.dns) > 0, false)
			_, got, _ := strings.Cut(string(r.File.Bytes()), "\n\n")
			got, _, _ = strings.Cut(got, "\n# ")
			if got != c.want {
				t.Errorf("file:\n%s\nwant:\n%s", got, c.want)
			}
			if fmt.Sprint(r.Upstream) != fmt.Sprint(c.up) || r.Embedded != (c.up != nil) {
				t.Errorf("upstream %v, want %v", r.Upstream, c.up)
			}
		})
	}
	if got := ParseResolvConf([]byte("search a\n"), "").Override(nil, []string{"."}, nil); len(got.Search) != 0 {
		t.Errorf("--dns-search=. leaves %v", got.Search)
	}
}

// The texts, but for the name in the first lines, are those of Docker 29
// (daemon/libnetwork/internal/resolvconf and its golden files).
func TestResolverFileIsDockers(t *testing.T) {
	const host = "nameserver 192.0.2.1\nnameserver oops\nsearch a b\noptions edns0\nsortlist x\n"
	const head = "# Generated by Orlop.\n# This file can be edited; Orlop will not make further changes once it\n# has been modified.\n\n"
	dns := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	for name, c := range map[string]struct {
		got  Resolver
		want string
	}{
		"user network": {
			EmbeddedResolver(ParseResolvConf([]byte(host), "/etc/resolv.conf"), false),
			"nameserver 127.0.0.11\nsearch a b\noptions edns0 ndots:0\nsortlist x\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n" +
				"# ExtServers: [host(192.0.2.1)]\n# Invalid nameservers: [oops]\n# Overrides: []\n# Option ndots from: internal\n",
		},
		"overridden": {
			EmbeddedResolver(ParseResolvConf([]byte(host), "/etc/resolv.conf").Override(dns, []string{"c"}, []string{"ndots:2"}), true),
			"nameserver 127.0.0.11\nsearch c\noptions ndots:2\nsortlist x\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n" +
				"# ExtServers: [192.0.2.9]\n# Invalid nameservers: [oops]\n# Overrides: [nameservers search options]\n# Option ndots from: override\n",
		},
		"ndots of the host, nobody to ask": {
			EmbeddedResolver(ParseResolvConf([]byte("options ndots:x ndots:1"), "/etc/resolv.conf"), false),
			"nameserver 127.0.0.11\noptions ndots:1\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n" +
				"# NO EXTERNAL NAMESERVERS DEFINED\n# Overrides: []\n# Option ndots from: host\n",
		},
		"default bridge": {
			LegacyResolver(ParseResolvConf(nil, "/run/systemd/resolve/resolv.conf"), false, true),
			"nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n\n" +
				"# Based on host file: '/run/systemd/resolve/resolv.conf' (legacy)\n# Used default nameservers.\n# Overrides: []\n",
		},
	} {
		if got := string(c.got.File.Bytes()); got != head+c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, head+c.want)
		}
		if want := name == "overridden" || strings.HasPrefix(name, "ndots"); c.got.OwnRoot != want {
			t.Errorf("%s: names without a dot stay: %v", name, c.got.OwnRoot)
		}
	}
}

func TestLinks(t *testing.T) {
	got, err := ParseLinks([]string{"DB:Store", "cache", "/x:/web/y"})
	if want := map[string]string{"store": "db", "cache": "cache", "y": "x"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", ":a", "a:", "a:b:c"} {
		if _, err := ParseLinks([]string{bad}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBindingIsTranslatedByTheKernelOrCarriedByNetd(t *testing.T) {
	for _, c := range []struct {
		host, container     string
		translated, relayed bool
	}{
		{"0.0.0.0", "172.17.0.2", true, false},
		{"127.0.0.1", "172.17.0.2", true, false},
		{"::", "172.17.0.2", false, true},
		{"::1", "172.17.0.2", false, true},
		{"::", "fd00::2", true, true}, // [::1] needs the relay, all else the kernel does
		{"::1", "fd00::2", false, true},
		{"2001:db8::1", "fd00::2", true, false},
		{"0.0.0.0", "fd00::2", false, true},
	} {
		b := Binding{HostIP: netip.MustParseAddr(c.host), HostPort: 80, ContainerIP: netip.MustParseAddr(c.container)}
		if b.Translated() != c.translated || b.Relayed() != c.relayed {
			t.Errorf("%s to %s: translated %v, relayed %v", c.host, c.container, b.Translated(), b.Relayed())
		}
	}
}
