package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"time"
)

// restarts is how many times the daemon is killed and started again.
const restarts = 3

// comebacks fills networks with containers and looks at what grows with them:
// starting, connecting, making a network, and above all a daemon that is killed
// and comes back. Engines are measured one after the other, each alone.
func comebacks(c config, names []string, n, nets int) error {
	fmt.Printf("%d containers of busybox on %d networks, API, p50 of 10 in ms unless said\n\n", n, nets)
	fmt.Printf("%-8s %-50s %10s %10s\n", "engine", "what", "the first", "the last")
	for _, name := range names {
		e, err := start(c, name)
		if err == nil {
			err = comeback(e, n, nets)
		}
		if e != nil {
			e.stop()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func comeback(e *engine, n, nets int) error {
	const edge = 10
	row := func(what string, of ...time.Duration) {
		fmt.Printf("%-8s %-50s", e.name, what)
		for _, d := range of {
			fmt.Printf(" %10s", ms(d))
		}
		fmt.Println()
	}
	ends := func(what string, d []time.Duration) { row(what, at(d[:edge], 0.5), at(d[len(d)-edge:], 0.5)) }
	times := func(ans answer, name string) (d []time.Duration) {
		for _, s := range ans.Stages {
			if s.Name == name {
				d = append(d, time.Duration(s.Nanos))
			}
		}
		return d
	}
	ans, err := e.ask(request{Verb: "nets", Socket: e.socket, Count: nets})
	if err != nil {
		return err
	}
	ends("network create", times(ans, "create"))
	began := time.Now()
	ans, err = e.ask(request{Verb: "many", Socket: e.socket, Count: n, Parallel: 4, Nets: nets, Args: []string{"busybox", "sleep", "100000"}})
	if err != nil {
		return err
	}
	took := time.Since(began)
	for _, what := range []string{"create", "start"} {
		ends("container "+what+", 4 at a time", times(ans, what)[edge:])
	}
	row(fmt.Sprintf("all %d containers", n), took)
	for _, when := range []string{"", " after the daemon's return"} {
		if ans, err = e.ask(request{Verb: "changes", Socket: e.socket, Count: 4 * edge, Nets: nets}); err != nil {
			return err
		}
		for _, what := range []string{"connect", "disconnect", "inspect", "list", "create and remove"} {
			ends("network "+what+when, times(ans, what))
		}
		if when != "" {
			break
		}
		var back []time.Duration
		for range restarts {
			took, err := e.restart(n)
			if err != nil {
				return err
			}
			back = append(back, took)
		}
		row("the daemon killed: until it answers, of 3", at(back, 0), slices.Max(back))
	}
	return printMemory(e, n)
}

// restart kills the daemon and returns how long the next one takes until it
// answers and knows all containers as running.
func (e *engine) restart(running int) (time.Duration, error) {
	end := fmt.Sprintf("kill -9 %d; while kill -0 %d 2>/dev/null; do sleep 0.01; done", e.daemon, e.daemon)
	if _, err := e.ask(request{Verb: "run", Args: []string{"sh", "-c", end}}); err != nil {
		return 0, err
	}
	began := time.Now()
	ans, err := e.ask(e.spawn)
	if err != nil {
		return 0, err
	}
	e.daemon = ans.Pid
	if _, err = e.ask(request{Verb: "ready", Socket: e.socket}); err != nil {
		return 0, err
	}
	took := time.Since(began)
	ans, err = e.ask(request{Verb: "count", Socket: e.socket})
	if err == nil && ans.Code != running {
		err = fmt.Errorf("%d containers run after the daemon's return, %d did before (%s)", ans.Code, running, filepath.Join(e.dir, "log"))
	}
	return took, err
}

// api calls an engine and times the call.
func api(client *http.Client, method, path string, body any) (data []byte, took time.Duration, err error) {
	var payload []byte
	if body != nil {
		if payload, err = json.Marshal(body); err != nil {
			return nil, 0, err
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://engine/v1.41"+path, bytes.NewReader(payload))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(resp.Body)
	took = time.Since(began)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(data))
	}
	return data, took, err
}

// nets makes the networks n0, n1 … one after the other. Their subnets are named,
// because the pools of some engines have only 31.
func nets(req request) (took []stage, err error) {
	client := httpClient(req.Socket)
	for i := range req.Count {
		_, t, err := api(client, http.MethodPost, "/networks/create", netRequest(i))
		if err != nil {
			return nil, err
		}
		took = append(took, stage{"create", int64(t)})
	}
	return took, nil
}

func netRequest(i int) map[string]any {
	return map[string]any{
		"Name": fmt.Sprintf("n%d", i),
		"IPAM": map[string]any{"Config": []map[string]string{{"Subnet": fmt.Sprintf("10.99.%d.0/24", i)}}},
	}
}

// changes connects containers to further networks and disconnects them.
func changes(req request) (took []stage, err error) {
	client := httpClient(req.Socket)
	call := func(what, method, path string, body any) []byte {
		if err != nil {
			return nil
		}
		var data []byte
		var t time.Duration
		data, t, err = api(client, method, path, body)
		took = append(took, stage{what, int64(t)})
		return data
	}
	var list []struct{ ID string }
	if err := json.Unmarshal(call("list", http.MethodGet, "/containers/json", nil), &list); err != nil {
		return nil, err
	}
	took = nil
	for i := range req.Count {
		name := fmt.Sprintf("n%d", i%req.Nets)
		box := list[i%len(list)].ID
		var in struct {
			NetworkSettings struct{ Networks map[string]any }
		}
		if data, _, err := api(client, http.MethodGet, "/containers/"+box+"/json", nil); err != nil {
			return nil, err
		} else if err := json.Unmarshal(data, &in); err != nil {
			return nil, err
		}
		if _, on := in.NetworkSettings.Networks[name]; on { // each is on one
			name = fmt.Sprintf("n%d", (i+1)%req.Nets)
		}
		of := "/networks/" + name
		call("connect", http.MethodPost, of+"/connect", map[string]any{"Container": box})
		call("inspect", http.MethodGet, of, nil)
		call("disconnect", http.MethodPost, of+"/disconnect", map[string]any{"Container": box})
		call("list", http.MethodGet, "/networks", nil)
		began := time.Now()
		call("", http.MethodPost, "/networks/create", netRequest(req.Nets))
		call("", http.MethodDelete, fmt.Sprintf("/networks/n%d", req.Nets), nil)
		took = append(took, stage{"create and remove", int64(time.Since(began))})
	}
	return took, err
}

// running counts the containers that the engine lists.
func running(req request) (int, error) {
	var list []struct{}
	data, _, err := api(httpClient(req.Socket), http.MethodGet, "/containers/json", nil)
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	return len(list), err
}
