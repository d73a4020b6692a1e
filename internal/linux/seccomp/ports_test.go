package seccomp

import (
	"runtime"
	"slices"
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// port is a machine and what Docker's default profile calls it (moby/profiles
// seccomp_linux.go, goToNative); also those whose native ABI Go does not have.
type port struct {
	name    string
	goarch  string // "" for none
	machine machine
}

func ports() []port {
	return []port{
		{"amd64", "amd64", x86Machine(0)},
		{"x86", "386", x86Machine(1)},
		{"arm64", "arm64", armMachine(0)},
		{"arm", "arm", armMachine(1)},
		{"mips64", "mips64", mipsMachine(0, true)},
		{"mips64n32", "", mipsMachine(1, true)},
		{"mips", "mips", mipsMachine(2, true)},
		{"mipsel64", "mips64le", mipsMachine(0, false)},
		{"mipsel64n32", "", mipsMachine(1, false)},
		{"mipsel", "mipsle", mipsMachine(2, false)},
		{"s390x", "s390x", s390Machine(0)},
		{"s390", "", s390Machine(1)},
		{"ppc64le", "ppc64le", powerMachine()},
		{"riscv64", "riscv64", riscvMachine()},
		{"loongarch64", "loong64", loongMachine()},
	}
}

// machineOf is the machine of a port.
func machineOf(t testing.TB, name string) machine {
	t.Helper()
	all := ports()
	i := slices.IndexFunc(all, func(p port) bool { return p.name == name })
	if i < 0 {
		t.Fatalf("no port %s", name)
	}
	return all[i].machine
}

func TestEveryArchitectureOfTheDefaultProfileHasATable(t *testing.T) {
	covered := map[specs.Arch]bool{}
	for _, p := range ports() {
		for _, a := range p.machine.abis {
			covered[a.arch] = true
		}
	}
	for _, a := range seccomp.DefaultProfile().ArchMap {
		for _, arch := range append(a.SubArches, a.Arch) {
			if !covered[arch] {
				t.Errorf("no table for %s", arch)
			}
		}
	}
	host, ok := hostMachine()
	if !ok {
		t.Skip("no table for " + runtime.GOARCH)
	}
	for _, p := range ports() {
		if p.goarch == runtime.GOARCH && (p.machine.abis[p.machine.native] != host.abis[host.native] || len(p.machine.table) != len(host.table)) {
			t.Errorf("on %s the machine is %v, want %v", runtime.GOARCH, host.abis, p.machine.abis)
		}
	}
}

// defaultProfileOf is DefaultProfile on another machine with a kernel that is new
// enough for every rule.
func defaultProfileOf(p port, caps []string) *specs.LinuxSeccomp {
	profile := seccomp.DefaultProfile()
	out := profile.LinuxSeccomp
	for _, a := range profile.ArchMap {
		if a.Arch == p.machine.abis[p.machine.native].arch {
			out.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
		}
	}
	has := func(c string) bool { return slices.Contains(caps, c) }
	for _, r := range profile.Syscalls {
		if x := r.Excludes; x != nil && (slices.Contains(x.Arches, p.name) || slices.ContainsFunc(x.Caps, has) || x.MinKernel != nil) {
			continue
		}
		if in := r.Includes; in != nil {
			if len(in.Arches) > 0 && !slices.Contains(in.Arches, p.name) {
				continue
			}
			if slices.ContainsFunc(in.Caps, func(c string) bool { return !has(c) }) {
				continue
			}
		}
		out.Syscalls = append(out.Syscalls, r.LinuxSyscall)
	}
	return &out
}

// The resolver above must be moby's on the machine where both can be asked.
func TestDefaultProfileOfThisMachineIsMobys(t *testing.T) {
	want, err := DefaultProfile(dockerCaps)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports() {
		if p.goarch != runtime.GOARCH {
			continue
		}
		ours, err := compile(defaultProfileOf(p, dockerCaps), p.machine)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := compile(want, p.machine)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ours.prog, theirs.prog) {
			t.Error("the default profile resolved here is not moby's")
		}
	}
}
