package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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

// Making a filter for the other byte order, the library swaps the action of
// some far returns twice (seen with 2.5.4: 0x01000500 for 0x00050001), which it
// cannot do on such a machine itself; asked are the actions it can have meant.
func program(t *testing.T, raw []byte, big bool, asked map[uint32]bool) []unix.SockFilter {
	t.Helper()
	if len(raw) == 0 || len(raw)%8 != 0 {
		t.Fatalf("oracle wrote %d bytes", len(raw))
	}
	out := make([]unix.SockFilter, len(raw)/8)
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	if _, err := binary.Decode(raw, order, out); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		in := &out[i]
		if swapped := bits.ReverseBytes32(in.K); big && in.Code == retK && !asked[in.K] && asked[swapped] {
			in.K = swapped
		}
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
	// First, because a filter of the library has one byte order.
	if native := m.abis[m.native].arch; native != specs.ArchX86_64 {
		fmt.Fprintf(&b, "foreign\narch %s\n", libseccompArch(native))
	}
	for _, a := range p.Architectures {
		fmt.Fprintf(&b, "arch %s\n", libseccompArch(a))
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
	for _, p := range ports() {
		m := p.machine
		if !slices.IsSortedFunc(m.table, func(a, b row) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("%s: the table is not sorted", p.name)
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

// knows asks which ABIs the installed library has.
func knows(t *testing.T, o string, a specs.Arch) bool {
	t.Helper()
	answer, _ := ask(t, o, "knows "+libseccompArch(a)+"\n")
	return strings.HasSuffix(strings.TrimSpace(string(answer)), " yes")
}

// standIn is a machine as far as the library can be asked about it: an ABI that
// it does not know has the generic table of calls, which is also aarch64's.
func standIn(t *testing.T, o string, p port) machine {
	t.Helper()
	m := p.machine
	m.abis = slices.Clone(m.abis)
	for i := range m.abis {
		a := &m.abis[i]
		if knows(t, o, a.arch) {
			continue
		}
		version, _ := ask(t, o, "version\n")
		t.Logf("libseccomp %s does not know %s: it is asked about aarch64 in its place", strings.TrimSpace(string(version)), a.arch)
		a.arch, a.audit = specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64
	}
	return m
}

// alias are calls that the library has under the other one of two names.
var alias = map[string]string{"sync_file_range2": "arm_sync_file_range"}

// Both ways: each number means the same call to both, unless the library knows
// no such call on any machine.
func TestTablesAgreeWithLibseccomp(t *testing.T) {
	o := oracle(t)
	unknown := unknownTo(t, o)
	seen := map[specs.Arch]bool{}
	for _, p := range ports() {
		m := standIn(t, o, p)
		stands := m.abis[m.native].arch != p.machine.abis[m.native].arch
		for i, a := range m.abis {
			if seen[p.machine.abis[i].arch] {
				continue
			}
			seen[p.machine.abis[i].arch] = true
			ours := map[int]string{}
			for _, r := range m.table {
				if r.nr[i] >= 0 {
					ours[int(r.nr[i])] = r.name
				}
			}
			var q strings.Builder
			for nr := range 1024 {
				fmt.Fprintf(&q, "name %s %d\n", libseccompArch(a.arch), int(a.base)+nr)
			}
			for nr := range int(min(a.private, 16)) {
				fmt.Fprintf(&q, "name %s %d\n", libseccompArch(a.arch), int(a.private)+nr)
			}
			answer, _ := ask(t, o, q.String())
			same, newer, older := 0, []string{}, []string{}
			for line := range strings.Lines(string(answer)) {
				var nr int
				var theirs string
				if _, err := fmt.Sscan(line, &nr, &theirs); err != nil {
					t.Fatalf("oracle's line %q: %v", line, err)
				}
				name, has := ours[nr]
				switch {
				case theirs == "-" && !has:
				case theirs == name || theirs == alias[name]:
					same++
				case theirs == "-" && unknown[name]:
					newer = append(newer, name)
				case stands && !has:
					older = append(older, theirs) // calls that the newer machine never had
				default:
					t.Errorf("%s %d: the table has %q, libseccomp %q", a.arch, nr, name, theirs)
				}
			}
			if same < 250 {
				t.Errorf("%s: only %d calls were compared", a.arch, same)
			}
			t.Logf("%s %s: %d calls agree; the library does not know %v, of its own are %v", p.name, a.arch, same, newer, older)
		}
	}
}

// unknownTo are the calls of our tables that the library has on no machine.
func unknownTo(t *testing.T, o string) map[string]bool {
	t.Helper()
	var q strings.Builder
	for _, p := range ports() {
		for _, r := range p.machine.table {
			fmt.Fprintf(&q, "number x86_64 %s\n", r.name)
		}
	}
	answer, _ := ask(t, o, q.String())
	out := map[string]bool{}
	for line := range strings.Lines(string(answer)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), " -1"); ok { // __NR_SCMP_ERROR
			out[name] = true
		}
	}
	return out
}

// confusedBy are calls that the library takes for others: it has a number of
// its own for each call that this machine does not have, and gives some twice
// (2.5.4: sys_debug_setcontext and switch_endian).
func confusedBy(t *testing.T, o string) map[string]bool {
	t.Helper()
	var names, numbers strings.Builder
	for _, p := range ports() {
		for _, r := range p.machine.table {
			fmt.Fprintf(&names, "number x86_64 %s\n", r.name)
		}
	}
	answer, _ := ask(t, o, names.String())
	asked := map[string]string{} // name → number
	var list []string
	for line := range strings.Lines(string(answer)) {
		name, nr, _ := strings.Cut(strings.TrimSpace(line), " ")
		fmt.Fprintf(&numbers, "name x86_64 %s\n", nr)
		list = append(list, name)
		asked[name] = nr
	}
	answer, _ = ask(t, o, numbers.String())
	out := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSpace(string(answer)), "\n") {
		_, name, _ := strings.Cut(line, " ")
		if name != list[i] && name != "-" && asked[list[i]] != "-1" {
			out[list[i]] = true
		}
	}
	t.Logf("libseccomp takes %v for others", slices.Sorted(maps.Keys(out)))
	return out
}

func TestDefaultProfileAgreesWithLibseccomp(t *testing.T) {
	o := oracle(t)
	all := slices.Concat(dockerCaps, []string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_MODULE"})
	for _, p := range ports() {
		for name, caps := range map[string][]string{"default": dockerCaps, "none": nil, "all": all} {
			if p.machine.native != 0 && name != "default" {
				continue // the same tables once more
			}
			t.Run(p.name+"/"+name, func(t *testing.T) {
				profile, m := defaultProfileOf(p, caps), standIn(t, o, p)
				if m.abis[m.native].arch != p.machine.abis[m.native].arch {
					profile.Architectures = nil
					profile = without(profile, notOf(m, armMachine(0)))
				}
				compareWithLibrary(t, o, m, profile)
			})
		}
	}
}

// notOf are calls of the other machine's native ABI that m has not.
func notOf(m, other machine) []string {
	var out []string
	for _, r := range other.table {
		if r.nr[other.native] < 0 {
			continue
		}
		if k := m.lookup(r.name); k < 0 || m.table[k].nr[m.native] < 0 {
			out = append(out, r.name)
		}
	}
	return out
}

// One rule a call: what the library does with several is not defined.
func TestRandomProfilesAgreeWithLibseccomp(t *testing.T) {
	o := oracle(t)
	confused := confusedBy(t, o)
	for _, p := range ports() {
		m := p.machine
		if m.native != 0 || !knows(t, o, m.abis[0].arch) {
			continue // the same tables once more, or TestDefaultProfileAgreesWithLibseccomp says so
		}
		var archs []specs.Arch
		for i, a := range m.abis {
			if i != m.native {
				archs = append(archs, a.arch)
			}
		}
		for seed := range uint64(4) {
			r := rand.New(rand.NewPCG(seed, 3))
			p := randomProfile(r, m, archs)
			p.DefaultAction, p.DefaultErrnoRet = specs.ActErrno, nil
			p.Architectures = archs
			// The library knows arm's sync_file_range2 by its other name only.
			seen := map[string]bool{"socketcall": true, "ipc": true, "sync_file_range2": true}
			maps.Copy(seen, confused)
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
	m := machineOf(t, "amd64")
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
	asked := map[uint32]bool{mustAction(p.DefaultAction, p.DefaultErrnoRet): true, unix.SECCOMP_RET_KILL_THREAD: true}
	for _, r := range p.Syscalls {
		asked[mustAction(r.Action, r.ErrnoRet)] = true
	}
	theirProgram := program(t, raw, m.big, asked)
	run := func(prog []unix.SockFilter, c call) uint32 {
		v, err := interpret(prog, m.big, &c)
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
					if i != m.native && !slices.Contains(p.Architectures, a.arch) {
						continue // it is not covered
					}
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
		through := map[uint32]bool{}
		for _, name := range []string{"socketcall", "ipc"} {
			if k := m.lookup(name); k >= 0 && m.table[k].nr[i] >= 0 {
				through[uint32(m.table[k].nr[i])] = true
			}
		}
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
					got := run(f.prog, c)
					if through[c.nr] && a.mux {
						// The library compares the number of a call behind socketcall and
						// ipc with 64 bits on some machines, the kernel has an int.
						c.args[0] = uint64(uint32(c.args[0]))
					}
					want := run(theirProgram, c)
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
	odd := []call{{nr: 0, arch: unix.AUDIT_ARCH_PARISC}, {nr: 1, arch: 0}}
	for _, a := range m.abis {
		odd = append(odd, call{nr: 0, arch: a.audit})
		if a.base != 0 && a.base != x32Bit {
			odd = append(odd, call{nr: a.base - 1, arch: a.audit})
		}
	}
	for _, c := range odd {
		if got, want := run(f.prog, c), run(theirProgram, c); got != want {
			t.Errorf("call %+v: filter says %#x, libseccomp %#x", c, got, want)
		}
	}
	if testing.Verbose() {
		t.Logf("%d calls compared; %d instructions, libseccomp %d; the library does not know %v", compared, f.Len(), len(theirProgram), unknown)
	}
}
