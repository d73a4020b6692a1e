package cgroup

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/testkit/mutation"
)

// FuzzResources shakes limits and looks at what would be written: only into
// control files of the group itself, and a device program that means its list.
func FuzzResources(f *testing.F) {
	words := []string{
		"", "a", "b", "c", "rwm", "r", "mw", "x", "2MB", "1GB", "../../x", "2MB/../..", "memory.high", "cpu.weight", "../cgroup.procs",
		"cgroup.procs", "io.max", "max", "1:2 max", "\n", "lo", "mlx5_0", "0-3,7", "memory", "unified", "\x00",
	}
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x01\x02\x03\x04\x05\x06"), []byte("\x00\x00\x01\x02\x02\x03\x03\x04"))
	f.Fuzz(func(t *testing.T, data, devices []byte) {
		limit, weight := int64(1<<20), uint16(100)
		r := &specs.LinuxResources{
			Memory:  &specs.LinuxMemory{Limit: &limit},
			CPU:     &specs.LinuxCPU{},
			BlockIO: &specs.LinuxBlockIO{Weight: &weight, WeightDevice: []specs.LinuxWeightDevice{{Weight: &weight}}},
			Unified: map[string]string{"memory.high": "1"},
		}
		mutation.Apply(r, data, words)
		mutation.Apply(&r.Devices, devices, words)
		for name, make := range map[string]func() (plan, error){
			"v1": func() (plan, error) { return planV1(r) },
			"v2": func() (plan, error) { return planV2(r, func() int64 { return 0 }) },
		} {
			p, err := make()
			if err != nil {
				if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
					t.Fatalf("%s: refused without a class: %v", name, err)
				}
				continue
			}
			_ = p.String()
			for _, w := range p.writes {
				for _, file := range []string{w.file, w.instead} {
					if strings.ContainsAny(file, "/\x00") || file == ".." {
						t.Fatalf("%s: writes to %q", name, file)
					}
				}
				if w.file == "" || strings.HasPrefix(w.file, "cgroup.") {
					t.Fatalf("%s: %s", name, w)
				}
			}
		}
		rules, err := rulesOf(r.Devices)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("devices: refused without a class: %v", err)
			}
			return
		}
		prog := deviceProgram(rules)
		ids := []deviceID{{kind: 'c', major: 1, minor: 3}, {kind: 'b', major: 8, minor: 0}}
		for _, d := range r.Devices {
			for _, kind := range "bc" {
				id := deviceID{kind: byte(kind), major: 7, minor: 9}
				if d.Major != nil && *d.Major >= 0 {
					id.major = *d.Major
				}
				if d.Minor != nil && *d.Minor >= 0 {
					id.minor = *d.Minor
				}
				ids = append(ids, id)
			}
		}
		for _, id := range ids {
			for want := access(1); want < 8; want++ {
				if got, means := interpret(t, prog, id, want), verdict(rules, id, want); got != means {
					t.Fatalf("%v %v: program says %t, list %t\n%s", id, want, got, means, rules)
				}
			}
		}
	})
}

// FuzzPath: whatever a configuration names, its group lies below the mounts of
// the hierarchies and is none of their roots.
func FuzzPath(f *testing.F) {
	f.Add("/a/b", false)
	f.Add("../../../../x", false)
	f.Add("a-b.slice:orlop:x", true)
	f.Add(":..:..", true)
	f.Fuzz(func(t *testing.T, name string, systemd bool) {
		for _, self := range []string{"/", "/user.slice/x"} {
			hs := []hierarchy{
				{controllers: []string{"cpu"}, mount: "/mnt/cpu", root: "/", self: self},
				{v2: true, mount: "/mnt/v2", root: "/", self: self},
			}
			g, err := newGroup(Config{Path: name, Systemd: systemd}, hs)
			if err != nil {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatal(err)
				}
				return
			}
			for _, p := range g.places {
				if !strings.HasPrefix(p.dir, p.mount+"/") || strings.Contains(p.dir, "/../") || strings.HasSuffix(p.dir, "/..") {
					t.Fatalf("%q (systemd %t) is %q of %s", name, systemd, p.dir, p.mount)
				}
			}
		}
	})
}
