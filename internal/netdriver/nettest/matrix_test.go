package nettest_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
		{"nat", false, opt(), "own - gw -   own - -   own own gw gw gw gw   own own   host host -"},
		{"icc=false", false, opt(network.OptICC, "false"), "- - gw -   - - -   own own gw gw gw gw   own own   host host -"},
		{"internal", true, opt(), "own - gw -   own - -   - - - - - -   - -   - - -"},
		{"nat-unprotected", false, both(network.GatewayNATUnprotected), "own own gw own   own own own   own own gw gw gw gw   own own   host host -"},
		{"routed", false, both(network.GatewayRouted), "own own gw own   own own own   - - - - - -   - -   own own -"},
		{"isolated", true, both(network.GatewayIsolated), "own - - -   own - -   - - - - - -   - -   - - -"},
		{"trusted ext0", false, opt(network.OptTrusted, "ext0:nosuch0"), "own - gw own   own - own   own own gw gw gw gw   own own   host host -"},
		{"masquerade=false", false, opt(network.OptMasquerade, "false"), "own - gw -   own - -   own own gw gw gw gw   own own   own own -"},
		{"IPv4 nat, IPv6 routed", false, opt(network.OptGatewayMode6, "routed"), "own - gw -   own own own   own own gw gw gw -   - -   host own -"},
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
				m := newMatrix(t, row)
				defer m.e.finish()
				want := strings.Fields(row.cells)
				if len(want) != len(columns) {
					t.Fatalf("%d cells for %d columns", len(want), len(columns))
				}
				got := m.ask(t)
				for i, c := range columns {
					for _, proto := range []string{"tcp", "udp"} {
						if g := got[c+" "+proto]; g != want[i] {
							t.Errorf("%s by %s: %s, want %s", c, proto, g, want[i])
						}
					}
				}
				for _, b := range m.boxes {
					m.e.close(b)
				}
				for _, name := range []string{"row", "other"} {
					must(t, m.e.svc.Remove(t.Context(), name))
				}
			})
		}
	}
}

// matrixWorld is a row made real.
type matrixWorld struct {
	w     *nettest.World
	e     *engine
	boxes []*box
	// seen names addresses.
	ways map[string]way
}

// way is who asks whom, and the names of the addresses he may be seen by.
type way struct {
	ns   *netns.NS
	to   string
	seen map[string]string
}

func newMatrix(t *testing.T, row matrixRow) *matrixWorld {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	on := true
	create := func(name string, n int, internal bool, options map[string]string) networktypes.Inspect {
		_, err := e.svc.Create(t.Context(), networktypes.CreateRequest{
			Name: name, EnableIPv6: &on, Internal: internal, Options: options,
			IPAM: &networktypes.IPAM{Config: []networktypes.IPAMConfig{
				{Subnet: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", n))}, {Subnet: netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", n))},
			}},
		}, nil)
		must(t, err)
		in, err := e.svc.Inspect(t.Context(), name)
		must(t, err)
		return in
	}
	in := create("row", 66, row.internal, row.options)
	create("other", 67, false, nil)
	join := func(name, to string, publish ...string) *box {
		req := networks.SandboxRequest{ContainerID: newID(), Name: name, Mode: to, Bindings: networktypes.PortMap{}}
		for _, p := range publish {
			addBinding(t, req.Bindings, p)
		}
		b, err := e.open(req)
		must(t, err)
		nettest.Serve(t, b.ns, name, 80)
		return b
	}
	web := join("web", "row", ":8080:80/tcp", ":8080:80/udp")
	mate, far := join("mate", "row"), join("far", "other")
	nettest.Serve(t, w.Outside, "world", 7000)

	v4 := func(b *box) string { return b.Attachment.Endpoints[0].IPv4.Addr().String() }
	v6 := func(b *box) string { return b.Attachment.Endpoints[0].IPv6.Addr().String() }
	var gw4, gw6 string
	for _, c := range in.IPAM.Config {
		switch {
		case !c.Gateway.IsValid():
		case c.Gateway.Is4():
			gw4 = c.Gateway.String()
		default:
			gw6 = c.Gateway.String()
		}
	}
	names := func(own4, own6 string) map[string]string {
		return map[string]string{own4: "own", own6: "own", gw4: "gw", gw6: "gw", w.Host.String(): "host", w.Host6.String(): "host"}
	}
	outside, ofMate := names(w.Peer.String(), w.Peer6.String()), names(v4(mate), v6(mate))
	ofFar, ofWeb := names(v4(far), v6(far)), names(v4(web), v6(web))
	host := names("", "")
	four := func(addr string, port int) string { return fmt.Sprintf("%s:%d", addr, port) }
	six := func(addr string, port int) string { return fmt.Sprintf("[%s]:%d", addr, port) }
	return &matrixWorld{w: w, e: e, boxes: []*box{web, mate, far}, ways: map[string]way{
		"mate>web": {mate.ns, four(v4(web), 80), ofMate}, "far>web": {far.ns, four(v4(web), 80), ofFar},
		"host>web": {nil, four(v4(web), 80), host}, "outside>web": {w.Outside, four(v4(web), 80), outside},
		"mate>web6": {mate.ns, six(v6(web), 80), ofMate}, "far>web6": {far.ns, six(v6(web), 80), ofFar},
		"outside>web6": {w.Outside, six(v6(web), 80), outside},
		"outside>port": {w.Outside, four(w.Host.String(), 8080), outside}, "far>port": {far.ns, four(w.Host.String(), 8080), ofFar},
		"mate>port": {mate.ns, four(w.Host.String(), 8080), ofMate}, "web>port": {web.ns, four(w.Host.String(), 8080), ofWeb},
		"127.0.0.1>port": {nil, "127.0.0.1:8080", host}, "[::1]>port": {nil, "[::1]:8080", host},
		"outside>port6": {w.Outside, six(w.Host6.String(), 8080), outside}, "far>port6": {far.ns, six(w.Host6.String(), 8080), ofFar},
		"web>world": {web.ns, four(w.Peer.String(), 7000), ofWeb}, "web>world6": {web.ns, six(w.Peer6.String(), 7000), ofWeb},
		"web>far": {web.ns, four(v4(far), 80), ofWeb},
	}}
}

// ask goes every way, all at once: silence takes its time.
func (m *matrixWorld) ask(t *testing.T) map[string]string {
	t.Helper()
	got := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(m.ways)) {
		for _, proto := range []string{"tcp", "udp"} {
			wg.Go(func() {
				way, seen := m.ways[name], "-"
				if a, err := nettest.Patient(way.ns, proto, way.to); err == nil {
					if seen = way.seen[a.Client]; seen == "" {
						seen = a.Client
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
