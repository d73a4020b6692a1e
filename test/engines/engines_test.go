// Package engines runs Debian's docker.io (with its containerd) and podman with
// our runtime in place of theirs: everything they ask of an OCI runtime must
// work. The peers are unpacked by scripts/peers.sh and run in sandboxes.
package engines

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/testkit"
)

// patience bounds one command of an engine.
const patience = 2 * time.Minute

// engine is a client's command line in a sandbox.
type engine struct {
	t    *testing.T
	box  *testkit.Sandbox
	line []string
	env  []string
	// calls is the file in which each call of the runtime is noted.
	calls string
}

// runtime makes a program that notes its arguments and then is our runtime.
func runtime(t *testing.T) (program, calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	program = filepath.Join(dir, "orlop-runtime")
	text := "#!/bin/sh\necho \"$*\" >> " + calls + "\nexec " + testkit.Program(t, "orlop-runtime") + " \"$@\"\n"
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, calls
}

// command runs the client.
func (e *engine) command(args ...string) (string, int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := append(slices.Clone(e.line), args...)
	cmd := e.box.Command(ctx, all[0], all[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		e.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is command with the status 0; the output has to hold every text of want.
func (e *engine) must(want string, args ...string) string {
	e.t.Helper()
	out, code := e.command(args...)
	if code != 0 || !strings.Contains(out, want) {
		e.t.Errorf("%v: exit status %d, want 0 and %q:\n%s", args, code, want, out)
	}
	return out
}

// exits is command with another status.
func (e *engine) exits(want int, args ...string) string {
	e.t.Helper()
	out, code := e.command(args...)
	if code != want {
		e.t.Errorf("%v: exit status %d, want %d:\n%s", args, code, want, out)
	}
	return out
}

// until repeats a command until its output holds want.
func (e *engine) until(want string, args ...string) {
	e.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, _ := e.command(args...)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%v: no %q in\n%s", args, want, out)
		}
	}
}

// called checks that the engine asked our runtime for each of the verbs.
func (e *engine) called(verbs ...string) {
	e.t.Helper()
	b, err := os.ReadFile(e.calls)
	if err != nil {
		e.t.Fatal(err)
	}
	text := " " + strings.ReplaceAll(string(b), "\n", " \n ") + " "
	for _, v := range verbs {
		if !strings.Contains(text, " "+v+" ") {
			e.t.Errorf("the engine never called %s", v)
		}
	}
}

// onTerminal runs the client on a terminal of its own (script(1)).
func (e *engine) onTerminal(args ...string) (string, int) {
	e.t.Helper()
	var line strings.Builder
	for _, a := range append(slices.Clone(e.line), args...) {
		line.WriteString("'" + a + "' ")
	}
	t := *e
	t.line = []string{"script", "-qec", line.String(), "/dev/null"}
	return t.command()
}

// common is what works alike with both.
func (e *engine) common(run ...string) {
	t := e.t
	t.Helper()
	c := func(args ...string) []string { return append(slices.Clone(run), args...) }
	e.must("ahoy", c("--rm", "busybox", "echo", "ahoy")...)
	e.exits(42, c("--rm", "busybox", "sh", "-c", "exit 42")...)
	e.exits(127, c("--rm", "busybox", "nowhere")...)
	e.exits(126, c("--rm", "busybox", "/etc/passwd")...)
	e.exits(137, c("--rm", "busybox", "sh", "-c", "kill -9 $$; sleep 1 & wait; kill -9 -1; exit 137")...)
	e.must("33 44", c("--rm", "--user", "33:44", "busybox", "sh", "-c", "echo $(id -u) $(id -g)")...)
	e.must("/tmp", c("--rm", "--workdir", "/tmp", "busybox", "pwd")...)
	e.must("Read-only", c("--rm", "--read-only", "busybox", "sh", "-c", "touch /x 2>&1; true")...)
	e.must("CapBnd:\t0000000000000000", c("--rm", "--cap-drop", "ALL", "busybox", "grep", "CapBnd", "/proc/self/status")...)
	e.must("Seccomp:\t2", c("--rm", "busybox", "grep", "Seccomp:", "/proc/self/status")...)
	e.must("size=4096k", c("--rm", "--tmpfs", "/t:size=4096k", "busybox", "grep", " /t ", "/proc/mounts")...)
	e.must("17", c("--rm", "--ulimit", "nofile=17:17", "busybox", "sh", "-c", "ulimit -n")...)
	e.must("from outside", c("--rm", "-v", e.file("from outside")+":/in:ro", "busybox", "cat", "/in")...)
	e.must("tty", c("--rm", "-t", "busybox", "sh", "-c", "test -t 1 && echo tty")...)
	e.interactive(5, c("--rm", "-it", "busybox", "sh", "-c", "test -t 0 && echo interactive; sleep 2; exit 5")...)

	e.must("", c("-d", "--name", "web", "busybox", "sh", "-c", "echo started; trap 'echo stopping; exit 7' TERM; while :; do sleep 1 & wait; done")...)
	e.until("started", "logs", "web")
	e.must("inside", "exec", "web", "echo", "inside")
	e.exits(9, "exec", "web", "sh", "-c", "exit 9")
	e.must("A=1", "exec", "-e", "A=1", "-w", "/tmp", "-u", "33", "web", "sh", "-c", "env; pwd; id -u")
	e.must("tty", "exec", "-t", "web", "sh", "-c", "test -t 1 && echo tty")
	e.interactive(6, "exec", "-it", "web", "sh", "-c", "test -t 0 && echo interactive; sleep 2; exit 6")
	e.must("", "exec", "-d", "web", "sh", "-c", "touch /detached; sleep 1000")
	e.until("is there", "exec", "web", "sh", "-c", "test -e /detached && echo is there; true")
	e.must("sleep 1", "top", "web")
	e.must("", "pause", "web")
	e.must("paused", "inspect", "-f", "{{.State.Status}}", "web")
	if _, code := e.command("exec", "web", "true"); code == 0 {
		t.Error("exec in a paused container succeeded")
	}
	e.must("", "unpause", "web")
	e.must("running", "inspect", "-f", "{{.State.Status}}", "web")
	if out := e.must("", "stats", "--no-stream", "--format", "{{.MemUsage}}", "web"); strings.HasPrefix(out, "0B") {
		t.Errorf("stats: %s", out)
	}
	e.must("", "stop", "-t", "20", "web")
	e.must("7", "inspect", "-f", "{{.State.ExitCode}}", "web")
	e.must("stopping", "logs", "web")
	e.must("", "start", "web")
	e.until("running", "inspect", "-f", "{{.State.Status}}", "web")
	e.must("", "kill", "web")
	e.until("137", "inspect", "-f", "{{.State.ExitCode}}", "web")
	e.must("", "start", "web")
	e.must("", "rm", "-f", "web")
}

// interactive runs a command that says "interactive" on a terminal and ends
// with a status. It is to stay for a while: podman drops what it has not
// passed on when a process is gone, and is asked again when it did.
func (e *engine) interactive(status int, args ...string) {
	e.t.Helper()
	for try := 1; ; try++ {
		out, code := e.onTerminal(args...)
		if code == status && strings.Contains(out, "interactive") {
			return
		}
		if code != status || try == 3 {
			e.t.Errorf("%s: exit status %d\n%s", strings.Join(args, " "), code, out)
			return
		}
	}
}

// file makes a file with a line of text.
func (e *engine) file(text string) string {
	e.t.Helper()
	name := filepath.Join(e.t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
		e.t.Fatal(err)
	}
	return name
}

func TestDockerWithOurRuntime(t *testing.T) {
	program, calls := runtime(t)
	box, socket := testkit.NewDocker(t, "--add-runtime", "orlop="+program)
	e := &engine{t: t, box: box, calls: calls, line: []string{filepath.Join(testkit.Peer(t, "docker"), "usr/bin/docker")},
		env: []string{"DOCKER_HOST=unix://" + socket, "DOCKER_CONFIG=" + t.TempDir()}}
	e.must("Loaded image", "load", "-i", testkit.Image(t, "busybox"))
	e.must("orlop", "info", "-f", "{{.Runtimes}}")
	e.common("run", "--runtime", "orlop")

	e.must("", "run", "-d", "--runtime", "orlop", "--name", "limited", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "busybox", "sleep", "1000")
	e.must("67108864", "exec", "limited", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
	e.must("", "update", "-m", "48m", "--memory-swap", "48m", "limited")
	e.must("50331648", "exec", "limited", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
	e.must("orlop", "inspect", "-f", "{{.HostConfig.Runtime}}", "limited")
	e.must("", "restart", "-t", "1", "limited")
	e.must("alive", "exec", "limited", "echo", "alive")
	e.must("", "rm", "-f", "limited")
	e.must("full", "run", "--rm", "--runtime", "orlop", "--privileged", "busybox", "sh", "-c", "mount -t tmpfs t /tmp && echo full")
	e.must("1 /sbin/docker-init", "run", "--rm", "--runtime", "orlop", "--init", "busybox", "ps", "-o", "pid,args")
	// containerd's shim looks at the group when the kernel has told it, and tells
	// nothing when the container is gone by then: it has some tries.
	for try, told := 1, false; !told; try++ {
		if out, code := e.command("run", "--name", "oom", "--runtime", "orlop", "-m", "16m", "busybox", "sh", "-c", "tail /dev/zero"); code != 137 {
			t.Fatalf("a container out of memory: exit status %d\n%s", code, out)
		}
		out := e.must("", "inspect", "-f", "{{.State.OOMKilled}}", "oom")
		e.must("", "rm", "oom")
		if told = strings.Contains(out, "true"); !told && try == 5 {
			t.Fatalf("OOMKilled after a container out of memory: %s", out)
		}
	}
	e.called("create", "start", "delete", "exec", "kill", "pause", "resume", "ps", "update")
}

func TestPodmanWithOurRuntime(t *testing.T) {
	program, calls := runtime(t)
	peer := testkit.Peer(t, "podman")
	box := testkit.NewSandbox(t)
	dir, err := os.MkdirTemp("", "orlop-podman-")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, box: box, calls: calls,
		line: []string{filepath.Join(testkit.Root(t), "scripts/peer-podman.sh"), dir, "--cgroup-manager=cgroupfs", "--runtime", program},
		env:  []string{"PODMAN_PEER=" + peer}}
	t.Cleanup(func() {
		e.command("rm", "-f", "-a", "-t", "0")
		// Its storage is mounted in the sandbox, which is still there.
		_ = box.Command(context.Background(), "sh", "-c", `grep " $1/" /proc/self/mounts | cut -d' ' -f2 | sort -r | xargs -r umount -l`, "sh", dir).Run()
		if err := exec.CommandContext(context.Background(), "rm", "-rf", dir).Run(); err != nil {
			t.Error(err)
		}
	})
	e.must("Loaded image", "load", "-q", "-i", testkit.Image(t, "busybox"))
	parent := "/" + box.Cgroup
	e.common("run", "--cgroup-parent", parent, "--network", "none")

	e.must("", "run", "-d", "--cgroup-parent", parent, "--network", "none", "--name", "limited", "-m", "64m", "--pids-limit", "20", "busybox", "sleep", "1000")
	e.must(program, "inspect", "-f", "{{.OCIRuntime}}", "limited")
	e.must("healthy", "exec", "limited", "echo", "healthy")
	e.must("", "rm", "-f", "-t", "0", "limited")
	e.must("", "create", "--cgroup-parent", parent, "--network", "none", "--name", "made", "busybox", "echo", "created")
	e.must("created", "start", "-a", "made")
	e.must("", "rm", "made")
	e.called("create", "start", "delete", "exec", "kill", "pause", "resume")
}
