package nettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/linux/nft"
	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/nameserver/table"
	"github.com/orlop/orlop/internal/netdriver/bridge"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

func TestTakenPortIsRefusedBeforeAnythingChanges(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	first := e.run("first", ":6379:6379/tcp")
	defer e.close(first)
	l, err := net.Listen("tcp4", "127.0.0.1:7000")
	must(t, err)
	defer l.Close()
	elements := e.elements()

	for _, c := range []struct{ publish, text string }{
		{":6379:6379/tcp", "Bind for 0.0.0.0:6379 failed: port is already allocated"},
		{"127.0.0.1:6379:6379/tcp", "Bind for 0.0.0.0:6379 failed: port is already allocated"},
		{":7000:80/tcp", "failed to bind host port 0.0.0.0:7000/tcp: address already in use"},
		{"192.0.2.77:80:80/tcp", "failed to bind host port 192.0.2.77:80/tcp: cannot assign requested address"},
	} {
		_, err := e.tryRun("second", c.publish)
		if err == nil {
			t.Fatalf("%s was published", c.publish)
		}
		want := "failed to set up container networking: driver failed programming external connectivity on endpoint second ("
		if !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), c.text) {
			t.Errorf("publish %s: %q, want %q…%q", c.publish, err, want, c.text)
		}
	}
	// One that is just being made ready for the next container counts until it
	// is among those that wait.
	eventually(t, "only the first container's link", func() bool { return links(t, e) == 1 })
	if got := e.elements(); got != elements {
		t.Errorf("%d elements, before %d", got, elements)
	}
	// The addresses were given back: the next container has the next one.
	next := e.run("next")
	defer e.close(next)
	if next.ip != first.ip.Next() {
		t.Errorf("address %s after %s", next.ip, first.ip)
	}
}

func links(t testing.TB, e *engine) int {
	t.Helper()
	l, err := e.driver.Links(t.Context(), network.Record{Device: "orlop0"})
	must(t, err)
	// Those that wait for a container are asked for first: one that is taken in
	// the meantime counts.
	spares := e.boxes.Spares()
	return len(slices.DeleteFunc(l, func(name string) bool { return slices.Contains(spares, name) }))
}

func TestReservedPortCannotBeTakenByOthers(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	b := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	for _, try := range []struct{ proto, addr string }{
		{"tcp4", "0.0.0.0:8080"}, {"tcp4", "127.0.0.1:8080"}, {"tcp6", "[::]:8080"}, {"tcp", ":8080"}, {"udp4", "0.0.0.0:8080"}, {"udp6", "[::]:8080"},
	} {
		if err := listen(try.proto, try.addr); err == nil {
			t.Errorf("%s %s can be bound", try.proto, try.addr)
		}
	}
	e.close(b)
	for _, proto := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		if err := listen(proto, ":8080"); err != nil {
			t.Errorf("after the container was closed: %v", err)
		}
	}
}

// listen sets SO_REUSEADDR, as the standard library does.
func listen(proto, addr string) error {
	var c io.Closer
	var err error
	if strings.HasPrefix(proto, "tcp") {
		c, err = net.Listen(proto, addr)
	} else {
		c, err = net.ListenPacket(proto, addr)
	}
	if err == nil {
		c.Close()
	}
	return err
}

func TestOldConnectionsDoNotKeepAPortFromBeingPublished(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	// The server closes first, so TIME_WAIT is on its port.
	l, err := net.Listen("tcp4", "127.0.0.1:8080")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
	}()
	c, err := net.Dial("tcp4", "127.0.0.1:8080")
	must(t, err)
	<-done
	_, err = io.ReadAll(c)
	must(t, err)
	c.Close()
	l.Close()
	tcp, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	if !strings.Contains(string(tcp), ":1F90 ") {
		t.Fatal("there is no connection in TIME_WAIT")
	}
	b := e.run("web", ":8080:80/tcp")
	if err := listen("tcp4", "0.0.0.0:8080"); err == nil {
		t.Error("the port is not reserved")
	}
	if c, err := net.DialTimeout("tcp4", "127.0.0.1:8080", time.Second); err == nil {
		t.Error("connected although nobody listens")
		c.Close()
	}
	e.close(b)
}

func TestEphemeralPortsAvoidThoseOfOtherPrograms(t *testing.T) {
	nettest.Need(t)
	// Outside the usual range, where connections of earlier tests may linger.
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 20009"), 0))
	t.Cleanup(func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("32768 60999"), 0))
	})
	e := start(t, nil, nil)
	defer e.finish()
	l, err := net.Listen("tcp", ":20001")
	must(t, err)
	defer l.Close()
	var got []uint16
	for i := range 3 {
		b := e.run(fmt.Sprint("web", i), "::80/tcp")
		defer e.close(b)
		ports := b.Attachment.Ports
		if len(ports) != 2 || ports[0].HostPort != ports[1].HostPort {
			t.Fatalf("bindings %v", ports)
		}
		got = append(got, ports[0].HostPort)
	}
	if fmt.Sprint(got) != "[20000 20002 20003]" {
		t.Errorf("ports %v", got)
	}
	if _, err := e.tryRun("many", ":20002-20003:80/tcp"); err == nil || !strings.HasSuffix(err.Error(), "all ports are allocated") {
		t.Errorf("a range without a free port: %v", err)
	}
}

func TestStoppedContainersPortIsFreeAtOnce(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	for i := range 20 {
		b := e.run(fmt.Sprint("web", i), ":8080:80/tcp", ":8080:80/udp")
		stop := nettest.Serve(t, b.ns, fmt.Sprint("web", i), 80)
		for _, to := range []string{"127.0.0.1:8080", "[::1]:8080"} {
			for _, proto := range []string{"tcp", "udp"} {
				got, err := nettest.Ask(nil, proto, to)
				must(t, err)
				if got.Server != fmt.Sprint("web", i) {
					t.Fatalf("%s %s answered by %s, want web%d", proto, to, got.Server, i)
				}
			}
		}
		stop()
		e.close(b)
	}
	if n := e.elements(); n != 0 {
		t.Errorf("%d elements are left", n)
	}
	eventually(t, "links gone", func() bool { return links(t, e) == 0 })
	st, err := e.netd.Status()
	must(t, err)
	if st.Ports != 0 || st.Sessions != 0 || st.Sandboxes != 0 {
		t.Errorf("netd still has %+v", st)
	}
}

func TestUDPClientThatKeepsSendingReachesTheNewContainer(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	var c net.Conn
	must(t, w.Outside.Do(func() (err error) {
		c, err = net.Dial("udp", w.Host.String()+":8080")
		return err
	}))
	defer c.Close()
	questions := 0
	ask := func() (string, error) {
		questions++
		question := fmt.Sprint("question", questions)
		if _, err := c.Write([]byte(question)); err != nil {
			return "", err
		}
		must(t, c.SetReadDeadline(time.Now().Add(3*time.Second)))
		for buf := make([]byte, 100); ; {
			n, err := c.Read(buf)
			if err != nil {
				return "", err
			}
			// What is said to an earlier question may come late.
			if answer, ours := strings.CutSuffix(string(buf[:n]), " "+question+"\n"); ours {
				name, _, _ := strings.Cut(answer, " ")
				return name, nil
			}
		}
	}
	_, _ = c.Write([]byte("early")) // a flow that leads nowhere yet
	for _, name := range []string{"one", "two"} {
		b := e.run(name, ":8080:80/udp")
		stop := nettest.Serve(t, b.ns, name, 80)
		var got string
		eventually(t, name+" answers", func() bool {
			var err error
			got, err = ask()
			return err == nil
		})
		if got != name {
			t.Errorf("answered by %s, want %s", got, name)
		}
		stop()
		e.close(b)
	}
}

func TestAddressIsFreeWhenItsLinkIsGone(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, func(c *networks.Config) { c.Default.Address = netip.MustParsePrefix("10.9.0.1/29") })
	defer e.finish()
	var boxes []*box
	for i := range 5 { // .2 to .6
		boxes = append(boxes, e.run(fmt.Sprint("c", i)))
	}
	if _, err := e.tryRun("full"); err == nil || !strings.Contains(err.Error(), "no available IPv4 addresses on this network's address pools: bridge (") {
		t.Errorf("a full subnet: %v", err)
	}
	// Somebody keeps the namespace alive: only the reaper frees the address.
	hold := boxes[2]
	stop := nettest.Serve(t, hold.ns, "hold", 80)
	e.close(hold)
	again := e.run("again")
	if again.ip != hold.ip {
		t.Errorf("address %s, want %s", again.ip, hold.ip)
	}
	stop()
	for i, b := range boxes {
		if i != 2 {
			e.close(b)
		}
	}
	e.close(again)
	eventually(t, "links gone", func() bool { return links(t, e) == 0 })
}

func TestDaemonComesBackAndFindsEverything(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	web := e.run("web", ":8080:80/tcp", "127.0.0.1:8081:80/tcp")
	nettest.Serve(t, web.ns, "web", 80)
	gone := e.run("gone", ":9090:80/tcp")
	inspect, err := e.svc.Inspect(t.Context(), "bridge")
	must(t, err)
	e.die()

	// The container that ended meanwhile leaves link, elements and reservation.
	e2 := start(t, e, nil, networks.LiveSandbox{Attachment: web.Attachment, Name: "web"})
	defer e2.finish()
	if n := e2.elements(); n != 2 {
		t.Errorf("%d elements after the restart, want 2", n)
	}
	eventually(t, "the leftover link is gone", func() bool { return links(t, e2) == 1 })
	plan, err := e2.rules.Apply(t.Context(), network.Ruleset{
		Bridges: []network.BridgeRules{{Device: "orlop0", ICC: true, Masquerade: true, Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}}},
		Ports:   web.Attachment.Ports, DropForeign: dropsForeign(t, e2),
	})
	must(t, err)
	if plan != "" {
		t.Errorf("applying the ruleset again does: %s", plan)
	}
	for _, way := range []struct {
		ns *netns.NS
		to string
	}{{w.Outside, w.Host.String() + ":8080"}, {nil, "[::1]:8080"}, {nil, "127.0.0.1:8081"}} {
		if got, err := nettest.Ask(way.ns, "tcp", way.to); err != nil || got.Server != "web" {
			t.Errorf("%s: %v %v", way.to, got, err)
		}
	}
	if _, err := e2.tryRun("thief", ":8080:80/tcp"); err == nil {
		t.Error("the port of a container that runs was given out again")
	}
	if err := listen("tcp4", ":9090"); err != nil {
		t.Errorf("the port of a container that ended is still reserved: %v", err)
	}
	again, err := e2.svc.Inspect(t.Context(), "bridge")
	must(t, err)
	if again.ID != inspect.ID || again.IPAM.Config[0].Subnet != inspect.IPAM.Config[0].Subnet {
		t.Errorf("network %s %v became %s %v", inspect.ID, inspect.IPAM, again.ID, again.IPAM)
	}
	next := e2.run("next")
	if next.ip == web.ip {
		t.Errorf("address %s was given out twice", next.ip)
	}
	e2.close(next)
	e2.close(web)
	web.Release()
	gone.Release()
	eventually(t, "links gone", func() bool { return links(t, e2) == 0 })
}

func dropsForeign(t *testing.T, e *engine) bool {
	t.Helper()
	d, err := e.rules.DropsForeign(t.Context())
	must(t, err)
	return d
}

// hammer asks again and again until stopped and counts.
type hammer struct {
	stop          chan struct{}
	wg            sync.WaitGroup
	asked, failed atomic.Int64
	mu            sync.Mutex
	first         error
}

func (h *hammer) run(what string, ask func() error) {
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		for {
			select {
			case <-h.stop:
				return
			default:
			}
			h.asked.Add(1)
			if err := ask(); err != nil {
				h.failed.Add(1)
				h.mu.Lock()
				if h.first == nil {
					h.first = fmt.Errorf("%s: %w", what, err)
				}
				h.mu.Unlock()
			}
		}
	}()
}

func (h *hammer) end(t *testing.T) {
	t.Helper()
	close(h.stop)
	h.wg.Wait()
	if h.failed.Load() > 0 || h.asked.Load() == 0 {
		t.Errorf("%d of %d failed, the first: %v", h.failed.Load(), h.asked.Load(), h.first)
	}
	t.Logf("%d asked, %d failed", h.asked.Load(), h.failed.Load())
}

// names runs a network with a resolver: the host has one on loopback only.
func names(t *testing.T) *engine {
	t.Helper()
	nettest.Need(t)
	serveDNS(t)
	return start(t, nil, func(c *networks.Config) {
		c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\nsearch example.test\n"}
	})
}

// hammerAll asks by every way that netd and the kernel serve.
func hammerAll(t *testing.T, b *box) *hammer {
	t.Helper()
	h := &hammer{stop: make(chan struct{})}
	for _, to := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		for _, proto := range []string{"tcp", "udp"} {
			h.run(proto+" "+to, func() error {
				_, err := nettest.Ask(nil, proto, to)
				return err
			})
		}
	}
	for _, proto := range []string{"udp", "tcp"} {
		h.run("name by "+proto, func() error {
			_, err := lookup(b, proto, fmt.Sprintf("n%d.example.test", time.Now().UnixNano()))
			return err
		})
	}
	return h
}

func TestNothingFailsWhileTheDaemonIsAway(t *testing.T) {
	e := names(t)
	b := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	nettest.Serve(t, b.ns, "web", 80)
	h := hammerAll(t, b)
	e.die()
	waitFor(t, h, 500)
	e2 := start(t, e, func(c *networks.Config) { c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\n"} },
		networks.LiveSandbox{Attachment: b.Attachment})
	waitFor(t, h, 500)
	h.end(t)
	e2.close(b)
	e2.finish()
	b.Release()
}

func waitFor(t *testing.T, h *hammer, more int64) {
	t.Helper()
	goal := h.asked.Load() + more
	eventually(t, fmt.Sprint(more, " more questions"), func() bool { return h.asked.Load() >= goal })
}

func TestNothingFailsWhileNetdIsReplaced(t *testing.T) {
	e := names(t)
	b := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	nettest.Serve(t, b.ns, "web", 80)
	open, err := net.Dial("tcp", "[::1]:8080")
	must(t, err)
	defer open.Close()
	h := hammerAll(t, b)
	waitFor(t, h, 200)
	for i := range 5 {
		before := hello(t, e)
		// Another build: the same program in another file.
		exe, err := os.Readlink("/proc/self/exe")
		must(t, err)
		data, err := os.ReadFile(exe)
		must(t, err)
		fresh := filepath.Join(e.dir, fmt.Sprint("build", i))
		must(t, os.MkdirAll(fresh, 0o700))
		must(t, os.WriteFile(filepath.Join(fresh, "orlop-netd"), data, 0o755))
		must(t, os.Remove(filepath.Join(e.dir, "orlop-netd")))
		must(t, os.Symlink(filepath.Join(fresh, "orlop-netd"), filepath.Join(e.dir, "orlop-netd")))
		e.die()
		e = start(t, e, func(c *networks.Config) { c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\n"} },
			networks.LiveSandbox{Attachment: b.Attachment})
		if after := hello(t, e); after.Pid == before.Pid {
			t.Errorf("netd %d was not replaced", after.Pid)
		}
		waitFor(t, h, 200)
	}
	h.end(t)
	// A connection that was open all the time still carries.
	must(t, open.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = open.Write([]byte("still there\n"))
	must(t, err)
	buf := make([]byte, 200)
	var got string
	for !strings.Contains(got, "still there") {
		n, err := open.Read(buf)
		if err != nil {
			t.Fatalf("the open connection ended: %v", err)
		}
		got += string(buf[:n])
	}
	e.close(b)
	e.finish()
	b.Release()
}

func hello(t testing.TB, e *engine) table.Reply {
	t.Helper()
	c, err := table.Dial(filepath.Join(e.dir, "netd", "netd.sock"))
	must(t, err)
	defer c.Close()
	must(t, c.Send(table.Request{Op: table.OpHello}))
	var r table.Reply
	_, err = c.Receive(&r)
	must(t, err)
	return r
}

func TestKilledNetdIsStartedAgain(t *testing.T) {
	e := names(t)
	defer e.finish()
	b := e.run("web", ":8080:80/tcp")
	defer e.close(b)
	nettest.Serve(t, b.ns, "web", 80)
	for range 3 {
		pid := hello(t, e).Pid
		p, err := os.FindProcess(pid)
		must(t, err)
		must(t, p.Kill())
		// What the kernel does goes on meanwhile.
		if got, err := nettest.Ask(nil, "tcp", "127.0.0.1:8080"); err != nil || got.Server != "web" {
			t.Errorf("127.0.0.1 without netd: %v %v", got, err)
		}
		eventually(t, "another netd serves", func() bool {
			_, err1 := nettest.Silent(nil, "tcp", "[::1]:8080")
			_, err2 := lookup(b, "udp", "x.example.test")
			return err1 == nil && err2 == nil && hello(t, e).Pid != pid
		})
		if err := listen("tcp4", ":8080"); err == nil {
			t.Error("the port is not reserved again")
		}
	}
	next := e.run("next", ":8081:80/tcp")
	e.close(next)
}

func TestManyContainersAtOnce(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			req := networks.SandboxRequest{ContainerID: newID(), Name: fmt.Sprint("c", i), Bindings: networktypes.PortMap{}}
			addBinding(t, req.Bindings, "::80/tcp")
			b, err := e.open(req)
			if err == nil {
				err = e.svc.Close(context.Background(), b.Attachment.ContainerID)
			}
			errs <- err
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	eventually(t, "links gone", func() bool { return links(t, e) == 0 })
	if n := e.elements(); n != 0 {
		t.Errorf("%d elements are left", n)
	}
	n, err := e.svc.Inspect(t.Context(), "bridge")
	must(t, err)
	if len(n.Containers) != 0 {
		t.Errorf("%d containers are left", len(n.Containers))
	}
}

func TestContainerThatEndsWithoutTheDaemonLetsGoOfItsNamespace(t *testing.T) {
	e := names(t)
	b := e.run("web", ":8080:80/tcp")
	id := b.Attachment.ContainerID
	p := process(t, b)
	must(t, e.svc.Started(t.Context(), id, p.Pid))
	b.Release()
	if got, err := lookupPid(p.Pid, "web.example.test"); err != nil || len(got) == 0 {
		t.Fatalf("look-up inside: %v %v", got, err)
	}
	e.die()
	must(t, p.Kill())
	_, err := p.Wait()
	must(t, err)
	// No daemon: netd alone lets go, and the kernel removes the link.
	eventually(t, "the link is gone", func() bool {
		_, err := net.InterfaceByName(b.Attachment.Endpoints[0].HostLink)
		return err != nil
	})
	if err := listen("tcp4", ":8080"); err == nil {
		t.Error("the port is not reserved any more")
	}
	e = start(t, e, nil)
	if err := listen("tcp4", ":8080"); err != nil {
		t.Errorf("the daemon knows that the container ended, its port is still reserved: %v", err)
	}
	e.finish()
}

func TestNetdThatIsStuckIsReplaced(t *testing.T) {
	e := names(t)
	b := e.run("web", ":8080:80/tcp")
	nettest.Serve(t, b.ns, "web", 80)
	stuck := hello(t, e).Pid
	e.die()
	must(t, syscall.Kill(stuck, syscall.SIGSTOP))
	// The daemon's question is in the socket's queue for ever.
	e = start(t, e, func(c *networks.Config) { c.Host = machine{c.Host.(machine).Host, "nameserver 127.0.0.1\n"} },
		networks.LiveSandbox{Attachment: b.Attachment})
	if now := hello(t, e).Pid; now == stuck {
		t.Errorf("netd %d was not replaced", now)
	}
	if got, err := nettest.Ask(nil, "tcp", "[::1]:8080"); err != nil || got.Server != "web" {
		t.Errorf("[::1]: %v %v", got, err)
	}
	e.close(b)
	b.Release()
	must(t, os.Truncate(filepath.Join(e.dir, "netd", "netd.log"), 0)) // it says what happened
	e.finish()
}

func TestRestoreRepairsWhatOthersRemoved(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	b := e.run("web", ":8080:80/tcp")
	nettest.Serve(t, b.ns, "web", 80)
	e.die()
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	must(t, c.Delete("orlop0"))
	rules, err := nft.Open()
	must(t, err)
	defer rules.Close()
	must(t, rules.Remove(e.name))
	if _, err := nettest.Silent(w.Outside, "tcp", w.Host.String()+":8080"); err == nil {
		t.Fatal("an answer without bridge and rules")
	}
	e = start(t, e, nil, networks.LiveSandbox{Attachment: b.Attachment})
	for _, ns := range []*netns.NS{w.Outside, nil} {
		if got, err := nettest.Ask(ns, "tcp", w.Host.String()+":8080"); err != nil || got.Server != "web" {
			t.Errorf("after the restart: %v %v", got, err)
		}
	}
	e.close(b)
	b.Release()
	e.finish()
}

// TestRestoreLooksAfterEachBridgesOwnPortsAndAddresses: one bridge of several
// has lost a port, a flag and its address, and has got another one.
func TestRestoreLooksAfterEachBridgesOwnPortsAndAddresses(t *testing.T) {
	nettest.Need(t)
	withoutICC := func(c *networks.Config) {
		c.Default.ICC = false
		c.Store.(*memory).recs["net1"] = userNetwork("net1", "mynet", "br-test", "10.77.0.0/24")
	}
	e := start(t, nil, withoutICC)
	one, two := e.run("one"), e.run("two")
	other, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: "other", Mode: "mynet"})
	must(t, err)
	e.die()
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	dev, err := c.Link("orlop0")
	must(t, err)
	isolated := !bridge.Filtered() // else the firewall sees to it
	for b, port := range map[*box]string{one: one.Attachment.Endpoints[0].HostLink, two: two.Attachment.Endpoints[0].HostLink} {
		link, err := c.Link(port)
		must(t, err)
		if link.Master != dev.Index || link.Isolated != isolated || link.Hairpin == isolated {
			t.Fatalf("port of %s: %+v", b.Attachment.Name, link)
		}
	}
	must(t, c.SetPort(one.Attachment.Endpoints[0].HostLink, !isolated, isolated))
	must(t, c.SetMaster(two.Attachment.Endpoints[0].HostLink, 0))
	must(t, c.DelAddr(dev.Index, netip.MustParsePrefix("172.17.0.1/16")))
	must(t, c.AddAddr(dev.Index, netip.MustParsePrefix("10.11.12.13/24")))

	live := []networks.LiveSandbox{{Attachment: one.Attachment}, {Attachment: two.Attachment}, {Attachment: other.Attachment}}
	e = start(t, e, withoutICC, live...)
	ports, err := c.Ports(dev.Index)
	must(t, err)
	var names []string
	for _, p := range ports {
		if p.Isolated != isolated || p.Hairpin == isolated {
			t.Errorf("port %+v", p)
		}
		names = append(names, p.Name)
	}
	// Beside them are those that wait for the next container.
	for b, want := range map[*box]bool{one: true, two: true, other: false} {
		if got := slices.Contains(names, b.Attachment.Endpoints[0].HostLink); got != want {
			t.Errorf("ports %v: that of %s is among them: %v", names, b.Attachment.Name, got)
		}
	}
	addrs, err := c.AddrsOf(dev.Index)
	must(t, err)
	addrs = slices.DeleteFunc(addrs, func(a rtnl.Addr) bool { return a.Prefix.Addr().Is6() })
	if len(addrs) != 1 || addrs[0].Prefix.String() != "172.17.0.1/16" {
		t.Errorf("addresses %v", addrs)
	}
	for _, b := range []*box{one, two, other} {
		e.close(b)
		b.Release()
	}
	e.finish()
}

// TestNextOwnerOfAnAddressIsReachedAtOnce has clients that know the MAC address
// of the one before.
func TestNextOwnerOfAnAddressIsReachedAtOnce(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	peer := e.run("peer")
	defer e.close(peer)
	for i, mac := range []string{"", "02:00:00:00:00:07", "02:00:00:00:00:08", ""} {
		name := fmt.Sprint("owner", i)
		b, err := e.open(networks.SandboxRequest{ContainerID: fmt.Sprintf("%064d", 1), Name: name, MacAddress: mac})
		must(t, err)
		if want := "172.17.0.3"; b.ip.String() != want {
			t.Errorf("address %s, want %s", b.ip, want)
		}
		stop := nettest.Serve(t, b.ns, name, 80)
		for who, ns := range map[string]*netns.NS{"host": nil, "another container": peer.ns} {
			got, err := nettest.Prompt(ns, b.ip.String()+":80")
			if err != nil || got.Server != name {
				t.Errorf("%s asks %s: %v %v", who, name, got, err)
			}
		}
		stop()
		e.close(b)
	}
}

func TestFirewallChangesMayBeRepeated(t *testing.T) {
	nettest.Need(t)
	e := start(t, nil, nil)
	defer e.finish()
	var ports []network.Binding
	for i := range 1200 {
		ports = append(ports, network.Binding{
			Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: uint16(10000 + i), ContainerIP: netip.MustParseAddr("172.17.0.2"), ContainerPort: uint16(i + 1),
		})
	}
	moved := make([]network.Binding, len(ports))
	for i, p := range ports {
		p.ContainerIP = netip.MustParseAddr("172.17.0.3")
		moved[i] = p
	}
	for _, step := range []struct {
		what string
		do   func() error
		want int
	}{
		{"publish", func() error { return e.rules.Publish(t.Context(), ports) }, 1200},
		{"publish again", func() error { return e.rules.Publish(t.Context(), ports) }, 1200},
		{"unpublish half", func() error { return e.rules.Unpublish(t.Context(), ports[:600]) }, 600},
		{"unpublish all", func() error { return e.rules.Unpublish(t.Context(), ports) }, 0},
		{"unpublish again", func() error { return e.rules.Unpublish(t.Context(), ports) }, 0},
		{"publish", func() error { return e.rules.Publish(t.Context(), ports) }, 1200},
		{"give to another container", func() error { return e.rules.Publish(t.Context(), moved) }, 1200},
		{"unpublish", func() error { return e.rules.Unpublish(t.Context(), moved) }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := e.elements(); got != step.want {
			t.Fatalf("%s: %d elements, want %d", step.what, got, step.want)
		}
	}
}

func TestFirstPacketOfASandboxArrives(t *testing.T) {
	nettest.Need(t)
	// The machine may stand still in a moment of one; a packet that gets lost
	// does so in others too.
	var late []error
	for range 20 {
		e := start(t, nil, nil)
		b := e.run("web")
		stop := nettest.Serve(t, b.ns, "web", 80)
		if _, err := nettest.Prompt(nil, b.ip.String()+":80"); err != nil {
			late = append(late, err)
		}
		stop()
		e.close(b)
		e.finish()
	}
	if len(late) > 1 {
		t.Error(errors.Join(late...))
	}
}

func TestAdministratorsBridgeIsUsedAsItIs(t *testing.T) {
	nettest.Need(t)
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	must(t, c.AddBridge("br9", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 1400))
	l, err := c.Link("br9")
	must(t, err)
	must(t, c.AddAddr(l.Index, netip.MustParsePrefix("10.44.0.1/24")))
	must(t, c.AddAddr(l.Index, netip.MustParsePrefix("10.45.0.1/24")))
	e := start(t, nil, func(c *networks.Config) { c.Default.Device, c.Default.Foreign = "br9", true })
	b := e.run("web", ":8080:80/tcp")
	if b.ip.String() != "10.44.0.2" {
		t.Errorf("address %s", b.ip)
	}
	nettest.Serve(t, b.ns, "web", 80)
	if got, err := nettest.Ask(nil, "tcp", "127.0.0.1:8080"); err != nil || got.Server != "web" {
		t.Errorf("published port: %v %v", got, err)
	}
	e.close(b)
	b.Release()
	e.finish()
	addrs, err := c.Addrs()
	must(t, err)
	n := 0
	for _, a := range addrs {
		if a.Index == l.Index && a.Prefix.Addr().Is4() {
			n++
		}
	}
	if n != 2 {
		t.Errorf("the bridge has %d addresses, it had 2", n)
	}
	must(t, c.Delete("br9"))
}

func TestDefaultSubnetAvoidsTheHostsRoutes(t *testing.T) {
	nettest.NewWorld(t)
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	l, err := c.Link("ext0")
	must(t, err)
	must(t, c.AddAddr(l.Index, netip.MustParsePrefix("172.17.44.1/24")))
	e := start(t, nil, nil)
	b := e.run("web")
	if got := b.Attachment.Endpoints[0].IPv4.String(); got != "172.18.0.2/16" {
		t.Errorf("address %s", got)
	}
	e.close(b)
	e.finish()

	e = start(t, nil, func(c *networks.Config) {
		c.Default.Address, c.Default.Range = netip.MustParsePrefix("10.66.0.1/16"), netip.MustParsePrefix("10.66.7.0/24")
	})
	b = e.run("web")
	if got := b.Attachment.Endpoints[0]; got.IPv4.String() != "10.66.7.0/16" || got.Gateway4.String() != "10.66.0.1" {
		t.Errorf("with --bip and --fixed-cidr: %s by %s", got.IPv4, got.Gateway4)
	}
	e.close(b)
	e.finish()
}

// TestManySandboxesLeaveNothing counts what daemon and netd hold.
func TestManySandboxesLeaveNothing(t *testing.T) {
	e := names(t)
	defer e.finish()
	count := func() (files, netdFiles, routines int) {
		t.Helper()
		// Sandboxes that wait for a container are held by descriptors too, at one
		// time more of them than at another.
		must(t, e.boxes.Forget(t.Context(), "orlop0"))
		eventually(t, "links gone", func() bool { return links(t, e) == 0 })
		list := func(pid int) int {
			d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			must(t, err)
			return len(d)
		}
		return list(os.Getpid()), list(hello(t, e).Pid), runtime.NumGoroutine()
	}
	round := func(n int) {
		for i := range n {
			b := e.run(fmt.Sprint("c", i), "::80/tcp", "::80/udp")
			if _, err := lookup(b, "udp", fmt.Sprintf("n%d.example.test", i)); err != nil {
				t.Error(err)
			}
			e.close(b)
		}
	}
	round(20)
	f1, n1, g1 := count()
	round(150)
	var f2, n2, g2 int
	eventually(t, fmt.Sprintf("as few descriptors (%d, netd %d) and goroutines (%d) as before", f1, n1, g1), func() bool {
		f2, n2, g2 = count()
		return f2 <= f1+2 && n2 <= n1+2 && g2 <= g1+2
	})
	t.Logf("descriptors %d→%d, of netd %d→%d, goroutines %d→%d", f1, f2, n1, n2, g1, g2)
}

func TestReadySandboxBecomesTheNextContainers(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	first := e.run("first")
	eventually(t, "sandboxes are ready", func() bool { return len(e.boxes.Spares()) == 4 })
	ready := e.boxes.Spares()
	var all []*box
	var stops []func()
	for i := range 6 { // four of them are ready, two have to be made
		b := e.run(fmt.Sprint("c", i), fmt.Sprintf(":%d:80/tcp", 8000+i))
		all = append(all, b)
		ep := b.Attachment.Endpoints[0]
		if i == 0 && !slices.Contains(ready, ep.HostLink) {
			t.Errorf("%s was made, though %v were ready", ep.HostLink, ready)
		}
		stops = append(stops, nettest.Serve(t, b.ns, ep.HostLink, 80))
		for _, from := range []*netns.NS{nil, w.Outside, first.ns} {
			if got, err := nettest.Ask(from, "tcp", fmt.Sprintf("%s:%d", w.Host, 8000+i)); err != nil || got.Server != ep.HostLink {
				t.Errorf("container %d: %v %v", i, got, err)
			}
		}
		must(t, b.ns.Do(func() error {
			itf, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			addrs, err := itf.Addrs()
			if err == nil && (itf.HardwareAddr.String() != ep.MAC || len(addrs) != 1 || addrs[0].String() != ep.IPv4.String()) {
				err = fmt.Errorf("eth0 has %s %v, wanted %s %s", itf.HardwareAddr, addrs, ep.MAC, ep.IPv4)
			}
			return err
		}))
	}
	// A bridge that somebody replaced: what was ready for the old one is of no use.
	eventually(t, "sandboxes are ready again", func() bool { return len(e.boxes.Spares()) == 4 })
	c, err := rtnl.Open()
	must(t, err)
	defer c.Close()
	must(t, c.Delete("orlop0"))
	must(t, e.svc.Close(t.Context(), first.Attachment.ContainerID))
	for _, rec := range e.store.recs {
		if rec.Device == "orlop0" {
			must(t, e.driver.Ensure(t.Context(), rec, nil))
		}
	}
	b := e.run("after")
	stops = append(stops, nettest.Serve(t, b.ns, "after", 80))
	if got, err := nettest.Ask(nil, "tcp", b.ip.String()+":80"); err != nil || got.Server != "after" {
		t.Errorf("after the bridge was replaced: %v %v", got, err)
	}
	for _, stop := range stops { // a socket holds its namespace
		stop()
	}
	first.Release()
	for _, b := range append(all, b) {
		e.close(b)
		b.Release()
	}
	eventually(t, "sandboxes are ready again", func() bool { return len(e.boxes.Spares()) > 0 })
	mine := e.boxes.Spares()
	for _, b := range append(all, first, b) {
		mine = append(mine, b.Attachment.Endpoints[0].HostLink)
	}
	e.finish()
	eventually(t, "nothing is left", func() bool {
		all, err := c.Links()
		must(t, err)
		return !slices.ContainsFunc(all, func(l rtnl.Link) bool { return slices.Contains(mine, l.Name) })
	})
}
