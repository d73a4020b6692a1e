package process

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program is a list of system calls that a cloned child performs without a
// Go runtime: it has one thread, no stack of its own and no Go code, so it can
// do what a Go process cannot (join a user namespace), and it is a value that
// is complete before the clone. It lives in memory shared with the child:
//
//	 0  address of the step that failed, 0 while none did
//	 8  its result (-errno)
//	64  steps of 80 bytes: number, six arguments, flags, result, address of
//	    a result that replaces the first argument (or 0)
//	…  strings and other data the steps point to
//
// The last step is one that does not return (execveat, exit).
type program struct {
	mem   []byte
	steps int
	data  int // first unused byte, counted from the end of the steps' room
	names []string
	// err is the first failure to build it; checked once before the clone.
	err error
}

const (
	headerSize = 64
	stepSize   = 80
	maxSteps   = 256

	// ignoreError goes on with the next step.
	ignoreError = 1
	// forks marks a clone: the caller exits with 0, its child goes on.
	forks = 2
)

type step struct {
	nr    uintptr
	args  [6]uintptr
	flags uintptr
	ret   int64
	from  uintptr
}

// cloneArgs is the kernel's struct clone_args, version 2 (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// cloneRun calls clone3(args, size) and runs prog in the child; the parent
// gets the result (-errno on failure).
//
//go:noescape
func cloneRun(args unsafe.Pointer, size uintptr, prog unsafe.Pointer) int64

// newProgram maps memory for a program with dataSize bytes of data. The memory
// is shared so that results are seen although the child may have a copy of the
// address space (time namespaces forbid sharing it).
func newProgram(dataSize int) (*program, error) {
	size := headerSize + maxSteps*stepSize + dataSize + 4096
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory for a child's program: %w", err)
	}
	return &program{mem: mem, data: headerSize + maxSteps*stepSize}, nil
}

func (p *program) free() {
	if p.mem != nil {
		_ = unix.Munmap(p.mem)
		p.mem = nil
	}
}

func (p *program) addr(off int) uintptr { return uintptr(unsafe.Pointer(&p.mem[off])) }

func (p *program) at(i int) *step {
	return (*step)(unsafe.Pointer(&p.mem[headerSize+i*stepSize]))
}

// add appends a step; name is what its failure is called.
func (p *program) add(name string, nr uintptr, args ...uintptr) *step {
	if p.steps == maxSteps {
		p.err = fmt.Errorf("%s: more than %d steps in a child's program", name, maxSteps)
		return p.at(maxSteps - 1)
	}
	s := p.at(p.steps)
	*s = step{nr: nr}
	copy(s.args[:], args)
	p.steps++
	p.names = append(p.names, name)
	return s
}

// bytes copies b into the program's data, 8-byte aligned, and returns its address.
func (p *program) bytes(b []byte) uintptr {
	if p.data+len(b)+8 > len(p.mem) {
		p.err = fmt.Errorf("data of a child's program exceeds %d bytes", len(p.mem))
		return p.addr(0)
	}
	a := p.addr(p.data)
	copy(p.mem[p.data:], b)
	p.data = (p.data + len(b) + 7) &^ 7
	return a
}

// word reads the 32 bits that bytes placed at addr and the kernel has filled.
func (p *program) word(addr uintptr) int32 {
	return *(*int32)(unsafe.Pointer(&p.mem[addr-p.addr(0)]))
}

func (p *program) str(s string) uintptr { return p.bytes(append([]byte(s), 0)) }

// strs makes a NULL-terminated array of strings.
func (p *program) strs(list []string) uintptr {
	ptrs := make([]byte, 0, 8*(len(list)+1))
	for _, s := range list {
		ptrs = appendWord(ptrs, p.str(s))
	}
	return p.bytes(appendWord(ptrs, 0))
}

func appendWord(b []byte, w uintptr) []byte {
	return append(b, (*[8]byte)(unsafe.Pointer(&w))[:]...)
}

// failure tells which step failed in the child, nil when none did.
func (p *program) failure() error {
	failed := *(*uintptr)(unsafe.Pointer(&p.mem[0]))
	if failed == 0 {
		return nil
	}
	i := int(failed-p.addr(headerSize)) / stepSize
	return &StepError{Step: p.names[i], Errno: unix.Errno(-*(*int64)(unsafe.Pointer(&p.mem[8])))}
}

// StepError is the failure of a system call in a child before its execve.
type StepError struct {
	// Step names the call and its object.
	Step  string
	Errno unix.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

func (e *StepError) Unwrap() error { return e.Errno }
