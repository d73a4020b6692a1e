package escape

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/testkit"
)

// TestTheProgramsPeopleGetCannotBeUndefended: what drops defenses is compiled
// with a build tag only.
func TestTheProgramsPeopleGetCannotBeUndefended(t *testing.T) {
	has := func(name string) bool {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(body), "ORLOP_UNDEFENDED")
	}
	for _, name := range []string{"orlop-runtime", "orlopd"} {
		if has(filepath.Join(testkit.Bin(t), name)) {
			t.Errorf("%s knows how to drop its defenses", name)
		}
		if !has(filepath.Join(programs(t), name)) {
			t.Errorf("%s with the tag does not know how to drop its defenses: this test looks for the wrong thing", name)
		}
	}
	if _, err := exec.LookPath("go"); err != nil {
		return // the test machine has no compiler; the names above are enough
	}
	dir := tempDir(t)
	symbols := func(tags string) map[string]bool {
		name := filepath.Join(dir, "runtime"+tags)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", name, "./cmd/orlop-runtime")
		cmd.Dir, cmd.Env = testkit.Root(t), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := elf.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		list, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, s := range list {
			for _, what := range []string{"internal/defense.", "ByPath"} {
				if strings.Contains(s.Name, what) {
					found[what] = true
				}
			}
		}
		return found
	}
	if found := symbols(""); len(found) > 0 {
		t.Errorf("the ordinary program has code of %v", found)
	}
	if found := symbols("undefended"); len(found) != 2 {
		t.Errorf("the undefended program has only code of %v", found)
	}
}

// newEngine starts a daemon, without some defenses if any are named, with
// the image busybox.
func newEngine(t *testing.T, dropped ...defense.Name) *testkit.Engine {
	t.Helper()
	var e *testkit.Engine
	if len(dropped) > 0 {
		names := make([]string, len(dropped))
		for i, d := range dropped {
			names[i] = string(d)
		}
		t.Setenv("ORLOP_UNDEFENDED", strings.Join(names, ","))
		e = testkit.PrepareEngineOf(t, programs(t))
	} else {
		e = testkit.PrepareEngine(t)
	}
	e.Start()
	e.Load("busybox")
	return e
}

// withProbe are the arguments that bring the probe into a container.
func withProbe(t *testing.T) []string {
	return []string{"-v", filepath.Join(programs(t), "probe") + ":/probe:ro"}
}

// attempt runs a container with the probe and returns what it said.
func attempt(t *testing.T, e *testkit.Engine, options []string, args ...string) string {
	t.Helper()
	all := append([]string{"run", "--rm"}, withProbe(t)...)
	all = append(append(all, options...), append([]string{"busybox", "/probe"}, args...)...)
	out, errOut, _ := e.Try(all...)
	return out + errOut
}

// CVE-2022-0492: the kernel runs a program of the container's on the host when a
// control group becomes empty (release_agent, which only v1 has). A kernel older
// than 5.17 let a user namespace do that; Docker's defense is that a container
// has neither CAP_SYS_ADMIN nor, by seccomp, a way to make namespaces or mounts.
func TestCVE20220492ReleaseAgent(t *testing.T) {
	try := func(t *testing.T, dropped ...defense.Name) (bool, string) {
		e := newEngine(t, dropped...)
		dir := tempDir(t)
		write(t, dir+"/agent", "#!/bin/sh\nprintf ran >"+dir+"/proof\n")
		if err := os.Chmod(dir+"/agent", 0o755); err != nil {
			t.Fatal(err)
		}
		// Only the host's control group namespace may make a hierarchy, and where v1 is
		// not mounted a container has one of its own.
		said := attempt(t, e, []string{"-v", dir + ":/shared", "--security-opt", "apparmor=unconfined", "--cgroupns", "host"}, "release-agent", dir+"/agent", "/shared/proof")
		dropHierarchy(t)
		_, err := os.Stat(dir + "/proof")
		return err == nil, said
	}
	t.Run("fails", func(t *testing.T) {
		escaped, said := try(t)
		if escaped {
			t.Fatalf("escaped: %s", said)
		}
		for _, want := range []string{"own: mount: operation not permitted", "in a user namespace: clone: fork/exec /proc/self/exe: operation not permitted"} {
			if !strings.Contains(said, want) {
				t.Errorf("not refused with %q:\n%s", want, said)
			}
		}
	})
	for _, d := range []defense.Name{defense.Capabilities, defense.Seccomp} {
		t.Run("fails without "+string(d)+" alone", func(t *testing.T) {
			if escaped, said := try(t, d); escaped {
				t.Fatalf("escaped: %s", said)
			}
		})
	}
	t.Run("succeeds undefended", func(t *testing.T) {
		if err := cgroupV1(); err != nil {
			t.Skipf("the kernel has no control groups of version 1, where release_agent is: %v", err)
		}
		if escaped, said := try(t, defense.Capabilities, defense.Seccomp); !escaped {
			t.Fatalf("the attack does not work, so its failure proves nothing: %s", said)
		}
	})
}

// dropHierarchy removes the hierarchy of a successful attack from the machine: it
// goes with its last mount, once the group in it is really gone.
func dropHierarchy(t *testing.T) {
	t.Helper()
	at := tempDir(t)
	testkit.Eventually(t, func() error {
		body, err := os.ReadFile("/proc/self/cgroup")
		if err != nil || !strings.Contains(string(body), "name=escape:") {
			return err
		}
		if err := unix.Mount("cgroup", at, "cgroup", 0, "none,name=escape"); err != nil {
			return err
		}
		_ = os.Remove(at + "/x")
		if err := unix.Unmount(at, 0); err != nil {
			return err
		}
		return fmt.Errorf("the hierarchy of the attack is still there")
	})
}

// cgroupV1 probes for what CVE-2022-0492 needs of the kernel.
func cgroupV1() error {
	fd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// CVE-2019-14271 was a process of the host that worked inside the container's
// root, with the container's libraries. Ours never go there: names of users are
// what the daemon itself looks for in a container's files, and a link in the image
// must not lead it to a file of the host.
func TestCVE201914271HostProcessUsesTheContainersFiles(t *testing.T) {
	try := func(t *testing.T, dropped ...defense.Name) (bool, string) {
		e := newEngine(t, dropped...)
		dir := tempDir(t)
		write(t, dir+"/passwd", "root:x:4711:4711::/:/bin/sh\nspy:x:4711:4711::/:/bin/sh\n")
		e.Run("run", "-d", "--name", "runs", "busybox", "sh", "-c", "ln -sf "+dir+"/passwd /etc/passwd; exec sleep 1000")
		testkit.Eventually(t, func() error {
			if _, _, code := e.Try("exec", "runs", "test", "-L", "/etc/passwd"); code != 0 {
				return fmt.Errorf("no link yet")
			}
			return nil
		})
		out, errOut, _ := e.Try("exec", "--user", "spy", "runs", "id", "-u")
		if strings.TrimSpace(out) == "4711" {
			return true, out
		}
		said := out + errOut
		// And at the next start.
		e.Run("run", "--name", "again", "--user", "root", "busybox", "ln", "-sf", dir+"/passwd", "/etc/passwd")
		out, errOut, _ = e.Try("start", "-a", "again")
		if strings.Contains(out+errOut, "not permitted") || strings.Contains(out+errOut, "denied") {
			return true, out + errOut // not root any more
		}
		return false, said + out + errOut
	}
	t.Run("fails", func(t *testing.T) {
		escaped, said := try(t)
		if escaped {
			t.Fatalf("a file of the host was used: %s", said)
		}
		if n := strings.Count(said, "unable to find user spy"); n != 1 {
			t.Errorf("refused in other words: %s", said)
		}
	})
	t.Run("succeeds undefended", func(t *testing.T) {
		if escaped, said := try(t, defense.UserFilesInside); !escaped {
			t.Fatalf("the attack does not work, so its failure proves nothing: %s", said)
		}
	})
	t.Run("no program of ours can load a library", func(t *testing.T) {
		for _, name := range []string{"orlopd", "orlop-runtime", "orlop-netd"} {
			f, err := elf.Open(filepath.Join(testkit.Bin(t), name))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
					t.Errorf("%s has a dynamic loader", name)
				}
			}
			_ = f.Close()
		}
	})
}

// The attacks whose way leads through the daemon, as somebody with Docker's
// command line can try them.
func TestAttacksThroughTheDaemonFail(t *testing.T) {
	e := newEngine(t)
	dir := tempDir(t)
	write(t, dir+"/secret", secret)
	t.Run("CVE-2019-5736 by exec", func(t *testing.T) {
		name := filepath.Join(testkit.Bin(t), "orlop-runtime")
		before, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		e.Run(append(append([]string{"run", "-d", "--name", "attacker"}, withProbe(t)...), "busybox", "sh", "-c",
			`printf '#!/proc/self/exe --log=/fifo\n' >/victim; chmod 755 /victim; mkfifo /fifo; exec /probe overwrite /fifo`)...)
		testkit.Eventually(t, func() error {
			if out, errOut, _ := e.Try("logs", "attacker"); !strings.Contains(out, "waiting for the runtime") {
				return fmt.Errorf("attacker: %s%s", out, errOut)
			}
			return nil
		})
		_, _, _ = e.Try("exec", "attacker", "/victim")
		e.Try("wait", "attacker")
		said := e.Run("logs", "attacker")
		// What is held is the program on its read-only overlay, or the sealed 300
		// bytes that perform an exec, if they were quickly enough seen at all.
		held := strings.Contains(said, "holding the runtime's program") &&
			(strings.Contains(said, "read-only file system") || strings.Contains(said, "operation not permitted"))
		if !held && !strings.Contains(said, "the runtime never came") {
			t.Errorf("the attack ended otherwise: %s", said)
		}
		after, err := os.Stat(name)
		if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || before.ModTime() != after.ModTime() {
			t.Errorf("the runtime's program was changed: %v", err)
		}
	})
	t.Run("CVE-2024-21626 by --workdir", func(t *testing.T) {
		up := strings.Repeat("../", 12)
		e.Run("run", "-d", "--name", "cwd", "busybox", "sleep", "1000")
		for fd := 3; fd < 20; fd++ {
			cwd := "/proc/self/fd/" + strconv.Itoa(fd)
			for _, args := range [][]string{
				{"run", "--rm", "-w", cwd, "busybox", "cat", up + dir[1:] + "/secret"},
				{"exec", "-w", cwd, "cwd", "cat", up + dir[1:] + "/secret"},
				// Static, or the container would have to have its interpreter.
				{"exec", "cwd", cwd + "/" + up + programs(t)[1:] + "/probe", "true"},
				{"run", "--rm", "busybox", cwd + "/" + up + programs(t)[1:] + "/probe", "true"},
			} {
				if out, errOut, code := e.Try(args...); code == 0 || strings.Contains(out+errOut, secret) {
					t.Errorf("orlop %v: exit %d: %s%s", args, code, out, errOut)
				}
			}
		}
	})
	t.Run("CVE-2025-31133 and CVE-2025-52565 by a volume at /dev", func(t *testing.T) {
		mkdir(t, dir+"/dev")
		link(t, "/proc/sys/kernel/core_pattern", dir+"/dev/null")
		link(t, "/proc/sys/kernel/core_pattern", dir+"/dev/console")
		mkdir(t, dir+"/dev/pts")
		link(t, "/proc/sys/kernel/core_pattern", dir+"/dev/pts/0")
		out := attempt(t, e, []string{"-v", dir + "/dev:/dev"}, "read", "/proc/interrupts", "/proc/keys")
		if strings.Contains(out, "core") || !strings.Contains(out, "/proc/interrupts: \n") {
			t.Errorf("masked files show %q", out)
		}
		for _, options := range [][]string{{"-t", "-v", dir + "/dev:/dev"}, {"-t", "-v", dir + "/dev/pts:/dev/pts"}} {
			if out := attempt(t, e, options, "rewrite", "/dev/console"); strings.Contains(out, "rewritten") {
				t.Errorf("%v: the console is %q", options, out)
			}
		}
	})
	t.Run("CVE-2019-16884 and CVE-2025-52881 by a volume at /proc", func(t *testing.T) {
		for _, at := range []string{"/proc", "/proc/self/attr", "/proc/sys/net", "/proc/kcore"} {
			mkdir(t, dir+"/fake")
			out, errOut, code := e.Try("run", "--rm", "-v", dir+"/fake:"+at, "busybox", "true")
			if code == 0 {
				t.Errorf("a volume over %s is taken: %s%s", at, out, errOut)
			}
		}
	})
}

// Of the kind of CVE-2021-30465 and CVE-2021-25741, in the engine: a part of a
// volume that is mounted, or a volume that is filled from an image, while a
// container exchanges a folder in it for a link to the host.
func TestAVolumeLeadsNowhereElse(t *testing.T) {
	for _, c := range []struct {
		name string
		try  func(t *testing.T, e *testkit.Engine, host string) bool
	}{
		{"subpath", func(t *testing.T, e *testkit.Engine, host string) bool {
			write(t, host+"/secret", secret)
			e.Run(append(append([]string{"run", "-d", "--name", "attacker"}, withProbe(t)...), "-v", "vol:/vol", "busybox", "sh", "-c",
				"mkdir /vol/place; ln -s "+host+" /vol/other; exec /probe swap /vol/place /vol/other")...)
			said(t, e, "swapping")
			for range attempts(20, 300, os.Getenv("ORLOP_UNDEFENDED") != "") {
				out, _, _ := e.Try("run", "--rm", "--mount", "type=volume,src=vol,dst=/x,volume-subpath=place", "busybox", "cat", "/x/secret")
				if strings.Contains(out, secret) {
					return true
				}
			}
			return false
		}},
		{"fill", func(t *testing.T, e *testkit.Engine, host string) bool {
			if err := os.Chmod(host, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range attempts(10, 150, os.Getenv("ORLOP_UNDEFENDED") != "") {
				vol := "vol" + strconv.Itoa(i)
				e.Run(append(append([]string{"run", "-d", "--name", "attacker"}, withProbe(t)...), "-v", vol+":/vol", "busybox",
					"/probe", "intercept", host, "/vol/spool", "/vol/www")...)
				said(t, e, "waiting for")
				if out, errOut, _ := e.Try("run", "--rm", "-v", vol+":/var", "busybox", "ls", "-R", "/var"); !strings.Contains(out, "mail") && os.Getenv("ORLOP_UNDEFENDED") == "" {
					t.Fatalf("the volume is not filled: %s%s", out, errOut)
				}
				e.Run("rm", "-f", "attacker")
				entries, err := os.ReadDir(host)
				if err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(host)
				if err != nil {
					t.Fatal(err)
				}
				if len(entries) > 0 || info.Mode().Perm() != 0o700 {
					return true
				}
			}
			return false
		}},
	} {
		t.Run(c.name+" fails", func(t *testing.T) {
			if c.try(t, newEngine(t), tempDir(t)) {
				t.Fatal("a volume led to the host")
			}
		})
		t.Run(c.name+" succeeds undefended", func(t *testing.T) {
			if !c.try(t, newEngine(t, defense.VolumesInside), tempDir(t)) {
				t.Fatal("the attack does not work, so its failure proves nothing")
			}
		})
	}
}

// said waits until the container "attacker" has said something.
func said(t *testing.T, e *testkit.Engine, words string) {
	t.Helper()
	testkit.Eventually(t, func() error {
		if out, errOut, _ := e.Try("logs", "attacker"); !strings.Contains(out, words) {
			return fmt.Errorf("attacker: %s%s", out, errOut)
		}
		return nil
	})
}
