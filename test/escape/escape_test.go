// Package escape tries to get out of containers: every published escape that
// our design answers is attempted as it was published, fails, and succeeds
// against a build whose one defense is taken away (package defense). Beside
// that it compares what a container is given with Docker's.
package escape

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/testkit"
)

// patience bounds every wait; reaching it fails the test.
const patience = 60 * time.Second

// built makes programs once for all tests. Where there is no Go (the test
// machine) they lie in $ORLOP_BIN/undefended.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" && os.Getenv("ORLOP_BIN") == "" || strings.HasPrefix(built.dir, os.TempDir()) {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// programs is a folder with probe and with orlopd and orlop-runtime built with
// the tag undefended; the other programs are the ordinary ones.
func programs(t *testing.T) string {
	t.Helper()
	bin := testkit.Bin(t)
	built.once.Do(func() {
		ready := filepath.Join(bin, "undefended")
		if _, err := os.Stat(filepath.Join(ready, "probe")); err == nil {
			built.dir = ready
			return
		}
		built.dir, built.err = build(t, bin)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func build(t *testing.T, bin string) (string, error) {
	dir, err := os.MkdirTemp("", "orlop-escape-bin-")
	if err != nil {
		return "", err
	}
	for name, args := range map[string][]string{
		"probe": {"./test/escape/probe"}, "orlop-runtime": {"-tags", "undefended", "./cmd/orlop-runtime"},
		"orlopd": {"-tags", "undefended", "./cmd/orlopd"},
	} {
		cmd := exec.CommandContext(context.Background(), "go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name)}, args...)...)
		cmd.Dir = testkit.Root(t)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	for _, name := range []string{"orlop", "orlop-netd"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
			return dir, err
		}
	}
	return dir, nil
}

// A side is a runtime to attack: ours, or one without some defenses.
type side struct {
	t       *testing.T
	box     *testkit.Sandbox
	dir     string // of this test, on the host
	program string // a copy of the runtime's that an attack may destroy
	dropped []defense.Name
	n       int
}

// newSide copies the runtime's program, because an attack may overwrite it.
func newSide(t *testing.T, dropped ...defense.Name) *side {
	t.Helper()
	from := filepath.Join(testkit.Bin(t), "orlop-runtime")
	if len(dropped) > 0 {
		from = filepath.Join(programs(t), "orlop-runtime")
	}
	s := &side{t: t, box: testkit.NewSandbox(t), dir: tempDir(t), dropped: dropped}
	s.program = filepath.Join(s.dir, "program", "orlop-runtime")
	mkdir(t, filepath.Dir(s.program))
	copyFile(t, from, s.program, 0o755)
	write(t, s.secret(), secret)
	return s
}

// secret is in a file of the host that no container is given.
const secret = "only the host knows"

func (s *side) secret() string { return filepath.Join(s.dir, "secret") }

// tempDir is on the host's file system and removed at the end.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "orlop-escape-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testkit.Eventually(t, func() error { return os.RemoveAll(dir) }) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mkdir(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	body, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, body, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bundle makes a bundle with Docker's defaults (but the seccomp profile) that
// runs /probe with args. change may be nil.
func (s *side) bundle(change func(spec *specs.Spec, root string), args ...string) string {
	s.t.Helper()
	s.n++
	dir := filepath.Join(s.dir, "bundle"+strconv.Itoa(s.n))
	root := filepath.Join(dir, "rootfs")
	mkdir(s.t, root+"/tmp", root+"/etc", root+"/dev", root+"/proc", root+"/sys")
	copyFile(s.t, filepath.Join(programs(s.t), "probe"), root+"/probe", 0o755)
	spec := dockerLike(s.box.Cgroup, s.n)
	spec.Process.Args = append([]string{"/probe"}, args...)
	if change != nil {
		change(spec, root)
	}
	body, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	write(s.t, filepath.Join(dir, "config.json"), string(body))
	return dir
}

func dockerLike(cgroup string, n int) *specs.Spec {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	no, yes := false, true
	return &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: "rootfs"}, Hostname: "target",
		Process: &specs.Process{
			Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + cgroup + "/c" + strconv.Itoa(n),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace}, {Type: specs.IPCNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Allow: no, Access: "rwm"},
				{Allow: yes, Type: "c", Major: ptr(1), Minor: ptr(3), Access: "rwm"}, {Allow: yes, Type: "c", Major: ptr(1), Minor: ptr(5), Access: "rwm"},
				{Allow: yes, Type: "c", Major: ptr(136), Minor: ptr(-1), Access: "rwm"}, {Allow: yes, Type: "c", Major: ptr(5), Minor: ptr(2), Access: "rwm"},
			}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

func ptr(n int64) *int64 { return &n }

// command is the runtime's command line inside the sandbox.
func (s *side) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := s.box.Command(ctx, s.program, append([]string{"--root", filepath.Join(s.dir, "state")}, args...)...)
	cmd.Env = os.Environ()
	if len(s.dropped) > 0 {
		names := make([]string, len(s.dropped))
		for i, d := range s.dropped {
			names[i] = string(d)
		}
		cmd.Env = append(cmd.Env, "ORLOP_UNDEFENDED="+strings.Join(names, ","))
	}
	return cmd
}

// run runs a command of the runtime to its end.
func (s *side) run(args ...string) (out string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(patience))
	defer cancel()
	cmd := s.command(ctx, args...)
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &all, &all
	err := cmd.Run()
	if ctx.Err() != nil {
		s.t.Fatalf("orlop-runtime %s: does not end\n%s", strings.Join(args, " "), all.String())
	}
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return all.String(), cmd.ProcessState.ExitCode()
}

// container runs a bundle to its end and removes it.
func (s *side) container(bundle string) (out string, code int) {
	s.t.Helper()
	id := filepath.Base(bundle)
	out, code = s.run("run", "--bundle", bundle, id)
	s.run("delete", "--force", id)
	return out, code
}

// background starts a container that runs until the test ends, and returns
// when it has said ready. No process of the runtime stays with it.
func (s *side) background(bundle, ready string) *background {
	s.t.Helper()
	b := &background{name: filepath.Join(bundle, "said")}
	out, err := os.Create(b.name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(patience))
	defer cancel()
	cmd := s.command(ctx, "run", "--detach", "--bundle", bundle, filepath.Base(bundle))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("start container: %v: %s", err, b)
	}
	s.t.Cleanup(func() {
		// An attack may have destroyed the side's own program.
		copyFile(s.t, filepath.Join(testkit.Bin(s.t), "orlop-runtime"), s.program+".new", 0o755)
		if err := os.Rename(s.program+".new", s.program); err != nil {
			s.t.Error(err)
		}
		s.run("delete", "--force", filepath.Base(bundle))
	})
	b.wait(s.t, ready)
	return b
}

// background is the output of something that runs.
type background struct{ name string }

func (b *background) String() string {
	body, _ := os.ReadFile(b.name)
	return string(body)
}

// wait returns what was said once one of words is in it.
func (b *background) wait(t *testing.T, words ...string) string {
	t.Helper()
	testkit.Eventually(t, func() error {
		for _, w := range words {
			if strings.Contains(b.String(), w) {
				return nil
			}
		}
		return fmt.Errorf("never said %q: %s", words, b)
	})
	return b.String()
}
