package monitorside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/daemonside"
	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
	"github.com/orlop/orlop/internal/testkit"
	"github.com/orlop/orlop/internal/testkit/hostfiles"
)

// The tests of this file run real monitor processes (this test's program) that
// a real Launcher starts; only the container is a plain process of the host.

func TestMain(t *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "monitor" {
		// Unlike Main, this lets the container inherit the connection: a
		// daemon must not rely on its end to notice a monitor's death.
		conn, err := protocol.NewConn(controlFD, "control")
		if err != nil {
			os.Exit(2)
		}
		m := newMonitor(platform{now: time.Now, bootID: "test", start: startPlain})
		if m.run(conn) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	// crun changes the owner of its streams.
	if err := hostfiles.Enter("ORLOP_MONITOR_INSIDE"); err != nil {
		fmt.Fprintln(os.Stderr, "own files:", err)
		os.Exit(1)
	}
	code := t.Run()
	programs.remove()
	os.Exit(code)
}

// plain is a "container" without any confinement: a session of the host.
type plain struct {
	cmd     *exec.Cmd
	console *os.File
}

func startPlain(_ context.Context, l *launch, s stdio) (runner, error) {
	return runPlain(l.Spec.Process, s)
}

func runPlain(p *specs.Process, s stdio) (*plain, error) {
	path, err := exec.LookPath(p.Args[0])
	if err != nil {
		return nil, &lifecycle.StartError{Code: 127, Err: fmt.Errorf("exec: %q: executable file not found in $PATH", p.Args[0])}
	}
	cmd := &exec.Cmd{Path: path, Args: p.Args, Env: p.Env, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	r := &plain{cmd: cmd}
	if p.Terminal {
		master, slave, n, err := pty.Open(unix.AT_FDCWD, "/dev/ptmx")
		if err != nil {
			return nil, err
		}
		if r.console, err = pty.Pollable(master, n); err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(slave), "slave")
		defer f.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
		cmd.SysProcAttr.Setctty = true
	} else {
		if s.in != nil {
			cmd.Stdin = s.in
		}
		if s.out != nil {
			cmd.Stdout = s.out
		}
		if s.err != nil {
			cmd.Stderr = s.err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return r, nil
}

func (p *plain) Pid() int          { return p.cmd.Process.Pid }
func (p *plain) Console() *os.File { return p.console }

func (p *plain) StartTime() uint64 {
	st, _ := pidfd.ReadStat(p.Pid())
	return st.Start
}

func (p *plain) Ended() error { return nil } // such a monitor never becomes another program

func (p *plain) Wait() (int, error) {
	p.cmd.Wait()
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (p *plain) Signal(sig int) error { return p.cmd.Process.Signal(syscall.Signal(sig)) }
func (p *plain) Close() error         { return nil }
func (p *plain) SignalAll(sig int) error {
	return unix.Kill(-p.Pid(), unix.Signal(sig))
}
func (p *plain) Pause(context.Context) error  { return p.SignalAll(int(unix.SIGSTOP)) }
func (p *plain) Resume(context.Context) error { return p.SignalAll(int(unix.SIGCONT)) }
func (p *plain) Update(context.Context, *specs.LinuxResources) error {
	return errdefs.ErrInvalidArgument.WithMessage("no limits here")
}
func (p *plain) OOM() (uint64, error)                               { return 0, nil }
func (p *plain) OOMEvents(context.Context) (<-chan struct{}, error) { return nil, nil }
func (p *plain) Remember(*settledState) bool                        { return false }
func (p *plain) Delete(context.Context) error {
	_ = p.SignalAll(int(unix.SIGKILL))
	return nil
}
func (p *plain) Exec(_ context.Context, x *execution, s stdio) (process, error) {
	return runPlain(x.Process, s)
}

// bench is a launcher with an exec root of its own.
type bench struct {
	testing.TB
	root string
	// runtime is the program whose monitors are started.
	runtime string
	l       *daemonside.Launcher
	ctx     context.Context
}

func newBench(t testing.TB) *bench {
	timeout := testkit.Patience(time.Minute)
	if _, many := t.(*testing.B); many {
		timeout = time.Hour // as many starts as -benchtime says
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	b := &bench{TB: t, root: t.TempDir(), runtime: "/proc/self/exe", ctx: ctx}
	b.launcher()
	return b
}

// launcher makes a new one, as a daemon that starts does.
func (b *bench) launcher() {
	b.Helper()
	l, err := daemonside.New(daemonside.Config{Runtime: b.runtime, ExecRoot: b.root})
	if err != nil {
		b.Fatal(err)
	}
	b.l = l
	b.Cleanup(func() { l.Close() })
}

// restart is what kill -9 of a daemon and a new one come to, for a monitor.
func (b *bench) restart() {
	b.Helper()
	b.l.Close()
	b.launcher()
}

func (b *bench) launch(id string, args ...string) container.Launch {
	return container.Launch{
		ID:   id,
		Spec: &specs.Spec{Process: process_(args...), Linux: &specs.Linux{CgroupsPath: "/orlop-monitor-test/" + id}},
		Log:  container.LogConfig{Driver: "json-file", Path: filepath.Join(b.root, id+".log")},
	}
}

func process_(args ...string) *specs.Process {
	return &specs.Process{Args: args, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/"}
}

// start runs a container and kills it when the test ends.
func (b *bench) start(l container.Launch, files daemonside.Files) *daemonside.Monitor {
	b.Helper()
	m, err := b.l.Start(b.ctx, l, files)
	if err != nil {
		b.Fatal(err)
	}
	b.killLater(m)
	return m
}

func (b *bench) killLater(m *daemonside.Monitor) {
	r := m.Running()
	monitor, err := pidfd.Open(r.MonitorPid)
	b.Cleanup(func() {
		if err == nil {
			defer pidfd.Ended(monitor)
		}
		if st, err := pidfd.ReadStat(r.InitPid); err == nil && st.Start == r.InitStart { // a leader only outside a container
			unix.Kill(-r.InitPid, unix.SIGKILL)
			unix.Kill(r.InitPid, unix.SIGKILL)
		}
	})
}

func (b *bench) wait(m *daemonside.Monitor) container.Exit {
	b.Helper()
	select {
	case <-m.Exited():
		return m.Exit()
	case <-b.ctx.Done():
		b.Fatal("the container does not end")
		panic("unreachable")
	}
}

func (b *bench) gone(m *daemonside.Monitor) {
	b.Helper()
	select {
	case <-m.Gone():
	case <-b.ctx.Done():
		b.Fatal("the monitor does not end")
	}
}

// all reads a stream to its end: stdout and stderr.
func all(t testing.TB, s *daemonside.Stream) (string, string) {
	t.Helper()
	var out [3]bytes.Buffer
	for {
		kind, data, err := s.Next()
		if errors.Is(err, io.EOF) {
			return out[1].String(), out[2].String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out[kind].Write(data)
	}
}

func (b *bench) attached(stdin bool) (*daemonside.Stream, daemonside.Files) {
	b.Helper()
	s, f, err := daemonside.NewAttach(daemonside.AttachOptions{Stdin: stdin, Stdout: true, Stderr: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s, daemonside.Files{Attach: []daemonside.AttachFile{f}}
}

func (b *bench) logged(id string) string {
	b.Helper()
	var out strings.Builder
	for e, err := range logfile.NewReader().Read(b.ctx, logfile.Config{Path: filepath.Join(b.root, id+".log")}, logfile.Options{Tail: -1}) {
		if err != nil {
			b.Fatal(err)
		}
		out.Write(e.Line)
	}
	return out.String()
}

func TestAnExitIsReportedAfterAllOutputWasLoggedAndDelivered(t *testing.T) {
	b := newBench(t)
	s, files := b.attached(false)
	m := b.start(b.launch("a", "sh", "-c", "echo out; echo err >&2; printf unfinished; exit 7"), files)
	exit := b.wait(m)
	if exit.Code != 7 || exit.Reason != "" || exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	if got := b.logged("a"); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") || !strings.Contains(got, "unfinished") {
		t.Errorf("logged %q at the time of the exit", got)
	}
	if out, err := all(t, s); out != "out\nunfinished" || err != "err\n" {
		t.Errorf("delivered %q, %q", out, err)
	}
	b.gone(m)
	if last, err := b.l.LastExit("a"); err != nil || last.Code != 7 {
		t.Errorf("exit file: %+v, %v", last, err)
	}
	if err := b.l.Forget(b.ctx, "a"); err != nil {
		t.Error(err)
	}
	if left, _ := b.l.Leftovers(); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestAProgramThatCannotBeStartedSaysWhyAndLeavesNothing(t *testing.T) {
	b := newBench(t)
	s, files := b.attached(true)
	_, err := b.l.Start(b.ctx, b.launch("a", "nope"), files)
	var failed *daemonside.StartFailed
	if !errors.As(err, &failed) || failed.Code != 127 || failed.Message != `exec: "nope": executable file not found in $PATH` {
		t.Errorf("got %v", err)
	}
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("class of %v", err)
	}
	if out, _ := all(t, s); out != "" {
		t.Errorf("stream delivers %q", out)
	}
	if left, _ := b.l.Leftovers(); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestASignalEndsWithItsNumber(t *testing.T) {
	b := newBench(t)
	m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	if _, err := b.l.Start(b.ctx, b.launch("a", "true"), daemonside.Files{}); !errdefs.IsConflict(err) {
		t.Errorf("a second start: %v", err)
	}
	if err := m.Signal(b.ctx, int(unix.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(m); exit.Code != 143 {
		t.Errorf("exit %+v", exit)
	}
	if err := m.Signal(b.ctx, int(unix.SIGTERM), false); !errdefs.IsNotFound(err) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestStandardInputIsHalfClosedOnce(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "cat")
	l.OpenStdin, l.StdinOnce = true, true
	s, files := b.attached(true)
	m := b.start(l, files)
	big := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
	go func() {
		io.WriteString(s.Stdin, big)
		s.Stdin.Close()
	}()
	if out, _ := all(t, s); out != big {
		t.Errorf("got %d bytes back", len(out))
	}
	if exit := b.wait(m); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}

func TestOpenStdinOutlivesItsClients(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "cat")
	l.OpenStdin = true
	m := b.start(l, daemonside.Files{})
	for i := range 3 {
		s, err := m.Attach(b.ctx, daemonside.AttachOptions{Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(s.Stdin, "client %d\n", i)
		if _, data, err := s.Next(); string(data) != fmt.Sprintf("client %d\n", i) {
			t.Errorf("got %q, %v", data, err)
		}
		if i == 1 {
			s.Stdin.Close()
		}
		s.Close()
	}
	select {
	case <-m.Exited():
		t.Errorf("ended: %+v", m.Exit())
	default:
	}
}

func TestASlowClientLosesNothingAndBlocksNobody(t *testing.T) {
	b := newBench(t)
	const size = 20 << 20
	l := b.launch("a", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", size))
	l.Log.Driver = "none"
	s, files := b.attached(false)
	m := b.start(l, files)
	if exit := b.wait(m); exit.Code != 0 { // while nobody reads
		t.Errorf("exit %+v", exit)
	}
	if out, _ := all(t, s); len(out) != size || strings.Trim(out, "x") != "" {
		t.Errorf("got %d bytes", len(out))
	}
	b.gone(m)
}

func TestAProcessInTheBackgroundDoesNotDelayTheExit(t *testing.T) {
	b := newBench(t)
	s, files := b.attached(false)
	m := b.start(b.launch("a", "sh", "-c", "sleep 1000 & echo started"), files)
	if exit := b.wait(m); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	if got := b.logged("a"); got != "started\n" {
		t.Errorf("logged %q", got)
	}
	if out, _ := all(t, s); out != "started\n" {
		t.Errorf("got %q", out)
	}
}

func TestAContainerOutlivesTheDaemonAndIsAdopted(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "sh", "-c", "read x; echo got $x; exit 3")
	l.OpenStdin = true
	before := b.start(l, daemonside.Files{}).Running()
	b.restart()
	m, err := b.l.Adopt(b.ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if m.Running() != before {
		t.Errorf("was %+v, is %+v", before, m.Running())
	}
	s, err := m.Attach(b.ctx, daemonside.AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s.Stdin, "it\n")
	if out, _ := all(t, s); out != "got it\n" {
		t.Errorf("got %q", out)
	}
	if exit := b.wait(m); exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
}

func TestAnExitWithoutADaemonIsLearntLater(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "sh", "-c", "read x; exit 5")
	l.OpenStdin, l.StdinOnce = true, true
	s, files := b.attached(true)
	m := b.start(l, files)
	init, err := pidfd.Open(m.Running().MonitorPid)
	if err != nil {
		t.Fatal(err)
	}
	b.l.Close()
	s.Close() // ends the input, hence the container
	if err := pidfd.Ended(init); err != nil {
		t.Fatal(err)
	}
	b.launcher()
	if _, err := b.l.Adopt(b.ctx, "a"); !errdefs.IsNotFound(err) {
		t.Errorf("adopt: %v", err)
	}
	if exit, err := b.l.LastExit("a"); err != nil || exit.Code != 1 && exit.Code != 5 {
		t.Errorf("last exit %+v, %v", exit, err)
	}
}

func TestALostMonitorEndsItsContainer(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("daemonAway=%v", away), func(t *testing.T) {
			b := newBench(t)
			m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
			monitor := m.Running().MonitorPid
			f, err := pidfd.Open(monitor)
			if err != nil {
				t.Fatal(err)
			}
			if away {
				b.l.Close()
			}
			unix.Kill(monitor, unix.SIGKILL)
			pidfd.Ended(f)
			var exit container.Exit
			if away {
				b.launcher()
				if _, err := b.l.Adopt(b.ctx, "a"); !errdefs.IsNotFound(err) {
					t.Errorf("adopt: %v", err)
				}
				if exit, err = b.l.LastExit("a"); err != nil {
					t.Fatal(err)
				}
			} else {
				exit = b.wait(m)
			}
			if exit.Code != 137 || exit.Reason != container.ReasonMonitorLost {
				t.Errorf("exit %+v", exit)
			}
			again, err := b.l.LastExit("a")
			if err != nil || !again.Time.Equal(exit.Time) {
				t.Errorf("asked again: %+v, %v", again, err)
			}
			if err := b.l.Forget(b.ctx, "a"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestATiedContainerEndsWithItsStarter(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "sleep", "1000")
	l.Tied = true
	m := b.start(l, daemonside.Files{})
	f, err := pidfd.Open(m.Running().InitPid)
	if err != nil {
		t.Fatal(err)
	}
	b.l.Close()
	if err := pidfd.Ended(f); err != nil {
		t.Error(err)
	}
}

func TestAContainerStartsAgainRightAfterItsExit(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		m := b.start(b.launch("a", "sh", "-c", fmt.Sprintf("exit %d", i)), daemonside.Files{})
		if exit := b.wait(m); exit.Code != i {
			t.Fatalf("run %d: %+v", i, exit)
		}
		if i%5 == 4 {
			b.restart() // a daemon that does not know the monitor that is ending
		}
	}
}

func TestAnExecRootMayHaveALongPath(t *testing.T) {
	b := newBench(t)
	b.root = filepath.Join(b.root, strings.Repeat("long/", 40))
	if err := os.MkdirAll(b.root, 0o700); err != nil {
		t.Fatal(err)
	}
	b.restart()
	m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	b.restart()
	again, err := b.l.Adopt(b.ctx, "a")
	if err != nil || again.Running() != m.Running() {
		t.Fatalf("adopt: %v", err)
	}
	if err := again.Signal(b.ctx, 9, true); err != nil {
		t.Error(err)
	}
	b.wait(again)
}

func TestExecsHaveStreamsAndCodesOfTheirOwn(t *testing.T) {
	b := newBench(t)
	m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "x1", Process: process_("sh", "-c", "cat; echo e >&2; exit 9"), Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(x.Stream().Stdin, "through")
	x.Stream().Stdin.Close()
	if out, errOut := all(t, x.Stream()); out != "through" || errOut != "e\n" {
		t.Errorf("got %q, %q", out, errOut)
	}
	if exit, err := x.Wait(b.ctx); err != nil || exit.Code != 9 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if got := b.logged("a"); got != "" {
		t.Errorf("an exec's output is in the log: %q", got)
	}
	_, err = m.Exec(b.ctx, daemonside.ExecRequest{ID: "x2", Process: process_("nope"), Stdout: true})
	var failed *daemonside.StartFailed
	if !errors.As(err, &failed) || failed.Code != 127 {
		t.Errorf("got %v", err)
	}
	// Many at once, each with its own code.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: fmt.Sprint("many", i), Process: process_("sh", "-c", fmt.Sprintf("exit %d", i)), Detach: true})
			if err != nil {
				t.Error(err)
				return
			}
			if exit, err := x.Wait(b.ctx); err != nil || exit.Code != i {
				t.Errorf("exec %d: %+v, %v", i, exit, err)
			}
		})
	}
	wg.Wait()
}

func TestExecsAreAdoptedAndEndWithTheContainer(t *testing.T) {
	b := newBench(t)
	m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	x, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "x", Process: process_("sleep", "1000"), Detach: true, Note: []byte(`{"Cmd":["sleep"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	pid := x.Pid()
	done, err := m.Exec(b.ctx, daemonside.ExecRequest{ID: "y", Process: process_("sh", "-c", "exit 4"), Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	done.Wait(b.ctx)
	b.restart()
	if m, err = b.l.Adopt(b.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	list, err := m.Execs(b.ctx)
	if err != nil || len(list) != 2 || list[0].ID() != "x" || list[0].Pid() != pid {
		t.Fatalf("execs %v, %v", list, err)
	}
	if got := string(list[0].Note()); got != `{"Cmd":["sleep"]}` || list[1].Note() != nil {
		t.Errorf("notes %q and %q", got, list[1].Note())
	}
	if exit, err := list[1].Wait(b.ctx); err != nil || exit.Code != 4 {
		t.Errorf("ended exec: %+v, %v", exit, err)
	}
	unix.Kill(-pid, unix.SIGKILL) // what a pid namespace does
	m.Signal(b.ctx, 9, false)
	if exit, err := list[0].Wait(b.ctx); err != nil || exit.Code != 137 {
		t.Errorf("exec of an ended container: %+v, %v", exit, err)
	}
	b.wait(m)
}

func TestATerminalHasASizeAndOneStream(t *testing.T) {
	b := newBench(t)
	l := b.launch("a", "sh", "-c", "read x; stty size; tty >/dev/null && echo terminal >&2; read x")
	l.Spec.Process.Terminal = true
	l.OpenStdin = true
	s, files := b.attached(true)
	m := b.start(l, files)
	if err := m.Resize(b.ctx, 33, 77); err != nil {
		t.Fatal(err)
	}
	io.WriteString(s.Stdin, "go\n")
	var got strings.Builder
	for !strings.Contains(got.String(), "terminal") {
		kind, data, err := s.Next()
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		if kind != 1 {
			t.Errorf("kind %d", kind)
		}
		got.Write(data)
	}
	if !strings.Contains(got.String(), "33 77\r\n") {
		t.Errorf("got %q", got.String())
	}
	// A client that closes its input does not close the terminal.
	s.Stdin.Close()
	other, err := m.Attach(b.ctx, daemonside.AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(other.Stdin, "end\n")
	all(t, other)
	if exit := b.wait(m); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	if err := m.Resize(b.ctx, 1, 1); !errdefs.IsNotFound(err) {
		t.Errorf("resize after the end: %v", err)
	}
}

func TestPauseAndErrorsKeepTheirClass(t *testing.T) {
	b := newBench(t)
	m := b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	if err := m.Pause(b.ctx); err != nil {
		t.Error(err)
	}
	if err := m.Resume(b.ctx); err != nil {
		t.Error(err)
	}
	if err := m.Resize(b.ctx, 1, 1); !errdefs.IsInvalidArgument(err) {
		t.Errorf("resize without a terminal: %v", err)
	}
	if err := m.Update(b.ctx, &specs.LinuxResources{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no limits here") {
		t.Errorf("update: %v", err)
	}
	if err := m.Signal(b.ctx, 99, false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("signal 99: %v", err)
	}
}

func TestAnUnknownOperationIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	b := newBench(t)
	b.start(b.launch("a", "sleep", "1000"), daemonside.Files{})
	dir, err := os.Open(b.l.Dir("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/monitor.sock", dir.Fd())}); err != nil {
		t.Fatal(err)
	}
	c, err := protocol.NewConn(fd, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A newer daemon: unknown kind, unknown operation, unknown keys.
	c.Send(protocol.KindHello, 0, 0, map[string]any{"version": 99, "minVersion": 1, "color": "blue"})
	c.Send(protocol.Kind(77), 5, 1, map[string]any{"x": 1})
	c.Send(protocol.KindRequest, 999, 2, map[string]any{})
	c.Send(protocol.KindRequest, uint16(protocol.OpState), 3, map[string]any{"later": true})
	seen := map[uint32]string{}
	for len(seen) < 2 {
		f, _, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == protocol.KindReply {
			seen[f.ID] = string(f.Payload)
		}
	}
	if !strings.Contains(seen[2], protocol.ClassUnimplemented) || !strings.Contains(seen[3], `"pid"`) {
		t.Errorf("replies %v", seen)
	}
}

// monitors are the children of this process that run a monitor, or did and were
// not reaped, with their state.
func monitors(t *testing.T) map[int]byte {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]byte{}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // of a thread that has ended
		}
		for _, word := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			if st, err := pidfd.ReadStat(pid); err == nil {
				found[pid] = st.State
			}
		}
	}
	return found
}

// eventually asks until ok, at most a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, monitors(t))
		}
	}
}

func TestEveryMonitorIsReaped(t *testing.T) {
	b := newBench(t)
	before := monitors(t)
	added := func() (pids []int) {
		for pid := range monitors(t) {
			if _, old := before[pid]; !old {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	// A spare one that is killed.
	b.l.Prepare()
	var spare []int // a list of children may be incomplete while others end
	eventually(t, "no spare monitor", func() bool { spare = added(); return len(spare) == 1 })
	if err := unix.Kill(spare[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the spare one is not reaped", func() bool {
		_, err := pidfd.ReadStat(spare[0])
		return err != nil
	})
	// One whose container has ended; a new spare one is there then.
	m := b.start(b.launch("a", "true"), daemonside.Files{})
	b.gone(m)
	eventually(t, "the ended one is not reaped", func() bool {
		_, there := monitors(t)[m.Running().MonitorPid]
		return !there
	})
	// One that is stuck does not outlive its container.
	m = b.start(b.launch("b", "sleep", "1000"), daemonside.Files{})
	if err := unix.Kill(m.Running().MonitorPid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := b.l.Forget(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	// The spare one ends with the launcher.
	if err := b.l.Close(); err != nil {
		t.Fatal(err)
	}
	if left := added(); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
