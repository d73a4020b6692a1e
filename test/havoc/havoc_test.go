package havoc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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

func TestNamesAndPortsGoOnWithoutADaemon(t *testing.T) {
	t.Parallel()
	e := testkit.NewEngine(t)
	e.Load("busybox")
	e.Run("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", "mkdir /www; echo ahoy >/www/index.html; exec httpd -f -p 80 -h /www")
	testkit.Eventually(t, func() error {
		return look(e.Command(context.Background(), "curl", "-fs", "http://127.0.0.1:8080/"))
	})
	ctx, cancel := context.WithTimeout(context.Background(), away(t))
	defer cancel()
	// One process of each kind asks again and again and counts; its last line is the count.
	loops := map[string]string{
		"127.0.0.1": "curl -fs --max-time 5 -o /dev/null http://127.0.0.1:8080/",
		"::1":       "curl -fs --max-time 5 -o /dev/null 'http://[::1]:8080/'",
	}
	if err := look(e.Client(context.Background(), "orlop", "exec", "web", "nslookup", "-type=a", "web", "127.0.0.11")); err == nil {
		pid := strings.TrimSpace(e.Run("inspect", "-f", "{{.State.Pid}}", "web"))
		loops["look-up"] = "nsenter -t " + pid + " -m -n nslookup -type=a web 127.0.0.11 >/dev/null"
	} else {
		t.Errorf("the name of a container is not served in its sandbox: %v", err)
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
	e.Kill()
	<-ctx.Done()
	e.Start()
	e.Run("exec", "web", "true")
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range loops {
		line := <-results
		t.Log(line)
		if !strings.HasSuffix(line, " 0 <nil>") || strings.Contains(line, ": 0 ") {
			t.Errorf("calls failed while the daemon was away: %s (good, bad)", line)
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
