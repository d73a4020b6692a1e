package rootfs_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/rootfs"
)

func TestThePlanOfARootIsReadable(t *testing.T) {
	s := &specs.Spec{
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755", "strictatime"}},
			{Destination: "data/", Source: "src", Options: []string{"rbind", "ro", "rprivate"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup"},
			{Destination: "/proc/sys", Type: "proc", Options: []string{"remount", "ro"}},
		},
		Linux: &specs.Linux{
			Devices:       []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/own", Type: "b", Major: 7, Minor: 1}},
			MaskedPaths:   []string{"/proc/keys"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
	p, err := rootfs.NewPlan(s, "/bundle")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
mount proc on /proc 
mount tmpfs on /dev mode=755
bind /bundle/src -> /data
cgroup /sys/fs/cgroup
remount /proc/sys
device /dev/null c 1:3
device /dev/own b 7:1
device /dev/zero c 1:5
device /dev/full c 1:7
device /dev/random c 1:8
device /dev/urandom c 1:9
device /dev/tty c 5:0
link /proc/self/fd -> /dev/fd
link /proc/self/fd/0 -> /dev/stdin
link /proc/self/fd/1 -> /dev/stdout
link /proc/self/fd/2 -> /dev/stderr
link /proc/kcore -> /dev/core
link pts/ptmx -> /dev/ptmx
readonly /proc/sys
mask /proc/keys
`, "\n")
	if d := cmp.Diff(want, p.String()); d != "" {
		t.Error(d)
	}
}

func TestABoundDevIsLeftAlone(t *testing.T) {
	s := &specs.Spec{Mounts: []specs.Mount{{Destination: "/dev", Source: "/dev", Options: []string{"bind"}}}, Linux: &specs.Linux{}}
	p, err := rootfs.NewPlan(s, "/")
	if err != nil || len(p) != 1 {
		t.Errorf("%v %s", err, p)
	}
}

func TestMountsThatMakeNoSense(t *testing.T) {
	for name, m := range map[string]specs.Mount{
		"neither a type nor":                     {Destination: "/a"},
		"a bind mount needs a source":            {Destination: "/a", Options: []string{"bind"}},
		"cannot have any filesystem-specific":    {Destination: "/a", Source: "/b", Options: []string{"bind", "size=3"}},
		"the root cannot be mounted over":        {Destination: "/", Type: "tmpfs"},
		"only bind mounts can be idmapped":       {Destination: "/a", Type: "tmpfs", Options: []string{"idmap"}},
		"tmpcopyup is an option of tmpfs":        {Destination: "/a", Source: "/b", Options: []string{"bind", "tmpcopyup"}},
		`mount option "a\x00b" holds a NUL byte`: {Destination: "/a", Type: "tmpfs", Options: []string{"a\x00b"}},
	} {
		_, err := rootfs.NewPlan(&specs.Spec{Mounts: []specs.Mount{m}, Linux: &specs.Linux{}}, "/")
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
}
