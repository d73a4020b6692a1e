package nettest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/nettest"
	"github.com/orlop/orlop/internal/plugin"
)

// sample is a plugin as a user would write one: a network driver that connects
// containers by a bridge of its own, and an IPAM driver that counts.
type sample struct {
	t      testing.TB
	server *http.Server

	mu    sync.Mutex
	calls []string
	links int
	macs  map[string]byte       // last byte of an endpoint's
	next  map[string]netip.Addr // by pool
	// hang holds every call until it is closed; nil answers.
	hang chan struct{}
	// fail is what methods answer as error.
	fail map[string]string
}

func (s *sample) start(dir, name string) {
	l, err := (&net.ListenConfig{}).Listen(s.t.Context(), "unix", filepath.Join(dir, name+".sock"))
	must(s.t, err)
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(l) }()
	s.t.Cleanup(func() { s.server.Close() })
}

// mac is an address of the endpoint's own: two ports of a bridge with the same
// one would take each other's frames.
func (s *sample) mac(endpoint string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.macs == nil {
		s.macs = map[string]byte{}
	}
	if s.macs[endpoint] == 0 {
		s.macs[endpoint] = byte(len(s.macs) + 1)
	}
	return []byte{2, 0x33, 0, 0, 0, s.macs[endpoint]}
}

func (s *sample) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *sample) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	var req struct {
		NetworkID, EndpointID, PoolID, Address, Pool string
		IPv4Data                                     []struct{ Pool, Gateway string }
		Interface                                    struct{ Address, MacAddress string }
		Options                                      map[string]any
	}
	if r.ContentLength > 0 {
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.mu.Lock()
	s.calls = append(s.calls, method)
	hang, failure := s.hang, s.fail[method]
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return
	}
	answer := map[string]any{}
	if failure != "" {
		answer["Err"], answer["Error"] = failure, failure
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	c, err := rtnl.Open()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	device := "smp" + req.NetworkID[:min(8, len(req.NetworkID))]
	switch method {
	case "Plugin.Activate":
		answer["Implements"] = []string{"NetworkDriver", "IpamDriver"}
	case "NetworkDriver.GetCapabilities":
		answer["Scope"] = "local"
	case "NetworkDriver.CreateNetwork":
		if err = c.AddBridge(device, []byte{2, 9, 9, 9, 9, 9}, 1500); err == nil {
			var l rtnl.Link
			if l, err = c.Link(device); err == nil {
				err = c.AddAddr(l.Index, netip.MustParsePrefix(req.IPv4Data[0].Gateway))
			}
		}
	case "NetworkDriver.DeleteNetwork":
		err = c.Delete(device)
	case "NetworkDriver.CreateEndpoint":
		answer["Interface"] = map[string]string{"MacAddress": net.HardwareAddr(s.mac(req.EndpointID)).String()}
	case "NetworkDriver.Join":
		var home *netns.NS
		var l rtnl.Link
		if home, err = netns.Current(); err == nil {
			if l, err = c.Link(device); err == nil {
				s.mu.Lock()
				s.links++
				n := s.links
				s.mu.Unlock()
				err = c.AddVeth(rtnl.Veth{
					Name: fmt.Sprintf("smpo%d", n), Master: l.Index, MTU: 1500, Peer: fmt.Sprintf("smpi%d", n), PeerMAC: s.mac(req.EndpointID), PeerNS: home.Fd(),
				})
				answer["InterfaceName"] = map[string]string{"SrcName": fmt.Sprintf("smpi%d", n), "DstPrefix": "smp"}
				answer["Gateway"] = "10.77.0.1"
				answer["StaticRoutes"] = []map[string]any{{"Destination": "10.88.0.0/16", "RouteType": 0, "NextHop": "10.77.0.1"}}
			}
			home.Close()
		}
	case "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint":
	case "NetworkDriver.EndpointOperInfo":
		answer["Value"] = map[string]string{"who": "sample"}
	case "IpamDriver.GetDefaultAddressSpaces":
		answer["LocalDefaultAddressSpace"], answer["GlobalDefaultAddressSpace"] = "here", "everywhere"
	case "IpamDriver.RequestPool":
		pool := req.Pool
		if pool == "" {
			pool = "10.77.0.0/24"
		}
		s.mu.Lock()
		s.next["pool-"+pool] = netip.MustParsePrefix(pool).Addr().Next()
		s.mu.Unlock()
		answer["PoolID"], answer["Pool"] = "pool-"+pool, pool
	case "IpamDriver.RequestAddress":
		s.mu.Lock()
		a := s.next[req.PoolID]
		s.next[req.PoolID] = a.Next()
		s.mu.Unlock()
		answer["Address"] = a.String() + "/24"
	case "IpamDriver.ReleasePool", "IpamDriver.ReleaseAddress":
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		answer = map[string]any{"Err": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// plugins is networks.Plugins over a registry.
type plugins struct{ *plugin.Registry }

func (p plugins) NetworkDriver(ctx context.Context, name string) (networks.Driver, error) {
	return p.Registry.NetworkDriver(ctx, name)
}

func (p plugins) IPAMDriver(ctx context.Context, name string) (networks.IPAMDriver, error) {
	return p.Registry.IPAMDriver(ctx, name)
}
func (p plugins) NetworkDriverLater(name string) networks.Driver {
	return p.Registry.NetworkDriverLater(name)
}
func (p plugins) IPAMDriverLater(name string) networks.IPAMDriver {
	return p.Registry.IPAMDriverLater(name)
}

func withPlugins(dir string, timeout time.Duration) func(*networks.Config) {
	return func(c *networks.Config) {
		c.Plugins = plugins{plugin.New(plugin.Config{Sockets: []string{dir}, Specs: []string{dir}, Timeout: timeout, Logger: c.Logger})}
	}
}

func TestPluginConnectsContainersAndDecidesAddresses(t *testing.T) {
	nettest.Need(t)
	dir := t.TempDir()
	s := &sample{t: t, next: map[string]netip.Addr{}, fail: map[string]string{}}
	s.start(dir, "sample")
	// Found by the file that tells its address, too.
	must(t, os.WriteFile(filepath.Join(dir, "byspec.spec"), []byte("unix://"+filepath.Join(dir, "sample.sock")+"\n"), 0o600))
	e := start(t, nil, withPlugins(dir, time.Minute))
	defer func() { e.finish() }()
	whole := t
	for _, name := range []string{"sample", "byspec"} {
		t.Run(name, func(t *testing.T) {
			s.mu.Lock()
			s.calls = nil
			s.mu.Unlock()
			resp, err := e.svc.Create(t.Context(), networktypes.CreateRequest{
				Name: "net-" + name, Driver: name, IPAM: &networktypes.IPAM{Driver: name}, Options: map[string]string{"color": "blue"},
			}, nil)
			must(t, err)
			a, b := e.on("a", "net-"+name), e.on("b", "net-"+name)
			if a.ip != netip.MustParseAddr("10.77.0.2") || b.ip != netip.MustParseAddr("10.77.0.3") {
				t.Errorf("addresses %s and %s", a.ip, b.ip)
			}
			ep := a.Attachment.Endpoints[0]
			if ep.InnerLink != "smp0" || !strings.HasPrefix(ep.MAC, "02:33:00:00:00:") || ep.Gateway4.String() != "10.77.0.1" {
				t.Errorf("endpoint %+v", ep)
			}
			nettest.Serve(t, a.ns, "a", 80)
			check(t, "a", []path{{"host", nil, "10.77.0.2:80", "10.77.0.1"}})
			must(t, a.ns.Do(func() error {
				c, err := rtnl.Open()
				if err != nil {
					return err
				}
				defer c.Close()
				routes, err := c.Routes()
				if !slices.Contains(routes, netip.MustParsePrefix("10.88.0.0/16")) {
					t.Errorf("routes %v", routes)
				}
				return err
			}))
			// A life of the daemon that knows them does not make them again.
			live := []networks.LiveSandbox{{Attachment: a.Attachment}, {Attachment: b.Attachment}}
			e.die()
			before := len(s.called())
			e = start(whole, e, withPlugins(dir, time.Minute), live...)
			if now := s.called(); len(now) != before {
				t.Errorf("called at the start: %v", now[before:])
			}
			e.close(a)
			e.close(b)
			must(t, e.svc.Remove(t.Context(), "net-"+name))
			if exists(t, "smp"+resp.ID[:8]) {
				t.Error("the plugin's bridge was left")
			}
			calls := s.called()
			for method, want := range map[string]int{
				"NetworkDriver.CreateNetwork": 1, "NetworkDriver.CreateEndpoint": 2, "NetworkDriver.Join": 2, "NetworkDriver.ProgramExternalConnectivity": 2,
				"NetworkDriver.RevokeExternalConnectivity": 2, "NetworkDriver.Leave": 2, "NetworkDriver.DeleteEndpoint": 2, "NetworkDriver.DeleteNetwork": 1,
				"IpamDriver.RequestPool": 1, "IpamDriver.RequestAddress": 3, "IpamDriver.ReleaseAddress": 2, "IpamDriver.ReleasePool": 1,
			} {
				got := 0
				for _, c := range calls {
					if c == method {
						got++
					}
				}
				if got != want && (method != "IpamDriver.ReleaseAddress" || got < want) {
					t.Errorf("%s was called %d times, want %d", method, got, want)
				}
			}
		})
	}
}

func TestPluginThatFailsLeavesNothing(t *testing.T) {
	nettest.Need(t)
	dir := t.TempDir()
	s := &sample{t: t, next: map[string]netip.Addr{}, fail: map[string]string{"NetworkDriver.CreateNetwork": "no more networks"}}
	s.start(dir, "sample")
	e := start(t, nil, withPlugins(dir, time.Minute))
	defer e.finish()
	create := func(driver string) error {
		_, err := e.svc.Create(t.Context(), networktypes.CreateRequest{Name: "n", Driver: driver}, nil)
		return err
	}
	if err := create("sample"); err == nil || !strings.Contains(err.Error(), "remote: no more networks") {
		t.Errorf("error %v", err)
	}
	if err := create("nobody"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), `plugin "nobody" not found`) {
		t.Errorf("error %v", err)
	}
	s.mu.Lock()
	s.fail = map[string]string{"NetworkDriver.Join": "no more containers"}
	s.mu.Unlock()
	must(t, create("sample"))
	if _, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: "a", Mode: "n"}); err == nil || !strings.Contains(err.Error(), "remote: no more containers") {
		t.Errorf("error %v", err)
	}
	if calls := s.called(); !slices.Contains(calls, "NetworkDriver.DeleteEndpoint") {
		t.Errorf("the endpoint was left: %v", calls)
	}
	must(t, e.svc.Remove(t.Context(), "n"))
}

func TestPluginThatHangsHoldsUpItsOwnNetworksOnly(t *testing.T) {
	nettest.Need(t)
	dir := t.TempDir()
	s := &sample{t: t, next: map[string]netip.Addr{}, fail: map[string]string{}}
	s.start(dir, "sample")
	e := start(t, nil, withPlugins(dir, time.Minute))
	defer func() { e.finish() }()
	_, err := e.svc.Create(t.Context(), networktypes.CreateRequest{Name: "slow", Driver: "sample"}, nil)
	must(t, err)
	s.mu.Lock()
	s.hang = make(chan struct{})
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan error, 1)
	go func() {
		_, err := e.svc.Open(ctx, networks.SandboxRequest{ContainerID: newID(), Name: "held", Mode: "slow"})
		held <- err
	}()
	eventually(t, "the plugin is asked", func() bool { return slices.Contains(s.called(), "NetworkDriver.CreateEndpoint") })
	// Everything else goes on.
	web := e.run("web")
	e.close(web)
	if _, err := e.make("other", "bridge"); err != nil {
		t.Error(err)
	}
	must(t, e.svc.Remove(t.Context(), "other"))
	cancel()
	// The undo of the act asks the plugin too, within its bound.
	s.mu.Lock()
	close(s.hang)
	s.hang = nil
	s.mu.Unlock()
	if err := <-held; err == nil {
		t.Error("a container was connected by a plugin that hangs")
	}
	// A daemon that starts does not wait for it.
	s.mu.Lock()
	s.hang = make(chan struct{})
	s.mu.Unlock()
	e.die()
	e = start(t, e, withPlugins(dir, time.Minute))
	s.mu.Lock()
	close(s.hang)
	s.hang = nil
	s.mu.Unlock()
	must(t, e.svc.Remove(t.Context(), "slow"))
}

func TestPluginThatIsSilentIsGivenUp(t *testing.T) {
	nettest.Need(t)
	dir := t.TempDir()
	s := &sample{t: t, next: map[string]netip.Addr{}, hang: make(chan struct{})}
	s.start(dir, "silent")
	reg := plugin.New(plugin.Config{Sockets: []string{dir}, Timeout: 50 * time.Millisecond})
	if _, err := reg.NetworkDriver(t.Context(), "silent"); !errdefs.IsUnavailable(err) {
		t.Errorf("error %v", err)
	}
	// One that is gone: its socket is there, nobody listens.
	s.server.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "gone.sock"), Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := reg.NetworkDriver(t.Context(), "gone"); !errdefs.IsUnavailable(err) {
		t.Errorf("error %v", err)
	}
}
