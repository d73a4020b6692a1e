// Command bench times `run --rm busybox true` and its stages on Orlop and on
// Debian's docker.io and podman in the same run, each in a sandbox of its own
// and in turns, so that what else the machine does hits all alike. Nothing is
// asserted: it prints.
//
//	bench -bin bin -cache ~/.cache/orlop [-n 30] [-engines orlop,docker,podman] [-net [-rounds 7] [-ports 1000] [-many 500]] [-restart 500 [-nets 50]]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(agent())
	}
	if len(os.Args) > 1 && os.Args[1] == "traffic" {
		if err := traffic(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// engine is one that is measured.
type engine struct {
	name   string
	client []string
	env    []string
	socket string // empty: no API is timed
	daemon int    // pid inside the sandbox; 0: none
	dir    string
	// spawn starts the daemon.
	spawn request

	in    io.WriteCloser
	out   *json.Decoder
	cmd   *exec.Cmd
	total []time.Duration
	exec  []time.Duration
	parts map[string][]time.Duration
	order []string
}

type config struct {
	bin, cache, top string
	n               int
	// liveRestore has Docker's containers go on without its daemon, as ours do.
	liveRestore bool
}

func run() error {
	var c config
	flag.StringVar(&c.bin, "bin", "bin", "folder of our programs")
	flag.StringVar(&c.cache, "cache", "", "cache folder with images and peers")
	flag.StringVar(&c.top, "top", ".", "the module's root")
	flag.IntVar(&c.n, "n", 30, "measured runs of each engine")
	crowd := flag.Int("many", 0, "instead of run and exec, start this many containers, one by one and 8 at a time")
	names := flag.String("engines", "orlop,docker,podman", "which engines")
	net := flag.Bool("net", false, "measure networks instead")
	rounds := flag.Int("rounds", 7, "with -net: seconds of each load")
	ports := flag.Int("ports", 1000, "with -net: ports that one container publishes")
	back := flag.Int("restart", 0, "instead of run and exec, start this many containers and kill the daemon")
	nets := flag.Int("nets", 50, "with -restart: networks that the containers are on, at most 200")
	flag.Parse()
	for _, p := range []*string{&c.bin, &c.cache, &c.top} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if *back > 0 {
		c.liveRestore = true
		return comebacks(c, strings.Split(*names, ","), *back, *nets)
	}
	var engines []*engine
	defer func() {
		for _, e := range engines {
			e.stop()
		}
	}()
	for _, name := range strings.Split(*names, ",") {
		e, err := start(c, name)
		if e != nil {
			engines = append(engines, e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if *net {
		return networks(c, engines, *rounds, *ports, *crowd)
	}
	if *crowd > 0 {
		return crowds(engines, *crowd)
	}
	if err := measure(c, engines); err != nil {
		return err
	}
	report(c, engines)
	return counts(engines)
}

func start(c config, name string) (*engine, error) {
	dir, err := os.MkdirTemp("", "orlop-demo-bench-")
	if err != nil {
		return nil, err
	}
	e := &engine{name: name, dir: dir, parts: map[string][]time.Duration{}}
	group := filepath.Base(dir)
	self, err := os.Executable()
	if err != nil {
		return e, err
	}
	e.cmd = exec.CommandContext(context.Background(), filepath.Join(c.bin, "sandbox"), "-cgroup", group, self, "agent")
	e.cmd.Stderr = os.Stderr
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return e, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return e, err
	}
	e.out = json.NewDecoder(bufio.NewReader(out))
	if err := e.cmd.Start(); err != nil {
		return e, err
	}
	spawn := request{Verb: "spawn", Log: filepath.Join(dir, "log")}
	switch name {
	case "orlop":
		e.socket = filepath.Join(dir, "orlop.sock")
		e.client = []string{filepath.Join(c.bin, "orlop")}
		e.env = []string{"ORLOP_HOST=unix://" + e.socket, "DOCKER_CONFIG=" + dir}
		if err := os.WriteFile(dir+"/daemon.json", []byte("{}\n"), 0o600); err != nil {
			return e, err
		}
		spawn.Args = []string{filepath.Join(c.bin, "orlopd"), "-H", "unix://" + e.socket, "--data-root", dir + "/data", "--exec-root", dir + "/run",
			"--pidfile", dir + "/pid", "--config-file", dir + "/daemon.json", "--cgroup-parent", "/" + group}
	case "docker":
		e.socket = filepath.Join(dir, "docker.sock")
		e.client = []string{filepath.Join(c.cache, "peers/docker/usr/bin/docker")}
		e.env = []string{"DOCKER_HOST=unix://" + e.socket, "DOCKER_CONFIG=" + dir}
		spawn.Args = []string{filepath.Join(c.top, "scripts/peer-engine.sh"), dir, "--cgroup-parent", "/" + group}
		if c.liveRestore {
			spawn.Args = append(spawn.Args, "--live-restore")
		}
	case "podman":
		peer := filepath.Join(c.cache, "peers/podman")
		e.client = []string{filepath.Join(c.top, "scripts/peer-podman.sh"), dir, "--cgroup-manager=cgroupfs"}
		e.env = []string{"PODMAN_PEER=" + peer, "PODMAN_CGROUP=/" + group}
		spawn.Args = nil
	default:
		return e, errors.New("unknown engine")
	}
	e.spawn = spawn
	if spawn.Args != nil {
		ans, err := e.ask(spawn)
		if err != nil {
			return e, err
		}
		e.daemon = ans.Pid
		if _, err := e.ask(request{Verb: "ready", Socket: e.socket}); err != nil {
			log, _ := os.ReadFile(spawn.Log)
			return e, fmt.Errorf("%w\n%s", err, log)
		}
	}
	_, err = e.client1("load", "-q", "-i", filepath.Join(c.cache, "images/busybox.tar"))
	return e, err
}

func (e *engine) ask(req request) (answer, error) {
	if err := json.NewEncoder(e.in).Encode(req); err != nil {
		return answer{}, err
	}
	var ans answer
	if err := e.out.Decode(&ans); err != nil {
		return ans, err
	}
	if ans.Error != "" {
		return ans, errors.New(ans.Error)
	}
	return ans, nil
}

// client1 runs the engine's client once; a failure is an error.
func (e *engine) client1(args ...string) (answer, error) {
	ans, err := e.ask(request{Verb: "run", Args: append(append([]string{}, e.client...), args...), Env: e.env})
	if err == nil && ans.Code != 0 {
		err = fmt.Errorf("%s: exit %d: %s", strings.Join(args, " "), ans.Code, ans.Output)
	}
	return ans, err
}

func (e *engine) stop() {
	if e.in != nil {
		_ = e.in.Close()
	}
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Wait()
	}
	_ = os.RemoveAll(e.dir)
}

func measure(c config, engines []*engine) error {
	const warm = 3
	for _, e := range engines {
		if _, err := e.client1("run", "-d", "--name", "idle", "busybox", "sleep", "100000"); err != nil {
			return err
		}
	}
	for i := range c.n + warm {
		for _, e := range engines {
			ans, err := e.client1("run", "--rm", "busybox", "true")
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			into, err := e.client1("exec", "idle", "true")
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			if i >= warm {
				e.total = append(e.total, time.Duration(ans.Nanos))
				e.exec = append(e.exec, time.Duration(into.Nanos))
			}
			if e.socket == "" {
				continue
			}
			st, err := e.ask(request{Verb: "stages", Socket: e.socket, Args: []string{"busybox", "true"}})
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			for _, s := range st.Stages {
				if len(e.parts[s.Name]) == 0 {
					e.order = append(e.order, s.Name)
				}
				if i >= warm {
					e.parts[s.Name] = append(e.parts[s.Name], time.Duration(s.Nanos))
				} else {
					e.parts[s.Name] = append(e.parts[s.Name][:0], time.Duration(s.Nanos))
				}
			}
		}
	}
	return nil
}

func at(d []time.Duration, q float64) time.Duration {
	sorted := append([]time.Duration{}, d...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }

func report(c config, engines []*engine) {
	fmt.Printf("%d runs each, in turns, %d cores, times in ms\n\n", c.n, runtime.NumCPU())
	fmt.Printf("%-8s %-28s %8s %8s %8s %8s\n", "engine", "what", "min", "p50", "p99", "× ours")
	line := func(e *engine, what string, d, ours []time.Duration) {
		if len(d) == 0 {
			return
		}
		times := "-"
		if len(ours) > 0 {
			times = fmt.Sprintf("%.1f", float64(at(d, 0.5))/float64(at(ours, 0.5)))
		}
		fmt.Printf("%-8s %-28s %8s %8s %8s %8s\n", e.name, what, ms(at(d, 0)), ms(at(d, 0.5)), ms(at(d, 0.99)), times)
	}
	ours := engines[0]
	for _, e := range engines {
		line(e, "run --rm busybox true", e.total, ours.total)
	}
	for _, e := range engines {
		line(e, "exec true", e.exec, ours.exec)
	}
	for _, e := range engines {
		for _, part := range e.order {
			line(e, "API "+part, e.parts[part], ours.parts[part])
		}
	}
}

// crowds starts n containers twice, and compares the first with the last ones.
func crowds(engines []*engine, n int) error {
	const edge = 10
	fmt.Printf("%d containers of busybox, bridge network, API create and start, p50 of %d in ms\n\n", n, edge)
	fmt.Printf("%-8s %-10s %10s %8s %8s %8s %8s %12s\n", "engine", "at a time", "what", "first", "last", "last/first", "all min", "seconds")
	for _, e := range engines {
		if e.socket == "" {
			continue
		}
		for _, parallel := range []int{1, 8} {
			began := time.Now()
			ans, err := e.ask(request{Verb: "many", Socket: e.socket, Count: n, Parallel: parallel, Args: []string{"busybox", "sleep", "100000"}})
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			took := time.Since(began)
			for _, what := range []string{"create", "start"} {
				var d []time.Duration
				for _, s := range ans.Stages {
					if s.Name == what {
						d = append(d, time.Duration(s.Nanos))
					}
				}
				// Alone the first ones warm everything up, which has nothing to do with how many there are.
				first, last := at(d[edge:2*edge], 0.5), at(d[len(d)-edge:], 0.5)
				fmt.Printf("%-8s %-10d %10s %8s %8s %10.2f %8s %12.1f\n", e.name, parallel, what, ms(first), ms(last), float64(last)/float64(first), ms(at(d, 0)), took.Seconds())
			}
			if parallel == 1 {
				time.Sleep(5 * time.Second) // monitors give memory back when idle
				if err := printMemory(e, n); err != nil {
					return err
				}
			}
			if err := removeAll(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func printMemory(e *engine, n int) error {
	ans, err := e.ask(request{Verb: "memory"})
	if err != nil {
		return err
	}
	sum, count := map[string]int64{}, map[string]int64{}
	for _, s := range ans.Stages {
		if name, ok := strings.CutSuffix(s.Name, " count"); ok {
			count[name] = s.Nanos
		} else {
			sum[s.Name] = s.Nanos
		}
	}
	var total int64
	for name, b := range sum {
		if name == "sleep" {
			continue // the application's own
		}
		total += b
		fmt.Printf("%-8s memory: %5d × %-16s %8.2f MB PSS\n", e.name, count[name], name, float64(b)/1e6)
	}
	fmt.Printf("%-8s memory per container, all of the engine's processes: %.2f MB PSS\n", e.name, float64(total)/1e6/float64(n))
	return nil
}

func removeAll(e *engine) error {
	ans, err := e.client1("ps", "-aq")
	if err != nil {
		return err
	}
	ids := strings.Fields(ans.Output)
	const batch = 50
	for len(ids) > 0 {
		k := min(batch, len(ids))
		if _, err := e.client1(append([]string{"rm", "-f"}, ids[:k]...)...); err != nil {
			return err
		}
		ids = ids[k:]
	}
	return nil
}

// tracedCalls is what is counted of one run.
const tracedCalls = "trace=execve,execveat,fsync,fdatasync,syncfs,sync,msync,sync_file_range"

// counts prints how many programs are started and how often something is synced
// to disk for one `run --rm`, seen by strace on the daemon and what it starts,
// and on the client.
func counts(engines []*engine) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("\nsyncs and program starts are not counted: no strace")
		return nil
	}
	fmt.Printf("\n%-8s %-28s %8s %8s\n", "engine", "one run --rm", "execve", "syncs")
	for _, e := range engines {
		trace := filepath.Join(e.dir, "trace")
		if e.daemon != 0 {
			if _, err := e.ask(request{Verb: "trace", Log: trace + ".err", Args: []string{strace, "-f", "-qq", "-o", trace, "-e", tracedCalls}}); err != nil {
				return err
			}
		}
		before, _ := os.ReadFile(trace)
		clientTrace := trace + ".client"
		args := append([]string{strace, "-f", "-qq", "-o", clientTrace, "-e", tracedCalls}, e.client...)
		ans, err := e.ask(request{Verb: "run", Args: append(args, "run", "--rm", "busybox", "true"), Env: e.env})
		if err != nil {
			return err
		}
		if ans.Code != 0 {
			return fmt.Errorf("%s: traced run: exit %d: %s", e.name, ans.Code, ans.Output)
		}
		time.Sleep(300 * time.Millisecond)
		after, _ := os.ReadFile(trace)
		client, err := os.ReadFile(clientTrace)
		if err != nil {
			return err
		}
		lines := strings.Split(string(after[len(before):])+string(client), "\n")
		execs, syncs := 0, 0
		for _, l := range lines {
			switch {
			case strings.Contains(l, " resumed>") || strings.Contains(l, "= -1 "):
			case strings.Contains(l, "execve"):
				execs++
			case strings.Contains(l, "sync"):
				syncs++
			}
		}
		fmt.Printf("%-8s %-28s %8d %8d\n", e.name, "client, daemon, app", execs, syncs)
	}
	return nil
}
