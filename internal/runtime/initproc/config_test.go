package initproc

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// full is a configuration in which every field has a value, so that a field the
// codec forgets shows.
func full() *Config {
	mode, id, umask := os.FileMode(0o640), uint32(1<<31), uint32(0o27)
	return &Config{
		Exec: true, ID: "id", RootPath: "/r", Root: -1, Prepared: map[int]int{3: 7}, Propagation: "rshared", ReadonlyRoot: true,
		MountLabel: "label", Hostname: "h", Domainname: "d", Sysctl: map[string]string{"a": "b"}, Seccomp: []byte{0, 1, 255},
		Extra: 2, Gate: -1, Cgroups: map[string]string{"cpu": "/c"}, RuntimeHooks: true, NewNetNS: true, CgroupNS: true, UserNS: true,
		DenySetgroups: true, NoPivot: true, NoNewKeyring: true,
		Plan: rootfs.Plan{
			{Kind: rootfs.Bind, Source: "/s", Dest: "/d", Type: "bind", Mount: 5, Options: mount.Options{
				Set: 1, Clear: 2, TreeSet: 1 << 40, TreeClear: 4, Super: []string{"ro"}, Data: []string{"a=b"}, Propagation: []uint64{1, 2},
				Bind: true, Recursive: true, Remount: true, CopyUp: true, IDMap: true, TreeIDMap: true,
			}},
			{Kind: rootfs.Device, Dest: "/dev/x", Node: &specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 1, Minor: -1, FileMode: &mode, UID: &id, GID: &id}},
		},
		Overlay: &rootfs.Overlay{Lower: []string{"a", ""}, Upper: "u", Work: "w", Volatile: true},
		Process: &specs.Process{
			Terminal: true, NoNewPrivileges: true, Args: []string{"sh", ""}, Env: []string{"A=ü"}, Cwd: "/", ApparmorProfile: "p", SelinuxLabel: "s",
			User: specs.User{UID: 1, GID: id, AdditionalGids: []uint32{5}, Umask: &umask}, ConsoleSize: &specs.Box{Height: 1, Width: 2},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 1, Hard: ^uint64(0)}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"A"}, Effective: []string{"B"}, Inheritable: []string{"C"}, Permitted: []string{"D"}, Ambient: []string{"E"}},
		},
		Rare: Rare{State: &specs.State{ID: "x"}, CreateContainer: []specs.Hook{{Path: "/h"}}, Personality: &specs.LinuxPersonality{Domain: "LINUX32"}},
	}
}

func TestAConfigurationArrivesAsItWasSent(t *testing.T) {
	for name, c := range map[string]*Config{"full": full(), "empty": {}} {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeConfig(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		for n := range b {
			if _, err := DecodeConfig(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes were enough", name, n, len(b))
			}
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	b, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, in []byte) { _, _ = DecodeConfig(in) })
}
