package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// world is every port of the service, and the list of what was done to it.
type world struct {
	mu     sync.Mutex
	acts   []string
	fail   map[string]error // by the first word of an act
	recs   map[string]network.Record
	events []string
	used   []netip.Prefix
	resolv string
	ipv6   bool
	now    time.Time
	ids    int
	closed int
	// hold keeps an act waiting, by its first word, until the channel is closed.
	hold map[string]chan struct{}
}

func (w *world) do(format string, args ...any) error {
	act := fmt.Sprintf(format, args...)
	word := strings.Fields(act)[0]
	w.mu.Lock()
	w.acts = append(w.acts, act)
	held, err := w.hold[word], w.fail[word]
	w.mu.Unlock()
	if held != nil {
		<-held
	}
	return err
}

type handle struct{ w *world }

func (h handle) Fd() uintptr { return 0 }
func (h handle) Close() error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.closed++
	return nil
}

// bridges is a driver whose networks are lines of the list.
type bridges struct{ w *world }

func (b bridges) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Scope: "local", Ports: true}, nil
}

func (b bridges) Prepare(_ context.Context, r *network.Record) (network.Wants, error) {
	r.Device = network.BridgeDevice(r.ID)
	return network.Wants{Gateway4: true, Gateway6: true}, b.w.fail["prepare"]
}

func (b bridges) Ensure(_ context.Context, r network.Record, _ []network.Endpoint) error {
	plan, err := network.BridgeOf(r, nil)
	return errors.Join(err, b.w.do("bridge %s %v", plan.Device, plan.Addrs))
}

func (b bridges) Remove(_ context.Context, r network.Record) error {
	return b.w.do("nobridge %s", r.Device)
}

func (b bridges) Join(_ context.Context, j network.Join) (network.Interface, error) {
	return network.Interface{Bridge: j.Network.Device, HostLink: j.Endpoint.HostLink}, b.w.fail["join"]
}

func (b bridges) Leave(context.Context, network.Record, network.Endpoint) error {
	return b.w.fail["leave"]
}

func (b bridges) Links(context.Context, network.Record) ([]string, error) { return nil, nil }

func (w *world) Addrs(context.Context, string) ([]netip.Prefix, error) { return nil, nil }
func (w *world) Open(_ context.Context, p network.SandboxPlan) (network.Handle, error) {
	var to []string
	for _, i := range p.Interfaces {
		to = append(to, fmt.Sprintf("%s=%v", i.InnerLink, i.Addrs))
	}
	return handle{w}, w.do("sandbox %v", to)
}
func (w *world) Enter(_ context.Context, pid int) (network.Handle, error) {
	return handle{w}, w.do("enter %d", pid)
}
func (w *world) Attach(_ context.Context, _ network.Handle, i network.Interface) error {
	return w.do("attach %s=%v", i.InnerLink, i.Addrs)
}
func (w *world) Detach(_ context.Context, _ network.Handle, inner, _ string) error {
	return w.do("detach %s", inner)
}
func (w *world) SetDefault(_ context.Context, _ network.Handle, d network.Default) error {
	return w.do("default %s %s", d.Link4, d.Link6)
}
func (w *world) SetBridge(_ context.Context, r network.BridgeRules) error {
	return w.do("rule %s", r.Device)
}
func (w *world) DropBridge(_ context.Context, r network.BridgeRules) error {
	return w.do("norule %s", r.Device)
}
func (w *world) RemoveLink(_ context.Context, n string) error         { return w.do("nolink") }
func (w *world) CutLink(context.Context, string) error                { return w.do("cut") }
func (w *world) WatchLinks(ctx context.Context, _ func(string)) error { <-ctx.Done(); return nil }
func (w *world) Apply(_ context.Context, r network.Ruleset) (string, error) {
	return "", w.do("rules %d ports", len(r.Ports))
}
func (w *world) DropsForeign(context.Context) (bool, error) { return false, nil }
func (w *world) Publish(_ context.Context, p []network.Binding) error {
	return w.do("publish %v", p)
}
func (w *world) Unpublish(_ context.Context, p []network.Binding) error {
	return w.do("unpublish %v", p)
}
func (w *world) Remove(context.Context) error { return w.do("norules") }
func (w *world) Warnings() []string           { return nil }
func (w *world) Ensure(_ context.Context, all []network.Names) error {
	return w.do("netd %d", len(all))
}
func (w *world) Put(_ context.Context, n network.Names, ns network.Handle) error {
	return w.do("put dns=%v ns=%v %v", n.DNS, ns != nil, n.Ports)
}
func (w *world) Settle(context.Context) error       { return nil }
func (w *world) Drop(context.Context, string) error { return w.do("drop") }
func (w *world) Redirect(context.Context, []network.Binding, []network.Binding) error {
	return w.do("redirect")
}
func (w *world) Move(context.Context, network.Names, network.Names) error { return w.do("move names") }
func (w *world) Quit(context.Context) error                               { return w.do("quit") }
func (w *world) Run(ctx context.Context) error                            { <-ctx.Done(); return nil }
func (w *world) Forget(context.Context, string) error                     { return nil }
func (w *world) ResolvConf() ([]byte, string, error) {
	return []byte(w.resolv), "/etc/resolv.conf", nil
}
func (w *world) Hosts() ([]byte, error)                               { return []byte("127.0.0.1 thishost\n"), nil }
func (w *world) Hostname() string                                     { return "thishost" }
func (w *world) Prefixes(context.Context) ([]netip.Prefix, error)     { return w.used, nil }
func (w *world) IPv6() bool                                           { return w.ipv6 }
func (w *world) PortRange() (uint16, uint16, []uint16)                { return 40000, 40010, nil }
func (w *world) EnableForwarding(context.Context, bool) (bool, error) { return true, nil }
func (w *world) Load(context.Context) (out []network.Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.recs {
		out = append(out, r)
	}
	return out, nil
}
func (w *world) Save(_ context.Context, r network.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recs[r.ID] = r
	return nil
}
func (w *world) Delete(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.recs, id)
	return nil
}
func (w *world) announced(e events.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf("%s %s %s", e.Type, e.Action, e.Actor.Attributes["name"]))
}

type publisher struct{ w *world }

func (p publisher) Publish(e events.Message) { p.w.announced(e) }

func newWorld() *world {
	return &world{recs: map[string]network.Record{}, fail: map[string]error{}, resolv: "nameserver 192.0.2.1\n", now: time.Unix(1000, 0)}
}

func (w *world) service(t *testing.T, live ...LiveSandbox) *Service {
	t.Helper()
	s, err := New(Config{
		Default: network.DefaultBridge{Device: "orlop0", ICC: true, Masquerade: true},
		Drivers: map[string]Driver{"bridge": bridges{w}}, Sandboxes: w, Firewall: w, Nameserver: w, Host: w, Store: w, Events: publisher{w},
		Now:   func() time.Time { return w.now },
		NewID: func() string { w.mu.Lock(); defer w.mu.Unlock(); w.ids++; return fmt.Sprintf("%012x%052x", w.ids, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	w.acts = nil
	return s
}

func request(id string, publish ...string) SandboxRequest {
	req := SandboxRequest{ContainerID: id, Name: "web", Bindings: networktypes.PortMap{}}
	for _, p := range publish {
		host, port, _ := strings.Cut(p, ":")
		key := networktypes.MustParsePort(port)
		req.Bindings[key] = append(req.Bindings[key], networktypes.PortBinding{HostPort: host})
	}
	return req
}

const one = "1111111111111111111111111111111111111111111111111111111111111111"

func TestPortsAreReservedBeforeAnythingIsMade(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	sb, err := s.Open(t.Context(), request(one, "8080:80/tcp"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"put dns=false ns=false [0.0.0.0:8080/tcp]", "sandbox [eth0=[172.17.0.2/16]]", "publish [0.0.0.0:8080/tcp]",
	}
	if diff := cmp.Diff(want, w.acts); diff != "" {
		t.Error(diff)
	}
	if got := string(sb.Hostname); got != "111111111111\n" {
		t.Errorf("hostname %q", got)
	}
	if err := s.Started(t.Context(), one, 77); err != nil {
		t.Fatal(err)
	}
	if w.closed != 1 {
		t.Error("the daemon still holds the namespace of a container that runs")
	}
	set := s.Settings(one)
	ep := set.Networks["bridge"]
	if set.SandboxKey != "/proc/77/ns/net" || ep.IPAddress.String() != "172.17.0.2" || ep.IPPrefixLen != 16 ||
		ep.Gateway.String() != "172.17.0.1" || ep.MacAddress.String() != "02:42:ac:11:00:02" ||
		fmt.Sprint(set.Ports) != "map[80/tcp:[{0.0.0.0 8080}]]" {
		t.Errorf("settings %+v %+v", set, ep)
	}
	w.acts = nil
	for range 2 {
		if err := s.Close(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"unpublish [0.0.0.0:8080/tcp]", "drop"}, w.acts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"network connect bridge", "network disconnect bridge"}, w.events); diff != "" {
		t.Error(diff)
	}
	if s.Settings(one) != nil {
		t.Error("a closed sandbox has settings")
	}
}

// Who hears of a container's end may use its ports, and remove its network, though
// its sandbox is still being closed.
func TestWhatAClosingSandboxHoldsIsWaitedFor(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	if _, err := s.Create(t.Context(), networktypes.CreateRequest{Name: "mine", Driver: "bridge"}, nil); err != nil {
		t.Fatal(err)
	}
	ended := request(one, "8080:80/tcp")
	ended.Mode = "mine"
	if _, err := s.Open(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	w.mu.Lock()
	w.hold = map[string]chan struct{}{"unpublish": held}
	w.mu.Unlock()
	closed, opened, removed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { closed <- s.Close(t.Context(), one) }()
	for begun := false; !begun; {
		w.mu.Lock()
		begun = strings.HasPrefix(w.acts[len(w.acts)-1], "unpublish")
		w.mu.Unlock()
	}
	go func() {
		_, err := s.Open(t.Context(), request(strings.Repeat("2", 64), "8080:80/tcp"))
		opened <- err
	}()
	go func() { removed <- s.Remove(t.Context(), "mine") }()
	select {
	case err := <-opened:
		t.Errorf("opened before the port is free: %v", err)
	case err := <-removed:
		t.Errorf("removed before the sandbox is off the network: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(held)
	for what, c := range map[string]chan error{"close": closed, "open": opened, "remove": removed} {
		if err := <-c; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestContainerWithoutPortsNeedsNoNameServer(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	if _, err := s.Open(t.Context(), request(one)); err != nil {
		t.Fatal(err)
	}
	if err := s.Started(t.Context(), one, 77); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sandbox [eth0=[172.17.0.2/16]]"}, w.acts); diff != "" {
		t.Error(diff)
	}
}

func TestFailedOpenLeavesNothing(t *testing.T) {
	for act, want := range map[string][]string{
		"put":     {"put dns=false ns=false [0.0.0.0:8080/tcp]"},
		"sandbox": {"put dns=false ns=false [0.0.0.0:8080/tcp]", "sandbox [eth0=[172.17.0.2/16]]", "drop"},
		"publish": {"put dns=false ns=false [0.0.0.0:8080/tcp]", "sandbox [eth0=[172.17.0.2/16]]", "publish [0.0.0.0:8080/tcp]", "drop"},
	} {
		t.Run(act, func(t *testing.T) {
			w := newWorld()
			s := w.service(t)
			w.fail[act] = errors.New("broken")
			if _, err := s.Open(t.Context(), request(one, "8080:80/tcp")); err == nil {
				t.Fatal("opened")
			}
			if diff := cmp.Diff(want, w.acts); diff != "" {
				t.Error(diff)
			}
			delete(w.fail, act)
			sb, err := s.Open(t.Context(), request(one, "8080:80/tcp"))
			if err != nil {
				t.Fatalf("the port or the address was kept: %v", err)
			}
			if got := sb.Attachment.Endpoints[0].IPv4.String(); got != "172.17.0.2/16" {
				t.Errorf("address %s", got)
			}
			if len(w.events) != 1 {
				t.Errorf("events %v", w.events)
			}
		})
	}
}

func TestEphemeralPortThatIsBusyIsTriedElsewhere(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	busy := network.Binding{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 40000, ContainerPort: 80}
	w.fail["put"] = network.PortBusy{Binding: busy, Cause: "address already in use"}
	_, err := s.Open(t.Context(), request(one, ":80/tcp"))
	if err == nil || len(w.acts) != portAttempts || !errors.Is(err, errdefs.ErrInternal) {
		t.Errorf("%d attempts, %v", len(w.acts), err)
	}
	if w.acts[0] != "put dns=false ns=false [0.0.0.0:40000/tcp]" || w.acts[1] != "put dns=false ns=false [0.0.0.0:40001/tcp]" {
		t.Errorf("attempts %v", w.acts[:2])
	}
	// A port that was asked for is not replaced by another one.
	w.acts = nil
	w.fail["put"] = network.PortBusy{Binding: network.Binding{Proto: "tcp", HostPort: 8080, ContainerPort: 80, HostIP: netip.IPv4Unspecified()}, Cause: "address already in use"}
	if _, err := s.Open(t.Context(), request(one, "8080:80/tcp")); err == nil || len(w.acts) != 1 {
		t.Errorf("%d attempts, %v", len(w.acts), err)
	}
}

func TestAddressWaitsForItsLink(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	sb, err := s.Open(t.Context(), request(one))
	if err != nil {
		t.Fatal(err)
	}
	link := sb.Attachment.Endpoints[0].HostLink
	if err := s.Close(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	last := ""
	next := func() string {
		t.Helper()
		last = s.cfg.NewID()
		sb, err := s.Open(t.Context(), request(last))
		if err != nil {
			t.Fatal(err)
		}
		return sb.Attachment.Endpoints[0].IPv4.Addr().String()
	}
	if got := next(); got != "172.17.0.3" {
		t.Errorf("while the link stands: %s", got)
	}
	if left := s.reap(t.Context()); !left || len(w.acts) != 2 {
		t.Errorf("the reaper was too early: %v", w.acts)
	}
	s.linkGone(link)
	if got := next(); got != "172.17.0.2" {
		t.Errorf("after the link is gone: %s", got)
	}
	if err := s.Close(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	w.acts, w.now = nil, w.now.Add(2*time.Second)
	if left := s.reap(t.Context()); left || cmp.Diff([]string{"nolink"}, w.acts) != "" {
		t.Errorf("the reaper did %v", w.acts)
	}
}

func TestModesWithoutAnInterface(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	host := request(one)
	host.Mode = "host"
	sb, err := s.Open(t.Context(), host)
	if err != nil || sb.Handle != nil || sb.Path != "" || !strings.Contains(string(sb.ResolvConf), "\n\n"+w.resolv+"\n# Based") || string(sb.Hosts) != "127.0.0.1 thishost\n" || string(sb.Hostname) != "thishost\n" {
		t.Errorf("host: %+v %v", sb, err)
	}
	if set := s.Settings(one); set.Networks["host"] == nil || set.Networks["host"].NetworkID == "" {
		t.Errorf("host: settings %+v", set)
	}
	none := request("2222222222222222222222222222222222222222222222222222222222222222")
	none.Mode = "none"
	if sb, err = s.Open(t.Context(), none); err != nil || sb.Handle == nil || !strings.HasPrefix(string(sb.Hosts), "127.0.0.1\tlocalhost\n") {
		t.Errorf("none: %+v %v", sb, err)
	}
	shared := request("3333333333333333333333333333333333333333333333333333333333333333")
	shared.Mode = "container:web"
	shared.Join = func(id string) (int, bool) { return 42, id == "web" }
	if sb, err = s.Open(t.Context(), shared); err != nil || sb.Path != "/proc/42/ns/net" || sb.Hosts != nil {
		t.Errorf("container: %+v %v", sb, err)
	}
	shared.ContainerID, shared.Mode = "4", "container:gone"
	if _, err = s.Open(t.Context(), shared); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("container that does not run: %v", err)
	}
	unknown := request("5")
	unknown.Mode = "nowhere"
	if _, err = s.Open(t.Context(), unknown); !errors.Is(err, errdefs.ErrNotFound) || !strings.HasSuffix(err.Error(), "network nowhere not found") {
		t.Errorf("unknown network: %v", err)
	}
	if diff := cmp.Diff([]string{"sandbox []"}, w.acts); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreKeepsWhatRunsAndItsSubnet(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	sb, err := s.Open(t.Context(), request(one, "8080:80/tcp"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.Inspect(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	// A route of the host's own overlaps by now; running containers decide.
	w.used = []netip.Prefix{netip.MustParsePrefix("172.17.5.0/24")}
	s = w.service(t, LiveSandbox{Attachment: sb.Attachment, Pid: 5, Name: "web"})
	after, err := s.Inspect(t.Context(), before.ID[:12])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.IPAM.Config, after.IPAM.Config, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if r := after.Containers[one]; r.Name != "web" || r.IPv4Address.String() != "172.17.0.2/16" {
		t.Errorf("containers %+v", after.Containers)
	}
	two := request("2222222222222222222222222222222222222222222222222222222222222222", "8080:80/tcp")
	if _, err := s.Open(t.Context(), two); err == nil || !strings.HasSuffix(err.Error(), "Bind for 0.0.0.0:8080 failed: port is already allocated") {
		t.Errorf("a port of a container that runs: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil || strings.Join(w.acts, " ") != "" {
		t.Errorf("a shutdown with a container running: %v %v", w.acts, err)
	}
	if err := s.Close(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	w.acts = nil
	if err := s.Shutdown(t.Context()); err != nil || strings.Join(w.acts, " ") != "quit norules nobridge orlop0" {
		t.Errorf("a shutdown: %v %v", w.acts, err)
	}
}

func TestListFilters(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	for filter, want := range map[string]string{
		"": "bridge host none", "driver=bridge": "bridge", "name=o": "host none", "type=custom": "", "type=builtin": "bridge host none",
		"scope=local": "bridge host none", "dangling=true": "", "label=x": "",
	} {
		opts := ListOptions{Filters: map[string][]string{}}
		if k, v, ok := strings.Cut(filter, "="); ok {
			opts.Filters[k] = []string{v}
		}
		got, err := s.List(t.Context(), opts)
		var names []string
		for _, n := range got {
			names = append(names, n.Name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%q: %v %v, want %s", filter, names, err, want)
		}
	}
	if _, err := s.List(t.Context(), ListOptions{Filters: map[string][]string{"color": {"red"}}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a filter that does not exist: %v", err)
	}
}

func TestRestartedContainerKeepsItsAddress(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	first, err := s.Open(t.Context(), request(one))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Close(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		again, err := s.Open(t.Context(), request(one))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := again.Attachment.Endpoints[0].IPv4, first.Attachment.Endpoints[0].IPv4; got != want {
			t.Errorf("address %s, before the restart %s", got, want)
		}
		// The old link's end must not free what is in use again.
		s.linkGone(first.Attachment.Endpoints[0].HostLink)
		other, err := s.Open(t.Context(), request(s.cfg.NewID()))
		if err != nil {
			t.Fatal(err)
		}
		if other.Attachment.Endpoints[0].IPv4 == again.Attachment.Endpoints[0].IPv4 {
			t.Errorf("address %s was given out twice", other.Attachment.Endpoints[0].IPv4)
		}
		first = again
	}
}
