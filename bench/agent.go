package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// request asks an agent for one thing; answer is what came of it.
type request struct {
	// Verb is "spawn" (start and keep), "run" (run and time), "ready" (wait for
	// a socket to answer), "stages" (time the API calls of one run), "many" (start
	// Count containers, Parallel at a time, on Nets networks, and time each start), "nets" (make
	// Count networks), "changes" (connect to and disconnect from them, Count times), "count" (how many containers run), "memory" (sum up
	// what every process here but the agent takes), "footprint" (that, and how many they are) or "trace" (start a tracer on
	// every process here but the agent).
	Verb            string
	Count, Parallel int
	Nets            int
	Args            []string
	Env             []string
	Socket          string
	Log             string
}

type answer struct {
	Nanos  int64
	Pid    int
	Code   int
	Output string
	Error  string
	Stages []stage
}

type stage struct {
	Name  string
	Nanos int64
}

// agent serves requests from its standard input, one JSON value each: it lives
// inside an engine's sandbox, so that what is timed is the command and not the
// way into its namespaces.
func agent() int {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var req request
		if err := in.Decode(&req); err != nil {
			return 0
		}
		ans, err := serve(req)
		if err != nil {
			ans.Error = err.Error()
		}
		if err := out.Encode(ans); err != nil {
			return 1
		}
	}
}

func serve(req request) (answer, error) {
	switch req.Verb {
	case "spawn":
		log, err := os.OpenFile(req.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return answer{}, err
		}
		defer log.Close()
		cmd := exec.CommandContext(context.Background(), req.Args[0], req.Args[1:]...)
		cmd.Env = append(os.Environ(), req.Env...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return answer{}, err
		}
		go func() { _ = cmd.Wait() }()
		return answer{Pid: cmd.Process.Pid}, nil
	case "run":
		cmd := exec.CommandContext(context.Background(), req.Args[0], req.Args[1:]...)
		cmd.Env = append(os.Environ(), req.Env...)
		var both bytes.Buffer
		cmd.Stdout, cmd.Stderr = &both, &both
		start := time.Now()
		err := cmd.Run()
		took := time.Since(start)
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return answer{}, err
		}
		return answer{Nanos: int64(took), Code: cmd.ProcessState.ExitCode(), Output: both.String()}, nil
	case "ready":
		return answer{}, ready(req.Socket)
	case "trace":
		return trace(req)
	case "many":
		took, err := many(req)
		return answer{Stages: took}, err
	case "nets":
		took, err := nets(req)
		return answer{Stages: took}, err
	case "changes":
		took, err := changes(req)
		return answer{Stages: took}, err
	case "count":
		n, err := running(req)
		return answer{Code: n}, err
	case "memory":
		list, err := memory()
		return answer{Stages: list}, err
	case "footprint":
		kb, processes, err := footprint()
		return answer{Stages: []stage{{"KiB", int64(kb)}, {"processes", int64(processes)}}}, err
	case "stages":
		stages, err := stages(req.Socket, req.Args)
		return answer{Stages: stages}, err
	}
	return answer{}, fmt.Errorf("unknown verb %q", req.Verb)
}

// trace starts a tracer with "-p PID" for every process of the sandbox but its
// first one, and waits until the kernel says that all of them are traced.
func trace(req request) (answer, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return answer{}, err
	}
	var pids []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != 1 && pid != os.Getpid() {
			pids = append(pids, e.Name())
		}
	}
	for _, pid := range pids {
		req.Args = append(req.Args, "-p", pid)
	}
	req.Verb = "spawn"
	ans, err := serve(req)
	if err != nil {
		return ans, err
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range pids {
		for !traced(pid) {
			if time.Now().After(deadline) {
				return ans, fmt.Errorf("process %s is not traced", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return ans, nil
}

// traced is also true of a process that is gone.
func traced(pid string) bool {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	return err != nil || !strings.Contains(string(status), "TracerPid:\t0\n")
}

func httpClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

func ready(socket string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return err
	}
	for {
		resp, err := httpClient(socket).Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// many makes containers and times each start, in the order of their ends.
func many(req request) ([]stage, error) {
	client := httpClient(req.Socket)
	post := func(path string, body any) ([]byte, error) {
		data, _, err := api(client, http.MethodPost, path, body)
		return data, err
	}
	var (
		mu   sync.Mutex
		took []stage
		errs []error
		wait sync.WaitGroup
	)
	turns := make(chan struct{}, req.Parallel)
	for i := range req.Count {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			began := time.Now()
			config := map[string]any{"Image": req.Args[0], "Cmd": req.Args[1:]}
			if req.Nets > 0 {
				config["HostConfig"] = map[string]any{"NetworkMode": fmt.Sprintf("n%d", i%req.Nets)}
			}
			data, err := post("/containers/create", config)
			made := time.Now()
			var created struct{ ID string }
			if err == nil {
				err = json.Unmarshal(data, &created)
			}
			if err == nil {
				_, err = post("/containers/"+created.ID+"/start", nil)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, stage{"create", int64(made.Sub(began))}, stage{"start", int64(time.Since(made))})
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	return took, errors.Join(errs...)
}

// memory is the proportional set size of every process here but the agent and
// its parents, summed up by the name of the program, in bytes; beside it, as
// "NAME count", how many there are.
func memory() ([]stage, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	sum, count := map[string]int64{}, map[string]int64{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		name, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		rollup, err2 := os.ReadFile("/proc/" + e.Name() + "/smaps_rollup")
		if err != nil || err2 != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(rollup)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				sum[strings.TrimSpace(string(name))] += kb << 10
				count[strings.TrimSpace(string(name))]++
			}
		}
	}
	var all []stage
	for name, n := range sum {
		all = append(all, stage{name, n}, stage{name + " count", count[name]})
	}
	return all, nil
}

// stages does what `run --rm` does, call by call over one connection, and times
// each: the same calls for every engine.
func stages(socket string, args []string) ([]stage, error) {
	client := httpClient(socket)
	var all []stage
	call := func(name, method, path string, body any) ([]byte, error) {
		var payload io.Reader
		if body != nil {
			data, err := json.Marshal(body)
			if err != nil {
				return nil, err
			}
			payload = bytes.NewReader(data)
		}
		req, err := http.NewRequestWithContext(context.Background(), method, "http://engine/v1.41"+path, payload)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		start := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		all = append(all, stage{name, int64(time.Since(start))})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if resp.StatusCode >= 300 {
			return nil, fmt.Errorf("%s: %s: %s", name, resp.Status, strings.TrimSpace(string(data)))
		}
		return data, nil
	}
	data, err := call("create", http.MethodPost, "/containers/create", map[string]any{"Image": args[0], "Cmd": args[1:]})
	if err != nil {
		return nil, err
	}
	var created struct{ ID string }
	if err := json.Unmarshal(data, &created); err != nil {
		return nil, err
	}
	for _, step := range []struct{ name, method, path string }{
		{"start", http.MethodPost, "/containers/" + created.ID + "/start"},
		{"wait", http.MethodPost, "/containers/" + created.ID + "/wait"},
		{"remove", http.MethodDelete, "/containers/" + created.ID},
	} {
		if _, err := call(step.name, step.method, step.path, nil); err != nil {
			return nil, err
		}
	}
	return all, nil
}
