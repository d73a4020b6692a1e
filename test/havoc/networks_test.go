package havoc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/netns"
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
	// What is ready for the next container waits half a minute, or goes with the daemon.
	e.Kill()
	e.Start()
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
	// Through the API, eight at a time: what is tried here is the daemon.
	boxes := make([]box, containers)
	var start errgroup.Group
	start.SetLimit(8)
	for i := range boxes {
		boxes[i].name = fmt.Sprintf("box%d", i)
		start.Go(func() error { return boxes[i].start(e, i, fmt.Sprintf("n%d", i%nets)) })
	}
	err := start.Wait()
	defer func() {
		for _, b := range boxes {
			if b.ns != nil {
				b.ns.Close()
			}
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	host, err := netns.OfPid(e.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	e.Kill()
	e.Start()
	agree(t, e, host, boxes)
	t.Logf("%d containers on %d networks stand", containers, nets)

	// Several hands connect and disconnect at random; now and then the daemon is
	// killed under them. A command may fail, by the kill or because it has been
	// done already; what must hold is what is true afterwards.
	stop := time.Now().Add(length)
	kills, rounds := 0, 0
	var done atomic.Int64
	var back []time.Duration
	for round := 0; round < 3 || time.Now().Before(stop); round++ {
		rounds++
		var wg sync.WaitGroup
		for hand := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(hand)))
				for range 10 {
					name := boxes[r.IntN(len(boxes))].name
					path := fmt.Sprintf("/networks/n%d/connect", r.IntN(nets))
					if r.IntN(2) == 0 {
						// From a network that it is on, or nearly nothing would be disconnected.
						on := networksOf(e, name)
						if len(on) == 0 {
							continue
						}
						path = "/networks/" + on[r.IntN(len(on))] + "/disconnect"
					}
					if _, err := call(e, http.MethodPost, path, map[string]any{"Container": name, "Force": r.IntN(4) == 0}); err == nil {
						done.Add(1)
					}
				}
			})
		}
		if round%2 == 1 {
			e.Kill()
			kills++
			wg.Wait()
			began := time.Now()
			e.Start()
			back = append(back, time.Since(began))
		} else {
			wg.Wait()
		}
		agree(t, e, host, boxes)
	}
	slices.Sort(back)
	t.Logf("%d containers, %d networks, %d daemon kills, %d rounds, %d connects and disconnects; until the daemon was back: median %s, longest %s",
		containers, nets, kills, rounds, done.Load(), back[len(back)/2].Round(time.Millisecond), back[len(back)-1].Round(time.Millisecond))

	// One that serves nothing any more has to serve all of them.
	began := time.Now()
	killNetd(t, e)
	agree(t, e, host, boxes)
	t.Logf("names were answered %s after netd was killed", time.Since(began).Round(time.Millisecond))

	for i := range boxes {
		start.Go(func() error {
			_, err := call(e, http.MethodDelete, "/containers/"+boxes[i].name+"?force=1", nil)
			return errors.Join(err, boxes[i].ns.Close())
		})
	}
	if err := start.Wait(); err != nil {
		t.Error(err)
	}
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

// box is a container of the soak.
type box struct {
	name string
	ns   *netns.NS
}

// killNetd ends netd as a crash would and returns when it is dead.
func killNetd(t *testing.T, e *testkit.Engine) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(e.Dir, "run/netd/netd.sock.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(data), " ")
	fd, err := unix.PidfdOpen(e.OuterPid(pid), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// networksOf lists the networks that a container is on, none when that cannot be
// told.
func networksOf(e *testkit.Engine, name string) []string {
	data, err := call(e, http.MethodGet, "/containers/"+name+"/json", nil)
	if err != nil {
		return nil
	}
	var in struct {
		NetworkSettings struct{ Networks map[string]any }
	}
	if json.Unmarshal(data, &in) != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(in.NetworkSettings.Networks))
}

// call asks the API and returns what a good answer holds.
func call(e *testkit.Engine, method, path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(2*time.Minute))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.HTTP().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// start makes and starts a container; each tenth publishes a port.
func (b *box) start(e *testkit.Engine, i int, network string) error {
	config := map[string]any{"NetworkMode": network, "Init": true}
	if i%10 == 0 {
		config["PortBindings"] = map[string]any{"80/tcp": []map[string]string{{"HostIp": "127.0.0.1", "HostPort": strconv.Itoa(20000 + i)}}}
	}
	create := map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "100000"}, "HostConfig": config}
	if _, err := call(e, http.MethodPost, "/containers/create?name="+b.name, create); err != nil {
		return err
	}
	if _, err := call(e, http.MethodPost, "/containers/"+b.name+"/start", nil); err != nil {
		return err
	}
	data, err := call(e, http.MethodGet, "/containers/"+b.name+"/json", nil)
	if err != nil {
		return err
	}
	var in struct{ State struct{ Pid int } }
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	b.ns, err = netnsOf(e, in.State.Pid)
	return err
}

// netnsOf opens the namespace of a process by its pid inside the sandbox, whose
// /proc knows it.
func netnsOf(e *testkit.Engine, pid int) (*netns.NS, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", e.Pid, pid))
	if err != nil {
		return nil, err
	}
	return netns.Of(f), nil
}

// agree holds what the engine says of its networks against the kernel: every
// container has exactly the addresses that inspect tells, every link of a
// bridge belongs to one of them, every bridge to a network, and containers find
// each other by the names and addresses that it tells.
func agree(t *testing.T, e *testkit.Engine, host *netns.NS, boxes []box) {
	t.Helper()
	of := map[string]*netns.NS{}
	for _, b := range boxes {
		of[b.name] = b.ns
	}
	testkit.Eventually(t, func() error {
		data, err := call(e, http.MethodGet, `/networks?filters={"type":["custom"]}`, nil)
		if err != nil {
			return err
		}
		var list []networktypes.Summary
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
		told, ends := map[string][]string{}, 0
		type pair struct{ from, to, addr string }
		var pairs []pair
		var bridges []string
		for _, l := range list {
			var n networktypes.Inspect
			if data, err = call(e, http.MethodGet, "/networks/"+l.ID, nil); err == nil {
				err = json.Unmarshal(data, &n)
			}
			if err != nil {
				return err
			}
			bridges = append(bridges, "br-"+n.ID[:12])
			var last string
			for _, c := range n.Containers {
				told[c.Name] = append(told[c.Name], c.IPv4Address.String())
				ends++
				if last != "" {
					pairs = append(pairs, pair{last, c.Name + "." + n.Name, c.IPv4Address.Addr().String()})
				}
				last = c.Name
			}
		}
		for _, b := range boxes {
			var have []string
			err := b.ns.Do(func() error {
				addrs, err := net.InterfaceAddrs()
				for _, a := range addrs {
					if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
						have = append(have, a.String())
					}
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("addresses of %s: %w", b.name, err)
			}
			slices.Sort(have)
			slices.Sort(told[b.name])
			if !slices.Equal(have, told[b.name]) {
				return fmt.Errorf("%s has %v, the engine tells %v", b.name, have, told[b.name])
			}
		}
		var stand []string
		links := 0
		err = host.Do(func() error {
			all, err := net.Interfaces()
			for _, i := range all {
				switch {
				case strings.HasPrefix(i.Name, "br-"):
					stand = append(stand, i.Name)
				case strings.HasPrefix(i.Name, "veth"):
					links++
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		slices.Sort(stand)
		slices.Sort(bridges)
		if !slices.Equal(stand, bridges) {
			return fmt.Errorf("bridges %v, the engine tells %v", stand, bridges)
		}
		if links != ends {
			return fmt.Errorf("%d links for %d endpoints", links, ends)
		}
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		for _, p := range pairs[:min(len(pairs), 100)] {
			if err := finds(of[p.from], p.to, dns.TypeA, p.addr); err != nil {
				return fmt.Errorf("%s: %w", p.from, err)
			}
		}
		return nil
	})
}
