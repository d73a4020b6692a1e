package monitorside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/monitor/daemonside"
)

// The tests of this file run real containers. The only program inside is
// testdata/app.

// programs are the static programs that the tests of this file need.
var programs built

type built struct {
	once sync.Once
	dir  string
	err  error
}

// build makes orlop-runtime and app, once for all tests.
func (p *built) build(t testing.TB) string {
	t.Helper()
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "orlop-monitor-test-"); p.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", p.dir, "./testdata/app", "../../../cmd/orlop-runtime")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.dir
}

func (p *built) remove() { os.RemoveAll(p.dir) }

func testGroup() string { return fmt.Sprintf("/orlop-monitor-test-%d", os.Getpid()) }

// newBox is newBench with the real runtime.
func newBox(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces and cgroups")
	}
	t.Cleanup(func() {
		// Those of the containers are gone by now; this is their parent.
		if m, err := cgroup.New(cgroup.Config{Path: testGroup()}); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := m.Remove(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	built := programs.build(t) // which may take longer than what is tested
	b := newBench(t)
	b.runtime = filepath.Join(built, "orlop-runtime")
	b.restart()
	return b
}

// box makes a launch of a real container.
func (b *bench) box(id string, args ...string) container.Launch {
	b.Helper()
	root := filepath.Join(b.root, "rootfs")
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, dir := range []string{"dev", "sys"} {
		os.MkdirAll(filepath.Join(root, dir), 0o755)
	}
	if _, err := os.Stat(filepath.Join(root, "app")); err != nil {
		data, err := os.ReadFile(filepath.Join(programs.build(b), "app"))
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "app"), data, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(root, "text"), []byte("no program"), 0o644)
	group := fmt.Sprintf("%s/%s-%s", testGroup(), strings.ToLower(strings.ReplaceAll(b.Name(), "/", "-")), id)
	l := b.launch(id, append([]string{"/app"}, args...)...)
	l.Spec = &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: root},
		Process: l.Spec.Process,
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: group,
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
	return l
}

func groupExists(t testing.TB, l container.Launch) bool {
	t.Helper()
	m, err := cgroup.New(cgroup.Config{Path: l.Spec.Linux.CgroupsPath})
	if err != nil {
		t.Fatal(err)
	}
	return m.Exists()
}

func TestKernelAContainerRunsAndLeavesNothing(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "print", "hello", "there")
	s, files := b.attached(false)
	m := b.start(l, files)
	if exit := b.wait(m); exit.Code != 0 || exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	if out, _ := all(t, s); out != "hello there\n" || b.logged("a") != out {
		t.Errorf("got %q, logged %q", out, b.logged("a"))
	}
	b.gone(m)
	if groupExists(t, l) {
		t.Error("its cgroup is still there")
	}
	if err := b.l.Forget(b.ctx, "a"); err != nil {
		t.Error(err)
	}
}

func TestKernelProgramsThatCannotRun(t *testing.T) {
	b := newBox(t)
	for _, c := range []struct {
		program string
		code    int
		text    string
	}{
		{"/nope", 127, `exec: "/nope": stat /nope: no such file or directory`},
		{"nope", 127, `exec: "nope": executable file not found in $PATH`},
		{"/text", 126, `exec: "/text": permission denied`},
		{"/proc", 126, `exec: "/proc": is a directory`},
	} {
		l := b.box("a")
		l.Spec.Process.Args = []string{c.program}
		_, err := b.l.Start(b.ctx, l, daemonside.Files{})
		var failed *daemonside.StartFailed
		if !errors.As(err, &failed) || failed.Code != c.code || !strings.Contains(failed.Message, c.text) {
			t.Errorf("%s: %v", c.program, err)
		}
		if groupExists(t, l) {
			t.Errorf("%s: its cgroup is still there", c.program)
		}
		if left, _ := b.l.Leftovers(); len(left) != 0 {
			t.Errorf("%s: left over: %q", c.program, left)
		}
	}
}

func TestKernelALostMonitorEndsItsContainer(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("daemonAway=%v", away), func(t *testing.T) {
			b := newBox(t)
			l := b.box("a", "wait")
			m := b.start(l, daemonside.Files{})
			x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "x", Process: process_("/app", "wait"), Detach: true})
			if err != nil {
				t.Fatal(err)
			}
			initFD, err := pidfd.Open(m.Running().InitPid)
			if err != nil {
				t.Fatal(err)
			}
			execFD, err := pidfd.Open(x.Pid())
			if err != nil {
				t.Fatal(err)
			}
			monitor, err := pidfd.Open(m.Running().MonitorPid)
			if err != nil {
				t.Fatal(err)
			}
			if away {
				b.l.Close()
			}
			unix.Kill(m.Running().MonitorPid, unix.SIGKILL)
			pidfd.Ended(monitor)
			var exit container.Exit
			if away {
				b.launcher()
				if exit, err = b.l.LastExit("a"); err != nil {
					t.Fatal(err)
				}
			} else {
				exit = b.wait(m)
			}
			if exit.Code != 137 || exit.Reason != container.ReasonMonitorLost {
				t.Errorf("exit %+v", exit)
			}
			if err := errors.Join(pidfd.Ended(initFD), pidfd.Ended(execFD)); err != nil {
				t.Error(err)
			}
			if err := b.l.Forget(b.ctx, "a"); err != nil {
				t.Error(err)
			}
			if groupExists(t, l) {
				t.Error("its cgroup is still there")
			}
			// The same container runs again.
			m = b.start(b.box("a", "exit", "6"), daemonside.Files{})
			if exit := b.wait(m); exit.Code != 6 {
				t.Errorf("exit %+v", exit)
			}
			b.gone(m)
		})
	}
}

func TestKernelExecsJoinAndDieWithTheContainer(t *testing.T) {
	b := newBox(t)
	m := b.start(b.box("a", "wait"), daemonside.Files{})
	x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "1", Process: process_("/app", "cat"), Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(x.Stream().Stdin, "in and out")
	x.Stream().Stdin.Close()
	if out, _ := all(t, x.Stream()); out != "in and out" {
		t.Errorf("got %q", out)
	}
	if exit, err := x.Wait(b.ctx); err != nil || exit.Code != 0 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if _, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "2", Process: process_("nope"), Stdout: true}); err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("got %v", err)
	}
	if x, err = m.Exec(b.ctx, daemonside.ExecRequest{ID: "3", Process: process_("/app", "wait"), Stdout: true}); err != nil {
		t.Fatal(err)
	}
	if err := m.Signal(b.ctx, 9, false); err != nil {
		t.Fatal(err)
	}
	if exit, err := x.Wait(b.ctx); err != nil || exit.Code != 137 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if out, _ := all(t, x.Stream()); out != "waiting\n" && out != "" {
		t.Errorf("got %q", out)
	}
	b.gone(m)
}

func TestKernelAnotherUserMayOpenItsOutputAgain(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "reopen")
	l.Spec.Process.User = specs.User{UID: 1234, GID: 1234}
	s, files := b.attached(false)
	m := b.start(l, files)
	if out, _ := all(t, s); out != "opened\n" {
		t.Errorf("got %q", out)
	}
	b.wait(m)
	b.gone(m)
	m = b.start(b.box("b", "wait"), daemonside.Files{})
	p := process_("/app", "reopen")
	p.User = specs.User{UID: 1234, GID: 1234}
	x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "x", Process: p, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := all(t, x.Stream()); out != "opened\n" {
		t.Errorf("exec: got %q", out)
	}
}

func TestKernelTerminals(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "size")
	l.Spec.Process.Terminal = true
	s, files := b.attached(true)
	m := b.start(l, files)
	if err := m.Resize(b.ctx, 40, 100); err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if out, _ := all(t, s); !strings.HasPrefix(out, "&{40 100 ") || !strings.HasSuffix(out, "\r\n") {
		t.Errorf("got %q", out)
	}
	b.wait(m)
	b.gone(m)
}

func TestKernelAnOOMKillIsReported(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "eat")
	limit := int64(64 << 20)
	swap := limit
	l.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &swap}
	m := b.start(l, daemonside.Files{})
	if exit := b.wait(m); exit.Code != 137 || !exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	kills := 0
	for range m.OOM() {
		kills++
	}
	if kills == 0 {
		t.Error("no OOM event")
	}
	b.gone(m)
}

func TestKernelPauseStopsExecsToo(t *testing.T) {
	b := newBox(t)
	s, files := b.attached(false)
	m := b.start(b.box("a", "wait"), files)
	if _, data, err := s.Next(); string(data) != "waiting\n" {
		t.Fatalf("%q, %v", data, err)
	}
	if err := m.Pause(b.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "x", Process: process_("/app", "print")}); !errdefs.IsConflict(err) {
		t.Errorf("exec while paused: %v", err)
	}
	if err := m.Resume(b.ctx); err != nil {
		t.Fatal(err)
	}
	shares := uint64(512)
	if err := m.Update(b.ctx, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}); err != nil {
		t.Error(err)
	}
	if err := m.Signal(b.ctx, 15, false); err != nil {
		t.Error(err)
	}
	if exit := b.wait(m); exit.Code != 15 {
		t.Errorf("exit %+v", exit)
	}
	b.gone(m)
}

func TestKernelAProcessLeftBehindInTheHostsPidNamespaceIsKilled(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "behind")
	l.Spec.Linux.Namespaces = l.Spec.Linux.Namespaces[1:]
	m := b.start(l, daemonside.Files{})
	if exit := b.wait(m); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	b.gone(m)
	if groupExists(t, l) {
		t.Error("its cgroup is still there")
	}
}

func TestKernelATiedContainerEndsWithItsStarter(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "wait")
	l.Tied = true
	m := b.start(l, daemonside.Files{})
	f, err := pidfd.Open(m.Running().MonitorPid)
	if err != nil {
		t.Fatal(err)
	}
	b.l.Close()
	if err := pidfd.Ended(f); err != nil {
		t.Error(err)
	}
	if groupExists(t, l) {
		t.Error("its cgroup is still there")
	}
}

// settled waits until a monitor has started afresh.
func (b *bench) settled(m *daemonside.Monitor) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Running().MonitorPid))
		if err != nil || strings.Contains(string(line), settledArg) {
			return err
		}
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			return errors.New("the monitor does not settle")
		}
	}
}

func TestKernelAMonitorThatStartedAfreshGoesOn(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "count")
	l.OpenStdin = true
	s, files := b.attached(true)
	m := b.start(l, files)
	before := m.Running()
	ended, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "ended", Process: process_("/app", "exit", "4"), Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := ended.Wait(b.ctx); err != nil || exit.Code != 4 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	// Numbers come all the time, and lines that are not finished.
	var got strings.Builder
	read := func(until func() bool) {
		for !until() {
			_, data, err := s.Next()
			if err != nil {
				t.Fatalf("%v after %d bytes", err, got.Len())
			}
			got.Write(data)
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.settled(m) }()
	read(func() bool {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
	if m.Running() != before {
		t.Errorf("running %+v, was %+v", m.Running(), before)
	}
	// The same connection, the same listener, requests that need the runtime.
	x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "later", Process: process_("/app", "print", "still here"), Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := all(t, x.Stream()); out != "still here\n" {
		t.Errorf("exec printed %q", out)
	}
	x.Wait(b.ctx)
	if err := errors.Join(m.Pause(b.ctx), m.Resume(b.ctx)); err != nil {
		t.Error(err)
	}
	b.restart()
	again, err := b.l.Adopt(b.ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := again.Execs(b.ctx); err != nil || len(list) != 2 {
		t.Errorf("execs %v, %v", list, err)
	}
	io.WriteString(s.Stdin, "stop\n")
	if exit := b.wait(again); exit.Code != 9 || exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	out, _ := all(t, s)
	got.WriteString(out)
	var want strings.Builder
	for i := 0; want.Len() < got.Len(); i++ {
		fmt.Fprintf(&want, "%d,", i)
		if i%7 == 6 {
			want.WriteByte('\n')
		}
	}
	if got.String() != want.String() {
		t.Errorf("%d bytes arrived, not the %d written", got.Len(), want.Len())
	}
	if logged := b.logged("a"); logged != got.String() {
		t.Errorf("%d bytes logged, %d delivered", len(logged), got.Len())
	}
	b.gone(again)
	if groupExists(t, l) {
		t.Error("its cgroup is still there")
	}
}

func TestKernelATiedContainerStaysTiedAfterItsMonitorStartedAfresh(t *testing.T) {
	b := newBox(t)
	l := b.box("a", "wait")
	l.Spec.Process.Terminal = true
	l.Tied = true
	s, files := b.attached(true)
	m := b.start(l, files)
	if err := b.settled(m); err != nil {
		t.Fatal(err)
	}
	if err := m.Resize(b.ctx, 5, 6); err != nil {
		t.Error(err)
	}
	if _, data, err := s.Next(); !strings.HasPrefix(string(data), "waiting") {
		t.Errorf("%q, %v", data, err)
	}
	f, err := pidfd.Open(m.Running().InitPid)
	if err != nil {
		t.Fatal(err)
	}
	b.l.Close()
	if err := pidfd.Ended(f); err != nil {
		t.Error(err)
	}
}

func TestKernelAStartThatIsGivenUpAtAnyMomentLeavesNothing(t *testing.T) {
	b := newBox(t)
	for i := range 40 {
		l := b.box("a", "wait")
		ctx, cancel := context.WithTimeout(b.ctx, time.Duration(i)*400*time.Microsecond)
		m, err := b.l.Start(ctx, l, daemonside.Files{})
		cancel()
		if err == nil {
			b.killLater(m)
			if err := b.l.Forget(b.ctx, "a"); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if groupExists(t, l) {
			t.Fatalf("attempt %d: its cgroup is still there (%v)", i, err)
		}
		if left, _ := b.l.Leftovers(); len(left) != 0 {
			t.Fatalf("attempt %d: left over: %q (%v)", i, left, err)
		}
	}
}
