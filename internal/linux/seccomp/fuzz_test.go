package seccomp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/testkit/mutation"
)

// interpret runs a filter as the kernel does, on struct seccomp_data in words
// of the machine. It fails on whatever the kernel's checker (bpf_check_classic
// and seccomp_check_filter) refuses: other instructions, loads that are not
// whole words of the data, jumps beyond the end.
func interpret(prog []unix.SockFilter, big bool, c *call) (uint32, error) {
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		in := &prog[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case loadAbs:
			switch {
			case in.K == offNr:
				a = c.nr
			case in.K == offArch:
				a = c.arch
			case in.K >= offArgs && in.K < offArgs+48 && in.K%4 == 0:
				v := c.args[(in.K-offArgs)/8]
				if (in.K%8 == 4) != big {
					v >>= 32
				}
				a = uint32(v)
			default:
				return 0, fmt.Errorf("instruction %d loads offset %d", pc, in.K)
			}
		case andK:
			a &= in.K
		case jumpA:
			pc += int(in.K)
		case jumpEQ:
			jump(a == in.K)
		case jumpGT:
			jump(a > in.K)
		case jumpGE:
			jump(a >= in.K)
		case retK:
			return in.K, nil
		default:
			return 0, fmt.Errorf("instruction %d has code %#x", pc, in.Code)
		}
	}
	return 0, fmt.Errorf("no return")
}

// checkJumps is the part of the kernel's check that does not depend on a call.
func checkJumps(prog []unix.SockFilter) error {
	if len(prog) == 0 || len(prog) > maxProgram || prog[len(prog)-1].Code != retK {
		return fmt.Errorf("%d instructions without a return at the end", len(prog))
	}
	for pc, in := range prog {
		var far uint64
		switch in.Code {
		case jumpA:
			far = uint64(in.K)
		case jumpEQ, jumpGT, jumpGE:
			far = uint64(max(in.Jt, in.Jf))
		default:
			continue
		}
		if uint64(pc)+1+far >= uint64(len(prog)) {
			return fmt.Errorf("instruction %d jumps %d, to beyond the end", pc, far)
		}
	}
	return nil
}

// around are the values at which a comparison with v changes its answer, in
// both halves.
func around(v uint64) []uint64 {
	return []uint64{v, v - 1, v + 1, v ^ 1<<32, v ^ 1<<63, uint64(uint32(v)), ^v, v | 1<<31}
}

// calls are those for which a mistake in the profile's filter would show: each
// named call and its neighbors in every ABI, with arguments around each value
// that a rule compares.
func calls(p *specs.LinuxSeccomp, m machine, limit int) []call {
	var list []call
	add := func(c call) bool {
		list = append(list, c)
		return len(list) < limit
	}
	for _, a := range m.abis {
		for _, nr := range []uint32{0, 1, 600, 0x3fffffff, x32Bit, x32Bit + 1023, noCall - 1, noCall, a.private, a.private + 9, a.base, a.base - 1} {
			add(call{nr: nr, arch: a.audit})
		}
	}
	add(call{nr: 1, arch: 0xdeadbeef})
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		for j := 0; j < len(r.Names); j += 1 + len(r.Names)/8 {
			for _, name := range []string{r.Names[j], "socketcall", "ipc"} {
				k := m.lookup(name)
				if k < 0 {
					continue
				}
				for x, a := range m.abis {
					if m.table[k].nr[x] < 0 {
						continue
					}
					c := call{nr: uint32(m.table[k].nr[x]), arch: a.audit}
					if _, id := muxed(r.Names[j]); id != 0 {
						c.args[0] = uint64(id)
					}
					next := c
					next.nr++
					if !add(c) || !add(next) {
						return list
					}
					for _, arg := range r.Args {
						for _, v := range slices.Concat(around(arg.Value), around(arg.ValueTwo)) {
							// Alone, and with the rule's other conditions met as far as equality meets them.
							alone, met := c, c
							for _, other := range r.Args {
								met.args[other.Index%6] = other.Value
								if other.Op == specs.OpMaskedEqual {
									met.args[other.Index%6] = other.ValueTwo
								}
							}
							alone.args[arg.Index%6], met.args[arg.Index%6] = v, v
							if !add(alone) || !add(met) {
								return list
							}
						}
					}
				}
			}
		}
	}
	return list
}

// checkProfile compiles a profile for every machine and compares the filter with
// the model. A profile that is refused must be refused with its class.
func checkProfile(t *testing.T, p *specs.LinuxSeccomp) {
	t.Helper()
	named := 1
	for _, r := range p.Syscalls {
		named += len(r.Names)
	}
	for _, name := range []string{"amd64", "x86", "arm64", "arm", "mips64", "mipsel64n32", "s390x"} {
		m := machineOf(t, name)
		f, err := compile(p, m)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%s: refused without the class InvalidArgument: %v", name, err)
			}
			continue
		}
		if err := checkJumps(f.prog); err != nil {
			t.Fatalf("%s: the kernel would refuse the filter: %v", name, err)
		}
		for _, c := range calls(p, m, max(60, min(1500, 20000/named))) {
			got, err := interpret(f.prog, m.big, &c)
			if err != nil {
				t.Fatalf("%s: call %+v: %v", name, c, err)
			}
			if want := model(p, m, c); got != want {
				text, _ := json.Marshal(p)
				t.Fatalf("%s: call %+v: filter says %#x, profile means %#x\n%s", name, c, got, want, text)
			}
		}
		raw, err := f.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		back, err := UnmarshalFilter(raw)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.MarshalBinary()
		if err != nil || !bytes.Equal(raw, again) {
			t.Fatalf("%s: a filter changes on its way to the init (%v)", name, err)
		}
	}
}

// words of profiles, among them some that are none.
func words() []string {
	list := []string{"", "no_such_call", "read", "write", "socket", "socketcall", "ipc", "semop", "shmat", "send", "clone", "arm_sync_file_range", "sync_file_range2", "breakpoint", "SCMP_ACT_NONE"}
	for _, a := range actions {
		list = append(list, string(a))
	}
	for _, o := range operators {
		list = append(list, string(o), string(o))
	}
	for _, a := range []specs.Arch{specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchS390X, "SCMP_ARCH_NONE"} {
		list = append(list, string(a))
	}
	list = append(list, string(flagTsync), string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), string(specs.LinuxSeccompFlagWaitKillableRecv))
	for i := 0; i < len(tableX86); i += 9 {
		list = append(list, tableX86[i].name)
	}
	for i := 0; i < len(tableARM); i += 23 {
		list = append(list, tableARM[i].name)
	}
	return list
}

// small is a profile with one rule of every kind, to be changed.
func small() *specs.LinuxSeccomp {
	errno := uint(38)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "openat", "semop"}, Action: specs.ActAllow},
			{Names: []string{"socket", "clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 40, Op: specs.OpNotEqual}}},
			{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 8, Op: specs.OpEqualTo}, {Index: 1, Value: 1 << 33, Op: specs.OpLessThan}}},
			{Names: []string{"mmap", "ioctl"}, Action: specs.ActTrace, Args: []specs.LinuxSeccompArg{{Index: 2, Value: 0xff00ff0000, ValueTwo: 0x1100110000, Op: specs.OpMaskedEqual}}},
		},
	}
}

// FuzzProfile shakes a profile and compares its filters, for seven machines,
// with what the profile means.
func FuzzProfile(f *testing.F) {
	dictionary := words()
	f.Add([]byte{}, false)
	f.Add([]byte("\x04\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"), true)
	f.Fuzz(func(t *testing.T, data []byte, empty bool) {
		p := small()
		if empty {
			p = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		}
		mutation.Apply(p, data, dictionary)
		checkProfile(t, p)
	})
}

// FuzzProfileText reads a profile from text, as it comes in a config.json.
func FuzzProfileText(f *testing.F) {
	text, err := json.Marshal(small())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_NOTIFY"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(text, &p) == nil {
			checkProfile(t, &p)
		}
	})
}

// FuzzUnmarshalFilter: what is not a filter is refused; what is, keeps its form.
func FuzzUnmarshalFilter(f *testing.F) {
	filter, err := Compile(small())
	if err != nil {
		f.Fatal(err)
	}
	raw, err := filter.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		filter, err := UnmarshalFilter(raw)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatal(err)
			}
			return
		}
		again, err := filter.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if want := bytes.Clone(raw); !bytes.Equal(again[len(magic)+8:], want[len(magic)+8:]) || len(again) != len(want) {
			t.Fatalf("%x became %x", raw, again)
		}
	})
}
