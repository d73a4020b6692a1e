package lifecycle_test

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/runtime/command"
	"github.com/orlop/orlop/internal/runtime/initproc"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// TestMain lets the test binary be the stages that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == initproc.Arg {
		os.Exit(initproc.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// busybox is Debian's static busybox, fetched once into the cache.
func busybox(t testing.TB) string {
	t.Helper()
	cache := os.Getenv("ORLOP_CACHE")
	if cache == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, "orlop")
	}
	dir := filepath.Join(cache, "deb", "busybox-static")
	bin := filepath.Join(dir, "bin", "busybox")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	tmp := t.TempDir()
	cmd := exec.Command("sh", "-ec", `apt-get download -q busybox-static && dpkg-deb -x busybox-static_*.deb out && mkdir -p "$0" && cp -a out/. "$0"`, dir)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetch busybox-static: %v\n%s", err, out)
	}
	return bin
}

// sandbox is a bundle with a busybox root, and a folder for states.
type sandbox struct {
	t      *testing.T
	bundle string
	root   string
	id     string
	spec   *specs.Spec
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if f, err := elf.Open("/proc/self/exe"); err == nil {
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Fatal("the stages must be static programs: build with CGO_ENABLED=0")
			}
		}
		_ = f.Close()
	}
	s := &sandbox{t: t, bundle: t.TempDir(), root: filepath.Join(t.TempDir(), "state"), id: "c-" + strconv.Itoa(os.Getpid())}
	// User namespaces must be able to walk to the root.
	for dir := s.bundle; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.makeRoot(filepath.Join(s.bundle, "rootfs"))
	s.spec = command.Example()
	s.spec.Process.Terminal = false
	s.spec.Root.Readonly = false
	s.spec.Linux.CgroupsPath = fmt.Sprintf("/orlop-test-%d/%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "_"))
	t.Cleanup(func() {
		// The parent group is empty after the container is deleted.
		for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "."} {
			parent := filepath.Join("/sys/fs/cgroup", c, fmt.Sprintf("orlop-test-%d", os.Getpid()))
			if own := filepath.Join("/sys/fs/cgroup", c, s.spec.Linux.CgroupsPath); c != "." {
				if _, err := os.Stat(own); err == nil {
					t.Errorf("left behind: %s", own)
				}
			}
			dirs, _ := filepath.Glob(parent + "/devices-*")
			for _, d := range append(dirs, parent) {
				_ = os.Remove(d)
			}
		}
	})
	return s
}

func (s *sandbox) makeRoot(dir string) {
	s.t.Helper()
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	body, err := os.ReadFile(busybox(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), body, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, a := range []string{"sh", "true", "cat", "ls", "id", "sleep", "hostname", "env", "grep", "stat", "mount", "kill", "touch", "head", "stty", "tty", "readlink", "pwd", "mkdir", "ps"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// sh makes the process a shell script.
func (s *sandbox) sh(script string) *sandbox {
	s.spec.Process.Args = []string{"sh", "-c", script}
	return s
}

func (s *sandbox) without(t specs.LinuxNamespaceType) *sandbox {
	var keep []specs.LinuxNamespace
	for _, ns := range s.spec.Linux.Namespaces {
		if ns.Type != t {
			keep = append(keep, ns)
		}
	}
	s.spec.Linux.Namespaces = keep
	return s
}

func (s *sandbox) options() lifecycle.Options {
	return lifecycle.Options{ID: s.id, Bundle: s.bundle, Root: s.root, Spec: s.spec}
}

// start creates the container running and deletes it at the end of the test.
func (s *sandbox) start(o lifecycle.Options) *lifecycle.Container {
	s.t.Helper()
	o.StartNow = true
	return s.create(o)
}

func (s *sandbox) create(o lifecycle.Options) *lifecycle.Container {
	s.t.Helper()
	c, err := lifecycle.Create(context.Background(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := c.Delete(context.Background(), true); err != nil && !errdefs.IsNotFound(err) {
			s.t.Error(err)
		}
		_ = c.Close()
	})
	return c
}

// output runs the container to its end.
func (s *sandbox) output() string {
	s.t.Helper()
	out, status := s.outputAndStatus(s.options())
	if status.Code != 0 {
		s.t.Fatalf("ended with %+v:\n%s", status, out)
	}
	return out
}

func (s *sandbox) outputAndStatus(o lifecycle.Options) (string, lifecycle.Status) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	o.Stdout, o.Stderr = w, w
	c := s.start(o)
	_ = w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		s.t.Fatal(err)
	}
	status, err := c.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	return string(out), status
}

func want(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("no %q in:\n%s", p, out)
		}
	}
}

func TestTheProcessIsTheFirstOfItsNamespaces(t *testing.T) {
	s := newSandbox(t).sh("echo pid $$; hostname; id; env; ls /proc/self/fd; cat /proc/self/status")
	out := s.output()
	want(t, out, "pid 1\n", "orlop\n", "uid=0", "HOME=/root\n", "Seccomp:\t0", "NoNewPrivs:\t1",
		"CapEff:\t0000000020000420", "CapBnd:\t0000000020000420", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000")
	if strings.Contains(out, "\n4\n") {
		t.Errorf("a descriptor leaked:\n%s", out)
	}
}

func TestTheExitStatusArrives(t *testing.T) {
	for script, wantStatus := range map[string]lifecycle.Status{
		"exit 7":        {Code: 7},
		"exit 0":        {},
		"kill -9 $$; :": {Code: 0},
	} {
		t.Run(script, func(t *testing.T) {
			// A process 1 does not get signals it has no handler for, not even its own.
			_, got := func() (string, lifecycle.Status) {
				s := newSandbox(t).sh(script)
				return s.outputAndStatus(s.options())
			}()
			if got != wantStatus {
				t.Errorf("got %+v, want %+v", got, wantStatus)
			}
		})
	}
}

func TestCreateWaitsForStartAndKillEndsIt(t *testing.T) {
	s := newSandbox(t).sh("echo started; sleep 1000")
	r, w, _ := os.Pipe()
	defer r.Close()
	o := s.options()
	o.Stdout, o.PidFile = w, filepath.Join(s.bundle, "pid")
	c := s.create(o)
	_ = w.Close()
	state := func() string {
		st, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		return string(st.Status)
	}
	if got := state(); got != "created" {
		t.Fatalf("state %s", got)
	}
	if pid, _ := os.ReadFile(o.PidFile); string(pid) != strconv.Itoa(c.Pid()) {
		t.Errorf("pid file has %q, want %d", pid, c.Pid())
	}
	if _, err := lifecycle.Create(context.Background(), o); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the id was given twice: %v", err)
	}
	other, err := lifecycle.Open(s.root, s.id)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "started\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if got := state(); got != "running" {
		t.Fatalf("state %s", got)
	}
	if err := other.Start(context.Background()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("started twice: %v", err)
	}
	if err := c.Delete(context.Background(), false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("deleted while it runs: %v", err)
	}
	if err := other.Kill(int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Wait(); err != nil || st.Code != 137 || st.Signal != 9 {
		t.Errorf("ended with %+v, %v", st, err)
	}
	if got := state(); got != "stopped" {
		t.Errorf("state %s", got)
	}
	if err := c.Kill(int(unix.SIGTERM), false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("killed a stopped container: %v", err)
	}
	if err := c.Delete(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := lifecycle.Open(s.root, s.id); !errdefs.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestWhyTheProgramWasNotRun(t *testing.T) {
	for _, c := range []struct {
		args []string
		cwd  string
		code int
		text string
	}{
		{[]string{"foo"}, "/", 127, `exec: "foo": executable file not found in $PATH`},
		{[]string{"/nowhere/foo"}, "/", 127, `exec: "/nowhere/foo": stat /nowhere/foo: no such file or directory`},
		{[]string{"/etc/passwd"}, "/", 126, `exec: "/etc/passwd": permission denied`},
		{[]string{"/etc"}, "/", 126, `exec: "/etc": is a directory`},
		{[]string{"true"}, "/no/such", 127, `chdir to cwd ("/no/such") set in config.json failed: no such file or directory`},
	} {
		t.Run(c.text, func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Process.Args, s.spec.Process.Cwd = c.args, c.cwd
			o := s.options()
			for _, now := range []bool{true, false} {
				o.StartNow = now
				_, err := lifecycle.Create(context.Background(), o)
				var start *lifecycle.StartError
				if !errors.As(err, &start) || start.Code != c.code || start.Error() != c.text {
					t.Errorf("StartNow %v: got %#v %v", now, start, err)
				}
				if left, _ := os.ReadDir(s.root); len(left) > 0 {
					t.Errorf("StartNow %v: half a container is left: %v", now, left)
				}
			}
		})
	}
}

func TestExecJoinsTheContainer(t *testing.T) {
	s := newSandbox(t).without(specs.CgroupNamespace).sh("sleep 1000; :")
	s.spec.Hostname = "inside"
	c := s.start(s.options())
	out := execOutput(t, c, "hostname; cat /proc/1/cmdline; id -u; cat /proc/self/cgroup; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid")
	want(t, out, "inside", "sleep", ":"+s.spec.Linux.CgroupsPath+"\n")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if n := len(lines); n < 2 || lines[n-1] != lines[n-2] {
		t.Errorf("another pid namespace:\n%s", out)
	}
	p := process("exit 3")
	x, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: p})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := x.Wait(); err != nil || st.Code != 3 {
		t.Errorf("exec ended with %+v, %v", st, err)
	}
	p.Args = []string{"foo"}
	_, err = c.Exec(context.Background(), lifecycle.ExecOptions{Process: p})
	var start *lifecycle.StartError
	if !errors.As(err, &start) || start.Code != 127 || err.Error() != `exec: "foo": executable file not found in $PATH` {
		t.Errorf("exec of nothing: %v", err)
	}
}

func process(script string) *specs.Process {
	return &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"}
}

func execOutput(t *testing.T, c *lifecycle.Container, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	x, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: process(script), Stdout: w, Stderr: w})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := x.Wait(); err != nil || st.Code != 0 {
		t.Fatalf("ended with %+v, %v:\n%s", st, err, out)
	}
	return string(out)
}

func TestExecDiesWithTheContainer(t *testing.T) {
	s := newSandbox(t).sh("sleep 1000")
	c := s.start(s.options())
	x, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: process("sleep 1000")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	if st, err := x.Wait(); err != nil || st.Signal != int(unix.SIGKILL) {
		t.Errorf("exec ended with %+v, %v", st, err)
	}
	if _, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: process("true")}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a stopped container: %v", err)
	}
}

func TestAPausedContainerIsNotExecutedIn(t *testing.T) {
	s := newSandbox(t).sh("sleep 1000")
	c := s.start(s.options())
	if err := c.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st, _ := c.Status(); st != lifecycle.StatePaused {
		t.Errorf("state %s", st)
	}
	_, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: process("true")})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("exec: %v", err)
	}
	if err := c.Resume(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.Resume(context.Background()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("resumed twice: %v", err)
	}
	execOutput(t, c, "true")
}

func TestDeleteKillsAPausedContainer(t *testing.T) {
	s := newSandbox(t).sh("sleep 1000")
	c := s.start(s.options())
	if err := c.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.root, s.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is left: %v", err)
	}
}

func TestATerminalIsTheContainersOwn(t *testing.T) {
	s := newSandbox(t).sh("tty; stty size; ls -l /dev/console; echo done")
	s.spec.Process.Terminal = true
	s.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	c := s.start(s.options())
	out, _ := io.ReadAll(c.Console()) // ends with EIO when the last slave is closed
	want(t, string(out), "/dev/pts/0", "33 99", "/dev/console", "done")
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	s2 := newSandbox(t).sh("sleep 1000")
	c2 := s2.start(s2.options())
	p := process("tty; echo done")
	p.Terminal = true
	x, err := c2.Exec(context.Background(), lifecycle.ExecOptions{Process: p})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	out, _ = io.ReadAll(x.Console())
	want(t, string(out), "/dev/pts/0", "done")
	_, _ = x.Wait()
}

func TestAContainerWithAUserNamespace(t *testing.T) {
	s := newSandbox(t)
	s.spec.Linux.Namespaces = append(s.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.spec.Linux.GIDMappings = s.spec.Linux.UIDMappings
	if err := os.Chown(filepath.Join(s.bundle, "rootfs"), 100000, 100000); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.bundle, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "own"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/data", Source: data, Type: "bind", Options: []string{"bind", "idmap"}})
	s.sh("id -u; cat /proc/self/uid_map; stat -c '%u %n' /data/own; ls -l /dev/null; touch /data/made; echo ready; sleep 1000")
	r, w, _ := os.Pipe()
	defer r.Close()
	o := s.options()
	o.Stdout, o.Stderr = w, w
	c := s.start(o)
	_ = w.Close()
	var first []byte
	for buf := make([]byte, 1024); !bytes.Contains(first, []byte("ready")); {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("%v after %s", err, first)
		}
		first = append(first, buf[:n]...)
	}
	out := execOutput(t, c, "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/status | grep -i 'capeff\\|groups'; readlink /proc/self/ns/user; readlink /proc/1/ns/user")
	want(t, out, "100000", "CapEff:\t0000000020000420")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if lines[0] != "0" || lines[len(lines)-1] != lines[len(lines)-2] {
		t.Errorf("exec is not root of the same user namespace:\n%s", out)
	}
	if err := c.Kill(int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	want(t, string(first), "0\n", "100000", "0 /data/own", "crw-rw-rw-")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(data, "made"), &st); err != nil || st.Uid != 0 {
		t.Errorf("a file made through the idmapped mount belongs to %d: %v", st.Uid, err)
	}
}

func TestLayersAreMountedByInitAlone(t *testing.T) {
	s := newSandbox(t).sh("cat /upper /lower; echo new > /made; ls /")
	var lower []string
	for i := range 3 {
		dir := filepath.Join(s.bundle, "l"+strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, dir)
	}
	s.makeRoot(lower[2])
	for name, body := range map[string]string{lower[0] + "/upper": "top\n", lower[1] + "/upper": "hidden\n", lower[1] + "/lower": "below\n"} {
		if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := s.options()
	o.Rootfs = &rootfs.Overlay{Lower: lower, Upper: filepath.Join(s.bundle, "upper"), Work: filepath.Join(s.bundle, "work"), Volatile: true}
	for _, dir := range []string{o.Rootfs.Upper, o.Rootfs.Work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time with the mark of a volatile layer
		out, status := s.outputAndStatus(o)
		if status.Code != 0 {
			t.Fatalf("%+v:\n%s", status, out)
		}
		want(t, out, "top\nbelow\n", "made")
		c, err := lifecycle.Open(s.root, s.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(context.Background(), false); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(o.Rootfs.Upper, "made")); string(b) != "new\n" {
		t.Errorf("the writable layer has %q", b)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(s.bundle)) {
		t.Error("the host sees a mount of the container")
	}
}

func TestLinksOfTheImageDoNotLeadOut(t *testing.T) {
	s := newSandbox(t)
	rootDir := filepath.Join(s.bundle, "rootfs")
	outside := filepath.Join(s.bundle, "outside")
	src := filepath.Join(s.bundle, "src")
	for _, d := range []string{outside, src} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(src, "secret"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + strings.TrimPrefix(outside, "/")
	if err := os.Symlink(up, filepath.Join(rootDir, "trap")); err != nil {
		t.Fatal(err)
	}
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/trap/in", Source: src, Type: "bind", Options: []string{"bind"}})
	s.sh("cat /trap/in/secret")
	want(t, s.output(), "mine")
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("something was made on the host: %v", left)
	}
}

func TestMaskedAndReadonlyPaths(t *testing.T) {
	s := newSandbox(t).sh(`cat /proc/keys; ls -A /sys/firmware; echo 1 > /proc/sys/kernel/domainname; echo rc $?; ls -l /proc/timer_list`)
	out, _ := s.outputAndStatus(s.options())
	want(t, out, "Read-only file system", "rc 1", "1,   3")
}

func TestNullOfTheImageIsNotTrusted(t *testing.T) {
	// CVE-2025-31133: /dev/null as a link made masked files writable ones.
	s := newSandbox(t)
	var keep []specs.Mount
	for _, m := range s.spec.Mounts {
		if !strings.HasPrefix(m.Destination, "/dev") {
			keep = append(keep, m)
		}
	}
	s.spec.Mounts = keep
	if err := os.Symlink("/proc/sysrq-trigger", filepath.Join(s.bundle, "rootfs", "dev", "null")); err != nil {
		t.Fatal(err)
	}
	o := s.options()
	o.StartNow = true
	_, err := lifecycle.Create(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "/dev/null") {
		t.Errorf("a /dev/null that is a link was accepted: %v", err)
	}
}

func TestProcMustBeAnOrdinaryDirectory(t *testing.T) {
	// CVE-2019-19921.
	s := newSandbox(t)
	rootDir := filepath.Join(s.bundle, "rootfs")
	if err := os.Remove(filepath.Join(rootDir, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", filepath.Join(rootDir, "proc")); err != nil {
		t.Fatal(err)
	}
	o := s.options()
	o.StartNow = true
	_, err := lifecycle.Create(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "ordinary directory") {
		t.Errorf("got %v", err)
	}
}

func TestLimitsAndUser(t *testing.T) {
	s := newSandbox(t)
	umask := uint32(0o027)
	s.spec.Process.User = specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{5, 6}, Umask: &umask}
	s.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}, {Type: "RLIMIT_CORE"}}
	s.spec.Process.NoNewPrivileges = false
	s.spec.Process.Capabilities.Ambient = []string{"CAP_KILL"}
	s.spec.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
	s.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
	score := 500
	s.spec.Process.OOMScoreAdj = &score
	s.sh("id; umask; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward; env; cat /proc/self/status")
	want(t, s.output(), "uid=33", "gid=33", "groups=5,6", "0027\n77\n88\n0\n500\n1\n", "HOME=/var/www", "CapAmb:\t0000000000000020", "CapEff:\t0000000000000020")
}

func TestNamespacesAreJoinedByPath(t *testing.T) {
	s := newSandbox(t).sh("sleep 1000")
	first := s.start(s.options())
	s2 := newSandbox(t)
	s2.spec.Linux.CgroupsPath += "-2"
	s2.spec.Hostname = ""
	for i := range s2.spec.Linux.Namespaces {
		ns := &s2.spec.Linux.Namespaces[i]
		name := map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.UTSNamespace: "uts", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc"}[ns.Type]
		if name != "" {
			ns.Path = fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), name)
		}
	}
	s2.sh("for n in pid uts net ipc; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done")
	lines := strings.Split(strings.TrimSpace(s2.output()), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		if lines[i] != lines[i+1] {
			t.Errorf("not joined: %s, process 1 is in %s", lines[i], lines[i+1])
		}
	}
	if len(lines) != 8 {
		t.Errorf("output %q", lines)
	}
}

func TestHooksRunInTheirNamespaces(t *testing.T) {
	s := newSandbox(t).sh("cat /from-container; sleep 1000")
	log := filepath.Join(s.bundle, "log")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("cat >/dev/null; echo %s $(readlink /proc/self/ns/mnt) >> %s", name, log)}, Env: []string{"PATH=/usr/bin:/bin"}}}
	}
	s.spec.Hooks = &specs.Hooks{
		Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		Poststart: hook("poststart"), Poststop: hook("poststop"),
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > /from-container"}}},
	}
	c := s.create(s.options())
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	want(t, execOutput(t, c, "cat /from-container"), `"status":"created"`, `"id":"`+s.id+`"`)
	if err := c.Delete(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	body, _ := os.ReadFile(log)
	var order []string
	own, _ := os.Readlink("/proc/self/ns/mnt")
	for _, line := range strings.Split(strings.TrimSpace(string(body)), "\n") {
		name, ns, _ := strings.Cut(line, " ")
		order = append(order, name)
		if inside := ns != own; inside != (name == "createContainer") {
			t.Errorf("hook %s ran in %s", name, ns)
		}
	}
	if got := strings.Join(order, " "); got != "prestart createRuntime createContainer poststart poststop" {
		t.Errorf("order %s", got)
	}
	s2 := newSandbox(t)
	one := 1
	s2.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}}}
	o := s2.options()
	o.StartNow = true
	if _, err := lifecycle.Create(context.Background(), o); err == nil || !strings.Contains(err.Error(), "ran past specified timeout") {
		t.Errorf("a hook that hangs: %v", err)
	}
}

func TestAnAbortedCreateLeavesNothing(t *testing.T) {
	s := newSandbox(t)
	s.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	o := s.options()
	if _, err := lifecycle.Create(context.Background(), o); err == nil {
		t.Fatal("a failing hook did not fail the creation")
	}
	if left, _ := os.ReadDir(s.root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.spec.Hooks = nil
	if _, err := lifecycle.Create(ctx, o); err == nil {
		t.Error("created for nobody")
	}
	if left, _ := os.ReadDir(s.root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDamagedStateIsAnError(t *testing.T) {
	s := newSandbox(t)
	dir := filepath.Join(s.root, s.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(`{"schema":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lifecycle.Open(s.root, s.id); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "state.json") {
		t.Errorf("got %v", err)
	}
}
