// Package childinit is the program of `docker run --init`: the first process of
// a container, which starts the application as its child, passes signals on
// to it, reaps what it orphans, and ends with its status.
//
// The entry point is Program, which returns an executable of less than one
// page. Its instructions are a function of this package's assembly that is
// never called here: it uses system calls only and no address but its own, so
// it runs as a program just as well. It behaves like tini, which is Docker's
// docker-init:
//
//		docker-init [--] COMMAND [ARG …]
//
//	  - all signals but those of faults are passed on to the command, which is
//	    the leader of a process group of its own and, with a terminal on standard
//	    input, the terminal's foreground group;
//	  - it ends when the command ends, with its exit status, or 128+n after
//	    signal n;
//	  - a command that is not found gives 127, one that may not be executed 126,
//	    without a command it is 1. A file without "#!" is given to /bin/sh, as
//	    execvp(3) does.
package childinit

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"unsafe"
)

// codeAddress returns the address of the program's first instruction.
func codeAddress() unsafe.Pointer

// endMark follows the last instruction.
const endMark = "\x0forlopEND"

// maxCode bounds the search for endMark, in bytes.
const maxCode = 4096

// Program returns the executable: static, position independent, without a
// writable part but its stack.
func Program() []byte {
	// The linker keeps a function in one piece; its end is marked.
	code := unsafe.Slice((*byte)(codeAddress()), maxCode)
	size := 0
	for !bytes.Equal(code[size:size+len(endMark)], []byte(endMark)) {
		size++
	}
	const headers = 64 + 2*56
	length := uint64(headers + size)
	var out bytes.Buffer
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	// A bytes.Buffer takes every fixed-size value.
	for _, part := range []any{
		elf.Header64{
			Ident: ident, Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
			Entry: headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Filesz: length, Memsz: length, Align: pageSize},
		elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)},
	} {
		_ = binary.Write(&out, binary.LittleEndian, part)
	}
	out.Write(code[:size])
	return out.Bytes()
}
