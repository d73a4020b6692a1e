package conform

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var runtimePath = flag.String("runtime", "", "runtime to test instead of ours; may be a name in PATH")

// group is the control group of every container of the run.
const group = "orlop-conform"

// insideEnv marks the test binary that runs in the sandbox.
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
	// Debian's crun refuses a hybrid host; without the empty v2 side it is a v1 one.
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	os.Exit(m.Run())
}

func enterSandbox() error {
	dir, err := os.MkdirTemp("", "conform")
	if err != nil {
		return err
	}
	bin := filepath.Join(dir, "sandbox")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/orlop/orlop/test/sandbox").CombinedOutput(); err != nil {
		return fmt.Errorf("build sandbox: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"sandbox", "-cgroup", group, self}, os.Args[1:]...)
	return syscall.Exec(bin, args, append(os.Environ(), insideEnv+"=1"))
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
	for _, a := range strings.Fields("sh true false cat ls id sleep hostname env grep stat mount kill touch head tail mknod mkdir cut tr sed wc readlink pwd printf ps umask test tee") {
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

// runtimes lists ours (or the one asked for) first.
func runtimes(t *testing.T, cache string) []Runtime {
	t.Helper()
	own := Runtime{Name: "orlop-runtime"}
	if *runtimePath != "" {
		p, err := exec.LookPath(*runtimePath)
		if err != nil {
			t.Fatal(err)
		}
		return []Runtime{{Name: filepath.Base(p), Path: p}}
	}
	own.Path = filepath.Join(t.TempDir(), "orlop-runtime")
	cmd := exec.Command("go", "build", "-o", own.Path, "github.com/orlop/orlop/cmd/orlop-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	lib := filepath.Join(unpack(t, cache, "libyajl2"), "usr", "lib", "x86_64-linux-gnu")
	return []Runtime{
		own,
		{Name: "runc", Path: filepath.Join(unpack(t, cache, "runc"), "usr", "sbin", "runc")},
		{Name: "crun", Path: filepath.Join(unpack(t, cache, "crun"), "usr", "bin", "crun"), Env: []string{"LD_LIBRARY_PATH=" + lib}},
	}
}

// TestConformance runs every case on every runtime: ours must pass all, and each
// case must pass on one of the others, unless it says why not.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cache := cacheDir(t)
	root := image(t, cache)
	list := runtimes(t, cache)
	peers := make(map[string]bool)
	count := make(map[string]int)
	all := Cases()
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.ID()] {
			t.Fatalf("two cases are called %s", c.ID())
		}
		seen[c.ID()] = true
	}
	// Peers first, so that a failure of ours can be told from a suspect case.
	for i := len(list) - 1; i >= 0; i-- {
		rt := list[i]
		t.Run(rt.Name, func(t *testing.T) {
			for _, c := range all {
				t.Run(c.ID(), func(t *testing.T) {
					err := runOne(t, rt, c, root)
					switch {
					case err == nil:
						count[rt.Name]++
						peers[c.ID()] = peers[c.ID()] || i > 0
						if i == 0 && len(list) > 1 && !peers[c.ID()] && c.Alone == "" {
							t.Error("suspect: no other runtime passes this case")
						}
					case i > 0:
						t.Logf("%s does not pass: %v", rt.Name, err)
					default:
						t.Errorf("%v (another runtime passes: %v)", err, peers[c.ID()])
					}
				})
			}
		})
	}
	for _, rt := range list {
		t.Logf("%-14s passes %d of %d cases", rt.Name, count[rt.Name], len(all))
	}
}

func runOne(t *testing.T, rt Runtime, c Case, image string) error {
	e, err := Prepare(rt, c, t.TempDir(), image, group)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return c.Run(e)
}
