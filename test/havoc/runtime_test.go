package havoc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/testkit"
)

// insideEnv tells the test binary that it is the one in the sandbox.
const insideEnv = "ORLOP_HAVOC_INSIDE"

// cycles is how often a container is started and ended among kills:
// HAVOC_CYCLES, or what takes some seconds.
func cycles(t *testing.T, usual int) int {
	v := os.Getenv("HAVOC_CYCLES")
	if v == "" {
		return usual
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seed makes every run another one; HAVOC_SEED repeats one.
func seed(t *testing.T) uint64 {
	n := uint64(time.Now().UnixNano())
	if v := os.Getenv("HAVOC_SEED"); v != "" {
		var err error
		if n, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HAVOC_SEED=%d", n)
	return n
}

// TestARuntimeKilledAnywhereLeavesNothing runs the runtime's verbs and kills
// each of them, or the container's first process, at every stage: `delete
// --force` must then remove everything there is.
func TestARuntimeKilledAnywhereLeavesNothing(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		t.Skip("this is the part inside")
	}
	t.Parallel()
	s := testkit.NewSandbox(t)
	dir := t.TempDir()
	box := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(box, 0o755); err != nil {
		t.Fatal(err)
	}
	image := testkit.Image(t, "busybox")
	script := `set -e; tar -xf "$0" -C "$1"; cd "$1"; for b in $(find . -type f); do if tar -tf "$b" 2>/dev/null | grep -q 'bin/busybox$'; then tar -xf "$b" -C "$2"; fi; done`
	unpacked := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, image, unpacked, filepath.Join(dir, "rootfs")).CombinedOutput(); err != nil {
		t.Fatalf("unpack busybox: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.Command(t.Context(), self, "-test.run", "^TestRuntimeCyclesInside$", "-test.v", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), insideEnv+"="+dir+":"+s.Cgroup+":"+testkit.Program(t, "orlop-runtime"), "HAVOC_CYCLES="+strconv.Itoa(cycles(t, 60)))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// runtimeCycles is the state of the part inside.
type runtimeCycles struct {
	t       *testing.T
	rng     *rand.Rand
	dir     string
	group   string
	program string
	count   map[string]int
}

func TestRuntimeCyclesInside(t *testing.T) {
	where := strings.Split(os.Getenv(insideEnv), ":")
	if len(where) != 3 {
		t.Skip("runs inside TestARuntimeKilledAnywhereLeavesNothing")
	}
	r := &runtimeCycles{t: t, rng: rand.New(rand.NewPCG(seed(t), 1)), dir: where[0], group: where[1], program: where[2], count: map[string]int{}}
	before, err := r.census()
	if err != nil {
		t.Fatal(err)
	}
	n := cycles(t, 1)
	begin := time.Now()
	for i := range n {
		r.cycle("h" + strconv.Itoa(i))
		var last error
		// Zombies go when the sandbox's first process has taken them.
		testkit.Eventually(t, func() error {
			after, err := r.census()
			if err == nil && after != before {
				err = fmt.Errorf("after cycle %d: %s; before: %s", i, after, before)
			}
			last = err
			return err
		})
		if last != nil {
			t.Fatal(last)
		}
	}
	t.Logf("%d cycles in %s: %v", n, time.Since(begin).Round(time.Second), r.count)
}

// census is what there is: processes, mounts, states and control groups.
func (r *runtimeCycles) census() (string, error) {
	var b strings.Builder
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil {
			fmt.Fprintf(&b, "%s %q; ", e.Name(), line)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "%d mounts; ", bytes.Count(mounts, []byte{'\n'}))
	states, err := filepath.Glob(r.dir + "/state/*")
	if err != nil {
		return "", err
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + r.group + "/*/")
	if err != nil {
		return "", err
	}
	more, err := filepath.Glob("/sys/fs/cgroup/" + r.group + "/*/")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "states %v, groups %v", states, append(groups, more...))
	return b.String(), nil
}

// bundle writes a configuration that runs a shell command.
func (r *runtimeCycles) bundle(id, command string) {
	caps := []string{"CAP_KILL", "CAP_CHOWN"}
	ns := []map[string]any{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}}
	c := map[string]any{
		"ociVersion": "1.2.0", "hostname": "havoc", "root": map[string]any{"path": "rootfs"},
		"process": map[string]any{
			"args": []string{"sh", "-c", command}, "env": []string{"PATH=/bin:/usr/bin"}, "cwd": "/", "user": map[string]any{"uid": 0, "gid": 0},
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps}, "noNewPrivileges": true,
		},
		"mounts": []map[string]any{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
		},
		"linux": map[string]any{
			"namespaces": ns, "cgroupsPath": "/" + r.group + "/" + id, "maskedPaths": []string{"/proc/kcore"}, "readonlyPaths": []string{"/proc/sys"},
			"resources": map[string]any{"pids": map[string]any{"limit": 50}},
			"seccomp":   map[string]any{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []map[string]any{{"names": []string{"kexec_load"}, "action": "SCMP_ACT_ERRNO"}}},
		},
	}
	text, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// result is how a command of the runtime ended.
type result struct {
	code   int
	killed bool
	text   string
}

// run runs a verb; kill, if not nil, is called when it has begun.
func (r *runtimeCycles) run(kill func(pid int, over <-chan struct{}), args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.program, append([]string{"--root", r.dir + "/state"}, args...)...)
	cmd.Dir = r.dir
	// A file, not a pipe: what a container keeps open must not be waited for.
	out, err := os.CreateTemp(r.dir, "out")
	if err != nil {
		r.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	over, killer := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(killer)
		if kill != nil {
			kill(cmd.Process.Pid, over)
		}
	}()
	err = cmd.Wait()
	close(over)
	<-killer
	if ctx.Err() != nil {
		r.t.Fatalf("%v did not end", args)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), killed: cmd.ProcessState.ExitCode() < 0, text: string(text)}
}

// stages are what appears while a container is made and removed.
var stages = []string{"lock", "state.json", "spec.json", "seccomp.bpf", "start.fifo", "group", "pid"}

// moment waits for a random moment of a verb that lasts some milliseconds: a
// time, or a stage and a little more.
func (r *runtimeCycles) moment(id string) func(over <-chan struct{}) {
	stage, pause := "", time.Duration(r.rng.IntN(25_000))*time.Microsecond
	if r.rng.IntN(2) == 0 {
		stage, pause = stages[r.rng.IntN(len(stages))], time.Duration(r.rng.IntN(1500))*time.Microsecond
	}
	dir := filepath.Join(r.dir, "state", id)
	reached := func() bool {
		switch stage {
		case "":
			return true
		case "group":
			found, _ := filepath.Glob("/sys/fs/cgroup/*/" + r.group + "/" + id)
			return len(found) > 0
		case "pid":
			return r.pid(id) > 0
		}
		_, err := os.Lstat(filepath.Join(dir, stage))
		return err == nil
	}
	return func(over <-chan struct{}) {
		for !reached() {
			select {
			case <-over:
				return
			case <-time.After(20 * time.Microsecond):
			}
		}
		select {
		case <-over:
		case <-time.After(pause):
		}
	}
}

// pid is the container's process as its state names it, 0 for none.
func (r *runtimeCycles) pid(id string) int {
	var s struct {
		Pid int `json:"pid"`
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "state", id, "state.json"))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return 0
	}
	return s.Pid
}

func (r *runtimeCycles) cycle(id string) {
	verbs := []string{"create", "start", "exec", "kill", "delete", "run", "run --detach"}
	victim, init := verbs[r.rng.IntN(len(verbs))], r.rng.IntN(3) == 0
	code := r.rng.IntN(100)
	what := victim
	if init {
		what += ", its init"
	}
	r.count[what]++
	when := r.moment(id)
	killed := false
	// kill is given to the verb that is the victim.
	kill := func(verb string) func(int, <-chan struct{}) {
		if verb != victim {
			return nil
		}
		return func(pid int, over <-chan struct{}) {
			when(over)
			if init {
				if pid = r.pid(id); pid == 0 {
					return
				}
			}
			killed = unix.Kill(pid, unix.SIGKILL) == nil
		}
	}
	fail := func(step string, res result) {
		r.t.Fatalf("%s (victim %s): %s: exit %d: %s", id, what, step, res.code, res.text)
	}
	defer func() {
		// Twice: what is gone is no error either.
		for range 2 {
			if res := r.run(nil, "delete", "--force", id); res.code != 0 {
				fail("delete --force", res)
			}
		}
		if res := r.run(nil, "state", id); res.code == 0 {
			fail("state after delete", res)
		}
	}()
	if strings.HasPrefix(victim, "run") {
		command := fmt.Sprintf("exit %d", code)
		if r.rng.IntN(2) == 0 {
			command = fmt.Sprintf("usleep 20000; exit %d", code)
		}
		r.bundle(id, command)
		res := r.run(kill(victim), append(strings.Fields(victim), id)...)
		switch {
		case victim == "run" && !killed && res.code != code:
			fail("run, not killed", res)
		case victim == "run" && init && killed && res.code != 137 && res.code != code && res.text == "":
			fail("run, init killed", res)
		case !killed && victim != "run" && res.code != 0:
			fail("run", res)
		}
		return
	}
	r.bundle(id, "exec sleep 1000")
	if res := r.run(kill("create"), "create", id); res.code != 0 {
		if !killed {
			fail("create", res)
		}
		if !res.killed {
			// It failed by itself, because its init was killed: nothing is left.
			if _, err := os.Lstat(filepath.Join(r.dir, "state", id)); err == nil {
				fail("create left its state", res)
			}
		}
		return
	}
	if res := r.run(kill("start"), "start", id); res.code != 0 && !killed {
		fail("start", res)
	} else if res.code != 0 {
		return
	}
	if victim == "exec" || r.rng.IntN(8) == 0 {
		if res := r.run(kill("exec"), "exec", id, "sh", "-c", "exit "+strconv.Itoa(code)); res.code != code && !killed {
			fail("exec", res)
		}
		if init && killed {
			return
		}
		res := r.run(nil, "state", id)
		if res.code != 0 || !strings.Contains(res.text, `"running"`) {
			fail("state after exec", res)
		}
	}
	if res := r.run(kill("kill"), "kill", id, "KILL"); res.code != 0 && !killed {
		fail("kill", res)
	}
	if killed {
		return
	}
	testkit.Eventually(r.t, func() error {
		if res := r.run(nil, "state", id); !strings.Contains(res.text, `"stopped"`) {
			return errors.New(res.text)
		}
		return nil
	})
	if res := r.run(kill("delete"), "delete", id); res.code != 0 && !killed {
		fail("delete", res)
	}
}
