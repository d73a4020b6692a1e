package lifecycle_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/seccomp"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// tell prints everything about a process that its start decides.
const tell = `grep -v -e ^Pid -e ^PPid -e ^Name -e ^Vm -e ^Rss -e ^Ngid -e ^Tgid -e ^NS -e ctxt_switches -e ^HugetlbPages -e ^SigQ -e ^untag -e _allowed /proc/self/status
pwd; env; cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup /proc/self/uid_map
cat /proc/self/attr/current; ls /proc/self/fd
for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done
id; cat /proc/keys`

// printed runs an exec to its end.
func printed(t *testing.T, c *lifecycle.Container, o lifecycle.ExecOptions) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Stdout, o.Stderr = w, w
	x, err := c.Exec(context.Background(), o)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := x.Wait(); err != nil || st.Signal != 0 {
		t.Errorf("ended with %+v, %v:\n%s", st, err, out)
	}
	return string(out)
}

// An exec is the same process whether a stage of ours prepared it or a list of
// system calls did.
func TestAnExecWithoutStageIsTheSame(t *testing.T) {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"}
	umask := uint32(0o27)
	oom := 500
	for name, edit := range map[string]func(*specs.Spec, *specs.Process){
		"root":              func(*specs.Spec, *specs.Process) {},
		"user of passwd":    func(_ *specs.Spec, p *specs.Process) { p.User.UID, p.User.GID = 33, 33 },
		"user of nothing":   func(_ *specs.Spec, p *specs.Process) { p.User.UID, p.User.AdditionalGids = 4711, []uint32{7, 8} },
		"no new privileges": func(_ *specs.Spec, p *specs.Process) { p.NoNewPrivileges, p.User.UID = true, 33 },
		"ambient": func(_ *specs.Spec, p *specs.Process) {
			p.User.UID = 33
			p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps, Inheritable: caps[:2], Ambient: caps[:2]}
		},
		"no capabilities":  func(_ *specs.Spec, p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{} },
		"all capabilities": func(s *specs.Spec, p *specs.Process) { p.Capabilities = s.Process.Capabilities },
		"limits and folder": func(_ *specs.Spec, p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 1}}
			p.Cwd, p.User.Umask, p.OOMScoreAdj = "/tmp", &umask, &oom
			p.Env = append(p.Env, "HOME=/elsewhere")
		},
		"folder that only root enters": func(_ *specs.Spec, p *specs.Process) { p.Cwd, p.User.UID = "/secret", 33 },
		"filter": func(s *specs.Spec, p *specs.Process) {
			profile, err := seccomp.DefaultProfile(caps)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp = profile
			p.User.UID = 33
		},
		"filter without new privileges": func(s *specs.Spec, p *specs.Process) {
			profile, err := seccomp.DefaultProfile(caps)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp, p.NoNewPrivileges = profile, true
		},
		"user namespace": func(s *specs.Spec, p *specs.Process) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			p.User.UID, p.User.AdditionalGids = 33, []uint32{7}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t).sh("sleep 1000")
			if err := os.Mkdir(filepath.Join(s.bundle, "rootfs", "secret"), 0o700); err != nil {
				t.Fatal(err)
			}
			p := process(tell)
			edit(s.spec, p)
			c := s.start(s.options())
			// A stage would have to be executed from this.
			null, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			direct := printed(t, c, lifecycle.ExecOptions{Process: p, Executable: null})
			staged := *p
			// Priorities are set by stages only; this one is the default.
			staged.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
			if diff := cmp.Diff(printed(t, c, lifecycle.ExecOptions{Process: &staged}), direct); diff != "" {
				t.Errorf("with a stage (-) and without one (+):\n%s", diff)
			}
			want(t, direct, "Seccomp:", "PATH=/bin", "CapBnd")
		})
	}
}

// A current folder outside of the root is refused without a stage too
// (CVE-2024-21626): the descriptor is one of those the exec inherits.
func TestAnExecDoesNotBeginOutsideOfTheRoot(t *testing.T) {
	s := newSandbox(t).sh("sleep 1000")
	c := s.start(s.options())
	host, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/self/fd/6", "/proc/self/fd/7"} {
		p := process("pwd; ls")
		p.Cwd = cwd
		if x, err := c.Exec(context.Background(), lifecycle.ExecOptions{Process: p, ExtraFiles: []*os.File{host}}); err == nil {
			_, _ = x.Wait()
			t.Errorf("%s was entered", cwd)
		}
	}
}

// firstTells prints everything about the first process that its start decides.
const firstTells = tell + `
cat /proc/self/mountinfo; ls -la / /dev /dev/pts /proc/1/root; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start`

// A container is the same whether a stage of ours made it from inside or we did
// from outside.
func TestAContainerWithoutStageIsTheSame(t *testing.T) {
	if len(defense.Environment()) > 0 {
		t.Skip("defenses are dropped in stages only")
	}
	for name, edit := range map[string]func(*sandbox){
		"plain": func(*sandbox) {},
		"user and filter": func(s *sandbox) {
			profile, err := seccomp.DefaultProfile(s.spec.Process.Capabilities.Bounding)
			if err != nil {
				t.Fatal(err)
			}
			s.spec.Linux.Seccomp, s.spec.Process.User.UID = profile, 33
		},
		"groups of the host": func(s *sandbox) { s.without(specs.CgroupNamespace) },
		"read-only, with mounts": func(s *sandbox) {
			s.spec.Root.Readonly = true
			s.spec.Process.Env = append(s.spec.Process.Env, "HOME=/") // passwd is masked
			s.spec.Mounts = append(s.spec.Mounts,
				specs.Mount{Destination: "/data", Type: "bind", Source: s.bundle, Options: []string{"rbind", "ro"}},
				specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
				specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
			s.spec.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/keys", "/sys/firmware", "/etc"}
			s.spec.Linux.ReadonlyPaths = []string{"/proc/sys", "/bin"}
		},
		"sysctl and names": func(s *sandbox) {
			s.spec.Hostname, s.spec.Domainname = "inside", "example.org"
			s.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}
		},
		"network of the host": func(s *sandbox) {
			s.without(specs.NetworkNamespace)
		},
		"shared propagation": func(s *sandbox) { s.spec.Linux.RootfsPropagation = "slave" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t).sh(firstTells)
			s.spec.Process.Rlimits = append(s.spec.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 1, Hard: 2})
			edit(s)
			null, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			o := s.options()
			o.Executable = null // a stage would have to be executed from this
			direct, _ := s.outputAndStatus(o)
			o.ID += "-staged"
			o.Executable = nil
			staged := *s.spec.Process
			staged.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
			spec := *s.spec
			spec.Process = &staged
			spec.Linux.CgroupsPath += "-staged"
			o.Spec = &spec
			with, _ := s.outputAndStatus(o)
			if diff := cmp.Diff(same(with), same(direct)); diff != "" {
				t.Errorf("with a stage (-) and without one (+):\n%s", diff)
			}
			want(t, direct, "PATH=", "CapBnd", " / ")
			o = s.options()
			o.ID += "-held"
			o.Executable = null
			s.spec.Linux.CgroupsPath = strings.TrimSuffix(s.spec.Linux.CgroupsPath, "-staged") + "-held"
			if diff := cmp.Diff(same(s.createdAndStarted(o)), same(direct)); diff != "" {
				t.Errorf("created and then started (-) and at once (+):\n%s", diff)
			}
		})
	}
}

// createdAndStarted is what the container printed after its gate was opened.
func (s *sandbox) createdAndStarted(o lifecycle.Options) string {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	o.Stdout, o.Stderr = w, w
	c := s.create(o)
	_ = w.Close()
	if st, err := c.Status(); err != nil || st != specs.StateCreated {
		s.t.Fatalf("before start: %s, %v", st, err)
	}
	if err := c.Start(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		s.t.Fatal(err)
	}
	return string(out)
}

// Whoever waits behind the gate holds nothing but its streams, the gate, and
// what tells of its execve.
func TestWhoWaitsForStartHoldsNothingOfTheHost(t *testing.T) {
	s := newSandbox(t).sh("true")
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	o := s.options()
	o.Executable, o.ExtraFiles = null, []*os.File{null}
	c := s.create(o)
	dir := filepath.Join("/proc", strconv.Itoa(c.Pid()), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Split(filepath.Base(to), ":")[0])
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"null", "null", "null", "null", "pipe", "start.fifo"}, got); diff != "" {
		t.Errorf("descriptors (-want +got):\n%s", diff)
	}
}

// What execve fails with behind the gate is told by Start, by the exit status
// and on the standard error, where it is seen when nobody waits in Start.
func TestAProgramThatFailsBehindTheGate(t *testing.T) {
	for name, c := range map[string]struct {
		body, args, text string
		code             int
	}{
		"no program":      {"nothing to execute", "/bin/bad", "exec /bin/bad: exec format error\n", 126},
		"in the PATH":     {"nothing to execute", "bad", "exec /bin/bad: exec format error\n", 126},
		"its interpreter": {"#!/not/there\n", "bad", "exec /bin/bad: no such file or directory\n", 127},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Process.Args = []string{c.args}
			if err := os.WriteFile(filepath.Join(s.bundle, "rootfs/bin/bad"), []byte(c.body), 0o755); err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			o := s.options()
			o.Stderr = w
			made := s.create(o)
			_ = w.Close()
			var start *lifecycle.StartError
			if err := made.Start(context.Background()); !errors.As(err, &start) || start.Code != c.code {
				t.Errorf("start: %#v, %v", start, err)
			}
			out, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != c.text {
				t.Errorf("printed %q, want %q", out, c.text)
			}
			if st, err := made.Wait(); err != nil || st.Code != c.code {
				t.Errorf("ended with %+v, %v", st, err)
			}
		})
	}
}

var (
	// What the kernel numbers, and dates as ls prints them.
	numbered = regexp.MustCompile(`\[\d+\]|(?m)^\d+ \d+ \d+:\d+|master:\d+|shared:\d+|([A-Z][a-z]{2} +\d+ +)?\d\d:\d\d|(?m)^dr-xr-xr-x +\d+`)
	spaces   = regexp.MustCompile(` +`)
)

func same(out string) string {
	out = strings.NewReplacer("-staged", "", "-held", "").Replace(out)
	return spaces.ReplaceAllString(numbered.ReplaceAllString(out, "N"), " ")
}

// What the control group refuses is told as it is, whether the container is
// started at once or held.
func TestALimitThatTheKernelRefusesIsNamed(t *testing.T) {
	for _, now := range []bool{true, false} {
		s := newSandbox(t).sh("true")
		s.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4095"}}
		o := s.options()
		o.StartNow = now
		c, err := lifecycle.Create(context.Background(), o)
		if err == nil {
			_ = c.Delete(context.Background(), true)
			t.Fatal("processor 4095 was given")
		}
		want(t, err.Error(), "cpuset")
	}
}
