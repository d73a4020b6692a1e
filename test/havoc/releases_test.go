package havoc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/testkit"
)

// programsWith is a folder with this release's programs and the runtime, whose
// monitors an engine starts, of another one.
func programsWith(t *testing.T, tag string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"orlop", "orlopd", "orlop-netd"} {
		install(t, dir, name)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", tag, "-o", filepath.Join(dir, "orlop-runtime"), "./cmd/orlop-runtime")
	cmd.Dir = testkit.Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the runtime of another release: %v\n%s", err, out)
	}
	return dir
}

// upgrade replaces the runtime by this release's: monitors that run stay what
// they are, those started from now on are of this one.
func upgrade(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "orlop-runtime")); err != nil {
		t.Fatal(err)
	}
	install(t, dir, "orlop-runtime")
}

// install copies a program: the daemon looks for the runtime beside the file that it
// is, not beside a link to it.
func install(t *testing.T, dir, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Bin(t), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// A container that an older release started goes on under this release's daemon:
// what its monitor can do is done, what it cannot is refused at once and by name, and
// after a restart everything works.
func TestADaemonIsUpgradedUnderAContainerOfAnOlderRelease(t *testing.T) {
	bin := programsWith(t, "monitor_older")
	e := testkit.PrepareEngineOf(t, bin)
	e.Start()
	e.Load("busybox")
	e.Run("run", "-d", "--name", "old", "busybox", "sh", "-c", "trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.1; done")
	e.Run("run", "-dit", "--name", "tty", "busybox", "cat")
	e.Run("run", "-d", "--name", "ends", "busybox", "sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done")
	for _, name := range []string{"old", "ends"} {
		testkit.Eventually(t, func() error {
			if out := e.Run("logs", name); out != "up\n" {
				return errors.New(name + " is not up: " + out)
			}
			return nil
		})
	}
	e.Kill()
	upgrade(t, bin)
	e.Start()

	if out := e.Run("ps", "--format", "{{.Names}} {{.State}}"); strings.Count(out, "running") != 3 {
		t.Fatalf("not adopted:\n%s", out)
	}
	for what, args := range map[string][]string{
		"exec":   {"exec", "old", "true"},
		"pause":  {"pause", "old"},
		"update": {"update", "--pids-limit", "100", "old"},
	} {
		out, text, code := e.Try(args...)
		if code == 0 || !strings.Contains(out+text, "the monitor of this container was started by an older release and cannot "+what) {
			t.Errorf("%s: exit %d\n%s%s", what, code, out, text)
		}
	}
	resized(t, e, "tty", 501)
	// A refused act leaves the container as it was.
	if out := e.Run("ps", "--format", "{{.State}}"); strings.Count(out, "running") != 3 {
		t.Errorf("after refusals:\n%s", out)
	}
	if out := e.Run("logs", "old"); out != "up\n" {
		t.Errorf("logs %q", out)
	}
	e.Run("kill", "-s", "USR1", "ends")
	if out := e.Run("wait", "ends"); out != "9\n" {
		t.Errorf("wait %q", out)
	}

	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience(time.Minute))
	defer cancel()
	attach := e.Client(ctx, "orlop", "attach", "--no-stdin", "old")
	seen, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error { return attached(e, "old") })
	e.Run("stop", "-t", "60", "old")
	got := make([]byte, 64)
	n, _ := seen.Read(got)
	if string(got[:n]) != "term\n" {
		t.Errorf("attached client saw %q", got[:n])
	}
	_ = attach.Wait()
	if code := attach.ProcessState.ExitCode(); code != 7 {
		t.Errorf("attached client ended with %d", code)
	}
	if out := e.Run("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "old"); out != "exited 7\n" {
		t.Errorf("after stop: %s", out)
	}
	e.Run("rm", "-f", "tty")

	// A new run has a monitor of this release.
	e.Run("start", "old")
	if out := e.Run("exec", "old", "echo", "yes"); out != "yes\n" {
		t.Errorf("exec %q", out)
	}
	e.Run("pause", "old")
	e.Run("rm", "-f", "old", "ends")
}

// The other way round, after a downgrade: this release's daemon ignores what a newer
// release's monitors say beside what it knows.
func TestADaemonIsDowngradedUnderAContainerOfANewerRelease(t *testing.T) {
	bin := programsWith(t, "monitor_newer")
	e := testkit.PrepareEngineOf(t, bin)
	e.Start()
	e.Load("busybox")
	e.Run("run", "-dit", "--name", "new", "busybox", "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done")
	testkit.Eventually(t, func() error {
		if out := e.Run("logs", "new"); !strings.Contains(out, "up") {
			return errors.New("not up: " + out)
		}
		return nil
	})
	e.Kill()
	upgrade(t, bin)
	e.Start()
	if out := e.Run("exec", "new", "echo", "yes"); out != "yes\n" {
		t.Errorf("exec %q", out)
	}
	e.Run("pause", "new")
	e.Run("unpause", "new")
	e.Run("update", "--pids-limit", "100", "new")
	resized(t, e, "new", 200)
	if out := e.Run("exec", "new", "stty", "-F", "/dev/console", "size"); out != "10 20\n" {
		t.Errorf("size %q", out)
	}
	e.Run("stop", "-t", "60", "new")
	if out := e.Run("inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", "new"); out != "7 false\n" {
		t.Errorf("after stop: %s", out)
	}
	e.Run("rm", "new")
}

// resized asks for a terminal of 10 lines with 20 columns, which has this answer.
func resized(t *testing.T, e *testkit.Engine, name string, status int) {
	t.Helper()
	resp, err := e.HTTP().Post("http://engine/containers/"+name+"/resize?h=10&w=20", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != status {
		t.Errorf("resize: %s, not %d", resp.Status, status)
	}
}

// attached fails until somebody has attached to a container.
func attached(e *testkit.Engine, name string) error {
	out, text, code := e.Try("events", "--since", "1", "--until", "0s", "--filter", "event=attach", "--filter", "container="+name)
	if code != 0 || out == "" {
		return errors.New("nobody has attached yet: " + out + text)
	}
	return nil
}
