// Package testkit runs Orlop's programs for tests: an Engine is a daemon with
// its own folders, socket, bridge and names in namespaces of its own, which
// die with the test. It needs root and a Linux kernel; what a kernel lacks is
// probed and named by Need.
//
// Entry point: NewEngine. There are no locks; an Engine belongs to one test,
// whose parallel subtests may run commands in it.
package testkit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/linux/process"
)

// Patience bounds a wait that is d at most on a machine that is not emulated;
// reaching it fails the test. ORLOP_TEST_PATIENCE multiplies it.
func Patience(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("ORLOP_TEST_PATIENCE")); err == nil && n > 0 {
		return d * time.Duration(n)
	}
	return d
}

// patience is for every wait for a state.
const patience = 60 * time.Second

// Root is the module's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("go.mod not found above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

var (
	buildOnce sync.Once
	buildDir  string
	errBuild  error
)

// Bin is the folder with the programs under test: ORLOP_BIN, or bin/ in the
// module's root, built anew so that a test never runs yesterday's program.
func Bin(t testing.TB) string {
	t.Helper()
	root := Root(t)
	buildOnce.Do(func() {
		if buildDir = os.Getenv("ORLOP_BIN"); buildDir != "" {
			return
		}
		buildDir = filepath.Join(root, "bin")
		out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", root, "build", "test-tools").CombinedOutput()
		if err != nil {
			errBuild = fmt.Errorf("make build: %w\n%s", err, out)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return buildDir
}

// Program is the path of a client: ours ("orlop") or one of this machine.
func Program(t testing.TB, name string) string {
	t.Helper()
	if strings.HasPrefix(name, "orlop") {
		return filepath.Join(Bin(t), name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// CacheDir is where things made once per machine lie.
func CacheDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("ORLOP_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "orlop")
}

// Image returns the tar of one of the images of test/images/make.sh (busybox,
// debian, redis, nginx), making it when this machine has not made it yet.
// ORLOP_IMAGES names a folder where they lie already (inside the test machine,
// which has no archive to make them from).
func Image(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("ORLOP_IMAGES"); dir != "" {
		return filepath.Join(dir, name+".tar")
	}
	what := "all"
	if name == "busybox" {
		what = name
	}
	out := output(t, exec.CommandContext(t.Context(), filepath.Join(Root(t), "test/images/make.sh"), what))
	return filepath.Join(strings.TrimSpace(out), name+".tar")
}

// Peer returns the folder of what scripts/peers.sh unpacks (registry, runtimes,
// docker, podman, firewalls). ORLOP_PEERS names a folder where they lie already.
func Peer(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("ORLOP_PEERS"); dir != "" {
		return filepath.Join(dir, name)
	}
	return strings.TrimSpace(output(t, exec.CommandContext(t.Context(), filepath.Join(Root(t), "scripts/peers.sh"), name)))
}

func output(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return string(out)
}

// A Sandbox is a set of namespaces with only a loopback device, see
// test/sandbox.
type Sandbox struct {
	// Pid of the first process inside, in the test's pid namespace.
	Pid int
	// Cgroup is a name below every hierarchy's root that is removed, with what
	// is below, when the sandbox ends; WithSystemd a slice.
	Cgroup string

	t       testing.TB
	program string
	stdin   io.Closer
	cmd     *exec.Cmd
}

// WithSystemd tells that engines are to use the systemd cgroup driver
// (ORLOP_TEST_SYSTEMD), where systemd manages the machine. Such a sandbox has no
// pid namespace: it belongs into a machine that is thrown away.
func WithSystemd() bool { return os.Getenv("ORLOP_TEST_SYSTEMD") != "" }

// NewSandbox starts a sandbox that ends with the test.
func NewSandbox(t testing.TB) *Sandbox {
	t.Helper()
	NeedRoot(t)
	// Peers hand to their containers what make(1) left ignored in us.
	process.DefaultSignal(32)
	process.DefaultSignal(33)
	group := fmt.Sprintf("orlop-test-%d-%d", os.Getpid(), sandboxes.next())
	args := []string{"-cgroup", group, "cat"}
	if WithSystemd() {
		group = strings.ReplaceAll(group, "-", "_") + ".slice"
		args = []string{"-systemd", "-cgroup", group, "cat"}
	}
	// cat ends when its standard input closes, i.e. also when this test is killed.
	program := filepath.Join(Bin(t), "sandbox")
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd.ExtraFiles = []*os.File{tell}
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	_ = tell.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(ready).ReadString('\n')
	if err != nil {
		t.Fatalf("sandbox: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	s := &Sandbox{Pid: pid, Cgroup: group, t: t, program: program, stdin: stdin, cmd: cmd}
	t.Cleanup(s.end)
	return s
}

type counter struct {
	mu sync.Mutex
	n  int
}

var sandboxes counter

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (s *Sandbox) end() {
	_ = s.stdin.Close()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("sandbox ended badly: %v", err)
	}
}

// Command is a command inside the sandbox, not yet started. Streams that it is
// not given are the sandbox's /dev/null, never the host's.
func (s *Sandbox) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"-t", strconv.Itoa(s.Pid), "-m", "-n", "-p", "-i", "-u", "--", s.program, "-streams", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	// What nsenter has started outlives it, and may hold the pipes of our streams.
	cmd.WaitDelay = Patience(30 * time.Second)
	return cmd
}

// OuterPid translates a pid inside the sandbox into one of the test's.
func (s *Sandbox) OuterPid(inside string) int {
	s.t.Helper()
	pid := s.outerPid(inside)
	if pid == 0 {
		s.t.Fatalf("no process %s inside the sandbox", inside)
	}
	return pid
}

// outerPid is 0 when there is no such process.
func (s *Sandbox) outerPid(inside string) int {
	s.t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if link, err := os.Readlink(filepath.Join("/proc", entry.Name(), "ns/pid")); err != nil || link != ns {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "status"))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(status), "\n") {
			if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
				f := strings.Fields(rest)
				if f[len(f)-1] == inside {
					return pid
				}
			}
		}
	}
	return 0
}

// An Engine is a daemon in a sandbox.
type Engine struct {
	*Sandbox
	// Dir holds the roots, the socket and the daemon's log.
	Dir string
	// Socket of the Engine API.
	Socket string
	// Flags the daemon is started with beside those that place it.
	Flags []string

	bin    string
	daemon *exec.Cmd
	done   chan struct{}
}

// NewEngine starts a daemon and waits until it answers.
func NewEngine(t testing.TB, flags ...string) *Engine {
	t.Helper()
	e := PrepareEngine(t, flags...)
	e.Start()
	return e
}

// PrepareEngine makes an engine whose daemon is not started yet.
func PrepareEngine(t testing.TB, flags ...string) *Engine {
	t.Helper()
	return PrepareEngineOf(t, Bin(t), flags...)
}

// PrepareEngineOf is PrepareEngine with the programs of the folder bin.
func PrepareEngineOf(t testing.TB, bin string, flags ...string) *Engine {
	t.Helper()
	sandbox := NewSandbox(t)
	dir, err := os.MkdirTemp("", "orlop-test-")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Sandbox: sandbox, Dir: dir, Socket: filepath.Join(dir, "orlop.sock"), Flags: flags, bin: bin}
	// A file of its own, so that the host's is not read.
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Registered after the sandbox's end, hence run before it: the log is read
	// while everything still stands.
	t.Cleanup(func() {
		if t.Failed() {
			log, err := os.ReadFile(e.LogFile())
			if err == nil {
				t.Logf("daemon's log:\n%s", tail(log, 12000))
			}
		}
		e.Kill()
		if err := removeAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return e
}

// removeAll tries until what runs below dir has ended: the sandbox ends after
// it, and a container may still be writing.
func removeAll(dir string) error {
	return eventually(func() error { return os.RemoveAll(dir) })
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// LogFile is where the daemon's log goes.
func (e *Engine) LogFile() string { return filepath.Join(e.Dir, "orlopd.log") }

// Start starts the daemon and waits until it answers.
func (e *Engine) Start() {
	e.t.Helper()
	log, err := os.OpenFile(e.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{
		"-H", "unix://" + e.Socket,
		"--data-root", filepath.Join(e.Dir, "data"),
		"--exec-root", filepath.Join(e.Dir, "run"),
		"--pidfile", filepath.Join(e.Dir, "orlopd.pid"),
		"--config-file", filepath.Join(e.Dir, "daemon.json"),
	}, e.Flags...)
	if WithSystemd() {
		args = append(args, "--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", e.Cgroup)
	} else {
		args = append(args, "--cgroup-parent", "/"+e.Cgroup)
	}
	e.daemon = e.Command(context.Background(), filepath.Join(e.bin, "orlopd"), args...)
	e.daemon.Env = append(os.Environ(), "PATH="+e.bin+":"+os.Getenv("PATH"))
	e.daemon.Stdout, e.daemon.Stderr = log, log
	if err := e.daemon.Start(); err != nil {
		e.t.Fatal(err)
	}
	done := make(chan struct{})
	e.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(e.daemon)
	err = eventually(func() error {
		select {
		case <-done:
			return final{errors.New("the daemon ended")}
		default:
		}
		resp, err := e.Get("/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if err != nil {
		e.t.Fatalf("daemon does not answer: %v", err)
	}
}

// DaemonPid is the daemon's pid in the test's pid namespace; nsenter forks, so
// it is found by the pid file and the kernel's table of namespace pids.
func (e *Engine) DaemonPid() int {
	e.t.Helper()
	inside := strings.TrimSpace(e.read(filepath.Join(e.Dir, "orlopd.pid")))
	return e.OuterPid(inside)
}

func (e *Engine) read(path string) string {
	e.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

// Kill ends the daemon with SIGKILL, as a crash would. What it started lives on.
func (e *Engine) Kill() {
	if e.daemon == nil {
		return
	}
	select {
	case <-e.done:
	default:
		// It may have ended just now.
		if pid := e.outerPid(strings.TrimSpace(e.read(filepath.Join(e.Dir, "orlopd.pid")))); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-e.done
	e.daemon = nil
}

// Stop ends the daemon with SIGTERM and waits.
func (e *Engine) Stop() {
	e.t.Helper()
	if err := syscall.Kill(e.DaemonPid(), syscall.SIGTERM); err != nil {
		e.t.Fatal(err)
	}
	<-e.done
	e.daemon = nil
}

// Get asks the API. The socket is a file, so no namespace has to be entered.
func (e *Engine) Get(path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return nil, err
	}
	return e.HTTP().Do(req)
}

// HTTP is a client whose every request goes to the engine's socket.
func (e *Engine) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Socket)
		},
	}}
}

// Client is a command line against the engine, run inside its namespaces:
// Client(ctx, "orlop", "ps") or Client(ctx, "docker", "ps").
func (e *Engine) Client(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "orlop" {
		name = filepath.Join(e.bin, "orlop")
	}
	cmd := e.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.Socket, "ORLOP_HOST=unix://"+e.Socket, "DOCKER_CONFIG="+filepath.Join(e.Dir, "client"))
	return cmd
}

// Run runs orlop and returns what it printed; it fails the test when the
// command fails.
func (e *Engine) Run(args ...string) string {
	e.t.Helper()
	out, errOut, code := e.Try(args...)
	if code != 0 {
		e.t.Fatalf("orlop %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// Try runs orlop and returns its output, its error output and its exit status.
func (e *Engine) Try(args ...string) (stdout, stderr string, code int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience(2*patience))
	defer cancel()
	return e.TryCmd(e.Client(ctx, "orlop", args...))
}

// TryCmd runs a command and returns its output, error output and exit status.
func (e *Engine) TryCmd(cmd *exec.Cmd) (stdout, stderr string, code int) {
	e.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Load loads one of the test images.
func (e *Engine) Load(name string) {
	e.t.Helper()
	e.Run("load", "-q", "-i", Image(e.t, name))
}

// final is an error no further attempt can mend.
type final struct{ error }

// Eventually calls check until it returns nil; it fails the test with the last
// error when that takes too long.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	if err := eventually(check); err != nil {
		t.Fatal(err)
	}
}

func eventually(check func() error) error {
	deadline := time.Now().Add(Patience(patience))
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		var f final
		if errors.As(err, &f) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// StartBound starts a program that dies with this process or at the end of the
// test; the channel is closed when it has ended. A child is bound to the thread
// that started it (PR_SET_PDEATHSIG), so that one waits for it.
func StartBound(t testing.TB, cmd *exec.Cmd) (ended <-chan struct{}) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return done
}

// NeedRoot skips a test that cannot be run by an ordinary user.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts and control groups")
	}
}
