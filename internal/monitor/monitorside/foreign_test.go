package monitorside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/monitor/daemonside"
)

// debian returns the folder where a package of Debian's is unpacked; it is
// fetched once per machine and never installed.
func debian(t *testing.T, pkg string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "orlop", "deb", pkg)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	cmd := exec.Command("sh", "-ec", `apt-get download -q "$1" && dpkg-deb -x "$1"_*.deb out && mkdir -p "$(dirname "$0")" && mv out "$0"`, dir, pkg)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetch %s: %v\n%s", pkg, err, out)
	}
	return dir
}

// peers are the other runtimes.
func peers(t *testing.T) map[string]string {
	t.Helper()
	runc := filepath.Join(debian(t, "runc"), "usr/sbin/runc")
	crun := filepath.Join(t.TempDir(), "crun")
	// crun refuses a host with controllers on v1 and v2, so it does not get to
	// see the v2 ones.
	script := fmt.Sprintf(`#!/bin/sh
export LD_LIBRARY_PATH=%s
exec unshare --mount --propagation slave sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"' %s "$@"
`,
		filepath.Join(debian(t, "libyajl2"), "usr/lib/x86_64-linux-gnu"), filepath.Join(debian(t, "crun"), "usr/bin/crun"))
	if err := os.WriteFile(crun, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"runc": runc, "crun": crun}
}

// layered makes the root of a launch an overlay.
func layered(b *bench, l *container.Launch, id string) {
	b.Helper()
	upper, work := filepath.Join(b.root, id+"-upper"), filepath.Join(b.root, id+"-work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	l.Rootfs = &container.Rootfs{Lower: []string{l.Spec.Root.Path}, Upper: upper, Work: work}
	l.Spec.Root = nil
	l.Spec.Version = "1.0.2"
}

func TestKernelForeignRuntimes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces and cgroups")
	}
	for name, path := range peers(t) {
		foreign := func(b *bench, id string, args ...string) container.Launch {
			l := b.box(id, args...)
			layered(b, &l, id)
			l.Runtime = path
			return l
		}
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			l := foreign(b, "a", "print", "hello")
			s, files := b.attached(false)
			m := b.start(l, files)
			if exit := b.wait(m); exit.Code != 0 {
				t.Errorf("exit %+v", exit)
			}
			if out, _ := all(t, s); out != "hello\n" || b.logged("a") != out {
				t.Errorf("got %q, logged %q", out, b.logged("a"))
			}
			b.gone(m)
			if groupExists(t, l) {
				t.Error("its cgroup is still there")
			}

			_, err := b.l.Start(b.ctx, func() container.Launch {
				l := foreign(b, "b")
				l.Spec.Process.Args = []string{"nope"}
				return l
			}(), daemonside.Files{})
			var failed *daemonside.StartFailed
			if !errors.As(err, &failed) || failed.Code != 127 {
				t.Errorf("got %v", err)
			}
			if left, _ := b.l.Leftovers(); len(left) != 1 {
				t.Errorf("left over: %q", left)
			}

			l = foreign(b, "c", "wait")
			l.Spec.Process.Terminal = true
			s, files = b.attached(true)
			m = b.start(l, files)
			if _, data, err := s.Next(); !strings.HasPrefix(string(data), "waiting") {
				t.Fatalf("%q, %v", data, err)
			}
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
			p := process_("/app", "size")
			p.Terminal = true
			if x, err = m.Exec(b.ctx, daemonside.ExecRequest{ID: "2", Process: p, Stdin: true, Stdout: true}); err != nil {
				t.Fatal(err)
			}
			if err := x.Resize(b.ctx, 11, 22); err != nil {
				t.Error(err)
			}
			if out, _ := all(t, x.Stream()); !strings.HasPrefix(out, "&{11 22 ") {
				t.Errorf("got %q", out)
			}
			if err := errors.Join(m.Pause(b.ctx), m.Resume(b.ctx)); err != nil {
				t.Error(err)
			}
			if err := m.Signal(b.ctx, 15, false); err != nil {
				t.Error(err)
			}
			if exit := b.wait(m); exit.Code != 15 {
				t.Errorf("exit %+v", exit)
			}
			b.gone(m)
			if groupExists(t, l) {
				t.Error("its cgroup is still there")
			}
		})
	}
}
