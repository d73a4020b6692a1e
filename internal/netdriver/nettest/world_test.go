package nettest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/nameserver"
	"github.com/orlop/orlop/internal/netdriver/bridge"
	"github.com/orlop/orlop/internal/netdriver/firewall"
	"github.com/orlop/orlop/internal/netdriver/host"
	"github.com/orlop/orlop/internal/netdriver/ipvlan"
	"github.com/orlop/orlop/internal/netdriver/macvlan"
	"github.com/orlop/orlop/internal/netdriver/netd"
	"github.com/orlop/orlop/internal/netdriver/nettest"
	"github.com/orlop/orlop/internal/netdriver/sandbox"
	"github.com/orlop/orlop/internal/netdriver/uplink"
)

// TestMain is netd when the program is called by that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "orlop-netd" {
		s, err := nameserver.New(nameserver.Config{
			Table: os.Args[2], Socket: os.Args[4], Version: "test", Now: time.Now,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Ready:  func() { fmt.Println("ready") },
		})
		if err == nil {
			err = s.Run(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	nettest.Main(m)
}

// memory is a store of records and a publisher of events.
type memory struct {
	mu     sync.Mutex
	recs   map[string]network.Record
	events []events.Message
}

func (m *memory) Load(context.Context) (out []network.Record, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.recs {
		out = append(out, r)
	}
	return out, nil
}

func (m *memory) Save(_ context.Context, r network.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recs[r.ID] = r
	return nil
}

func (m *memory) Delete(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.recs, id)
	return nil
}

func (m *memory) Publish(e events.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// machine is the host with a resolver configuration of the test's own.
type machine struct {
	*host.Host
	resolv string
}

func (m machine) ResolvConf() ([]byte, string, error) {
	return []byte(m.resolv), "/etc/resolv.conf", nil
}

// engine is one engine without containers: its networks, and netd.
type engine struct {
	t       testing.TB
	svc     *networks.Service
	netd    *netd.Client
	driver  *bridge.Driver
	boxes   *sandbox.Maker
	rules   *firewall.Firewall
	store   *memory
	cfg     networks.Config
	name    string
	dir     string
	stopRun func()
}

const tableName = "orlop-test"

func newID() string {
	var b [32]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return hex.EncodeToString(b[:])
}

// start begins a life of the daemon; live are the containers that run.
func start(t testing.TB, prev *engine, change func(*networks.Config), live ...networks.LiveSandbox) *engine {
	t.Helper()
	nettest.Need(t)
	e := &engine{t: t, name: tableName}
	if prev != nil {
		e.store, e.dir = prev.store, prev.dir
	} else {
		e.store, e.dir = &memory{recs: map[string]network.Record{}}, t.TempDir()
		exe, err := os.Readlink("/proc/self/exe")
		must(t, err)
		must(t, os.Symlink(exe, filepath.Join(e.dir, "orlop-netd")))
	}
	var err error
	e.driver, err = bridge.New()
	must(t, err)
	e.boxes, err = sandbox.New(nil, nil)
	must(t, err)
	parents, err := uplink.New()
	must(t, err)
	t.Cleanup(func() { parents.Close() })
	e.rules, err = firewall.New(firewall.Config{Table: e.name, Dir: e.dir, Logger: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	must(t, err)
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e.netd = netd.New(netd.Config{Program: filepath.Join(e.dir, "orlop-netd"), Dir: filepath.Join(e.dir, "netd"), Logger: log})
	e.cfg = networks.Config{
		Default:   network.DefaultBridge{Device: "orlop0", ICC: true, Masquerade: true},
		Drivers:   map[string]networks.Driver{"bridge": e.driver, "macvlan": macvlan.New(parents), "ipvlan": ipvlan.New(parents)},
		Sandboxes: e.boxes, Firewall: e.rules, Nameserver: e.netd, Host: machine{host.New(nil), "nameserver 192.0.2.53\n"},
		Store: e.store, Events: e.store, Logger: log, Now: time.Now, NewID: newID,
	}
	if change != nil {
		change(&e.cfg)
	}
	e.svc, err = networks.New(e.cfg)
	must(t, err)
	must(t, e.svc.Restore(t.Context(), live))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.svc.Run(ctx) }()
	stopped := false
	e.stopRun = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	// A life that a failed test did not end would go on bringing its rules back.
	t.Cleanup(e.stopRun)
	return e
}

// die ends this life as kill -9 would: nothing is cleaned up.
func (e *engine) die() {
	e.stopRun()
	e.driver.Close()
	e.boxes.Close()
	e.rules.Close()
}

// finish ends the engine and everything that outlives it.
func (e *engine) finish() {
	e.t.Helper()
	must(e.t, e.svc.Shutdown(context.Background()))
	e.die()
	log, err := os.ReadFile(filepath.Join(e.dir, "netd", "netd.log"))
	must(e.t, err)
	for _, bad := range []string{"DATA RACE", "panic:", "level=ERROR"} {
		if bytes.Contains(log, []byte(bad)) {
			e.t.Errorf("netd's log:\n%s", log)
		}
	}
}

// testLog passes logs to the test.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", b)
	}
	return len(b), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// box is a container without a container: its sandbox, held by the test.
type box struct {
	*networks.Sandbox
	ns *netns.NS
	ip netip.Addr
}

// run opens a sandbox; publish are bindings as "hostip:hostport:port/proto".
func (e *engine) run(name string, publish ...string) *box {
	e.t.Helper()
	b, err := e.tryRun(name, publish...)
	must(e.t, err)
	return b
}

func (e *engine) tryRun(name string, publish ...string) (*box, error) {
	e.t.Helper()
	req := networks.SandboxRequest{ContainerID: newID(), Name: name, Mode: "default", Bindings: networktypes.PortMap{}}
	for _, p := range publish {
		addBinding(e.t, req.Bindings, p)
	}
	return e.open(req)
}

func (e *engine) open(req networks.SandboxRequest) (*box, error) {
	sb, err := e.svc.Open(e.t.Context(), req)
	if err != nil {
		return nil, err
	}
	b := &box{Sandbox: sb}
	if ns, ok := sb.Handle.(*netns.NS); ok {
		b.ns = ns
	}
	for _, ep := range sb.Attachment.Endpoints {
		if ep.IPv4.IsValid() {
			b.ip = ep.IPv4.Addr()
			break
		}
	}
	return b, nil
}

func addBinding(t testing.TB, m networktypes.PortMap, spec string) {
	t.Helper()
	var ip, hostPort, port string
	parts := splitSpec(spec)
	ip, hostPort, port = parts[0], parts[1], parts[2]
	p, err := networktypes.ParsePort(port)
	must(t, err)
	b := networktypes.PortBinding{HostPort: hostPort}
	if ip != "" {
		b.HostIP = netip.MustParseAddr(ip)
	}
	m[p] = append(m[p], b)
}

func splitSpec(spec string) [3]string {
	var out [3]string
	if spec[0] == '[' {
		for i := range spec {
			if spec[i] == ']' {
				out[0], spec = spec[1:i], spec[i+2:]
				break
			}
		}
		fmt.Sscanf(spec, "%5s", &out[1])
	} else {
		i := indexByte(spec, ':')
		out[0], spec = spec[:i], spec[i+1:]
	}
	i := indexByte(spec, ':')
	out[1], out[2] = spec[:i], spec[i+1:]
	return out
}

func indexByte(s string, c byte) int {
	for i := range s {
		if s[i] == c {
			return i
		}
	}
	return len(s)
}

// close ends a container.
func (e *engine) close(b *box) {
	e.t.Helper()
	must(e.t, e.svc.Close(e.t.Context(), b.Attachment.ContainerID))
}

// eventually polls until ok, for what the kernel does in its own time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
		<-tick.C
	}
}

// elements counts what is published.
func (e *engine) elements() int {
	e.t.Helper()
	c, err := nft.Open()
	must(e.t, err)
	defer c.Close()
	o, err := c.Observe(e.name)
	must(e.t, err)
	n := 0
	for _, m := range []string{"published_any4", "published_any6", "published_addr4", "published_addr6"} {
		n += len(o.Elements(m))
	}
	return n
}
