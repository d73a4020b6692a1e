package cgroup

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func rule(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
}

// dockerRules is the list of a default container of Docker.
func dockerRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule(true, "c", 1, 5, "rwm"), rule(true, "c", 1, 3, "rwm"), rule(true, "c", 1, 9, "rwm"), rule(true, "c", 1, 8, "rwm"),
		rule(true, "c", 5, 0, "rwm"), rule(true, "c", 5, 1, "rwm"), rule(false, "c", 10, 229, "rwm"),
	}
}

func TestDeviceLists(t *testing.T) {
	def := defaultRules().String()
	with := func(extra string) string {
		d, err := rulesOf(nil)
		if err != nil {
			t.Fatal(err)
		}
		parsed, _ := parseDevicesV1([]byte(extra))
		d.allow(parsed.exceptions)
		return d.String()
	}
	for _, c := range []struct {
		name string
		list []specs.LinuxDeviceCgroup
		want string
	}{
		{"no list is the default one", nil, def},
		{"Docker's default container", dockerRules(), def},
		{"a device more", append(dockerRules(), rule(true, "b", 8, 0, "rw")), with("b 8:0 rw\n")},
		{"without type: both kinds", append(dockerRules(), rule(true, "", 7, -1, "r")), with("b 7:* r\nc 7:* r\n")},
		{"privileged", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "all but"},
		{"all but one", []specs.LinuxDeviceCgroup{{Allow: true}, rule(false, "c", 10, 200, "rw")}, "all but\nc 10:200 rw"},
		{"taken back in part", []specs.LinuxDeviceCgroup{{Allow: true}, rule(false, "c", 10, 200, "rwm"), rule(true, "c", 10, 200, "m")}, "all but\nc 10:200 rw"},
		{"a later rule for all forgets the earlier", []specs.LinuxDeviceCgroup{rule(true, "b", 8, 0, "rw"), {Allow: false}}, def},
	} {
		d, err := rulesOf(c.list)
		if err != nil || d.String() != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, d, c.want)
		}
	}
	for name, list := range map[string][]specs.LinuxDeviceCgroup{
		"access":          {rule(true, "c", 1, 1, "rx")},
		"type":            {rule(true, "p", 1, 1, "r")},
		"numbers for all": {rule(true, "a", 1, 1, "rwm")},
		"hole":            {{Allow: false}, rule(true, "c", 10, -1, "rw"), rule(false, "c", 10, 200, "w")},
	} {
		if _, err := rulesOf(list); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSharedGroupIsNamedAfterItsList(t *testing.T) {
	h := fnv.New32a()
	h.Write([]byte(defaultRules().String()))
	if want := fmt.Sprintf("devices-%08x", h.Sum32()); sharedName != want {
		t.Errorf("the default list changed: its group must be called %s, not %s", want, sharedName)
	}
}

// verdict is what a list means, without a program.
func verdict(d deviceRules, id deviceID, want access) bool {
	for _, e := range d.exceptions {
		if e.id.kind != id.kind || e.id.major != anyNumber && e.id.major != id.major || e.id.minor != anyNumber && e.id.minor != id.minor {
			continue
		}
		if d.allowAll && e.may&want != 0 {
			return false
		}
		if !d.allowAll && e.may&want == want {
			return true
		}
	}
	return d.allowAll
}

// interpret runs a device program.
func interpret(t *testing.T, prog []insn, id deviceID, want access) bool {
	t.Helper()
	kind, may := uint32(devKindChar), uint32(0)
	if id.kind == 'b' {
		kind = devKindBlock
	}
	if want&mayMknod != 0 {
		may |= devMayMknod
	}
	if want&mayRead != 0 {
		may |= devMayRead
	}
	if want&mayWrite != 0 {
		may |= devMayWrite
	}
	context := [3]uint32{may<<16 | kind, uint32(id.major), uint32(id.minor)}
	var r [11]uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		d, s := i.regs&15, i.regs>>4
		switch i.code {
		case bpfLoadWord:
			r[d] = context[i.off/4]
		case bpfMov32Reg:
			r[d] = r[s]
		case bpfMov32Imm:
			r[d] = uint32(i.imm)
		case bpfAnd32Imm:
			r[d] &= uint32(i.imm)
		case bpfRsh32Imm:
			r[d] >>= uint32(i.imm)
		case bpfJumpNE:
			if r[d] != uint32(i.imm) {
				pc += int(i.off)
			}
		case bpfJumpNEReg:
			if r[d] != r[s] {
				pc += int(i.off)
			}
		case bpfJumpSet:
			if r[d]&uint32(i.imm) != 0 {
				pc += int(i.off)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.off)
		case bpfExitCode:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d has code %#x", pc, i.code)
		}
	}
	t.Fatal("the program has no end")
	return false
}

func TestDeviceProgramsMeanTheirLists(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		number := func() int64 { return int64(r.IntN(4)) - 1 }
		kind := func() byte { return "bc"[r.IntN(2)] }
		d := deviceRules{allowAll: r.IntN(2) == 0}
		for range r.IntN(8) {
			d.exceptions = append(d.exceptions, exception{deviceID{kind(), number(), number()}, access(1 + r.IntN(7))})
		}
		prog := deviceProgram(d)
		for _, k := range []byte{'b', 'c'} {
			for major := range int64(4) {
				for minor := range int64(4) {
					for a := access(1); a <= mayAll; a++ {
						id := deviceID{k, major, minor}
						if got, want := interpret(t, prog, id, a), verdict(d, id, a); got != want {
							t.Fatalf("seed %d: %s %s is %v by the program, %v by\n%s", seed, id, a, got, want, d)
						}
					}
				}
			}
		}
	}
}

func TestDeviceProgramsPassTheVerifier(t *testing.T) {
	root(t)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 4))
		d := deviceRules{allowAll: seed%2 == 0}
		for range r.IntN(40) {
			d.exceptions = append(d.exceptions, exception{deviceID{"bc"[r.IntN(2)], int64(r.IntN(300)) - 1, int64(r.IntN(300)) - 1}, access(1 + r.IntN(7))})
		}
		fd, err := loadDevices(deviceProgram(d))
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skipf("bpf(2): %v", err)
		}
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, d)
		}
		unix.Close(fd)
	}
	// A refusal says why.
	_, err := loadDevices([]insn{{code: bpfExitCode}})
	if err == nil || !strings.Contains(err.Error(), "R0") {
		t.Errorf("the verifier's message is missing: %v", err)
	}
	t.Logf("%.200s", err)
}
