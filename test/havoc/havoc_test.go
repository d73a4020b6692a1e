package havoc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/testkit"
)

// runs is how many containers the leak test starts: HAVOC_RUNS, or enough to
// see what leaks once per container.
func runs(t *testing.T) int {
	v := os.Getenv("HAVOC_RUNS")
	if v == "" {
		return 200
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyShortContainersLeaveNothingBehind(t *testing.T) {
	e := testkit.NewEngine(t, "--debug")
	e.Load("busybox")
	one := func() { e.Run("run", "--rm", "busybox", "true") }
	for range 20 {
		one()
	}
	take := func() (Census, error) {
		c, err := Take(e)
		if err != nil {
			return nil, err
		}
		c["goroutines"], err = Goroutines(e)
		return c, err
	}
	// The first census waits for the kernel as the last one does: it is right
	// when it does not change any more.
	var before Census
	testkit.Eventually(t, func() error {
		first, err := take()
		if err != nil {
			return err
		}
		if before, err = take(); err != nil {
			return err
		}
		if more := before.Grown(first, 0) + first.Grown(before, 0); more != "" {
			return errors.New("still settling: " + more)
		}
		if before["links"] > 3 {
			return fmt.Errorf("%d links still stand", before["links"])
		}
		return nil
	})
	for range runs(t) {
		one()
	}
	testkit.Eventually(t, func() error {
		after, err := take()
		if err != nil {
			return err
		}
		// The log of events grows by design, by whole segments.
		if more := before.Grown(after, 2); more != "" {
			return errors.New(more)
		}
		return nil
	})
	t.Logf("after 20 runs: %v", before)
}

// away is how long the engine is left without a daemon.
func away(t *testing.T) time.Duration {
	v := os.Getenv("HAVOC_AWAY")
	if v == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// resolver serves outside.test, which nobody may keep, and kept.test on the
// sandbox's loopback and makes itself the only server the sandbox's resolv.conf
// names: then containers are served by netd, which asks from the host's
// namespace. It returns how often kept.test has been asked for.
func resolver(t *testing.T, e *testkit.Engine) func() int64 {
	t.Helper()
	var kept atomic.Int64
	conf := e.Dir + "/resolv.conf"
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := look(e.Command(t.Context(), "mount", "--bind", conf, "/etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	answers := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		ttl, known := map[string]uint32{"outside.test.": 0, "kept.test.": 3600}[q.Question[0].Name]
		if ttl > 0 {
			kept.Add(1)
		}
		if known && q.Question[0].Qtype == dns.TypeA {
			reply.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl},
				A:   net.IPv4(10, 1, 2, 3),
			}}
		}
		_ = w.WriteMsg(reply)
	})
	server := &dns.Server{PacketConn: listenInside(t, e), Handler: answers}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return kept.Load
}

// listenInside opens a UDP socket on port 53 of the sandbox's loopback: a
// socket stays in the namespace it was made in, wherever it is used.
func listenInside(t *testing.T, e *testkit.Engine) net.PacketConn {
	t.Helper()
	type opened struct {
		conn net.PacketConn
		err  error
	}
	result := make(chan opened, 1)
	go func() {
		// Never unlocked: the thread is in another namespace and ends with the goroutine.
		runtime.LockOSThread()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", e.Pid))
		if err != nil {
			result <- opened{nil, err}
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- opened{nil, err}
			return
		}
		var lc net.ListenConfig
		conn, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:53")
		result <- opened{conn, err}
	}()
	r := <-result
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.conn
}

func TestNamesAndPortsGoOnWithoutADaemon(t *testing.T) {
	t.Parallel()
	e := testkit.PrepareEngine(t)
	resolver(t, e)
	e.Start()
	e.Load("busybox")
	e.Run("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", "mkdir /www; echo ahoy >/www/index.html; exec httpd -f -p 80 -h /www")
	if conf := e.Run("exec", "web", "cat", "/etc/resolv.conf"); !strings.Contains(conf, "nameserver 127.0.0.11") {
		t.Fatalf("the container is not served by netd:\n%s", conf)
	}
	testkit.Eventually(t, func() error {
		return look(e.Command(t.Context(), "curl", "-fs", "http://127.0.0.1:8080/"))
	})
	pid := strings.TrimSpace(e.Run("inspect", "-f", "{{.State.Pid}}", "web"))
	inner := "nsenter -t " + pid + " -m -n -p "
	// One process of each kind asks again and again; its last line counts what
	// succeeded and what failed.
	limit := int(step().Seconds())
	curl := fmt.Sprintf("curl -fs --max-time %d -o /dev/null ", limit)
	loops := map[string]string{
		"127.0.0.1": curl + "http://127.0.0.1:8080/",
		"::1":       curl + "'http://[::1]:8080/'",
		"look-up":   inner + fmt.Sprintf("nslookup -timeout=%d -type=a outside.test >/dev/null", limit),
	}
	if err := look(e.Command(t.Context(), "sh", "-c", loops["look-up"])); err != nil {
		t.Fatal(err)
	}
	results := make(chan string, len(loops))
	stop := e.Dir + "/stop"
	for name, command := range loops {
		go func() {
			script := fmt.Sprintf("ok=0; bad=0; while [ ! -e %s ]; do if %s; then ok=$((ok+1)); else bad=$((bad+1)); fi; done; echo $ok $bad", stop, command)
			out, err := e.Command(context.Background(), "sh", "-c", script).CombinedOutput()
			results <- fmt.Sprintf("%s: %s %v", name, strings.TrimSpace(string(out)), err)
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), away(t))
	defer cancel()
	e.Kill()
	<-ctx.Done()
	e.Start()
	e.Run("exec", "web", "true")
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range loops {
		line := <-results
		t.Logf("%s (succeeded, failed), %s without a daemon", line, away(t))
		if !strings.HasSuffix(line, " 0 <nil>") || strings.Contains(line, ": 0 ") {
			t.Errorf("calls failed while the daemon was away: %s", line)
		}
	}
}

func TestADaemonKilledInAPullLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	e := testkit.NewEngine(t)
	addr := testkit.StartRegistry(t, e.Sandbox, e.Dir, "redis")
	for i := range 6 {
		cmd := e.Client(context.Background(), "orlop", "pull", "-q", addr+"/redis")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		// Killed at a different moment each time: when the store has grown by so many files.
		testkit.Eventually(t, func() error {
			select {
			case <-done:
				return nil
			default:
			}
			c, err := Take(e)
			if err != nil {
				return err
			}
			if c["files"] < 60+i*700 {
				return errors.New("not far enough")
			}
			return nil
		})
		e.Kill()
		e.Start()
		if out := e.Run("images", "-q"); strings.Count(out, "\n") > 1 {
			t.Fatalf("images after a killed pull: %s", out)
		}
	}
	e.Run("pull", addr+"/redis")
	if out := e.Run("run", "--rm", addr+"/redis", "redis-server", "--version"); !strings.Contains(out, "Redis server") {
		t.Errorf("redis does not run after killed pulls: %s", out)
	}
}

func TestFollowedLogGoesOnAfterTheDaemonIsBack(t *testing.T) {
	t.Parallel()
	e := testkit.NewEngine(t)
	e.Load("busybox")
	e.Run("run", "-d", "--name", "talks", "busybox", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; while [ ! -e /end ]; do usleep 20000; done; echo last")
	follow := e.Client(context.Background(), "orlop", "logs", "-f", "talks")
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	// The client of a dead daemon ends; how is its own business.
	_ = follow.Wait()
	e.Start()
	e.Run("exec", "talks", "touch", "/end")
	if code := strings.TrimSpace(e.Run("wait", "talks")); code != "0" {
		t.Errorf("exit code %s", code)
	}
	var want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	want.WriteString("last\n")
	if got := e.Run("logs", "talks"); got != want.String() {
		t.Errorf("log has %d bytes, want %d: a line was lost or doubled", len(got), want.Len())
	}
}
