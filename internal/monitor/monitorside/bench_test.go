package monitorside

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/monitor/daemonside"
)

// pss sums the proportional set size of processes, in KiB.
func pss(t testing.TB, pids ...int) int {
	t.Helper()
	sum := 0
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
				sum += n
			}
		}
	}
	return sum
}

// BenchmarkKernelIdleMonitor reports the memory of a monitor whose container has
// been doing nothing for a while, shared pages divided among b.N of them.
func BenchmarkKernelIdleMonitor(t *testing.B) {
	b := newBox(t)
	var pids []int
	for t.Loop() {
		m := b.start(b.box(fmt.Sprint("c", len(pids)), "wait"), daemonside.Files{})
		pids = append(pids, m.Running().MonitorPid)
	}
	time.Sleep(4 * time.Second) // this measures what time changes
	t.ReportMetric(float64(pss(t, pids...))/float64(len(pids)), "KiB-PSS/monitor")
}

// BenchmarkKernelStartToExit is a container's life without networks and layers,
// up to the report of its exit.
func BenchmarkKernelStartToExit(t *testing.B) {
	b := newBox(t)
	var start, exit []time.Duration
	n := 0
	for t.Loop() {
		n++
		l := b.box(fmt.Sprint("c", n), "exit", "0")
		s, files := b.attached(false)
		began := time.Now()
		m, err := b.l.Start(b.ctx, l, files)
		if err != nil {
			t.Fatal(err)
		}
		start = append(start, time.Since(began))
		b.wait(m)
		exit = append(exit, time.Since(began))
		s.Close()
	}
	report(t, "start", start)
	report(t, "exit", exit)
}

// report prints the least and the middle one: other work on the machine only
// ever adds.
func report(t *testing.B, what string, list []time.Duration) {
	slices.Sort(list)
	t.ReportMetric(float64(list[0].Microseconds()), "µs-min-"+what)
	t.ReportMetric(float64(list[len(list)/2].Microseconds()), "µs-p50-"+what)
}

// BenchmarkKernelExec is an exec up to the report of its exit.
func BenchmarkKernelExec(t *testing.B) {
	b := newBox(t)
	m := b.start(b.box("a", "wait"), daemonside.Files{})
	n := 0
	var took []time.Duration
	for t.Loop() {
		n++
		began := time.Now()
		x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: fmt.Sprint(n), Process: process_("/app", "exit", "0"), Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Wait(b.ctx); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		x.Stream().Close()
	}
	report(t, "exec", took)
}
