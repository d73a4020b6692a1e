package havoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/testkit"
)

// soak is how much the soak of networks does: HAVOC_NETS="containers,networks,duration",
// e.g. 500,50,10m, or little enough for every day.
func soak(t *testing.T) (containers, nets int, length time.Duration) {
	t.Helper()
	v := os.Getenv("HAVOC_NETS")
	if v == "" {
		v = "8,3,1s"
	}
	part := strings.Split(v, ",")
	if len(part) != 3 {
		t.Fatalf("HAVOC_NETS=%q", v)
	}
	var err1, err2, err3 error
	containers, err1 = strconv.Atoi(part[0])
	nets, err2 = strconv.Atoi(part[1])
	length, err3 = time.ParseDuration(part[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return containers, nets, length
}

func TestNetworksSurviveConnectDisconnectAndDaemonKills(t *testing.T) {
	e := testkit.NewEngine(t)
	e.Load("busybox")
	e.Run("run", "--rm", "busybox", "true") // what is made once is made
	var before Census
	testkit.Eventually(t, func() (err error) {
		if before, err = Take(e); err == nil && before["links"] > 3 {
			err = fmt.Errorf("%d links still stand", before["links"])
		}
		return err
	})
	containers, nets, length := soak(t)
	for i := range nets {
		e.Run("network", "create", fmt.Sprintf("n%d", i))
	}
	var names []string
	for i := range containers {
		name := fmt.Sprintf("box%d", i)
		names = append(names, name)
		args := []string{"run", "-d", "--name", name, "--network", fmt.Sprintf("n%d", i%nets), "--init"}
		if i%10 == 0 {
			args = append(args, "-p", fmt.Sprintf("127.0.0.1:%d:80", 20000+i))
		}
		e.Run(append(args, "busybox", "sleep", "100000")...)
	}
	agree(t, e, names)
	t.Logf("%d containers on %d networks stand", containers, nets)

	// Several hands connect and disconnect at random; now and then the daemon is
	// killed under them. A command may fail, by the kill or because it has been
	// done already; what must hold is what is true afterwards.
	stop := time.Now().Add(length)
	kills, rounds := 0, 0
	for round := 0; round < 3 || time.Now().Before(stop); round++ {
		rounds++
		var wg sync.WaitGroup
		for hand := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(hand)))
				for range 10 {
					verb := []string{"connect", "disconnect"}[r.IntN(2)]
					_, _, _ = e.Try("network", verb, fmt.Sprintf("n%d", r.IntN(nets)), names[r.IntN(len(names))])
				}
			})
		}
		if round%2 == 1 {
			e.Kill()
			kills++
			wg.Wait()
			e.Start()
		} else {
			wg.Wait()
		}
		agree(t, e, names)
	}
	t.Logf("%d containers, %d networks, %d daemon kills, %d rounds", containers, nets, kills, rounds)

	e.Run(append([]string{"rm", "-f"}, names...)...)
	e.Run("network", "prune", "-f")
	if left, err := filepath.Glob(filepath.Join(e.Dir, "run/netd/table/*")); err != nil || len(left) > 0 {
		t.Errorf("names of nobody: %v %v", left, err)
	}
	testkit.Eventually(t, func() error {
		after, err := Take(e)
		if err != nil {
			return err
		}
		// The daemon is another process by now: what it holds in itself is not
		// compared.
		for _, key := range slices.Sorted(maps.Keys(after)) {
			if key == "links" || key == "rules and elements" || strings.Contains(key, "namespace") {
				if after[key] > before[key] {
					return fmt.Errorf("%s: %d, before %d", key, after[key], before[key])
				}
			}
		}
		return nil
	})
}

// agree holds what the engine says of its networks against the kernel: every
// container has exactly the addresses that inspect tells, every link of a
// bridge belongs to one of them, every bridge to a network, and containers find
// each other by the names and addresses that it tells.
func agree(t *testing.T, e *testkit.Engine, names []string) {
	t.Helper()
	testkit.Eventually(t, func() error {
		out, err := e.Client(t.Context(), "orlop", "network", "ls", "-q", "--no-trunc", "--filter", "type=custom").Output()
		if err != nil {
			return fmt.Errorf("list networks: %w", err)
		}
		ids := strings.Fields(string(out))
		if out, err = e.Client(t.Context(), "orlop", append([]string{"network", "inspect"}, ids...)...).Output(); err != nil {
			return fmt.Errorf("inspect networks: %w", err)
		}
		var all []networktypes.Inspect
		if err := json.Unmarshal(out, &all); err != nil {
			return err
		}
		told, ends := map[string][]string{}, 0
		type pair struct{ from, to, net, addr string }
		var pairs []pair
		for _, n := range all {
			var last string
			for _, c := range n.Containers {
				if last != "" {
					pairs = append(pairs, pair{last, c.Name, n.Name, c.IPv4Address.Addr().String()})
				}
				last = c.Name
			}
			for _, c := range n.Containers {
				told[c.Name] = append(told[c.Name], c.IPv4Address.String())
				ends++
			}
		}
		if out, err = e.Client(t.Context(), "orlop", append([]string{"inspect", "-f", "{{.State.Pid}}"}, names...)...).Output(); err != nil {
			return fmt.Errorf("inspect containers: %w", err)
		}
		pids := strings.Fields(string(out))
		if len(pids) != len(names) {
			return fmt.Errorf("%d pids of %d containers", len(pids), len(names))
		}
		for i, name := range names {
			out, err := e.Command(t.Context(), "nsenter", "-t", pids[i], "-n", "ip", "-o", "-4", "addr", "show", "scope", "global").Output()
			if err != nil {
				return fmt.Errorf("addresses of %s: %w", name, err)
			}
			var have []string
			for line := range strings.Lines(string(out)) {
				if f := strings.Fields(line); len(f) > 3 {
					have = append(have, f[3])
				}
			}
			slices.Sort(have)
			slices.Sort(told[name])
			if !slices.Equal(have, told[name]) {
				return fmt.Errorf("%s has %v, the engine tells %v", name, have, told[name])
			}
		}
		out, err = e.Command(t.Context(), "ip", "-o", "link", "show", "type", "veth").Output()
		if err != nil {
			return err
		}
		if links := bytes.Count(out, []byte("\n")); links != ends {
			return fmt.Errorf("%d links for %d endpoints", links, ends)
		}
		if out, err = e.Command(t.Context(), "ip", "-o", "link", "show", "type", "bridge").Output(); err != nil {
			return err
		}
		if bridges := bytes.Count(out, []byte("\n")) - 1; bridges != len(all) { // and the default one
			return fmt.Errorf("%d bridges for %d networks", bridges, len(all))
		}
		// Some names: one look-up takes as long as all the rest.
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		for _, p := range pairs[:min(len(pairs), 10)] {
			pid := pids[slices.Index(names, p.from)]
			out, err := e.Command(t.Context(), "nsenter", "-t", pid, "-n", "-m", "-p", "nslookup", "-type=a", p.to+"."+p.net).CombinedOutput()
			if err != nil || !strings.Contains(string(out), p.addr+"\n") {
				return fmt.Errorf("%s asks for %s, which has %s: %v\n%s", p.from, p.to, p.addr, err, out)
			}
		}
		return nil
	})
}
