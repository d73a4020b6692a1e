package cgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestHierarchies(t *testing.T) {
	for _, c := range []struct {
		name, mountinfo, own, path string
		want                       []string
	}{
		{
			name:      "pure v2",
			mountinfo: "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
			own:       "0::/user.slice/session-1.scope",
			path:      "/orlop/web",
			want:      []string{"v2 [] /sys/fs/cgroup/orlop/web"},
		},
		{
			name:      "pure v2, relative: beside our own group",
			mountinfo: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
			own:       "0::/user.slice/session-1.scope",
			path:      "web",
			want:      []string{"v2 [] /sys/fs/cgroup/user.slice/web"},
		},
		{
			name: "v1 with controllers mounted together, and v2 for systemd",
			mountinfo: `31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 30 0:30 / /mnt/memory rw - cgroup cgroup rw,memory`,
			own:  "11:memory:/a\n5:cpu,cpuacct:/b\n1:name=systemd:/c\n0::/d",
			path: "/orlop/web",
			want: []string{
				"v1 [name=systemd] /sys/fs/cgroup/systemd/orlop/web",
				"v1 [cpu cpuacct] /sys/fs/cgroup/cpu,cpuacct/orlop/web",
				"v1 [memory] /sys/fs/cgroup/memory/orlop/web",
				"v2 [] /sys/fs/cgroup/unified/orlop/web",
			},
		},
		{
			name:      "inside a v1 container: the mount's root is our group",
			mountinfo: `34 30 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory`,
			own:       "11:memory:/docker/abc/inner",
			path:      "web",
			want:      []string{"v1 [memory] /sys/fs/cgroup/memory/inner/web"},
		},
		{
			name:      "a blank in the mount point, the usual place wins",
			mountinfo: "34 30 0:30 / /mnt/my\\040memory rw - cgroup cgroup rw,memory\n35 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n36 30 0:31 / /mnt/my\\040pids rw - cgroup cgroup rw,pids",
			own:       "11:memory:/\n3:pids:/",
			path:      "/../../web",
			want:      []string{"v1 [memory] /sys/fs/cgroup/memory/web", "v1 [pids] /mnt/my pids/web"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := newGroup(Config{Path: c.path, Parent: true}, parse([]byte(c.mountinfo), []byte(c.own), ""))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range g.places {
				v := "v1"
				if p.v2 {
					v = "v2"
				}
				got = append(got, fmt.Sprintf("%s %v %s", v, p.controllers, p.dir))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// The quick way finds what mountinfo says.
func TestUsualPlacesAgreeWithMountinfo(t *testing.T) {
	quick, err := find("", false)
	if err != nil {
		t.Skip(err)
	}
	slow, err := find("", true)
	if err != nil {
		t.Fatal(err)
	}
	text := func(hs []hierarchy) string {
		var l []string
		for _, h := range hs {
			l = append(l, fmt.Sprintf("%+v", h))
		}
		slices.Sort(l)
		return strings.Join(l, "\n")
	}
	if d := cmp.Diff(text(slow), text(quick)); d != "" {
		t.Error(d)
	}
}

func TestPathsThatNameNoGroup(t *testing.T) {
	hs := []hierarchy{{v2: true, mount: "/sys/fs/cgroup", root: "/", self: "/"}}
	for _, c := range []Config{
		{Path: ""}, {Path: "/"}, {Path: "/.."}, {Path: "a\nb"},
		{Path: "x", Systemd: true}, {Path: "a.slice:b:", Systemd: true}, {Path: "a:b:c", Systemd: true}, {Path: "a--b.slice:p:n", Systemd: true}, {Path: "a.slice:p:n/m", Systemd: true},
	} {
		if _, err := newGroup(c, hs); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestScopesLiveWhereSystemdPutsThem(t *testing.T) {
	hs := []hierarchy{{v2: true, mount: "/sys/fs/cgroup", root: "/", self: "/"}}
	for path, want := range map[string]string{
		"system.slice:docker:abc":    "/sys/fs/cgroup/system.slice/docker-abc.scope",
		":docker:abc":                "/sys/fs/cgroup/system.slice/docker-abc.scope",
		"user-1000-x.slice::abc":     "/sys/fs/cgroup/user.slice/user-1000.slice/user-1000-x.slice/abc.scope",
		"-.slice:orlop:abc":          "/sys/fs/cgroup/orlop-abc.scope",
		"machine.slice:libpod:0_x.y": "/sys/fs/cgroup/machine.slice/libpod-0_x.y.scope",
	} {
		g, err := newGroup(Config{Path: path, Systemd: true}, hs)
		if err != nil || g.places[0].dir != want {
			t.Errorf("%s: %v %v", path, g, err)
		}
	}
}

func TestLimitsBecomeUnitProperties(t *testing.T) {
	p, err := planV2(everything(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range properties(p) {
		got = append(got, fmt.Sprintf("%s=%v", x.Name, x.Value))
	}
	want := "TasksMax=100 MemorySwapMax=268435456 MemoryMax=268435456 MemoryLow=134217728 CPUWeight=59 AllowedCPUs=[3] AllowedMemoryNodes=[1] CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=500000"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s\nwant %s", s, want)
	}
	for list, want := range map[string]string{"0-2,5": "[39]", "8": "[0 1]", "x": "[]", "3-1": "[]", "0-99999999": "[]"} {
		b, _ := bitmap(list)
		if s := fmt.Sprintf("%d", b); s != want {
			t.Errorf("%s: %s", list, s)
		}
	}
}
