package nettest_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
	"github.com/orlop/orlop/internal/testkit"
)

// TestReachabilityBesideDocker goes every way of the matrix with Debian's
// dockerd and compares cell by cell with ours, which TestReachabilityMatrix
// holds. Every difference is a line of docs/reachability.md, which gives its
// reason: one that is not there fails, and so does a line that is not true.
// dockerd takes its time, so all kinds of networks are compared only where
// NETTEST_DOCKER is "all" (make soak), otherwise the two that say most.
func TestReachabilityBesideDocker(t *testing.T) {
	nettest.Need(t)
	d := newDocker(t)
	// Without the kernel's second of doubt about new IPv6 addresses, in which
	// proxies would use another one.
	must(t, d.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0) }))
	w := nettest.NewWorldOf(t, d.ns)
	nettest.Serve(t, w.Outside, "world", 7000)
	rows := slices.DeleteFunc(matrix(), func(r matrixRow) bool {
		return !r.docker || os.Getenv("NETTEST_DOCKER") != "all" && r.name != "nat" && r.name != "icc=false"
	})
	ways := d.rows(t, w, rows)
	var differences []difference
	for _, nf := range []string{"0", "1"} {
		has := true
		must(t, d.ns.Do(func() error { has = bridgeNF(t, nf); return nil }))
		if !has {
			continue
		}
		// All rows at once, since all stand at once.
		all := map[string]way{}
		for i, r := range rows {
			for name, way := range ways[i] {
				all[r.name+"|"+name] = way
			}
		}
		got := askAll(all)
		for _, r := range rows {
			want := r.want(t)
			for _, way := range slices.Sorted(maps.Keys(want)) {
				if g := got[r.name+"|"+way]; g != want[way] {
					differences = append(differences, difference{r.name, nf, way, want[way], g})
				}
			}
		}
	}
	explained(t, rows, differences)
}

// dockerd is Debian's, with a client.
type dockerd struct {
	ns      *netns.NS
	sandbox *testkit.Sandbox
	socket  string
}

func newDocker(t *testing.T) *dockerd {
	t.Helper()
	d := &dockerd{}
	d.sandbox, d.socket = testkit.NewDocker(t, "--experimental", "--ip6tables", "--storage-driver", "vfs")
	var err error
	d.ns, err = netns.OfPid(d.sandbox.Pid)
	must(t, err)
	t.Cleanup(func() { d.ns.Close() })
	_, err = d.client("load", "-q", "-i", testkit.Image(t, "busybox"))
	must(t, err)
	return d
}

// client runs docker's own command line.
func (d *dockerd) client(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket, "DOCKER_CONFIG="+os.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// run starts a container that does nothing, and a server in its namespace.
func (d *dockerd) run(t *testing.T, name string, args ...string) (place, error) {
	args = append([]string{"run", "-d", "--name", name}, args...)
	if _, err := d.client(append(args, "busybox", "sleep", "100000")...); err != nil {
		return place{}, err
	}
	out, err := d.client("inspect", "-f", "{{.State.Pid}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", name)
	if err != nil {
		return place{}, err
	}
	f := strings.Fields(out)
	// The pid is one of the sandbox, whose /proc knows it.
	file, err := os.Open(fmt.Sprintf("/proc/%d/root/proc/%s/ns/net", d.sandbox.Pid, f[0]))
	if err != nil {
		return place{}, err
	}
	ns := netns.Of(file)
	t.Cleanup(func() { ns.Close() })
	p := place{ns: ns, v4: f[1]}
	if len(f) > 2 {
		p.v6 = f[2]
	}
	return p, nil
}

// rows makes every row real, beside each other, and returns their ways.
func (d *dockerd) rows(t *testing.T, w *nettest.World, rows []matrixRow) []map[string]way {
	t.Helper()
	create := func(name string, n int, r matrixRow) []string {
		if r.driver != "" {
			args := []string{"network", "create", "-d", r.driver, "--subnet", onWire.Subnet.String(), "--ip-range", onWire.IPRange.String(), "--gateway", onWire.Gateway.String()}
			for k, v := range r.options {
				args = append(args, "-o", k+"="+v)
			}
			_, err := d.client(append(args, name)...)
			must(t, err)
			return []string{onWire.Gateway.String()}
		}
		args := []string{"network", "create", "--subnet", fmt.Sprintf("10.%d.0.0/24", n), "--gateway", fmt.Sprintf("10.%d.0.1", n)}
		gateways := []string{fmt.Sprintf("10.%d.0.1", n), fmt.Sprintf("fd00:%d::1", n)}
		if !r.noIPv6 {
			args = append(args, "--ipv6", "--subnet", fmt.Sprintf("fd00:%d::/64", n), "--gateway", gateways[1])
		}
		if r.internal {
			args = append(args, "--internal")
		}
		for k, v := range r.options {
			args = append(args, "-o", k+"="+v)
		}
		_, err := d.client(append(args, name)...)
		must(t, err)
		return gateways
	}
	create("other", 65, matrixRow{})
	far, err := d.run(t, "far", "--network", "other")
	must(t, err)
	nettest.Serve(t, far.ns, "far", 80)
	ways := make([]map[string]way, len(rows))
	webs, mates := make([]place, len(rows)), make([]place, len(rows))
	gateways := make([][]string, len(rows))
	port := func(i int) int { return 8080 + i }
	var start errgroup.Group
	start.SetLimit(4)
	for i, r := range rows {
		net := fmt.Sprint("row", i)
		gateways[i] = create(net, 66+i, r)
		publish := fmt.Sprintf("%d:80", port(i))
		if r.publish != "" {
			publish = r.publish + ":" + publish
		}
		start.Go(func() (err error) {
			webs[i], err = d.run(t, "web"+net, "--network", net, "-p", publish+"/tcp", "-p", publish+"/udp")
			return err
		})
		start.Go(func() (err error) {
			mates[i], err = d.run(t, "mate"+net, "--network", net)
			return err
		})
	}
	must(t, start.Wait())
	for i := range rows {
		nettest.Serve(t, webs[i].ns, "web", 80)
		ways[i] = waysOf(w, webs[i], mates[i], far, gateways[i], port(i))
	}
	return ways
}

// difference is a cell that Docker fills otherwise.
type difference struct{ row, nf, way, ours, docker string }

func (d difference) String() string {
	return fmt.Sprintf("| %s | bridge-nf %s | %s | %s | %s |", d.row, d.nf, d.way, d.ours, d.docker)
}

const reachability = "../../../docs/reachability.md"

// explained holds the differences against the lines of the document:
//
//	| networks | bridge-nf | ways | ours | docker.io | why |
//
// Networks, ways and values of bridge-nf are lists; "all" is every one (every
// bridge network). A way
// without a protocol is both.
func explained(t *testing.T, rows []matrixRow, differences []difference) {
	t.Helper()
	text, err := os.ReadFile(reachability)
	must(t, err)
	known := map[difference]bool{}
	_, table, found := strings.Cut(string(text), "<!-- differences -->\n")
	if !found {
		t.Fatalf("%s has no table of differences", reachability)
	}
	table, _, _ = strings.Cut(table, "<!-- end of differences -->")
	list := func(cell string, all []string) []string {
		var out []string
		for _, s := range strings.Split(cell, ",") {
			if s = strings.Trim(strings.TrimSpace(s), "`"); s == "all" {
				return all
			}
			out = append(out, s)
		}
		return out
	}
	var names []string // of bridges
	compared := map[string]bool{}
	for _, r := range rows {
		compared[r.name] = true
		if r.driver == "" {
			names = append(names, r.name)
		}
	}
	for i, line := range strings.Split(table, "\n") {
		if !strings.HasPrefix(line, "|") || i < 2 {
			continue
		}
		cell := strings.Split(strings.Trim(line, "|"), "|")
		for j := range cell {
			cell[j] = strings.TrimSpace(cell[j])
		}
		if len(cell) != 6 || cell[5] == "" {
			t.Errorf("a difference needs six cells, the last of them its reason: %s", line)
			continue
		}
		for _, row := range list(cell[0], names) {
			for _, nf := range list(cell[1], []string{"0", "1"}) {
				for _, way := range list(cell[2], nil) {
					protos := []string{way + " tcp", way + " udp"}
					if strings.HasSuffix(way, "p") && strings.Contains(way, " ") {
						protos = []string{way}
					}
					for _, w := range protos {
						if compared[row] {
							known[difference{row, nf, w, cell[3], cell[4]}] = true
						}
					}
				}
			}
		}
	}
	for _, d := range differences {
		if !known[d] {
			t.Errorf("not explained in docs/reachability.md: %s", d)
		} else {
			t.Logf("explained: %s", d)
		}
		delete(known, d)
	}
	for d := range known {
		t.Errorf("explained in docs/reachability.md, but not so: %s", d)
	}
}
