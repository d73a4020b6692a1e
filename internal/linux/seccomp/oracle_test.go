package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// oracle builds the C helper over libseccomp, the library every other runtime
// uses. It is a test tool only: nothing of ours links it.
func oracle(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skipf("the oracle's calls are those of amd64, this is %s", runtime.GOARCH)
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to build the oracle with (apt-get install gcc)")
	}
	out := filepath.Join(t.TempDir(), "oracle")
	if msg, err := exec.Command(gcc, "-O1", "-o", out, "testdata/oracle.c", "-lseccomp").CombinedOutput(); err != nil {
		if _, statErr := os.Stat("/usr/include/seccomp.h"); statErr != nil {
			t.Skip("no libseccomp headers (apt-get install libseccomp-dev)")
		}
		t.Fatalf("build the oracle: %v\n%s", err, msg)
	}
	return out
}

func ask(t *testing.T, oracle, question string) (answer []byte, unknown []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(oracle)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(question), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("oracle: %v: %s%s", err, stdout.String(), stderr.String())
	}
	return stdout.Bytes(), strings.Fields(stderr.String())
}

func program(t *testing.T, raw []byte) []unix.SockFilter {
	t.Helper()
	if len(raw) == 0 || len(raw)%8 != 0 {
		t.Fatalf("oracle wrote %d bytes", len(raw))
	}
	out := make([]unix.SockFilter, len(raw)/8)
	if _, err := binary.Decode(raw, binary.LittleEndian, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// libseccompArch is the library's name of an architecture.
func libseccompArch(a specs.Arch) string {
	return strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_"))
}

// question writes a profile as runc hands it to the library: rules equal to
// the default are left out, and conditions that name an argument twice become
// rules of their own.
func question(t *testing.T, p *specs.LinuxSeccomp, m machine) string {
	t.Helper()
	// The library has numbers of its own for two actions.
	action := func(a specs.LinuxSeccompAction, errno *uint) string {
		v := mustAction(a, errno)
		return fmt.Sprintf("%#x", v)
	}
	var b strings.Builder
	def := action(p.DefaultAction, p.DefaultErrnoRet)
	fmt.Fprintf(&b, "default %s\n", def)
	for _, a := range p.Architectures {
		fmt.Fprintf(&b, "arch %s\n", libseccompArch(a))
	}
	if native := m.abis[m.native].arch; native != specs.ArchX86_64 {
		fmt.Fprintf(&b, "arch %s\nforeign\n", libseccompArch(native))
	}
	for _, r := range p.Syscalls {
		act := action(r.Action, r.ErrnoRet)
		if act == def {
			continue
		}
		twice, seen := false, map[uint]bool{}
		var args []string
		for _, a := range r.Args {
			twice = twice || seen[a.Index]
			seen[a.Index] = true
			// enum scmp_compare
			number := map[specs.LinuxSeccompOperator]int{specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3,
				specs.OpEqualTo: 4, specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7}[a.Op]
			args = append(args, fmt.Sprintf(" %d %d %d %d", a.Index, number, a.Value, a.ValueTwo))
		}
		for _, n := range r.Names {
			switch {
			case twice:
				for _, a := range args {
					fmt.Fprintf(&b, "rule %s %s%s\n", act, n, a)
				}
			default:
				fmt.Fprintf(&b, "rule %s %s%s\n", act, n, strings.Join(args, ""))
			}
		}
	}
	return b.String()
}

// without removes calls from a profile.
func without(p *specs.LinuxSeccomp, names []string) *specs.LinuxSeccomp {
	out := *p
	out.Syscalls = nil
	for _, r := range p.Syscalls {
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return slices.Contains(names, n) })
		if len(r.Names) > 0 {
			out.Syscalls = append(out.Syscalls, r)
		}
	}
	return &out
}

// The compiler lays calls out by number: two rows of one would hide each other.
func TestNoNumberHasTwoRows(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		m, _ := machineFor(goarch)
		if !slices.IsSortedFunc(m.table, func(a, b row) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("%s: the table is not sorted", goarch)
		}
		for i, a := range m.abis {
			seen := map[int32]string{}
			for _, r := range m.table {
				if nr := r.nr[i]; nr >= 0 && seen[nr] != "" {
					t.Errorf("%s: %d is %s and %s", a.arch, nr, seen[nr], r.name)
				} else {
					seen[nr] = r.name
				}
			}
		}
	}
}

func TestTablesAgreeWithLibseccomp(t *testing.T) {
	o := oracle(t)
	for _, goarch := range []string{"amd64", "arm64"} {
		m, _ := machineFor(goarch)
		for i, a := range m.abis {
			var q strings.Builder
			for _, r := range m.table {
				fmt.Fprintf(&q, "number %s %s\n", libseccompArch(a.arch), r.name)
			}
			answer, _ := ask(t, o, q.String())
			same, newer := 0, 0
			lines := strings.Split(strings.TrimSpace(string(answer)), "\n")
			for j, l := range lines {
				name, number, _ := strings.Cut(l, " ")
				theirs, err := strconv.Atoi(number)
				if err != nil || name != m.table[j].name {
					t.Fatalf("oracle's line %q for %s", l, m.table[j].name)
				}
				ours := int(m.table[j].nr[i])
				switch {
				case theirs == ours:
					same++
				case ours < 0 && theirs < 0:
					same++ // the library numbers what does not exist below 0
				case theirs < 0 && (ours&^x32Bit) > 330:
					newer++ // the installed library is older than the table
				default:
					t.Errorf("%s %s: table has %d, libseccomp %d", a.arch, name, ours, theirs)
				}
			}
			t.Logf("%s: %d of %d calls agree, %d are newer than the installed library", a.arch, same, len(lines), newer)
		}
	}
}

func TestDefaultProfileAgreesWithLibseccomp(t *testing.T) {
	o := oracle(t)
	m, _ := machineFor("amd64")
	all := make([]string, 0, len(dockerCaps)+4)
	all = append(all, dockerCaps...)
	all = append(all, "CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_MODULE")
	for name, caps := range map[string][]string{"default": dockerCaps, "none": nil, "all": all} {
		t.Run(name, func(t *testing.T) {
			p, err := DefaultProfile(caps)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(p.Architectures, specs.ArchX32) || !slices.Contains(p.Architectures, specs.ArchX86) {
				t.Fatalf("profile covers %v", p.Architectures)
			}
			compareWithLibrary(t, o, m, p)
		})
	}
}

// On arm the profile has four rules more (moby/profiles/seccomp, "arches": arm, arm64).
func TestDefaultProfileOnArmAgreesWithLibseccomp(t *testing.T) {
	o := oracle(t)
	for _, goarch := range []string{"arm64", "arm"} {
		t.Run(goarch, func(t *testing.T) {
			m, _ := machineFor(goarch)
			p, err := DefaultProfile(dockerCaps)
			if err != nil {
				t.Fatal(err)
			}
			p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
				Names: []string{"arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"}, Action: specs.ActAllow,
			})
			compareWithLibrary(t, o, m, p)
		})
	}
}

// One rule a call: what the library does with several is not defined.
func TestRandomProfilesAgreeWithLibseccomp(t *testing.T) {
	o := oracle(t)
	for _, goarch := range []string{"amd64", "arm64"} {
		m, _ := machineFor(goarch)
		archs := []specs.Arch{specs.ArchX86, specs.ArchX32}
		if goarch == "arm64" {
			archs = []specs.Arch{specs.ArchARM}
		}
		for seed := range uint64(12) {
			r := rand.New(rand.NewPCG(seed, 3))
			p := randomProfile(r, m, archs)
			p.DefaultAction, p.DefaultErrnoRet = specs.ActErrno, nil
			p.Architectures = archs
			// The library knows arm's sync_file_range2 by its other name only.
			seen := map[string]bool{"socketcall": true, "ipc": true, "sync_file_range2": true}
			for i := range p.Syscalls {
				s := &p.Syscalls[i]
				if s.Action == specs.ActNotify {
					s.Action, s.ErrnoRet = specs.ActAllow, nil
				}
				// Two conditions on one argument are two rules, of which the library
				// loses one: "arg <= 2" hides "arg < 2^64-1".
				var used [6]bool
				s.Args = slices.DeleteFunc(s.Args, func(a specs.LinuxSeccompArg) bool {
					again := used[a.Index]
					used[a.Index] = true
					return again
				})
				s.Names = slices.DeleteFunc(s.Names, func(n string) bool {
					through, _ := muxed(n)
					again := seen[n] || through != ""
					seen[n] = true
					return again
				})
			}
			p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
			compareWithLibrary(t, o, m, p)
		}
	}
}

func TestConditionsAgreeWithLibseccomp(t *testing.T) {
	// One rule a call, so that nothing depends on an order the library does
	// not define.
	o := oracle(t)
	m, _ := machineFor("amd64")
	for _, v := range interesting {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
		calls := []string{"read", "clone", "socket", "shmget", "personality", "mmap", "ioctl"}
		for i, op := range operators {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
				Names: calls[i : i+1], Action: []specs.LinuxSeccompAction{specs.ActAllow, specs.ActTrace, specs.ActKillProcess}[i%3],
				Args: []specs.LinuxSeccompArg{
					{Index: uint(i % 6), Value: v, ValueTwo: interesting[i], Op: op},
					{Index: uint(i+1) % 6, Value: interesting[2*i], ValueTwo: v, Op: operators[6-i]},
				},
			})
		}
		compareWithLibrary(t, o, m, p)
	}
}

// compareWithLibrary runs both programs over every call of every ABI and a
// choice of arguments. Calls the library is too old for are left out of the
// profile, and numbers it has no rule for are compared with what runc's
// ENOSYS stub makes of the library's answer.
func compareWithLibrary(t *testing.T, o string, m machine, p *specs.LinuxSeccomp) {
	t.Helper()
	_, unknown := ask(t, o, question(t, p, m))
	p = without(p, unknown)
	raw, _ := ask(t, o, question(t, p, m))
	f, err := compile(p, m)
	if err != nil {
		t.Fatal(err)
	}
	theirProgram := program(t, raw)
	run := func(prog []unix.SockFilter, c call) uint32 {
		v, err := interpret(prog, &c)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	newest := map[specs.Arch]uint32{}
	for _, r := range p.Syscalls {
		for _, n := range r.Names {
			if k := m.lookup(n); k >= 0 {
				for i, a := range m.abis {
					if nr := m.table[k].nr[i]; nr >= 0 && (a.private == 0 || uint32(nr) < a.private) {
						newest[a.arch] = max(newest[a.arch], uint32(nr))
					}
				}
			}
		}
	}
	values := slices.Concat(interesting, []uint64{8, 16, 38, 39, 40, 0x20000, 0x20008, 0x7e020000, 0x10000000})
	compared := 0
	for i, a := range m.abis {
		for off := range uint32(640) {
			c := call{nr: a.base + off, arch: a.audit}
			if off >= 620 { // private calls, or just above all others
				c.nr = a.base + max(a.private, 1000) + off - 620
			}
			for _, v := range values {
				for pos := range 3 {
					c.args = [6]uint64{v, v, v, v, v, v}
					if pos > 0 {
						c.args = [6]uint64{uint64(pos), v, 0, v, 1, 2}
					}
					got, want := run(f.prog, c), run(theirProgram, c)
					// A profile that names no call of an ABI says nothing about its age.
					if last, named := newest[a.arch]; named && c.nr > last && (a.private == 0 || c.nr < a.private) && p.DefaultAction == specs.ActErrno {
						want = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
					}
					if got != want {
						t.Fatalf("%s call %+v: filter says %#x, libseccomp %#x", m.abis[i].arch, c, got, want)
					}
					compared++
				}
			}
		}
	}
	for _, c := range []call{{nr: noCall, arch: unix.AUDIT_ARCH_X86_64}, {nr: 0, arch: unix.AUDIT_ARCH_ARM}, {nr: 1, arch: 0}} {
		if got, want := run(f.prog, c), run(theirProgram, c); got != want {
			t.Errorf("call %+v: filter says %#x, libseccomp %#x", c, got, want)
		}
	}
	if testing.Verbose() {
		t.Logf("%d calls compared; %d instructions, libseccomp %d; the library does not know %v", compared, f.Len(), len(theirProgram), unknown)
	}
}
