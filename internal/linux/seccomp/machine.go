package seccomp

import (
	"runtime"
	"slices"
	"sort"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run gen.go

// maxABIs is how many calling conventions one kernel serves at most.
const maxABIs = 3

// x32Bit marks a call of the x32 ABI, which shares x86_64's AUDIT_ARCH.
const x32Bit = 0x40000000

// noCall (-1) is what a tracer sets to have a call skipped. It has x32Bit set
// but is no call of any ABI.
const noCall = 0xffffffff

// row is a system call: its name and its number in each ABI of a machine.
type row struct {
	name string
	nr   [maxABIs]int32
}

// abi is one calling convention.
type abi struct {
	arch  specs.Arch
	audit uint32
	// wide: arguments are compared with all 64 bits. On the others the
	// upper half does not reach the call.
	wide bool
	// base is the first number, added to every call's.
	base uint32
	// mux: socket and IPC calls can also be made through socketcall(2) and
	// ipc(2), with the call's number as first argument.
	mux bool
	// private numbers start here and are not "newer than the profile"; 0 is none.
	private uint32
}

// machine is what one kernel can run.
type machine struct {
	// native indexes abis: the ABI a filter always covers.
	native int
	abis   []abi
	table  []row
	// big: the upper half of an argument comes first.
	big bool
}

// hostMachine is the machine that this program runs on. The compiler knows
// which case it is, so that no other machine's table is linked.
func hostMachine() (machine, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return x86Machine(0), true
	case "386":
		return x86Machine(1), true
	case "arm64":
		return armMachine(0), true
	case "arm":
		return armMachine(1), true
	case "mips64":
		return mipsMachine(0, true), true
	case "mips":
		return mipsMachine(2, true), true
	case "mips64le":
		return mipsMachine(0, false), true
	case "mipsle":
		return mipsMachine(2, false), true
	case "s390x":
		return s390Machine(0), true
	case "ppc64le":
		return powerMachine(), true
	case "riscv64":
		return riscvMachine(), true
	case "loong64":
		return loongMachine(), true
	}
	return machine{}, false
}

func x86Machine(native int) machine {
	return machine{native: native, table: tableX86[:], abis: []abi{
		{arch: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, wide: true},
		{arch: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, mux: true},
		{arch: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, base: x32Bit},
	}}
}

func armMachine(native int) machine {
	return machine{native: native, table: tableARM[:], abis: []abi{
		{arch: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, wide: true},
		{arch: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, private: 0xf0000},
	}}
}

// mipsMachine has its numbers from arch/mips/include/uapi/asm/unistd.h: each
// ABI has a thousand.
func mipsMachine(native int, big bool) machine {
	m := machine{native: native, table: tableMIPS[:], big: big, abis: []abi{
		{arch: specs.ArchMIPSEL64, audit: unix.AUDIT_ARCH_MIPSEL64, wide: true, base: 5000},
		{arch: specs.ArchMIPSEL64N32, audit: unix.AUDIT_ARCH_MIPSEL64N32, base: 6000},
		{arch: specs.ArchMIPSEL, audit: unix.AUDIT_ARCH_MIPSEL, base: 4000, mux: true},
	}}
	if big {
		m.abis[0].arch, m.abis[0].audit = specs.ArchMIPS64, unix.AUDIT_ARCH_MIPS64
		m.abis[1].arch, m.abis[1].audit = specs.ArchMIPS64N32, unix.AUDIT_ARCH_MIPS64N32
		m.abis[2].arch, m.abis[2].audit = specs.ArchMIPS, unix.AUDIT_ARCH_MIPS
	}
	return m
}

func s390Machine(native int) machine {
	return machine{native: native, table: tableS390[:], big: true, abis: []abi{
		{arch: specs.ArchS390X, audit: unix.AUDIT_ARCH_S390X, wide: true, mux: true},
		{arch: specs.ArchS390, audit: unix.AUDIT_ARCH_S390, mux: true},
	}}
}

func powerMachine() machine {
	return machine{table: tablePower[:], abis: []abi{{arch: specs.ArchPPC64LE, audit: unix.AUDIT_ARCH_PPC64LE, wide: true, mux: true}}}
}

func riscvMachine() machine {
	return machine{table: tableRISCV[:], abis: []abi{{arch: specs.ArchRISCV64, audit: unix.AUDIT_ARCH_RISCV64, wide: true}}}
}

func loongMachine() machine {
	return machine{table: tableLoong[:], abis: []abi{{arch: specs.ArchLOONGARCH64, audit: unix.AUDIT_ARCH_LOONGARCH64, wide: true}}}
}

// lookup is the table's row of a call, or -1.
func (m *machine) lookup(name string) int {
	if name == "arm_sync_file_range" {
		name = "sync_file_range2" // arm has both names for one call
	}
	t := m.table
	i := sort.Search(len(t), func(i int) bool { return t[i].name >= name })
	if i < len(t) && t[i].name == name {
		return i
	}
	return -1
}

// arches are the architectures of the OCI specification.
var arches = []specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
	specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// knownArch reports whether the OCI specification has the architecture.
func knownArch(a specs.Arch) bool { return slices.Contains(arches, a) }

// muxed tells by which number of socketcall(2) (linux/net.h) or ipc(2)
// (linux/ipc.h) a call can be made on an ABI with mux.
func muxed(name string) (through string, number uint32) {
	switch name {
	case "socket":
		return "socketcall", 1
	case "bind":
		return "socketcall", 2
	case "connect":
		return "socketcall", 3
	case "listen":
		return "socketcall", 4
	case "accept":
		return "socketcall", 5
	case "getsockname":
		return "socketcall", 6
	case "getpeername":
		return "socketcall", 7
	case "socketpair":
		return "socketcall", 8
	case "send":
		return "socketcall", 9
	case "recv":
		return "socketcall", 10
	case "sendto":
		return "socketcall", 11
	case "recvfrom":
		return "socketcall", 12
	case "shutdown":
		return "socketcall", 13
	case "setsockopt":
		return "socketcall", 14
	case "getsockopt":
		return "socketcall", 15
	case "sendmsg":
		return "socketcall", 16
	case "recvmsg":
		return "socketcall", 17
	case "accept4":
		return "socketcall", 18
	case "recvmmsg":
		return "socketcall", 19
	case "sendmmsg":
		return "socketcall", 20
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}
