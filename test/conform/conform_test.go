package conform

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	runtimePath = flag.String("runtime", "", "runtime to test instead of ours; may be a name in PATH")
	systemd     = flag.Bool("systemd", false, "with the systemd cgroup driver; for a machine that is thrown away")
)

// group is the control group of every container of the run: two runs at once
// do not meet in it.
func group() string { return os.Getenv(insideEnv) }

// insideEnv marks the test binary that runs in the sandbox and names its group.
const insideEnv = "ORLOP_CONFORM_INSIDE"

// TestMain runs the tests in namespaces that take every leftover with them.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(insideEnv) == "" && os.Geteuid() == 0 {
		if err := enterSandbox(); err != nil {
			fmt.Fprintln(os.Stderr, "conform:", err)
			os.Exit(1)
		}
	}
	// Debian's crun refuses a hybrid host; without the empty v2 side it is a v1
	// one. What peers make in its place goes with our namespaces.
	const unified = "/sys/fs/cgroup/unified"
	if unix.Unmount(unified, unix.MNT_DETACH) == nil {
		_ = unix.Mount("tmpfs", unified, "tmpfs", 0, "")
	}
	// A case mostly waits for the kernel.
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(fmt.Sprint(4 * runtime.GOMAXPROCS(0)))
	}
	os.Exit(m.Run())
}

func enterSandbox() error {
	bin, err := program("sandbox", "test/sandbox")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	name := "orlop-conform-" + strconv.Itoa(os.Getpid())
	args := []string{"sandbox", "-cgroup", name, self}
	if *systemd {
		args = []string{"sandbox", "-systemd", self}
	}
	args = append(args, os.Args[1:]...)
	return syscall.Exec(bin, args, append(os.Environ(), insideEnv+"="+name))
}

// program is a program of this repository: that of $ORLOP_BIN, else built
// with the given flags into a folder that the caller's namespaces keep.
func program(name, pkg string, flags ...string) (string, error) {
	if bin := os.Getenv("ORLOP_BIN"); bin != "" && len(flags) == 0 {
		return filepath.Join(bin, name), nil
	}
	dir, err := os.MkdirTemp("", "conform")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, name)
	args := append(append([]string{"build", "-trimpath", "-o", bin}, flags...), "github.com/orlop/orlop/"+pkg)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return bin, nil
}

// image makes the root that the cases copy.
func image(t *testing.T, cache string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "data", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	box := filepath.Join(unpack(t, cache, "busybox-static"), "bin", "busybox")
	if out, err := exec.Command("cp", box, filepath.Join(dir, "bin", "busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, a := range strings.Fields("sh true false echo cat ls id sleep hostname env grep stat mount umount kill touch head tail mknod mkdir cut tr sed wc readlink pwd printf ps umask test tee stty tty uname ip ifconfig taskset ionice sync date sort seq nc chown chmod dd rm") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func cacheDir(t *testing.T) string {
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

// unpack fetches a Debian package once and unpacks it; nothing is installed.
func unpack(t *testing.T, cache, pkg string) string {
	t.Helper()
	dir := filepath.Join(cache, "deb", pkg)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	cmd := exec.Command("sh", "-ec", `apt-get download -q "$1" && dpkg-deb -x "$1"_*.deb out && mkdir -p "$(dirname "$2")" && cp -a out "$2.new" && mv "$2.new" "$2"`, "sh", pkg, dir)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetch %s: %v: %s", pkg, err, out)
	}
	return dir
}

// peers is the folder of Debian's runtimes: $ORLOP_PEERS/runtimes, else the cache,
// filled by scripts/peers.sh.
func peers(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("ORLOP_PEERS"); dir != "" {
		return filepath.Join(dir, "runtimes")
	}
	out, err := exec.Command("../../scripts/peers.sh", "runtimes").Output()
	if err != nil {
		t.Fatalf("scripts/peers.sh runtimes: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// runtimes lists ours (or the one asked for) first.
func runtimes(t *testing.T, cache string) []Runtime {
	t.Helper()
	if *runtimePath != "" {
		p, err := exec.LookPath(*runtimePath)
		if err != nil {
			t.Fatal(err)
		}
		return []Runtime{{Name: filepath.Base(p), Path: p, Systemd: *systemd}}
	}
	own, err := program("orlop-runtime", "cmd/orlop-runtime")
	if err != nil {
		t.Fatal(err)
	}
	dir := peers(t)
	lib := []string{"LD_LIBRARY_PATH=" + filepath.Join(dir, "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(dir, "lib/x86_64-linux-gnu")}
	return []Runtime{
		{Name: "orlop-runtime", Path: own, Systemd: *systemd},
		{Name: "runc", Path: filepath.Join(dir, "usr/sbin/runc"), Env: lib, Systemd: *systemd},
		{Name: "crun", Path: filepath.Join(dir, "usr/bin/crun"), Env: lib, Systemd: *systemd},
	}
}

// results counts who passes what, and why not.
type results struct {
	mu     sync.Mutex
	passed map[string]map[string]bool  // runtime → case
	failed map[string]map[string]error // runtime → case
}

func (r *results) add(runtime, id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passed[runtime] == nil {
		r.passed[runtime], r.failed[runtime] = map[string]bool{}, map[string]error{}
	}
	if err == nil {
		r.passed[runtime][id] = true
	} else {
		r.failed[runtime][id] = err
	}
}

// TestConformance runs every case on every runtime: ours must pass all, and each
// case must pass on one of the others, unless it says why not.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := image(t, cacheDir(t))
	list := runtimes(t, cacheDir(t))
	all := Cases()
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.ID()] {
			t.Fatalf("two cases are called %s", c.ID())
		}
		seen[c.ID()] = true
	}
	r := &results{passed: map[string]map[string]bool{}, failed: map[string]map[string]error{}}
	for i, rt := range list {
		t.Run(rt.Name, func(t *testing.T) {
			for _, c := range all {
				t.Run(c.ID(), func(t *testing.T) {
					t.Parallel()
					if c.Needs != nil {
						if missing := c.Needs(); missing != "" {
							r.add(rt.Name, c.ID(), nil)
							t.Skip(missing)
						}
					}
					err := runOne(t, rt, c, root)
					r.add(rt.Name, c.ID(), err)
					switch {
					case err == nil:
					case i > 0:
						t.Logf("%s does not pass: %v", rt.Name, err)
					default:
						t.Error(err)
					}
				})
			}
		})
	}
	// Of a selection nobody can tell what the others would have passed.
	if len(list) > 1 && !strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		r.suspects(t, list[1:], all, root)
	}
	for _, rt := range list {
		t.Logf("%-14s passes %d of %d cases", rt.Name, len(r.passed[rt.Name]), len(all))
	}
}

// suspects reports cases that no peer passes and that do not say why, and
// reasons that are none because a peer passes.
func (r *results) suspects(t *testing.T, peers []Runtime, all []Case, image string) {
	t.Helper()
	alone := 0
	for _, c := range all {
		passes := false
		for _, p := range peers {
			passes = passes || r.passed[p.Name][c.ID()]
		}
		switch {
		case !passes && c.Alone == "":
			// A peer may have failed because of what ran beside: it has the
			// machine for itself now.
			var failed []string
			for _, p := range peers {
				err := runOne(t, p, c, image)
				if err == nil {
					failed = nil
					break
				}
				failed = append(failed, fmt.Sprintf("%s: %v, and before: %v", p.Name, err, r.failed[p.Name][c.ID()]))
			}
			if failed != nil {
				t.Errorf("suspect: no other runtime passes %s: %s", c.ID(), strings.Join(failed, "; "))
			}
		case !passes:
			alone++
		case c.Alone != "" && (c.Needs == nil || c.Needs() == ""):
			// Where a runtime has to fail, one may have failed because of what ran
			// beside: here too.
			for _, p := range peers {
				if r.passed[p.Name][c.ID()] && runOne(t, p, c, image) == nil {
					t.Errorf("%s passes %s, so it need not say: %s", p.Name, c.ID(), c.Alone)
					break
				}
			}
		}
	}
	t.Logf("%d cases pass on ours alone, each with its reason", alone)
}

func runOne(t *testing.T, rt Runtime, c Case, image string) error {
	e, err := Prepare(rt, c, t.TempDir(), image, group())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return c.Run(e)
}
