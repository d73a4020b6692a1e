package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// On v2 the device list is an eBPF program of type CGROUP_DEVICE attached to
// the group's directory; it returns 1 to allow. Its context is struct
// bpf_cgroup_dev_ctx (linux/bpf.h): access_type (access in the upper, kind in
// the lower 16 bits), major, minor.

// insn is struct bpf_insn.
type insn struct {
	code uint8
	regs uint8 // destination in the lower, source in the upper four bits
	off  int16
	imm  int32
}

// Codes of linux/bpf_common.h and linux/bpf.h.
const (
	bpfLoadWord  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	bpfMov32Reg  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	bpfMov32Imm  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	bpfAnd32Imm  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	bpfRsh32Imm  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	bpfJumpNE    = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	bpfJumpNEReg = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_X
	bpfJumpSet   = unix.BPF_JMP32 | unix.BPF_JSET | unix.BPF_K
	bpfExitCode  = unix.BPF_JMP | unix.BPF_EXIT
	devKindBlock = 1
	devKindChar  = 2
	devMayMknod  = 1
	devMayRead   = 2
	devMayWrite  = 4
	regReturn    = 0
	regContext   = 1
	regKind      = 2
	regAccess    = 3
	regMajor     = 4
	regMinor     = 5
	regScratch   = 6
	bpfLicense   = "Apache-2.0\x00"
)

// deviceProgram writes the program. An exception matches when kind and numbers
// are its own and the access that is asked for is within (list of allowed) or
// touches (list of forbidden) what it names.
func deviceProgram(d deviceRules) []insn {
	load := func(reg uint8, off int16) insn { return insn{code: bpfLoadWord, regs: reg | regContext<<4, off: off} }
	out := []insn{
		load(regKind, 0),
		{code: bpfMov32Reg, regs: regAccess | regKind<<4},
		{code: bpfAnd32Imm, regs: regKind, imm: 0xffff},
		{code: bpfRsh32Imm, regs: regAccess, imm: 16},
		load(regMajor, 4),
		load(regMinor, 8),
	}
	hit, miss := int32(1), int32(0)
	if d.allowAll {
		hit, miss = 0, 1
	}
	for _, e := range d.exceptions {
		var may int32
		if e.may&mayMknod != 0 {
			may |= devMayMknod
		}
		if e.may&mayRead != 0 {
			may |= devMayRead
		}
		if e.may&mayWrite != 0 {
			may |= devMayWrite
		}
		kind := int32(devKindChar)
		if e.id.kind == 'b' {
			kind = devKindBlock
		}
		tests := []insn{{code: bpfJumpNE, regs: regKind, imm: kind}}
		if e.id.major != anyNumber {
			tests = append(tests, insn{code: bpfJumpNE, regs: regMajor, imm: int32(e.id.major)})
		}
		if e.id.minor != anyNumber {
			tests = append(tests, insn{code: bpfJumpNE, regs: regMinor, imm: int32(e.id.minor)})
		}
		switch {
		case e.may == mayAll:
		case d.allowAll:
			// Forbidden when any forbidden bit is asked for: jump over the
			// "no" below.
			tests = append(tests, insn{code: bpfJumpSet, regs: regAccess, imm: may, off: 1}, insn{code: unix.BPF_JMP | unix.BPF_JA})
		default:
			tests = append(tests,
				insn{code: bpfMov32Reg, regs: regScratch | regAccess<<4},
				insn{code: bpfAnd32Imm, regs: regScratch, imm: may},
				insn{code: bpfJumpNEReg, regs: regScratch | regAccess<<4})
		}
		block := append(tests, insn{code: bpfMov32Imm, regs: regReturn, imm: hit}, insn{code: bpfExitCode})
		for i := range block {
			// Every jump without a target goes to the next exception.
			switch block[i].code {
			case bpfJumpNE, bpfJumpNEReg, unix.BPF_JMP | unix.BPF_JA:
				block[i].off = int16(len(block) - i - 1)
			}
		}
		out = append(out, block...)
	}
	return append(out, insn{code: bpfMov32Imm, regs: regReturn, imm: miss}, insn{code: bpfExitCode})
}

// The parts of union bpf_attr that are used (linux/bpf.h).
type bpfProgLoad struct {
	progType    uint32
	insnCount   uint32
	insns       uint64
	license     uint64
	logLevel    uint32
	logSize     uint32
	logBuf      uint64
	kernVersion uint32
	progFlags   uint32
	name        [16]byte
	ifindex     uint32
	attachType  uint32
}

type bpfProgAttach struct {
	targetFD   uint32
	progFD     uint32
	attachType uint32
	flags      uint32
	replaceFD  uint32
}

type bpfProgQuery struct {
	targetFD    uint32
	attachType  uint32
	queryFlags  uint32
	attachFlags uint32
	progIDs     uint64
	progCount   uint32
	_           uint32
}

type bpfGetFD struct {
	id, _, _ uint32
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch e {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // the verifier was interrupted
		default:
			return -1, e
		}
	}
}

// loadRules puts a list's program into the kernel.
func loadRules(d deviceRules) (program, error) {
	fd, err := loadDevices(deviceProgram(d))
	return program{fd: fd}, err
}

// loadDevices puts the program into the kernel. A refusal is retried with the
// verifier's log, which then is the error.
func loadDevices(prog []insn) (int, error) {
	license := []byte(bpfLicense)
	attr := bpfProgLoad{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCount: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
		name: [16]byte{'o', 'r', 'l', 'o', 'p', '_', 'd', 'e', 'v', 'i', 'c', 'e', 's'},
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil && !errors.Is(err, unix.EPERM) {
		log := make([]byte, 64<<10)
		attr.logLevel, attr.logSize, attr.logBuf = 1, uint32(len(log)), uint64(uintptr(unsafe.Pointer(&log[0])))
		if fd, e := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); e == nil {
			return fd, nil
		}
		n := 0
		for n < len(log) && log[n] != 0 {
			n++
		}
		err = fmt.Errorf("%w: %s", err, log[:n])
	}
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	return fd, err
}

// program is a loaded program.
type program struct {
	fd int
	id uint32 // 0 when not asked for
}

// devicePrograms opens those attached to a directory.
func devicePrograms(dirfd int) ([]program, error) {
	ids := make([]uint32, 64)
	q := bpfProgQuery{targetFD: uint32(dirfd), attachType: unix.BPF_CGROUP_DEVICE, progIDs: uint64(uintptr(unsafe.Pointer(&ids[0]))), progCount: uint32(len(ids))}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&q), unsafe.Sizeof(q)); err != nil {
		return nil, err
	}
	var out []program
	for _, id := range ids[:q.progCount] {
		a := bpfGetFD{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&a), unsafe.Sizeof(a))
		if errors.Is(err, unix.ENOENT) {
			continue // detached meanwhile
		}
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, program{fd, id})
	}
	return out, nil
}

func closeAll(list []program) {
	for _, p := range list {
		unix.Close(p.fd)
	}
}

// attachDevices adds a program to a directory's.
func attachDevices(dirfd, prog int) error {
	a := bpfProgAttach{targetFD: uint32(dirfd), progFD: uint32(prog), attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return err
}

// limitDevicesV2 attaches the list to the group and detaches an older one. In
// between both are in force, so nothing is ever allowed by neither.
func (g *group) limitDevicesV2(rules deviceRules) error {
	dir := g.v2().dir
	fail := func(err error) error { return fmt.Errorf("limit devices of cgroup %s: %w", dir, err) }
	dirfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dirfd)
	old, err := devicePrograms(dirfd)
	if err != nil {
		return fail(os.NewSyscallError("bpf query", err))
	}
	defer func() { closeAll(old) }()
	if !rules.allowAll || len(rules.exceptions) > 0 {
		var prog program
		if d := detour(g.v2()); d != "" && g.scope == nil && rules.equal(defaultRules()) {
			prog, err = sharedProgram(path.Dir(d), rules)
		} else {
			prog, err = loadRules(rules)
		}
		if err != nil {
			return fail(os.NewSyscallError("bpf load", err))
		}
		defer unix.Close(prog.fd)
		if i := slices.IndexFunc(old, func(o program) bool { return o.id == prog.id }); i >= 0 {
			// It is attached already, which the kernel refuses to do twice.
			unix.Close(old[i].fd)
			old = slices.Delete(old, i, i+1)
		} else if err := attachDevices(dirfd, prog.fd); err != nil {
			return fail(os.NewSyscallError("bpf attach", err))
		}
	}
	for _, o := range old {
		a := bpfProgAttach{targetFD: uint32(dirfd), progFD: uint32(o.fd), attachType: unix.BPF_CGROUP_DEVICE}
		if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fail(os.NewSyscallError("bpf detach", err))
		}
	}
	return nil
}

// sharedProgram is the default list's program. Verifying and translating it
// takes the kernel 400 µs, so the first container's is kept attached to an
// empty group beside it (the name of v1's shared group), where the next one
// finds it.
func sharedProgram(holder string, rules deviceRules) (program, error) {
	dirfd, err := unix.Open(holder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdir(holder, 0o755); err != nil && err != unix.EEXIST {
			return loadRules(rules)
		}
		dirfd, err = unix.Open(holder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return loadRules(rules)
	}
	defer unix.Close(dirfd)
	if have, err := devicePrograms(dirfd); err == nil && len(have) > 0 {
		closeAll(have[1:])
		return have[0], nil
	}
	prog, err := loadRules(rules)
	if err == nil {
		// Another starter may do the same: two copies do no harm, and none
		// (it fails) only costs the next one time.
		attachDevices(dirfd, prog.fd) //nolint:errcheck // see above
	}
	return prog, err
}
