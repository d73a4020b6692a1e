package nettest_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// The matrix: who reaches whom, for every option of a network. A row is a
// network with these options; "web" is on it and publishes 8080 (port 80), "mate"
// is on it too, "far" is on another network. A cell says as whom the asker is
// seen: "own" address, the "host"'s, the "gw" of web's network, or "-" for
// silence. Every cell is asked by TCP and UDP, with bridge-nf-call-iptables 0
// and 1.
//
// columns are the ways, in the order of the cells.
var columns = []string{
	"mate>web", "far>web", "host>web", "outside>web", // by the container's own address
	"mate>web6", "far>web6", "outside>web6",
	"outside>port", "far>port", "mate>port", "web>port", "127.0.0.1>port", "[::1]>port", // by a published port
	"outside>port6", "far>port6",
	"web>world", "web>world6", // from the container to a machine outside
	"web>far",
}

type matrixRow struct {
	name     string
	internal bool
	options  map[string]string
	cells    string
	// noIPv6 is a network of IPv4 only.
	noIPv6 bool
	// publish is the address of the host that the port is published on; every
	// one when empty.
	publish string
	// driver is another one than bridge, on the cable to the machine outside.
	driver string
	// docker: Docker 20.10 has the feature (TestReachabilityBesideDocker).
	docker bool
}

func matrix() []matrixRow {
	opt := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	both := func(mode network.GatewayMode) map[string]string {
		return opt(network.OptGatewayMode4, string(mode), network.OptGatewayMode6, string(mode))
	}
	return []matrixRow{
		//                              own address                port                                                  out
		{name: "nat", docker: true, cells: "own - gw -   own - -   own own gw gw gw gw   own own   host host -"},
		{name: "IPv4 only", docker: true, noIPv6: true, cells: "own - gw -   - - -   own own gw gw gw gw   gw gw   host - -"},
		{name: "port on 127.0.0.1", docker: true, publish: "127.0.0.1", cells: "own - gw -   own - -   - - - - gw -   - -   host host -"},
		{name: "port on the host's address", docker: true, publish: "192.0.2.1", cells: "own - gw -   own - -   own own gw gw - -   - -   host host -"},
		{name: "icc=false", docker: true, options: opt(network.OptICC, "false"), cells: "- - gw -   - - -   own own gw gw gw gw   own own   host host -"},
		{name: "internal", docker: true, internal: true, cells: "own - gw -   own - -   - - - - - -   - -   - - -"},
		{name: "masquerade=false", docker: true, options: opt(network.OptMasquerade, "false"), cells: "own - gw -   own - -   own own gw gw gw gw   own own   own own -"},
		{name: "macvlan", docker: true, noIPv6: true, driver: "macvlan", options: opt("parent", "ext0"), cells: "own - - own   - - -   - - - - - -   - -   own - -"},
		{name: "nat-unprotected", options: both(network.GatewayNATUnprotected), cells: "own own gw own   own own own   own own gw gw gw gw   own own   host host -"},
		{name: "routed", options: both(network.GatewayRouted), cells: "own own gw own   own own own   - - - - - -   - -   own own -"},
		{name: "isolated", internal: true, options: both(network.GatewayIsolated), cells: "own - - -   own - -   - - - - - -   - -   - - -"},
		{name: "trusted ext0", options: opt(network.OptTrusted, "ext0:nosuch0"), cells: "own - gw own   own - own   own own gw gw gw gw   own own   host host -"},
		{name: "IPv4 nat, IPv6 routed", options: opt(network.OptGatewayMode6, "routed"), cells: "own - gw -   own own own   own own gw gw gw -   - -   host own -"},
	}
}

func TestReachabilityMatrix(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		for _, row := range matrix() {
			t.Run(row.name+", bridge-nf-call-iptables "+nf, func(t *testing.T) {
				nettest.Need(t)
				if !bridgeNF(t, nf) {
					t.Skip("the kernel has no br_netfilter")
				}
				if row.driver != "" {
					needLink(t, row.driver)
				}
				m := newMatrix(t, row)
				defer m.end(t)
				want := row.want(t)
				got := askAll(m.ways[0])
				for way, g := range got {
					if g != want[way] {
						t.Errorf("%s: %s, want %s", way, g, want[way])
					}
				}
			})
		}
	}
}

// want are the cells by way and protocol, "mate>web tcp".
func (r matrixRow) want(t *testing.T) map[string]string {
	t.Helper()
	cells := strings.Fields(r.cells)
	if len(cells) != len(columns) {
		t.Fatalf("%d cells for %d columns", len(cells), len(columns))
	}
	m := map[string]string{}
	for i, c := range columns {
		m[c+" tcp"], m[c+" udp"] = cells[i], cells[i]
	}
	return m
}

// matrixWorld are rows made real, beside each other.
type matrixWorld struct {
	e     *engine
	boxes []*box
	nets  []string
	ways  []map[string]way // of each row
}

// way is who asks whom, and the names of the addresses he may be seen by.
type way struct {
	ns   *netns.NS
	to   string
	seen map[string]string
}

// onWire is a part of the subnet of the cable to the machine outside, which is
// the gateway.
var onWire = networktypes.IPAMConfig{
	Subnet: netip.MustParsePrefix("192.0.2.0/24"), IPRange: netip.MustParsePrefix("192.0.2.64/26"), Gateway: netip.MustParseAddr("192.0.2.9"),
}

// place is a container of the matrix, whoever runs it: its namespace, and its
// addresses as far as it has them.
type place struct {
	ns     *netns.NS
	v4, v6 string
}

func newMatrix(t *testing.T, rows ...matrixRow) *matrixWorld {
	w := nettest.NewWorld(t)
	m := &matrixWorld{e: start(t, nil, nil)}
	create := func(name string, n int, r matrixRow) (gateways []string) {
		six := !r.noIPv6
		cfg := []networktypes.IPAMConfig{{Subnet: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", n))}}
		if r.driver != "" {
			cfg = []networktypes.IPAMConfig{onWire}
		}
		if six {
			cfg = append(cfg, networktypes.IPAMConfig{Subnet: netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", n))})
		}
		_, err := m.e.svc.Create(t.Context(), networktypes.CreateRequest{
			Name: name, Driver: r.driver, EnableIPv6: &six, Internal: r.internal, Options: r.options, IPAM: &networktypes.IPAM{Config: cfg},
		}, nil)
		must(t, err)
		m.nets = append(m.nets, name)
		in, err := m.e.svc.Inspect(t.Context(), name)
		must(t, err)
		for _, c := range in.IPAM.Config {
			if c.Gateway.IsValid() {
				gateways = append(gateways, c.Gateway.String())
			}
		}
		return gateways
	}
	join := func(name, to string, publish ...string) place {
		req := networks.SandboxRequest{ContainerID: newID(), Name: name, Mode: to, Bindings: networktypes.PortMap{}}
		for _, p := range publish {
			addBinding(t, req.Bindings, p)
		}
		b, err := m.e.open(req)
		must(t, err)
		m.boxes = append(m.boxes, b)
		nettest.Serve(t, b.ns, name, 80)
		ep := b.Attachment.Endpoints[0]
		p := place{ns: b.ns, v4: ep.IPv4.Addr().String()}
		if ep.IPv6.IsValid() {
			p.v6 = ep.IPv6.Addr().String()
		}
		return p
	}
	create("other", 65, matrixRow{})
	far := join("far", "other")
	for i, r := range rows {
		name, port := fmt.Sprint("row", i), 8080+i
		gateways := create(name, 66+i, r)
		publish := fmt.Sprintf("%s:%d:80", r.publish, port)
		web := join("web", name, publish+"/tcp", publish+"/udp")
		m.ways = append(m.ways, waysOf(w, web, join("mate", name), far, gateways, port))
	}
	nettest.Serve(t, w.Outside, "world", 7000)
	return m
}

// end removes what newMatrix made.
func (m *matrixWorld) end(t *testing.T) {
	t.Helper()
	for _, b := range m.boxes {
		m.e.close(b)
	}
	for _, name := range m.nets {
		must(t, m.e.svc.Remove(t.Context(), name))
	}
	m.e.finish()
}

// waysOf are all ways to and from a container "web" that publishes a port.
func waysOf(w *nettest.World, web, mate, far place, gateways []string, port int) map[string]way {
	names := func(own ...string) map[string]string {
		m := map[string]string{w.Host.String(): "host", w.Host6.String(): "host"}
		for _, a := range gateways {
			m[a] = "gw"
		}
		for _, a := range own {
			if a != "" {
				m[a] = "own"
			}
		}
		return m
	}
	outside, host := names(w.Peer.String(), w.Peer6.String()), names()
	ofMate, ofFar, ofWeb := names(mate.v4, mate.v6), names(far.v4, far.v6), names(web.v4, web.v6)
	to := func(addr string, port int) string {
		if addr == "" {
			return "" // there is no such way
		}
		return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String()
	}
	v4, v6 := w.Host.String(), w.Host6.String()
	return map[string]way{
		"mate>web": {mate.ns, to(web.v4, 80), ofMate}, "far>web": {far.ns, to(web.v4, 80), ofFar},
		"host>web": {w.HostNS, to(web.v4, 80), host}, "outside>web": {w.Outside, to(web.v4, 80), outside},
		"mate>web6": {mate.ns, to(web.v6, 80), ofMate}, "far>web6": {far.ns, to(web.v6, 80), ofFar},
		"outside>web6": {w.Outside, to(web.v6, 80), outside},
		"outside>port": {w.Outside, to(v4, port), outside}, "far>port": {far.ns, to(v4, port), ofFar},
		"mate>port": {mate.ns, to(v4, port), ofMate}, "web>port": {web.ns, to(v4, port), ofWeb},
		"127.0.0.1>port": {w.HostNS, to("127.0.0.1", port), host}, "[::1]>port": {w.HostNS, to("::1", port), host},
		"outside>port6": {w.Outside, to(v6, port), outside}, "far>port6": {far.ns, to(v6, port), ofFar},
		"web>world": {web.ns, to(w.Peer.String(), 7000), ofWeb}, "web>world6": {web.ns, to(w.Peer6.String(), 7000), ofWeb},
		"web>far": {web.ns, to(far.v4, 80), ofWeb},
	}
}

// askAll goes every way by TCP and UDP, all at once: silence takes its time.
func askAll(ways map[string]way) map[string]string {
	got := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, way := range ways {
		for _, proto := range []string{"tcp", "udp"} {
			wg.Go(func() {
				seen := "-"
				if way.to != "" {
					if a, err := nettest.Patient(way.ns, proto, way.to); err == nil {
						if seen = way.seen[a.Client]; seen == "" {
							seen = a.Client
						}
					}
				}
				mu.Lock()
				defer mu.Unlock()
				got[name+" "+proto] = seen
			})
		}
	}
	wg.Wait()
	return got
}
