package nettest_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/nettest"
	"github.com/orlop/orlop/internal/testkit"
)

// cell of the matrix, with one value of bridge-nf-call-iptables or, when nf is
// empty, both.
type cell struct{ row, way, nf string }

// carried are the ways that lead through the host's own sockets (netd), from
// outside of it.
var carried = []cell{{"IPv4 only", "outside>port6", ""}, {"IPv4 only", "far>port6", ""}}

// besides are programs that manage the host's rules and drop what is forwarded.
var besides = []struct {
	name string
	// start returns what has it set its rules anew, each by its name.
	start func(t *testing.T) map[string]func()
	// saved is its ruleset as text.
	saved  func(t *testing.T) string
	places string
	// silent are the cells that it leaves without an answer; docs/reachability.md
	// says why.
	silent []cell
	// slow: only where NETTEST_BESIDE is "all" (make soak).
	slow bool
}{
	{
		name: "dockerd", places: "ip filter DOCKER-USER",
		start: func(t *testing.T) map[string]func() {
			d := newNeighbor(t)
			d.restart() // its second start puts some rules elsewhere
			return map[string]func(){"reload": d.reload, "restart": d.restart}
		},
		saved: savedByIptables,
	},
	{
		name: "policies of iptables", places: "ip filter FORWARD, ip6 filter FORWARD",
		start: func(t *testing.T) map[string]func() {
			set := func() {
				tools(t, []string{
					"iptables-nft -P FORWARD DROP", "iptables-nft -F FORWARD", "iptables-nft -A FORWARD -i lo -j ACCEPT",
					"ip6tables-nft -P FORWARD DROP", "ip6tables-nft -F FORWARD", "ip6tables-nft -A FORWARD -i lo -j ACCEPT",
				})
			}
			set()
			return map[string]func(){"reload": set}
		},
		saved: savedByIptables,
	},
	{
		name: "ufw", places: "ip filter ufw-before-forward, ip6 filter ufw6-before-forward", silent: carried, slow: true,
		start: func(t *testing.T) map[string]func() { return debianFirewall(t, 0) },
		saved: savedByIptables,
	},
	{
		name: "firewalld", places: "inet firewalld filter_FORWARD", silent: append(slices.Clone(carried), cell{"isolated", "mate>web6", "1"}), slow: true,
		start: func(t *testing.T) map[string]func() { return debianFirewall(t, 1) },
		saved: func(t *testing.T) string { return tool(t, "nft -s list table inet firewalld") },
	},
}

func savedByIptables(t *testing.T) string {
	t.Helper()
	return withoutTimes(tool(t, "iptables-nft-save") + tool(t, "ip6tables-nft-save"))
}

// debianFirewall starts one of firewalls. What ufw makes at its first start
// lacks two rules that every reload makes.
func debianFirewall(t *testing.T, i int) map[string]func() {
	root := debian(t)
	firewalls[i].start(t, root)
	reload := func() { firewalls[i].reload(t, root) }
	reload()
	return map[string]func(){"reload": reload}
}

// TestReachabilityMatrixBesideOtherFirewalls is the matrix, all rows at once,
// beside a program that drops what it does not know: before and after that
// program sets its rules anew. Without us its rules are what they were.
func TestReachabilityMatrixBesideOtherFirewalls(t *testing.T) {
	for _, other := range besides {
		if other.slow && os.Getenv("NETTEST_BESIDE") != "all" {
			continue
		}
		t.Run(other.name, func(t *testing.T) {
			nettest.Need(t)
			flushed(t)
			rows := slices.DeleteFunc(matrix(), func(r matrixRow) bool { return r.driver != "" && !hasLink(t, r.driver) })
			again := other.start(t)
			before := other.saved(t)
			for _, nf := range []string{"0", "1"} {
				t.Run("bridge-nf-call-iptables "+nf, func(t *testing.T) {
					if !bridgeNF(t, nf) {
						t.Skip("the kernel has no br_netfilter")
					}
					m := newMatrix(t, rows...)
					silent := func(row, way string) bool {
						return slices.Contains(other.silent, cell{row, way, nf}) || slices.Contains(other.silent, cell{row, way, ""})
					}
					reached := func(when string) {
						eventually(t, "our rules are in their places", func() bool {
							return strings.Join(ownRules(t), ", ") == other.places && len(m.e.rules.Warnings()) == 0
						})
						for _, wrong := range m.wrong(t, rows, silent) {
							t.Errorf("%s, %s", when, wrong)
						}
					}
					reached("at first")
					for _, what := range slices.Sorted(maps.Keys(again)) {
						again[what]()
						reached("after its " + what)
					}
					m.end(t)
					if now := other.saved(t); now != before {
						t.Errorf("without us its ruleset is\n%s\nwas\n%s", now, before)
					}
				})
			}
		})
	}
}

// wrong goes every way of every row, all at once, and returns what is not as
// the cells say: who should get an answer may wait for it long, and ask again,
// since a datagram may get lost; who should not waits for a short silence.
func (m *matrixWorld) wrong(t *testing.T, rows []matrixRow, silent func(row, way string) bool) []string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []string
	for i, r := range rows {
		want := r.want(t)
		for _, name := range columns {
			for _, proto := range []string{"tcp", "udp"} {
				way, want := m.ways[i][name], want[name+" "+proto]
				if silent(r.name, name) {
					want = "-"
				}
				wg.Go(func() {
					if seen := way.client(proto, want != "-"); seen != want {
						mu.Lock()
						defer mu.Unlock()
						out = append(out, fmt.Sprintf("%s: %s by %s: %s, want %s", r.name, name, proto, seen, want))
					}
				})
			}
		}
	}
	wg.Wait()
	slices.Sort(out)
	return out
}

// client is as whom the asker is seen, "-" for silence.
func (w way) client(proto string, answered bool) string {
	if w.to == "" {
		return "-" // there is no such way
	}
	ask, tries := nettest.Silent, 1
	if answered {
		ask, tries = nettest.Patient, 5
	}
	for range tries {
		a, err := ask(w.ns, proto, w.to)
		if err != nil {
			continue
		}
		if seen := w.seen[a.Client]; seen != "" {
			return seen
		}
		return a.Client
	}
	return "-"
}

// neighbor is Debian's dockerd, unpacked and not installed, in this network
// namespace: with its own /run, and without containers, so the host's control
// groups are not touched.
type neighbor struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func newNeighbor(t *testing.T) *neighbor {
	t.Helper()
	testkit.Peer(t, "docker") // the peer is there, or it is said why not
	// It drops what is forwarded only when it was who switched forwarding on.
	const forward = "/proc/sys/net/ipv4/ip_forward"
	old, err := os.ReadFile(forward)
	must(t, err)
	must(t, os.WriteFile(forward, []byte("0"), 0))
	// The test's own folder has too long a name for containerd's sockets.
	dir, err := os.MkdirTemp("", "orlop-test-docker-")
	must(t, err)
	d := &neighbor{t: t, dir: dir}
	t.Cleanup(func() {
		d.stop()
		must(t, os.RemoveAll(dir))
		must(t, os.WriteFile(forward, old, 0))
		c, err := rtnl.Open()
		must(t, err)
		defer c.Close()
		if err := c.Delete("docker0"); err != nil && !rtnl.IsGone(err) {
			t.Error(err)
		}
	})
	d.start()
	return d
}

func (d *neighbor) start() {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "log"))
	must(d.t, err)
	defer log.Close()
	d.cmd = exec.CommandContext(context.Background(), "unshare", "--mount", "sh", "-ec",
		`mount -t tmpfs run /run; exec "$@"`, "sh", filepath.Join(testkit.Root(d.t), "scripts/peer-engine.sh"), d.dir, "--storage-driver", "vfs")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	must(d.t, d.cmd.Start())
	// It listens before it has made its rules, and answers after.
	d.await("an answer", func() error { return answers(d.t.Context(), filepath.Join(d.dir, "docker.sock")) })
}

// stop ends it as systemd does; its rules stay.
func (d *neighbor) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(unix.SIGTERM)
	_ = d.cmd.Wait()
	d.cmd = nil
}

func (d *neighbor) restart() {
	d.stop()
	d.start()
}

// reload has it read its configuration again, as systemd does.
func (d *neighbor) reload() {
	const done = "Reloaded configuration"
	log := func() int {
		text, err := os.ReadFile(filepath.Join(d.dir, "log"))
		must(d.t, err)
		return strings.Count(string(text), done)
	}
	before := log()
	must(d.t, d.cmd.Process.Signal(unix.SIGHUP))
	d.await("the line "+done, func() error {
		if log() > before {
			return nil
		}
		return fmt.Errorf("it did not say %q", done)
	})
}

// await waits for dockerd, which takes seconds.
func (d *neighbor) await(what string, try func() error) {
	d.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			d.t.Fatalf("wait for %s of dockerd: %v\n%s", what, err, text)
		}
		<-tick.C
	}
}

// answers asks a daemon whether it is ready.
func answers(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: %s", resp.Status)
	}
	return nil
}
