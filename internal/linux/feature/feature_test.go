package feature

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestEveryFeatureHasANameAndAVersion(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		if strings.HasPrefix(f.String(), "feature ") || f.Since() == "?" || seen[f.String()] {
			t.Errorf("feature %d is called %q, since %q", f, f, f.Since())
		}
		seen[f.String()] = true
	}
	if len(seen) != int(count) {
		t.Errorf("%d names for %d features", len(seen), count)
	}
}

func TestMissingNamesTheFeatureAndKeepsTheCause(t *testing.T) {
	err := error(&Missing{Feature: Openat2, Cause: unix.ENOSYS})
	if !errdefs.IsNotImplemented(err) || !errors.Is(err, unix.ENOSYS) {
		t.Errorf("class of %v", err)
	}
	if got, want := err.Error(), "kernel has no openat2 (since Linux 5.6): function not implemented"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var s Set
	if s.Has(count) {
		t.Error("a feature that does not exist is there")
	}
}

// What the running kernel must have is told by its version: a distribution may
// have more, never less (unless forbidden, which the test's root is not).
func TestProbesAgreeWithTheKernelsVersion(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	before := leftovers(t)
	var s Set
	for _, f := range All() {
		err := s.Err(f)
		t.Logf("%-26s since %-5s %v", f, f.Since(), err)
		if err == nil || !atLeast(release, f.Since()) {
			continue
		}
		var m *Missing
		if !errors.As(err, &m) {
			t.Errorf("%v: %v is not a Missing", f, err)
			continue
		}
		// Configuration may lack a file system or a controller, and the root may
		// be a file system without id maps.
		if f == IDMappedOverlay && errors.Is(m.Cause, unix.EINVAL) && strings.Contains(m.Error(), "idmap the root") {
			continue
		}
		if !errors.Is(m.Cause, unix.ENODEV) && f != CgroupV2 && f != CgroupKill && f != CgroupFreeze {
			t.Errorf("Linux %s has no %v: %v", release, f, err)
		}
	}
	if after := leftovers(t); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
}

// leftovers counts what a probe could leave.
func leftovers(t *testing.T) string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	groups, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/orlop-probe-%d-*", os.Getpid()))
	var b strings.Builder
	for _, f := range fds {
		l, _ := os.Readlink("/proc/self/fd/" + f.Name())
		// The Go poller and the look itself have descriptors of their own.
		if !strings.Contains(l, "anon_inode:[event") && !strings.HasSuffix(l, "/fd") && l != "" {
			b.WriteString(l + " ")
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "orlop-probe") {
		t.Error("the probe's mount is in our namespace")
	}
	return b.String() + strings.Join(groups, " ")
}

func atLeast(release, since string) bool {
	number := func(s string) (major, minor int) {
		for i, p := range strings.SplitN(s, ".", 3) {
			n := 0
			for _, c := range p {
				if c < '0' || c > '9' {
					break
				}
				n = 10*n + int(c-'0')
			}
			switch i {
			case 0:
				major = n
			case 1:
				minor = n
			}
		}
		return major, minor
	}
	a, b := number(release)
	c, d := number(since)
	return a > c || a == c && b >= d
}
