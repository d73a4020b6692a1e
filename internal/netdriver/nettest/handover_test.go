package nettest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// TestPortsAreHandedOverUnderLoad: while clients of every kind connect as fast
// as they can, the ports go to and fro; nobody is refused, what is established
// stays, and what comes after the hand-over reaches the other container.
func TestPortsAreHandedOverUnderLoad(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, func(c *networks.Config) {
		c.Store.(*memory).recs["net1"] = userNetwork("net1", "mynet", "br-test", "10.77.0.0/24")
	})
	// The second one is on another network and publishes a port of its own.
	old := e.run("old", ":8080:80/tcp", ":8080:80/udp", "127.0.0.1:8081:80/tcp")
	fresh, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: "new", Mode: "mynet", Bindings: networktypes.PortMap{
		networktypes.MustParsePort("80/tcp"): {{HostPort: "9090"}},
	}})
	must(t, err)
	for _, b := range []*box{old, fresh} {
		pid := process(t, b).Pid
		must(t, e.svc.Started(t.Context(), b.Attachment.ContainerID, pid))
		b.ns, err = netns.OfPid(pid) // the daemon's own handle is closed by now
		must(t, err)
		defer b.ns.Close()
	}
	stopOld := nettest.Serve(t, old.ns, "old", 80)
	stopNew := nettest.Serve(t, fresh.ns, "new", 80)

	var open []net.Conn
	for _, to := range []string{"127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081"} {
		c, err := net.Dial("tcp", to)
		must(t, err)
		defer c.Close()
		open = append(open, c)
		talk(t, c, "old ", "")
	}
	ways := []struct{ proto, to string }{
		{"tcp", "127.0.0.1:8080"}, {"tcp", "[::1]:8080"}, {"tcp", "127.0.0.1:8081"}, {"udp", "127.0.0.1:8080"}, {"udp", "[::1]:8080"},
	}
	h := &hammer{stop: make(chan struct{})}
	var answers [2]atomic.Int64
	count := func(a nettest.Answer) {
		if a.Server == "new" {
			answers[1].Add(1)
		} else {
			answers[0].Add(1)
		}
	}
	// A datagram may get lost on a busy machine, hand-over or not: who uses UDP
	// asks again. More than one in a thousand would not be chance.
	var lost atomic.Int64
	for _, way := range ways {
		h.run(way.proto+" "+way.to, func() error {
			a, err := nettest.Ask(nil, way.proto, way.to)
			if way.proto == "udp" && errors.Is(err, os.ErrDeadlineExceeded) {
				lost.Add(1)
				a, err = nettest.Ask(nil, way.proto, way.to)
			}
			count(a)
			return err
		})
	}
	h.run("from outside", func() error {
		a, err := nettest.Ask(w.Outside, "tcp", w.Host.String()+":8080")
		count(a)
		return err
	})
	waitFor(t, h, 200)
	ids := []string{old.Attachment.ContainerID, fresh.Attachment.ContainerID}
	names := []string{"old", "new"}
	for i := range 7 {
		from, to := i%2, (i+1)%2
		a, b, err := e.svc.HandOver(t.Context(), ids[from], ids[to])
		must(t, err)
		if want := 6; len(a.Ports) != 0 && i > 0 || len(b.Ports) < want-1 {
			t.Errorf("hand-over %d: %v and %v", i, a.Ports, b.Ports)
		}
		// Whoever asks now is answered by the other one.
		for _, way := range ways {
			if got, err := nettest.Ask(nil, way.proto, way.to); err != nil || got.Server != names[to] {
				t.Errorf("hand-over %d, %s %s: %v %v", i, way.proto, way.to, got, err)
			}
		}
		waitFor(t, h, 100)
	}
	h.end(t)
	if t.Logf("%d datagrams lost", lost.Load()); lost.Load()*1000 > h.asked.Load() {
		t.Errorf("%d datagrams of %d questions were lost", lost.Load(), h.asked.Load())
	}
	if answers[0].Load() == 0 || answers[1].Load() == 0 {
		t.Errorf("answers of the two: %d and %d", answers[0].Load(), answers[1].Load())
	}
	// What was established is still with the first one.
	for _, c := range open {
		talk(t, c, "", "still there\n")
	}
	// A UDP client that never stops sending is with the new one at once.
	for _, to := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		c, err := net.Dial("udp", to)
		must(t, err)
		defer c.Close()
		talk(t, c, "new ", "x")
		_, _, err = e.svc.HandOver(t.Context(), ids[1], ids[0])
		must(t, err)
		talk(t, c, "old ", "x")
		_, _, err = e.svc.HandOver(t.Context(), ids[0], ids[1])
		must(t, err)
		talk(t, c, "new ", "x")
	}
	// A second life of the daemon knows it, and the first container may end.
	_, att, err := e.svc.HandOver(t.Context(), ids[1], ids[0])
	must(t, err)
	if _, _, err := e.svc.HandOver(t.Context(), ids[1], ids[0]); err == nil || !strings.Contains(err.Error(), "container new has no published ports") {
		t.Errorf("nothing to hand over: %v", err)
	}
	if _, _, err := e.svc.HandOver(t.Context(), ids[0], ids[0]); err == nil {
		t.Error("a container hands over to itself")
	}
	if _, _, err := e.svc.HandOver(t.Context(), ids[0], newID()); err == nil {
		t.Error("nobody to hand over to")
	}
	if len(att.Ports) != 7 {
		t.Errorf("%d ports after all: %v", len(att.Ports), att.Ports)
	}
	stopNew()
	e.close(fresh)
	for _, way := range append(ways, struct{ proto, to string }{"tcp", "127.0.0.1:9090"}) {
		if got, err := nettest.Ask(nil, way.proto, way.to); err != nil || got.Server != "old" {
			t.Errorf("after the other one has ended, %s: %v %v", way.to, got, err)
		}
	}
	stopOld()
	e.close(old)
	if n := e.elements(); n != 0 {
		t.Errorf("%d elements are left", n)
	}
	old.Release()
	fresh.Release()
	e.finish()
}

// talk sends a line and waits for what is expected, or for the line itself.
func talk(t *testing.T, c net.Conn, want, line string) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	if line != "" {
		_, err := fmt.Fprint(c, line)
		must(t, err)
	}
	if want == "" {
		want = line
	}
	got, buf := "", make([]byte, 2048)
	for !strings.Contains(got, want) {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q from %s: %q, %v", want, c.RemoteAddr(), got, err)
		}
		got += string(buf[:n])
		if c.RemoteAddr().Network() == "udp" && !strings.Contains(got, want) {
			t.Fatalf("%s answers %q, not %q", c.RemoteAddr(), got, want)
		}
	}
}
