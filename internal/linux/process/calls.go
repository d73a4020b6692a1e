package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls is what a child does in place of executing Command.Exe: a list of
// system calls that ends with an execve of its own. They are performed by the
// runner, a program of 300 bytes without a stack, a heap or a library, in an
// address space of its own: whoever could look into the child sees nothing but
// these steps, its /proc/self/exe is a sealed copy of those 300 bytes, and
// starting it costs a tenth of starting a Go program.
//
// Build it with NewCalls, then Add; descriptors that the steps use come by File.
type Calls struct {
	list  []*Call
	data  []byte
	files []*os.File
	base  int // descriptors of Command.Files come first
	// status is the descriptor that tells of the execve, once started.
	status uintptr
	err    error
}

// Call is one step.
type Call struct {
	name    string
	nr      uintptr
	args    [6]uintptr
	flags   uintptr
	arg0    *Call // its result is the first argument
	pointer *Call // where the first argument points to: the result of this one
	watched bool
}

// Optional lets the next step come although this one failed.
func (c *Call) Optional() *Call {
	c.flags |= ignoreError
	return c
}

// Watched lets the failure of an optional step be among Process.Failures.
func (c *Call) Watched() *Call {
	c.watched = true
	return c.Optional()
}

// Of makes the result of an earlier step the first argument.
func (c *Call) Of(earlier *Call) *Call {
	c.arg0 = earlier
	return c
}

const (
	// callBase is where the runner maps the steps; callRoom how much it maps.
	callBase = 0x10000000
	callRoom = 0x1000000
	// maxCalls bounds the steps; their data comes after room for all of them.
	maxCalls = 512
	callData = headerSize + maxCalls*stepSize
	// maxCallData leaves room for the steps of Command itself.
	maxCallData = callRoom - callData - 1<<16
	// opSkip is the number of a step that is no system call.
	opSkip = 0x10000
	// The runner's words: the step that ended the list by its failure, the
	// result of the last step that failed, the step it is at.
	failedStep, lastError, progress = 0, 8, 16
)

// NewCalls makes an empty list for a Command with n Files.
func NewCalls(n int) *Calls { return &Calls{base: n} }

// Add appends a step; name is what its failure is called.
func (c *Calls) Add(name string, nr uintptr, args ...uintptr) *Call {
	s := &Call{name: name, nr: nr}
	copy(s.args[:], args)
	c.list = append(c.list, s)
	return s
}

// SkipIf skips the next n steps when the word at addr, masked, has this value.
func (c *Calls) SkipIf(addr, mask, value uintptr, n int) {
	c.Add("compare", opSkip, addr, mask, value, uintptr(n))
}

// SkipIfResult is SkipIf of the result of an earlier step, -errno on failure.
func (c *Calls) SkipIfResult(of *Call, mask, value uintptr, n int) {
	c.Add("compare", opSkip, 0, mask, value, uintptr(n)).pointer = of
}

// Skip skips the next n steps.
func (c *Calls) Skip(n int) *Call {
	return c.Add("skip", opSkip, callBase, 0, 0, uintptr(n))
}

// SkipIfLast is SkipIf of the number of the last error of any step.
func (c *Calls) SkipIfLast(e unix.Errno, n int) {
	c.SkipIf(callBase+lastError, ^uintptr(0), uintptr(-int(e)), n)
}

// Exit ends the child with a status; why is what Process.Executed says then,
// with the last error of any step.
func (c *Calls) Exit(why string, status int) {
	c.Add(why, unix.SYS_EXIT_GROUP, uintptr(status))
}

// Len is the number of steps so far, for the distance of a SkipTo.
func (c *Calls) Len() int { return len(c.list) }

// SkipTo makes the step that Skip added lead to the next one to be added.
func (c *Calls) SkipTo(skip *Call) {
	for i, s := range c.list {
		if s == skip {
			s.args[3] = uintptr(len(c.list) - i - 1)
		}
	}
}

// Bytes gives the steps data; the result is its address in the child, 8-aligned.
func (c *Calls) Bytes(b []byte) uintptr {
	if len(c.data)+len(b)+8 > maxCallData {
		c.err = fmt.Errorf("data of a child's steps exceeds %d bytes", maxCallData)
		return callBase
	}
	at := uintptr(callBase + callData + len(c.data))
	c.data = append(c.data, b...)
	for len(c.data)%8 != 0 {
		c.data = append(c.data, 0)
	}
	return at
}

// Str is Bytes of a NUL-terminated string.
func (c *Calls) Str(s string) uintptr { return c.Bytes(append([]byte(s), 0)) }

// Words is Bytes of words, e.g. of a structure of addresses.
func (c *Calls) Words(w ...uintptr) uintptr {
	b := make([]byte, 0, 8*len(w))
	for _, v := range w {
		b = binary.NativeEndian.AppendUint64(b, uint64(v))
	}
	return c.Bytes(b)
}

// Strs is a NULL-terminated array of strings.
func (c *Calls) Strs(list []string) uintptr {
	ptrs := make([]uintptr, len(list)+1)
	for i, s := range list {
		ptrs[i] = c.Str(s)
	}
	return c.Words(ptrs...)
}

// File passes a descriptor on and returns its number in the child. The steps
// close it, or mark it close-on-exec, before they execute anything.
func (c *Calls) File(f *os.File) uintptr {
	c.files = append(c.files, f)
	return uintptr(c.base + len(c.files) - 1)
}

// CloseFrom closes all descriptors from first on but those kept, and the one that
// tells of the execve; for lists that are extended.
func (c *Calls) CloseFrom(first uintptr, keep ...uintptr) {
	keep = append(slices.Clone(keep), c.status, maxFD+1)
	slices.Sort(keep)
	for _, k := range keep {
		if first < k {
			c.Add("close descriptors", unix.SYS_CLOSE_RANGE, first, k-1, 0)
		}
		first = max(first, k+1)
	}
}

// image is the list of steps as the runner reads it.
func (c *Calls) image() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	if len(c.list) > maxCalls {
		return nil, fmt.Errorf("%d steps of a child are more than %d", len(c.list), maxCalls)
	}
	at := make(map[*Call]uint64, len(c.list))
	for i, s := range c.list {
		at[s] = uint64(callBase + headerSize + i*stepSize + resultOffset)
	}
	b := make([]byte, len(c.list)*stepSize)
	for i, s := range c.list {
		w := b[i*stepSize:]
		put := func(n int, v uint64) { binary.NativeEndian.PutUint64(w[8*n:], v) }
		put(0, uint64(s.nr))
		for j, a := range s.args {
			put(1+j, uint64(a))
		}
		if s.pointer != nil {
			put(1, at[s.pointer])
		}
		put(7, uint64(s.flags))
		if s.arg0 != nil {
			put(9, at[s.arg0])
		}
	}
	return b, nil
}

// resultOffset is where a step keeps its result.
const resultOffset = 64

// running is a list that a child is working on.
type running struct {
	*Calls
	mem *os.File
	// What is in the memory already: steps, and bytes of their data.
	steps, bytes int
}

// place writes the list into memory that the runner maps.
func (c *Calls) place() (*running, error) {
	fd, err := unix.MemfdCreate("steps", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for a child's steps: %w", err)
	}
	r := &running{Calls: c, mem: os.NewFile(uintptr(fd), "steps")}
	if err := r.write(); err != nil {
		_ = r.mem.Close()
		return nil, fmt.Errorf("memory for a child's steps: %w", err)
	}
	return r, nil
}

// write puts what is new into the memory: the data first, which steps point to.
// What is between the two is never written, and zero.
func (r *running) write() error {
	steps, err := r.image()
	if err != nil {
		return err
	}
	if _, err := r.mem.WriteAt(r.data[r.bytes:], int64(callData+r.bytes)); err != nil {
		return err
	}
	from := r.steps * stepSize
	if _, err := r.mem.WriteAt(steps[from:], int64(headerSize+from)); err != nil {
		return err
	}
	r.steps, r.bytes = len(r.list), len(r.data)
	return nil
}

// Extend gives a child that waits in one of its steps those that were added to
// its Calls after Start. Descriptors cannot be added any more.
func (p *Process) Extend() error {
	if err := p.calls.write(); err != nil {
		return fmt.Errorf("extend a child's steps: %w", err)
	}
	return nil
}

// word reads a word that the child may have written.
func (r *running) word(off int) (uint64, error) {
	var b [8]byte
	if _, err := r.mem.ReadAt(b[:], int64(off)); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// step is the step at an address that the child wrote, nil for none.
func (r *running) step(addr uint64) (*Call, int) {
	i := (int64(addr) - callBase - headerSize) / stepSize
	if i < 0 || i >= int64(len(r.list)) {
		return nil, 0
	}
	return r.list[i], int(i)
}

// outcome tells how the list ended, once the child has executed a program or is
// gone: nil when it executed one.
func (r *running) outcome() error {
	failed, err := r.word(failedStep)
	if err != nil {
		return err
	}
	if s, _ := r.step(failed); s != nil {
		return r.failure(s)
	}
	at, err := r.word(progress)
	if err != nil {
		return err
	}
	s, _ := r.step(at)
	if s == nil {
		return errors.New("start child: it ended before its first step")
	}
	if s.nr == unix.SYS_EXIT_GROUP {
		return r.failure(s)
	}
	if s.nr != unix.SYS_EXECVE && s.nr != unix.SYS_EXECVEAT {
		return fmt.Errorf("start child: it was killed at step %q", s.name)
	}
	return nil
}

// failure is a step with the last error.
func (r *running) failure(s *Call) error {
	result, err := r.word(lastError)
	if err != nil {
		return err
	}
	return &StepError{Step: s.name, Errno: unix.Errno(-int64(result))}
}

// startCalls makes a child that performs c.Calls.
func (c *Command) startCalls() (_ *Process, err error) {
	if c.New&(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME) != 0 {
		return nil, errors.New("start child: a new user or time namespace needs a program of its own")
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	exe, err := runnerProgram()
	if err != nil {
		return nil, err
	}
	open = append(open, exe)
	status, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start child: %w", err)
	}
	open = append(open, theirs)
	list := c.Calls
	childAt := list.head(c)
	// The memory comes last: what it contains must know all other numbers.
	list.status = list.File(theirs)
	run, err := list.place()
	if err != nil {
		_ = status.Close()
		return nil, err
	}
	at := list.base + len(list.files)
	const low = 0x7f
	if at > low<<7|low {
		_, _ = status.Close(), run.mem.Close()
		return nil, fmt.Errorf("start child: %d descriptors are too many", at)
	}
	inner := &Command{
		// The descriptor of the steps in two bytes that are not NUL, for the runner.
		Exe: exe, Args: []string{string([]byte{byte(at&low) | 1<<7, byte(at>>7) | 1<<7}), "init"},
		Files: append(append(append([]*os.File{}, c.Files...), list.files...), run.mem), Cgroup: c.Cgroup,
	}
	fork := c.needsFork()
	if !fork {
		inner.New = c.New
	}
	p, err := inner.Start()
	if err != nil {
		_, _ = status.Close(), run.mem.Close()
		return nil, err
	}
	// From here on this pipe tells of the execve: it ends with the last child.
	_ = p.exec.Close()
	p.exec, p.calls = status, run
	_ = theirs.Close()
	open = open[:1]
	if fork {
		if err := p.adoptCalls(childAt); err != nil {
			p.release()
			return nil, err
		}
	}
	return p, nil
}

// head puts the steps of c before those of its caller; the result is where the
// pid of a second child is noted.
func (l *Calls) head(c *Command) (childAt uintptr) {
	body := l.list
	l.list = nil
	joins := make([]uintptr, len(c.Join))
	for i, j := range c.Join {
		joins[i] = l.File(j.NS)
	}
	l.Add("mark descriptors", unix.SYS_CLOSE_RANGE, uintptr(l.base), maxFD, unix.CLOSE_RANGE_CLOEXEC)
	// Nobody in a namespace that is joined may look into us (CVE-2016-9962).
	l.Add("hide from debuggers", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for i, j := range c.Join {
		l.Add("join namespace "+j.NS.Name(), unix.SYS_SETNS, joins[i], j.Type)
	}
	if c.needsFork() {
		childAt = l.Bytes(make([]byte, 8))
		// See Process.start.
		again := cloneArgs{flags: unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | uint64(c.New), parentTID: uint64(childAt)}
		l.Add("clone into namespaces", unix.SYS_CLONE3,
			l.Bytes((*[unsafe.Sizeof(again)]byte)(unsafe.Pointer(&again))[:]), unsafe.Sizeof(again)).flags = forks
	}
	if c.RootInUser {
		l.Add("drop groups", unix.SYS_SETGROUPS, 0, 0).Optional()
		l.Add("become group 0 of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
		l.Add("become user 0 of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	}
	for _, w := range c.Writes {
		l.Add("write "+w.File.Name(), unix.SYS_WRITE, l.File(w.File), l.Bytes([]byte(w.Data)), uintptr(len(w.Data)))
	}
	l.list = append(l.list, body...)
	return childAt
}

// maxFD is close_range's word for "and all above".
const maxFD = 1<<32 - 1

// adoptCalls waits for the child that joined namespaces and takes the one it
// left us.
func (p *Process) adoptCalls(childAt uintptr) error {
	inter := p.Pid
	var info unix.Siginfo
	err := ignoringEINTR(func() error { return unix.Waitid(unix.P_PID, inter, &info, unix.WEXITED, nil) })
	_ = p.PidFD.Close()
	if err != nil {
		return fmt.Errorf("start child: wait for intermediate process %d: %w", inter, err)
	}
	if err := p.prog.failure(); err != nil {
		return err
	}
	pid, err := p.calls.word(int(childAt - callBase))
	if err != nil {
		return err
	}
	if pid == 0 {
		if err := p.calls.outcome(); err != nil {
			return err
		}
		return fmt.Errorf("start child: intermediate process %d was killed", inter)
	}
	// It may have failed already: that is for Started to say.
	p.Pid = int(uint32(pid))
	fd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		p.PidFD = nil
		p.destroy()
		return fmt.Errorf("start child: pidfd of %d: %w", p.Pid, err)
	}
	p.PidFD = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// failures are the watched steps that failed.
func (r *running) failures() []*StepError {
	var list []*StepError
	for i, s := range r.list {
		if !s.watched {
			continue
		}
		if v, err := r.word(headerSize + i*stepSize + resultOffset); err == nil && int64(v) < 0 {
			list = append(list, &StepError{Step: s.name, Errno: unix.Errno(-int64(v))})
		}
	}
	return list
}

// runnerCode is where the code of the runner begins.
func runnerCode() unsafe.Pointer

// runner is never called: it is copied.
//
//nolint:unused // by runnerCode, in assembly
func runner()

// runnerEnd is what the code ends with.
var runnerEnd = []byte("erun end")

// runnerProgram makes the runner executable: an ELF file of one segment in
// memory that nobody can change. It takes 20 µs and is closed when it runs.
func runnerProgram() (*os.File, error) {
	n := 0
	for !bytes.Equal(unsafe.Slice((*byte)(unsafe.Add(runnerCode(), n)), len(runnerEnd)), runnerEnd) {
		n++
	}
	code := unsafe.Slice((*byte)(runnerCode()), n)
	const name = "orlop-runtime"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC is of kernel 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make runner: memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(elf(code))
	if err == nil {
		err = unix.Fchmod(fd, 0o511)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make runner: %w", err)
	}
	return f, nil
}

// elf is an executable file (elf(5)) of this code alone, with a stack that
// cannot be executed.
func elf(code []byte) []byte {
	const (
		vaddr      = 0x400000
		headers    = 64 + 2*56
		ptLoad     = 1
		ptGNUStack = 0x6474e551
		page       = 0x1000
	)
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, elfMachine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, vaddr+headers) // e_entry
	b = le.AppendUint64(b, 64)            // e_phoff
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 2, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint64(headers + len(code))
	segment := func(kind, flags uint32, addr, size, align uint64) {
		b = le.AppendUint32(le.AppendUint32(b, kind), flags)
		for _, v := range []uint64{0, addr, addr, size, size, align} {
			b = le.AppendUint64(b, v)
		}
	}
	segment(ptLoad, 5, vaddr, size, page) // read, execute
	segment(ptGNUStack, 6, 0, 0, 16)      // read, write
	return append(b, code...)
}
