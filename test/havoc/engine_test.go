package havoc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/testkit"
)

// workers is how many containers are started and ended side by side.
const workers = 4

// TestAContainerKilledAnywhereKeepsItsExitStatus starts and ends containers
// through the API while their monitors, their first processes and the daemon
// are killed at random moments. Every container's exit status must be one it
// can have ended with, and nothing of any is left. HAVOC_FOR (e.g. 20m) ends a
// run of many HAVOC_CYCLES earlier.
func TestAContainerKilledAnywhereKeepsItsExitStatus(t *testing.T) {
	e := testkit.NewEngine(t, "--debug")
	e.Load("busybox")
	h := &engineCycles{t: t, e: e, count: map[string]int{}}
	h.http = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: workers,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Socket)
		},
	}}
	first := seed(t)
	for i := range 8 {
		h.cycle(rand.New(rand.NewPCG(first, uint64(i))), fmt.Sprintf("warm%d", i), "none")
	}
	var before Census
	testkit.Eventually(t, func() error {
		first, err := h.census()
		if err != nil {
			return err
		}
		if before, err = h.census(); err != nil {
			return err
		}
		if more := before.Grown(first, 0) + first.Grown(before, 0); more != "" {
			return errors.New("still settling: " + more)
		}
		return nil
	})
	n, limit := cycles(t, 60), time.Duration(0)
	if v := os.Getenv("HAVOC_FOR"); v != "" { // at most so long
		var err error
		if limit, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	var next sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(first, uint64(1000+w)))
			for {
				next.Lock()
				i := done
				done++
				next.Unlock()
				if i >= n || t.Failed() || limit > 0 && time.Since(begin) > limit {
					return
				}
				if i > 0 && i%500 == 0 {
					t.Logf("%d cycles in %s", i, time.Since(begin).Round(time.Second))
				}
				victims := []string{"none", "init", "init", "monitor", "monitor", "any monitor"}
				victim := victims[rng.IntN(len(victims))]
				if rng.IntN(60) == 0 {
					victim = "daemon"
				}
				h.cycle(rng, fmt.Sprintf("c%d", i), victim)
			}
		})
	}
	wg.Wait()
	t.Logf("%d cycles in %s: %v", max(0, min(done-workers, n)), time.Since(begin).Round(time.Second), h.count)
	if t.Failed() {
		return
	}
	// Connections that only wait for our next request are no leak of the daemon's.
	h.http.CloseIdleConnections()
	testkit.Eventually(t, func() error {
		after, err := h.census()
		if err != nil {
			return err
		}
		if more := before.Grown(after, 2); more != "" {
			return errors.New(more)
		}
		return nil
	})
	// What the census counts by number is looked at by name here.
	for _, dir := range []string{"data/containers", "run/containers"} {
		entries, err := os.ReadDir(filepath.Join(e.Dir, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, x := range entries {
			t.Errorf("%s/%s is left", dir, x.Name())
		}
	}
}

// engineCycles is the state of the test.
type engineCycles struct {
	t    *testing.T
	e    *testkit.Engine
	http *http.Client

	// turn is held for reading by who uses the daemon, for writing by who
	// replaces it.
	turn sync.RWMutex
	// daemon is held by the one killer of the daemon; it comes before turn.
	daemon sync.Mutex

	mu    sync.Mutex
	count map[string]int
	// stray counts victims that are everybody's, monitors and daemons: any
	// container may end with 137 then.
	stray int
}

func (h *engineCycles) census() (Census, error) {
	c, err := Take(h.e)
	if err != nil {
		return nil, err
	}
	// The log of events grows by design, by whole segments.
	events, err := count(filepath.Join(h.e.Dir, "data", "events"), func(fs.DirEntry) bool { return true })
	if err != nil {
		return nil, err
	}
	c["files"] -= events
	c["goroutines"], err = Goroutines(h.e)
	return c, err
}

// call asks the API; a daemon that was killed meanwhile is asked again.
func (h *engineCycles) call(method, path string, body any) (int, string) {
	for try := 0; ; try++ {
		h.turn.RLock()
		code, text, err := h.once(method, path, body)
		h.turn.RUnlock()
		if err == nil {
			return code, text
		}
		if try == 40 {
			h.t.Errorf("%s %s: %v", method, path, err)
			return 0, err.Error()
		}
		// Whoever kills the daemon holds this until the next one answers.
		h.daemon.Lock()
		h.daemon.Unlock() //nolint:staticcheck // nothing is to be done under it
	}
}

func (h *engineCycles) once(method, path string, body any) (int, string, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		in = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, in)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// state is a container's as the API tells it.
type state struct {
	ID    string `json:"Id"`
	State struct {
		Status     string
		ExitCode   int
		Pid        int
		Error      string
		StartedAt  time.Time
		FinishedAt time.Time
	}
}

func (h *engineCycles) inspect(name string) (state, int) {
	var s state
	code, text := h.call("GET", "/containers/"+name+"/json", nil)
	if code == http.StatusOK {
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			h.t.Errorf("inspect %s: %v", name, err)
		}
	}
	return s, code
}

// monitors lists the monitors of the engine, or those that hold the run folder
// of one container, by pids of this namespace.
func (h *engineCycles) monitors(id string) []int {
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.e.Pid))
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil || !strings.HasPrefix(string(line), "orlop-runtime\x00monitor") {
			continue
		}
		if link, err := os.Readlink("/proc/" + entry.Name() + "/ns/pid"); err != nil || link != home {
			continue
		}
		if id != "" && !holds(pid, "/containers/"+id+"/lock") {
			continue
		}
		list = append(list, pid)
	}
	return list
}

// holds reports whether a process has a file open.
func holds(pid int, suffix string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasSuffix(link, suffix) {
			return true
		}
	}
	return false
}

// initOf finds the container's first process: the one in a pid namespace of its
// own whose parent is the container's monitor.
func (h *engineCycles) initOf(id string) int {
	for _, monitor := range h.monitors(id) {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", monitor, monitor))
		if err == nil && len(bytes.TrimSpace(children)) == 0 {
			// Any thread may have cloned it.
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", monitor))
			for _, name := range tasks {
				if children, err = os.ReadFile(name); err == nil && len(bytes.TrimSpace(children)) > 0 {
					break
				}
			}
		}
		if f := strings.Fields(string(children)); len(f) > 0 {
			pid, _ := strconv.Atoi(f[0])
			return pid
		}
	}
	return 0
}

func (h *engineCycles) cycle(rng *rand.Rand, name, victim string) {
	code := rng.IntN(100)
	h.mu.Lock()
	h.count[victim]++
	h.mu.Unlock()
	command, short := "exec sleep 1000", rng.IntN(3) == 0
	switch {
	case short:
		command = fmt.Sprintf("exit %d", code)
	case rng.IntN(4) == 0:
		command, short = fmt.Sprintf("usleep %d; exit %d", rng.IntN(60000), code), true
	}
	network := "none"
	if rng.IntN(4) == 0 {
		network = "bridge"
	}
	delay := time.Duration(rng.IntN(60_000)) * time.Microsecond
	strays := h.strays()
	status, text := h.call("POST", "/containers/create?name="+name, map[string]any{
		"Image": "busybox", "Cmd": []string{"sh", "-c", command}, "HostConfig": map[string]any{"NetworkMode": network},
	})
	if status != http.StatusCreated && status != http.StatusConflict { // conflict: made before its daemon was killed
		h.t.Errorf("%s (victim %s): create: %d %s", name, victim, status, text)
		return
	}
	s, _ := h.inspect(name)
	// The killer strikes at a random moment from the start on.
	stop, struck := make(chan struct{}), make(chan bool, 1)
	go func() { struck <- h.strike(victim, s.ID, delay, stop) }()
	status, text = h.call("POST", "/containers/"+name+"/start", nil)
	started := status == http.StatusNoContent || status == http.StatusNotModified
	if started && rng.IntN(4) == 0 {
		h.exec(name)
	}
	if started && !short {
		switch rng.IntN(3) {
		case 0:
			h.call("POST", "/containers/"+name+"/kill", nil)
		case 1:
			h.call("POST", "/containers/"+name+"/stop?t=0", nil)
		default:
			<-time.After(delay) // the killer's part of the time
			h.call("POST", "/containers/"+name+"/kill?signal=KILL", nil)
		}
	}
	if started {
		if status, text := h.call("POST", "/containers/"+name+"/wait", nil); status != http.StatusOK {
			h.t.Errorf("%s (victim %s): wait: %d %s", name, victim, status, text)
		}
	}
	close(stop)
	killed := <-struck || h.strays() != strays
	s, status2 := h.inspect(name)
	switch {
	case status2 != http.StatusOK:
		h.t.Errorf("%s (victim %s): inspect: %d", name, victim, status2)
	case !started && !killed:
		h.t.Errorf("%s (victim %s): start: %d %s", name, victim, status, text)
	case !started:
		if s.State.Status == "running" {
			h.t.Errorf("%s (victim %s): start failed (%s) and yet it runs", name, victim, text)
		}
	case s.State.Status != "exited" || s.State.FinishedAt.Before(s.State.StartedAt):
		h.t.Errorf("%s (victim %s): after its end: %+v", name, victim, s.State)
	case s.State.ExitCode != 137 && (!short || s.State.ExitCode != code):
		h.t.Errorf("%s (victim %s, %q): exit status %d (%s)", name, victim, command, s.State.ExitCode, s.State.Error)
	case short && s.State.ExitCode != code && !killed:
		h.t.Errorf("%s (nothing killed, %q): exit status %d (%s)", name, command, s.State.ExitCode, s.State.Error)
	}
	if status, text := h.call("DELETE", "/containers/"+name+"?force=1&v=1", nil); status != http.StatusNoContent && status != http.StatusNotFound {
		h.t.Errorf("%s (victim %s): remove: %d %s", name, victim, status, text)
	}
}

func (h *engineCycles) exec(name string) {
	status, text := h.call("POST", "/containers/"+name+"/exec", map[string]any{"Cmd": []string{"true"}})
	var made struct {
		ID string `json:"Id"`
	}
	if status == http.StatusCreated && json.Unmarshal([]byte(text), &made) == nil {
		// It may fail: the container may be killed any time.
		h.call("POST", "/exec/"+made.ID+"/start", map[string]any{"Detach": true})
	}
}

func (h *engineCycles) strays() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stray
}

// strike kills the victim and reports whether there was one.
func (h *engineCycles) strike(victim, id string, delay time.Duration, stop <-chan struct{}) bool {
	select {
	case <-time.After(delay):
	case <-stop:
		if victim != "daemon" {
			return false
		}
	}
	switch victim {
	case "init":
		if pid := h.initOf(id); pid > 0 {
			return unix.Kill(pid, unix.SIGKILL) == nil
		}
	case "monitor":
		for _, pid := range h.monitors(id) {
			return unix.Kill(pid, unix.SIGKILL) == nil
		}
	case "any monitor":
		if list := h.monitors(""); len(list) > 0 {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.stray++
			return unix.Kill(list[int(delay)%len(list)], unix.SIGKILL) == nil
		}
	case "daemon":
		// Requests under way end with the daemon; who made them asks again.
		h.daemon.Lock()
		defer h.daemon.Unlock()
		h.e.Kill()
		h.mu.Lock()
		h.stray++
		h.mu.Unlock()
		h.turn.Lock()
		defer h.turn.Unlock()
		h.e.Start()
		return true
	}
	return false
}
