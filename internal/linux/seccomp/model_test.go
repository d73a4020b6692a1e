package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is what the kernel shows a filter.
type call struct {
	nr, arch uint32
	args     [6]uint64
}

// machineVM runs a filter in the interpreter of x/net/bpf, which reads words
// in network order.
type machineVM struct{ vm *bpf.VM }

func newVM(t testing.TB, prog []unix.SockFilter) machineVM {
	t.Helper()
	raw := make([]bpf.Instruction, len(prog))
	for i, p := range prog {
		raw[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}.Disassemble()
	}
	vm, err := bpf.NewVM(raw)
	if err != nil {
		t.Fatalf("invalid program: %v", err)
	}
	return machineVM{vm}
}

func (m machineVM) run(t testing.TB, big bool, c call) uint32 {
	t.Helper()
	var b [64]byte
	binary.BigEndian.PutUint32(b[0:], c.nr)
	binary.BigEndian.PutUint32(b[4:], c.arch)
	for i, a := range c.args {
		lower, upper := b[16+8*i:], b[20+8*i:]
		if big {
			lower, upper = upper, lower
		}
		binary.BigEndian.PutUint32(lower, uint32(a))
		binary.BigEndian.PutUint32(upper, uint32(a>>32))
	}
	v, err := m.vm.Run(b[:])
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

// model says what a profile means, rule by rule, without any cleverness; the
// compiler is compared with it.
func model(p *specs.LinuxSeccomp, m machine, c call) uint32 {
	def := mustAction(p.DefaultAction, p.DefaultErrnoRet)
	which := -1
	for i, a := range m.abis {
		covered := i == m.native || slices.Contains(p.Architectures, a.arch)
		if covered && a.audit == c.arch && (a.audit != unix.AUDIT_ARCH_X86_64 || (c.nr >= x32Bit) == (a.base == x32Bit)) {
			which = i
		}
	}
	audits := slices.ContainsFunc(m.abis, func(a abi) bool {
		return a.audit == c.arch && (slices.Contains(p.Architectures, a.arch) || a.arch == m.abis[m.native].arch)
	})
	if audits && c.nr == noCall {
		return def
	}
	if which < 0 {
		return unix.SECCOMP_RET_KILL_THREAD
	}
	a := m.abis[which]
	number := func(name string) int64 {
		if k := m.lookup(name); k >= 0 && m.table[k].nr[which] >= 0 {
			return int64(m.table[k].nr[which])
		}
		return -1
	}
	newest := int64(-1)
	var always, sometimes []uint32
	for _, r := range p.Syscalls {
		act := mustAction(r.Action, r.ErrnoRet)
		for _, n := range r.Names {
			nr := number(n)
			if nr >= 0 && (a.private == 0 || nr < int64(a.private)) {
				newest = max(newest, nr)
			}
			through, id := "", uint32(0)
			if a.mux {
				through, id = muxed(n)
				if through != "" && act != def {
					newest = max(newest, number(through))
				}
			}
			if act == def {
				continue
			}
			direct := nr == int64(c.nr)
			viaMux := through != "" && number(through) == int64(c.nr)
			if !direct && !viaMux {
				continue
			}
			holds := func(x specs.LinuxSeccompArg) bool {
				if viaMux && x.Index == 0 {
					return true
				}
				arg, v, v2 := c.args[x.Index], x.Value, x.ValueTwo
				if !a.wide {
					arg, v, v2 = uint64(uint32(arg)), uint64(uint32(v)), uint64(uint32(v2))
				}
				switch x.Op {
				case specs.OpEqualTo:
					return arg == v
				case specs.OpNotEqual:
					return arg != v
				case specs.OpLessThan:
					return arg < v
				case specs.OpLessEqual:
					return arg <= v
				case specs.OpGreaterEqual:
					return arg >= v
				case specs.OpGreaterThan:
					return arg > v
				}
				return arg&v == v2&v
			}
			muxOK := !viaMux || uint32(c.args[0]) == id
			if len(r.Args) == 0 && !viaMux {
				always = append(always, act)
				continue
			}
			twice := map[uint]int{}
			either := false
			for _, x := range r.Args {
				twice[x.Index]++
				either = either || twice[x.Index] > 1
			}
			match := muxOK
			if either {
				match = muxOK && slices.ContainsFunc(r.Args, holds)
			} else {
				for _, x := range r.Args {
					match = match && holds(x)
				}
			}
			if match {
				sometimes = append(sometimes, act)
			}
		}
	}
	if len(always) > 0 {
		return always[0]
	}
	if len(sometimes) > 0 {
		return sometimes[0]
	}
	permissive := p.DefaultAction == specs.ActAllow || p.DefaultAction == specs.ActLog || p.DefaultAction == specs.ActTrace
	if newest >= 0 && int64(c.nr) > newest && (a.private == 0 || c.nr < a.private) && !permissive {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return def
}

func mustAction(a specs.LinuxSeccompAction, errno *uint) uint32 {
	v, err := actionOf(a, errno)
	if err != nil {
		panic(err)
	}
	return v
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

var actions = []specs.LinuxSeccompAction{
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
}

// interesting values make comparisons fall on both sides and on the edge.
var interesting = []uint64{0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 | 1, 2<<32 | 1, 1<<63 | 1, ^uint64(0), 0xdeadbeefcafe}

func pick[T any](r *rand.Rand, s []T) T { return s[r.IntN(len(s))] }

// randomProfile makes a profile; small ones hit edges, large ones far jumps.
func randomProfile(r *rand.Rand, m machine, archs []specs.Arch) *specs.LinuxSeccomp {
	errno := func(a specs.LinuxSeccompAction) *uint {
		if (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			v := uint(r.IntN(200))
			return &v
		}
		return nil
	}
	p := &specs.LinuxSeccomp{DefaultAction: pick(r, actions[:8])}
	p.DefaultErrnoRet = errno(p.DefaultAction)
	for _, a := range archs {
		if r.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	for range r.IntN(1 << (1 + r.IntN(6))) {
		s := specs.LinuxSyscall{Action: pick(r, actions)}
		s.ErrnoRet = errno(s.Action)
		for range 1 + r.IntN(1<<r.IntN(7)) {
			name := pick(r, m.table).name
			switch {
			case s.Action == specs.ActNotify && name == "write":
				continue
			case r.IntN(8) == 0:
				name = pick(r, []string{"socket", "socketcall", "ipc", "shmat", "clone", "send", "semop"})
			}
			s.Names = append(s.Names, name)
		}
		if s.Names == nil {
			continue
		}
		if r.IntN(2) == 0 {
			for range 1 + r.IntN(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{
					Index: uint(r.IntN(6)), Op: pick(r, operators), Value: pick(r, interesting), ValueTwo: pick(r, interesting),
				})
			}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func TestCompiledProfilesMeanWhatTheModelSays(t *testing.T) {
	for _, p := range ports() {
		t.Run(p.name, func(t *testing.T) {
			m := p.machine
			archs := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X}
			audits := []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, 0, 0xffffffff}
			for _, a := range m.abis {
				archs, audits = append(archs, a.arch), append(audits, a.audit)
			}
			large := 0
			seeds := uint64(300)
			if p.goarch != "amd64" && p.goarch != "arm64" {
				seeds = 40
			}
			for seed := range seeds {
				r := rand.New(rand.NewPCG(seed, 1))
				p := randomProfile(r, m, archs)
				f, err := compile(p, m)
				if err != nil && strings.Contains(err.Error(), "instructions") {
					large++
					continue
				}
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				vm := newVM(t, f.prog)
				for range 400 {
					c := call{arch: pick(r, audits)}
					switch r.IntN(8) {
					case 0:
						c.nr = r.Uint32()
					case 1:
						c.nr = pick(r, []uint32{0, 470, 471, 472, 1000, x32Bit - 1, x32Bit, x32Bit + 1, x32Bit + 547, x32Bit + 548, noCall - 1, noCall, 3999, 4000, 4999, 5000, 6000, 6500, 0xeffff, 0xf0000, 0xf0001, 0xf0006, 0xf0007, 102, 117})
					case 2:
						c.nr = uint32(r.IntN(600))
						c.nr |= uint32(r.IntN(2)) * x32Bit
					default:
						// A call some rule names.
						k := pick(r, m.table)
						if len(p.Syscalls) > 0 {
							if i := m.lookup(pick(r, pick(r, p.Syscalls).Names)); i >= 0 {
								k = m.table[i]
							}
						}
						i := r.IntN(len(m.abis))
						c.nr, c.arch = uint32(k.nr[i]), m.abis[i].audit
					}
					for i := range c.args {
						c.args[i] = pick(r, interesting)
						if r.IntN(4) == 0 {
							c.args[i] = uint64(r.IntN(25))
						}
					}
					if got, want := vm.run(t, m.big, c), model(p, m, c); got != want {
						t.Fatalf("seed %d: call %+v: filter says %#x, profile means %#x\n%s", seed, c, got, want, cmp.Diff(nil, p))
					}
				}
			}
			if large > 10 {
				t.Errorf("%d of %d profiles were too large to be tried", large, seeds)
			}
		})
	}
}

func TestFarJumpsOfALargeProfile(t *testing.T) {
	// Every call with conditions of its own: blocks far above 255
	// instructions, so that conditional jumps need stepping stones.
	m := machineOf(t, "amd64")
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Architectures: []specs.Arch{specs.ArchX86}}
	for i := 0; i < len(m.table); i += 2 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{m.table[i].name}, Action: actions[2+i%6],
			Args: []specs.LinuxSeccompArg{{Index: 2, Op: operators[i%7], Value: uint64(i), ValueTwo: 1}},
		})
	}
	f, err := compile(p, m)
	if err != nil {
		t.Fatal(err)
	}
	vm := newVM(t, f.prog)
	for _, k := range m.table {
		for i, a := range m.abis {
			for _, v := range []uint64{0, 1, 100, 200, 1 << 40} {
				c := call{nr: uint32(k.nr[i]), arch: a.audit, args: [6]uint64{2: v}}
				if got, want := vm.run(t, m.big, c), model(p, m, c); got != want {
					t.Fatalf("%s %+v: filter says %#x, profile means %#x", k.name, c, got, want)
				}
			}
		}
	}
	// Four conditions a call are more than the kernel takes.
	for i := range p.Syscalls {
		a := p.Syscalls[i].Args[0]
		for j := range uint(4) {
			a.Index = j + 1
			p.Syscalls[i].Args = append(p.Syscalls[i].Args, a)
		}
	}
	if _, err := compile(p, m); err == nil {
		t.Fatal("a program above BPF_MAXINSNS was not refused")
	} else {
		t.Log(err)
	}
}
