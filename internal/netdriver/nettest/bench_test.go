package nettest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

// BenchmarkSandbox is a container's whole network on the default bridge: open
// until it could start, close until its exit could be reported.
func BenchmarkSandbox(b *testing.B) {
	nettest.Need(b)
	e := start(b, nil, nil)
	defer e.finish()
	for b.Loop() {
		bx := e.run("c")
		bx.Release()
		e.close(bx)
		b.StopTimer()
		eventually(b, "links gone", func() bool { return links(b, e) == 0 })
		b.StartTimer()
	}
}

// BenchmarkOpenSandbox leaves closing and the kernel's clean-up out.
func BenchmarkOpenSandbox(b *testing.B) {
	for _, publish := range []string{"", ":8080:80/tcp"} {
		b.Run(fmt.Sprintf("ports=%d", strings.Count(publish, "/")), func(b *testing.B) {
			nettest.Need(b)
			e := start(b, nil, nil)
			defer e.finish()
			for b.Loop() {
				var bx *box
				if publish == "" {
					bx = e.run("c")
				} else {
					bx = e.run("c", publish)
				}
				b.StopTimer()
				bx.Release()
				e.close(bx)
				eventually(b, "links gone", func() bool { return links(b, e) == 0 })
				b.StartTimer()
			}
		})
	}
}

// BenchmarkOpenReadySandbox is the same with a sandbox that was made ahead.
func BenchmarkOpenReadySandbox(b *testing.B) {
	nettest.Need(b)
	e := start(b, nil, nil)
	defer e.finish()
	e.close(e.run("first"))
	best := time.Hour
	for b.Loop() {
		b.StopTimer()
		eventually(b, "sandboxes are ready", func() bool { return len(e.boxes.Spares()) == 4 })
		b.StartTimer()
		begin := time.Now()
		bx := e.run("c")
		best = min(best, time.Since(begin))
		b.StopTimer()
		bx.Release()
		e.close(bx)
		eventually(b, "links gone", func() bool { return links(b, e) == 0 })
		b.StartTimer()
	}
	b.ReportMetric(float64(best.Microseconds())/1000, "min-ms")
}

// BenchmarkPublish is a container that publishes many ports.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			nettest.Need(b)
			e := start(b, nil, nil)
			defer e.finish()
			before := pss(b, hello(b, e).Pid)
			peak, best := 0, time.Hour
			for b.Loop() {
				req := networks.SandboxRequest{ContainerID: newID(), Name: "web", Bindings: networktypes.PortMap{}}
				for i := range n {
					p, _ := networktypes.PortFrom(uint16(10000+i), "tcp")
					req.Bindings[p] = []networktypes.PortBinding{{HostPort: fmt.Sprint(10000 + i)}}
				}
				begin := time.Now()
				bx, err := e.open(req)
				must(b, err)
				best = min(best, time.Since(begin))
				b.StopTimer()
				peak = pss(b, hello(b, e).Pid)
				bx.Release()
				e.close(bx)
				eventually(b, "links gone", func() bool { return links(b, e) == 0 })
				b.StartTimer()
			}
			b.ReportMetric(float64(best.Microseconds())/1000, "min-ms")
			b.ReportMetric(float64(before), "netd-KB-before")
			b.ReportMetric(float64(peak), "netd-KB-after")
		})
	}
}

// pss is the proportional set size of a process in KiB.
func pss(t testing.TB, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range strings.Lines(string(data)) {
		var n int
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
			return n
		}
	}
	return 0
}

// BenchmarkLookup is a name of the table asked by UDP, one after the other.
func BenchmarkLookup(b *testing.B) {
	nettest.Need(b)
	e := start(b, nil, func(c *networks.Config) {
		c.Store.(*memory).recs["net1"] = userNetwork("net1", "mynet", "br-test", "10.77.0.0/24")
	})
	defer e.finish()
	bx, err := e.open(networks.SandboxRequest{ContainerID: newID(), Name: "alice", Mode: "mynet"})
	must(b, err)
	defer e.close(bx)
	for b.Loop() {
		if _, err := lookup(bx, "udp", "alice"); err != nil {
			b.Fatal(err)
		}
	}
}
