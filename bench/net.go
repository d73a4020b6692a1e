package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// netFigures are what `bench -net` prints of one engine, in the order of names.
type netFigures struct {
	names  []string
	values map[string][]float64
	failed map[string]string
}

func (f *netFigures) add(name string, v float64) {
	if f.values == nil {
		f.values, f.failed = map[string][]float64{}, map[string]string{}
	}
	if len(f.values[name]) == 0 && f.failed[name] == "" {
		f.names = append(f.names, name)
	}
	f.values[name] = append(f.values[name], v)
}

// best keeps the highest value of a figure beside its median.
func (f *netFigures) best(name string) {
	highest := slices.Max(f.values[name])
	if name += ", best"; len(f.values[name]) == 0 {
		f.names = append(f.names, name)
	}
	f.values[name] = []float64{highest}
}

func (f *netFigures) fail(name string, err error) {
	f.add(name, 0)
	delete(f.values, name)
	f.failed[name] = err.Error()
}

// networks measures networks of the engines in turns; a memory below zero is
// noise. Every load runs rounds times, ports is how many one container publishes,
// many how many containers run in the end.
func networks(c config, engines []*engine, rounds, ports, many int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	figures := make([]netFigures, len(engines))
	each := func(what string, act func(e *engine, f *netFigures) error) {
		for i, e := range engines {
			if err := act(e, &figures[i]); err != nil {
				figures[i].fail(what, err)
			}
		}
	}
	millis := func(e *engine, args ...string) (float64, error) {
		ans, err := e.client1(args...)
		return float64(ans.Nanos) / 1e6, err
	}

	each("prepare", func(e *engine, _ *netFigures) error {
		if _, err := e.client1("run", "-d", "--name", "idle", "busybox", "sleep", "100000"); err != nil {
			return err
		}
		if _, err := e.client1("network", "create", "team"); err != nil {
			return err
		}
		for _, run := range [][]string{
			{"--name", "server", "-p", "127.0.0.1:7000:7000"},
			{"--name", "client"},
		} {
			args := append([]string{"run", "-d", "--network", "team", "-v", self + ":/bench:ro"}, run...)
			if _, err := e.client1(append(args, "busybox", "/bench", "traffic", "serve", ":7000")...); err != nil {
				return err
			}
		}
		// The server answers before anything is measured.
		for wait := time.Millisecond; ; wait *= 2 {
			ans, err := e.ask(request{Verb: "run", Args: []string{self, "traffic", "connections", "127.0.0.1:7000", "1ms"}})
			if err != nil || ans.Code == 0 {
				return err
			}
			if wait > 4*time.Second {
				logs, _ := e.client1("logs", "server")
				return fmt.Errorf("the server does not answer: %s%s", ans.Output, logs.Output)
			}
			time.Sleep(wait)
		}
	})
	for range c.n {
		each("network create + rm, ms", func(e *engine, f *netFigures) error {
			a, err := millis(e, "network", "create", "brief")
			if err != nil {
				return err
			}
			b, err := millis(e, "network", "rm", "brief")
			f.add("network create + rm, ms", a+b)
			return err
		})
		each("network connect, ms", func(e *engine, f *netFigures) error {
			a, err := millis(e, "network", "connect", "team", "idle")
			if err != nil {
				return err
			}
			f.add("network connect, ms", a)
			_, err = millis(e, "network", "disconnect", "team", "idle")
			return err
		})
	}
	loads := []struct {
		what, second string
		inside       string
		args         []string
	}{
		{"host to published port, MB/s", "", "", []string{"throughput", "127.0.0.1:7000"}},
		{"host to published port, connections/s", "", "", []string{"connections", "127.0.0.1:7000"}},
		{"container to container, MB/s", "", "client", []string{"throughput", "server:7000"}},
		{"container to container, connections/s", "", "client", []string{"connections", "server-address:7000"}},
		{"names, questions/s", "names, p99 µs", "client", []string{"names", "127.0.0.11:53", "server"}},
	}
	// Short and often: what else the machine does hits a round, not an engine, and
	// the best round says what is possible.
	for range rounds {
		for _, l := range loads {
			each(l.what, func(e *engine, f *netFigures) error {
				args := append([]string{}, l.args...)
				if l.inside != "" {
					if err := insideArgs(e, args); err != nil {
						return err
					}
				}
				command := append([]string{"traffic"}, append(args, "1s")...)
				var out string
				if l.inside == "" {
					ans, err := e.ask(request{Verb: "run", Args: append([]string{self}, command...)})
					if err != nil {
						return err
					}
					if out = ans.Output; ans.Code != 0 {
						return fmt.Errorf("exit %d: %s", ans.Code, out)
					}
				} else {
					ans, err := e.client1(append([]string{"exec", l.inside, "/bench"}, command...)...)
					if err != nil {
						return err
					}
					out = ans.Output
				}
				fields := strings.Fields(out)
				for i, name := range []string{l.what, l.second} {
					if name == "" || i >= len(fields) {
						continue
					}
					v, err := strconv.ParseFloat(fields[i], 64)
					if err != nil {
						return fmt.Errorf("%q: %w", out, err)
					}
					f.add(name, v)
				}
				f.best(l.what)
				return nil
			})
		}
	}
	if ports > 0 {
		each("start, many ports", manyPorts(ports, millis))
	}
	each("many containers", func(e *engine, f *netFigures) error {
		var first, last []float64
		for i := range many {
			t, err := millis(e, "run", "-d", "busybox", "sleep", "100000")
			if err != nil {
				return fmt.Errorf("container %d: %w", i, err)
			}
			switch {
			case i < 20:
				first = append(first, t)
			case i >= many-20:
				last = append(last, t)
			}
		}
		if many > 0 {
			f.add("run -d of the first 20, ms", median(first))
			f.add(fmt.Sprintf("run -d up to the %dth, ms", many), median(last))
		}
		return nil
	})

	fmt.Printf("networks, medians, %d ports, in turns\n\n%-42s", ports, "what")
	for _, e := range engines {
		fmt.Printf(" %12s", e.name)
	}
	fmt.Println()
	var names []string
	seen := map[string]bool{}
	for _, f := range figures {
		for _, n := range f.names {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	for _, n := range names {
		fmt.Printf("%-42s", n)
		for _, f := range figures {
			if len(f.values[n]) == 0 {
				fmt.Printf(" %12s", "-")
			} else {
				fmt.Printf(" %12.1f", median(f.values[n]))
			}
		}
		fmt.Println()
	}
	for i, f := range figures {
		for _, n := range names {
			if f.failed[n] != "" {
				fmt.Printf("%s: %s: %s\n", engines[i].name, n, f.failed[n])
			}
		}
	}
	return nil
}

// insideArgs puts the server's address in, which is asked for once, and the
// name server that the container's file names.
func insideArgs(e *engine, args []string) error {
	for i, a := range args {
		switch {
		case strings.HasPrefix(a, "server-address:"), strings.HasPrefix(a, "server:"):
			ans, err := e.client1("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "server")
			if err != nil {
				return err
			}
			args[i] = strings.TrimSpace(ans.Output) + ":" + a[strings.IndexByte(a, ':')+1:]
		case a == "127.0.0.11:53":
			ans, err := e.client1("exec", "client", "cat", "/etc/resolv.conf")
			if err != nil {
				return err
			}
			for _, line := range strings.Split(ans.Output, "\n") {
				if s, ok := strings.CutPrefix(line, "nameserver "); ok {
					args[i] = strings.TrimSpace(s) + ":53"
					break
				}
			}
		}
	}
	return nil
}

// manyPorts starts a container that publishes so many ports, beside one that
// publishes none.
func manyPorts(ports int, millis func(e *engine, args ...string) (float64, error)) func(*engine, *netFigures) error {
	return func(e *engine, f *netFigures) error {
		before, err := e.ask(request{Verb: "footprint"})
		if err != nil {
			return err
		}
		plain, err := millis(e, "run", "-d", "--name", "plain", "busybox", "sleep", "100000")
		if err != nil {
			return err
		}
		between, err := e.ask(request{Verb: "footprint"})
		if err != nil {
			return err
		}
		spec := fmt.Sprintf("20000-%d:20000-%d", 19999+ports, 19999+ports)
		took, err := millis(e, "run", "-d", "--name", "many", "-p", spec, "busybox", "sleep", "100000")
		if err != nil {
			return err
		}
		after, err := e.ask(request{Verb: "footprint"})
		if err != nil {
			return err
		}
		f.add(fmt.Sprintf("start with %d ports, ms", ports), took)
		f.add("  without ports, ms", plain)
		own := func(a, b answer) float64 { return float64(b.Stages[0].Nanos-a.Stages[0].Nanos) / 1024 }
		f.add("  memory for the ports, MiB", own(between, after)-own(before, between))
		f.add("  processes for the ports", float64(after.Stages[1].Nanos-between.Stages[1].Nanos)-float64(between.Stages[1].Nanos-before.Stages[1].Nanos))
		end, err := millis(e, "rm", "-f", "many")
		f.add("  rm -f, ms", end)
		return err
	}
}
