// Package process starts programs in namespaces and cgroups of their own, and
// makes the sealed copy of an executable they are started from. The entry
// points are Command.Start, NewUserNamespace and SealSelf.
//
// The child between clone and execve runs a list of raw system calls (see
// program) instead of Go code: it has a single thread, so it may join a user
// namespace. It shares the address space of its parent unless a time
// namespace is involved, which makes starting it independent of the parent's
// size. Nothing here takes a lock.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Join is a namespace to enter.
type Join struct {
	// NS is a namespace's file or, with several bits in Type, a pidfd (kernel 5.8).
	NS *os.File
	// Type has the CLONE_NEW* bits to join.
	Type uintptr
}

// IDMap is one line of uid_map or gid_map.
type IDMap struct {
	Inside, Outside, Size uint32
}

// Write is data that the child writes to an open file before its execve.
type Write struct {
	File *os.File
	Data string
}

// Command is a process to start.
type Command struct {
	// Exe is executed by descriptor, so it needs no path in the child's root.
	Exe *os.File
	// Calls are performed instead of executing Exe, which, with Args and Env, is
	// not used then. They belong to one Start; New may not have user and time
	// namespaces.
	Calls *Calls
	// Args includes the program's name. Env is complete.
	Args, Env []string
	// Files become descriptors 0, 1, …; nil is closed. Every other descriptor
	// must be close-on-exec, as Go's are.
	Files []*os.File
	// New has the CLONE_NEW* bits of the namespaces to make.
	New uintptr
	// Join lists the namespaces to enter, in this order, before New ones are made
	// when a user, pid or time namespace is among the joined or the new has a
	// user namespace; else after it.
	Join []Join
	// UIDs and GIDs are the maps of a new user namespace.
	UIDs, GIDs []IDMap
	// TimeOffsets is written to timens_offsets of a new time namespace.
	TimeOffsets string
	// RootInUser becomes uid and gid 0 of the user namespace joined or made.
	RootInUser bool
	// Cgroup is a directory of cgroup v2 to be born in (kernel 5.7), or nil.
	Cgroup *os.File
	// Writes are done after every join, in order.
	Writes []Write
}

// Process is a started child.
type Process struct {
	Pid int
	// PidFD is the process's pidfd, non-blocking and in the runtime's poller.
	PidFD *os.File

	prog   *program
	calls  *running // or nil
	exec   *os.File // EOF when the child's execve succeeded or it died
	exeEnd bool
	failed []*StepError
}

// Failures are the steps of Calls that were watched and failed: until now, while
// the child is at them.
func (p *Process) Failures() []*StepError {
	if p.calls != nil && !p.exeEnd {
		return p.calls.failures()
	}
	return p.failed
}

// needsFork reports whether the child must be made in two steps: a joined pid
// or time namespace holds only for children, and a new user namespace takes
// the rights that joining needs.
func (c *Command) needsFork() bool {
	var joined uintptr
	for _, j := range c.Join {
		joined |= j.Type
	}
	if joined&(unix.CLONE_NEWPID|unix.CLONE_NEWTIME|unix.CLONE_NEWUSER) != 0 {
		return true
	}
	return c.New&unix.CLONE_NEWTIME != 0 && c.TimeOffsets != "" || c.New&unix.CLONE_NEWUSER != 0 && joined != 0
}

// usesTime reports whether the address space cannot be shared.
func (c *Command) usesTime() bool {
	t := c.New
	for _, j := range c.Join {
		t |= j.Type
	}
	return t&unix.CLONE_NEWTIME != 0
}

// Start makes the child and returns while it is on its way to its execve:
// Started tells how that ended. A child whose Start failed is gone.
func (c *Command) Start() (*Process, error) {
	if c.Calls != nil {
		return c.startCalls()
	}
	size := 0
	for _, s := range c.Args {
		size += len(s) + 16
	}
	for _, s := range c.Env {
		size += len(s) + 16
	}
	for _, w := range c.Writes {
		size += len(w.Data) + 16
	}
	prog, err := newProgram(size + len(c.TimeOffsets))
	if err != nil {
		return nil, err
	}
	p := &Process{prog: prog}
	if err := p.start(c); err != nil {
		prog.free()
		if p.exec != nil {
			_ = p.exec.Close()
		}
		return nil, err
	}
	return p, nil
}

func (p *Process) start(c *Command) error {
	var done, maps [2]int
	if err := unix.Pipe2(done[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("start child: pipe: %w", err)
	}
	p.exec = os.NewFile(uintptr(done[0]), "exec")
	maps = [2]int{-1, -1}
	newUser := c.New&unix.CLONE_NEWUSER != 0
	if newUser {
		if err := unix.Pipe2(maps[:], unix.O_CLOEXEC); err != nil {
			_ = unix.Close(done[1])
			return fmt.Errorf("start child: pipe: %w", err)
		}
	}
	defer func() {
		_ = unix.Close(done[1])
		if maps[0] >= 0 {
			_ = unix.Close(maps[0])
		}
		if maps[1] >= 0 {
			_ = unix.Close(maps[1])
		}
	}()

	fds := newShuffle(c, done[1], maps[0], maps[1])
	base := uint64(0)
	if !c.usesTime() {
		base = unix.CLONE_VM
	}
	fork := c.needsFork()
	first := cloneArgs{flags: base | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(unix.SIGCHLD)}
	if c.Cgroup != nil {
		first.flags |= unix.CLONE_INTO_CGROUP
		first.cgroup = uint64(c.Cgroup.Fd())
	}
	if !fork {
		first.flags |= uint64(c.New)
	}
	pidfdAt := p.prog.bytes(make([]byte, 8))
	first.pidfd = uint64(pidfdAt)

	var childAt uintptr
	prog := p.prog
	prog.fds(fds)
	for _, j := range c.Join {
		prog.add("join namespace "+j.NS.Name(), unix.SYS_SETNS, uintptr(fds.now(j.NS.Fd())), j.Type)
	}
	if fork {
		clones := uint64(c.New)
		if c.New&unix.CLONE_NEWTIME != 0 && c.TimeOffsets != "" {
			// Offsets can be set only while nobody is in the namespace.
			clones &^= unix.CLONE_NEWTIME
			cwd := unix.AT_FDCWD
			prog.add("unshare time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
			open := prog.add("open timens_offsets", unix.SYS_OPENAT, uintptr(cwd), prog.str("/proc/self/timens_offsets"), unix.O_WRONLY|unix.O_CLOEXEC)
			w := prog.add("set time offsets", unix.SYS_WRITE, 0, prog.str(c.TimeOffsets), uintptr(len(c.TimeOffsets)))
			w.from = uintptr(unsafe.Pointer(&open.ret))
		}
		// CLONE_PARENT makes it our child; the signal of its exit is then the
		// intermediate's own, so none may be given.
		// The kernel notes the child's pid before the child or the intermediate runs
		// on: one that is killed in between leaves no child that nobody knows.
		childAt = prog.bytes(make([]byte, 8))
		again := cloneArgs{flags: base | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID | unix.CLONE_CLEAR_SIGHAND | clones, parentTID: uint64(childAt)}
		s := prog.add("clone into namespaces", unix.SYS_CLONE3,
			prog.bytes((*[unsafe.Sizeof(again)]byte)(unsafe.Pointer(&again))[:]), unsafe.Sizeof(again))
		s.flags = forks
	}
	if newUser {
		prog.add("close pipe", unix.SYS_CLOSE, uintptr(fds.now(uintptr(maps[1]))))
		prog.add("wait for id maps", unix.SYS_READ, uintptr(fds.now(uintptr(maps[0]))), prog.bytes(make([]byte, 8)), 1)
	}
	if c.RootInUser {
		// Groups may be denied in the namespace: then there is nothing to drop.
		prog.add("drop groups", unix.SYS_SETGROUPS, 0, 0).flags = ignoreError
		prog.add("become group 0 of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
		prog.add("become user 0 of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	}
	for _, w := range c.Writes {
		prog.add("write "+w.File.Name(), unix.SYS_WRITE, uintptr(fds.now(w.File.Fd())), prog.str(w.Data), uintptr(len(w.Data)))
	}
	prog.files(fds)
	empty := prog.bytes(make([]byte, 8))
	prog.add("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, empty, 0, 8)
	prog.add("exec "+c.Exe.Name(), unix.SYS_EXECVEAT, uintptr(fds.now(c.Exe.Fd())), empty, prog.strs(c.Args), prog.strs(c.Env), unix.AT_EMPTY_PATH)
	if prog.err != nil {
		return prog.err
	}

	pid, err := clone(&first, prog)
	runtime.KeepAlive(c)
	if err != nil {
		return fmt.Errorf("start child: clone: %w", err)
	}
	p.Pid = pid
	pidfd := int(prog.word(pidfdAt))
	if fork {
		if err := p.adopt(childAt, pidfd); err != nil {
			return err
		}
	} else {
		p.PidFD = pollable(pidfd)
	}
	if newUser {
		if err := writeMaps(p.Pid, c.UIDs, c.GIDs); err != nil {
			p.destroy()
			return err
		}
		if _, err := unix.Write(maps[1], []byte{1}); err != nil {
			p.destroy()
			return fmt.Errorf("start child: release it after its id maps: %w", err)
		}
	}
	return nil
}

// clone runs clone3 with every signal blocked, so that none arrives in a child
// that shares our memory.
func clone(args *cloneArgs, prog *program) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	UsualSlack()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return 0, err
	}
	r := cloneRun(unsafe.Pointer(args), unsafe.Sizeof(*args), unsafe.Pointer(&prog.mem[0]))
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if r < 0 {
		return 0, unix.Errno(-r)
	}
	return int(r), nil
}

// adopt waits for the intermediate process and takes the child it left us.
func (p *Process) adopt(childAt uintptr, pidfd int) error {
	inter := p.Pid
	var info unix.Siginfo
	err := ignoringEINTR(func() error { return unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED, nil) })
	_ = unix.Close(pidfd)
	if err != nil {
		return fmt.Errorf("start child: wait for intermediate process %d: %w", inter, err)
	}
	pid := p.prog.word(childAt)
	if pid <= 0 {
		if err := p.prog.failure(); err != nil {
			return err
		}
		return fmt.Errorf("start child: intermediate process %d was killed", inter)
	}
	// It may have failed already: that is for Started to say.
	p.Pid = int(pid)
	fd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		p.destroy()
		return fmt.Errorf("start child: pidfd of %d: %w", p.Pid, err)
	}
	p.PidFD = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// pollable makes a pidfd one that the runtime's poller waits for.
func pollable(fd int) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pidfd")
}

// Started waits for the child's execve. Its failure (a *StepError) leaves no
// process behind.
func (p *Process) Started() error {
	if p.exeEnd {
		return nil
	}
	failure, err := p.executed()
	if err != nil {
		p.destroy()
		return err
	}
	if failure != nil {
		p.reap()
	}
	return failure
}

// Executed is Started for a child whose end somebody else waits for.
func (p *Process) Executed() error {
	if p.exeEnd {
		return nil
	}
	failure, err := p.executed()
	return errors.Join(failure, err)
}

func (p *Process) executed() (failure, err error) {
	p.exeEnd = true
	var b [1]byte
	_, err = p.exec.Read(b[:])
	_ = p.exec.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("start child: %w", err)
	}
	failure = p.prog.failure()
	if failure == nil && p.calls != nil {
		failure = p.calls.outcome()
		p.failed = p.calls.failures()
	}
	p.release()
	return failure, nil
}

// Leave releases what a Start holds of a child whose execve nobody waits for.
func (p *Process) Leave() {
	if !p.exeEnd {
		p.exeEnd = true
		p.release()
	}
}

// release frees what only the start needed.
func (p *Process) release() {
	_ = p.exec.Close()
	p.prog.free()
	if p.calls != nil {
		_ = p.calls.mem.Close()
	}
}

// destroy kills and reaps a child that is still running its program.
func (p *Process) destroy() {
	_ = unix.Kill(p.Pid, unix.SIGKILL)
	p.reap()
}

func (p *Process) reap() {
	_ = ignoringEINTR(func() error { _, err := unix.Wait4(p.Pid, nil, 0, nil); return err })
	if p.PidFD != nil {
		_ = p.PidFD.Close()
	}
}

func writeMaps(pid int, uids, gids []IDMap) error {
	dir := "/proc/" + strconv.Itoa(pid)
	if os.Geteuid() != 0 {
		// user_namespaces(7): an unprivileged writer of gid_map must deny setgroups first.
		if err := os.WriteFile(dir+"/setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("start child: %w", err)
		}
	}
	if err := os.WriteFile(dir+"/gid_map", formatMap(gids), 0); err != nil {
		return fmt.Errorf("start child: map groups: %w", err)
	}
	if err := os.WriteFile(dir+"/uid_map", formatMap(uids), 0); err != nil {
		return fmt.Errorf("start child: map users: %w", err)
	}
	return nil
}

func formatMap(m []IDMap) []byte {
	var b []byte
	for _, l := range m {
		b = strconv.AppendUint(b, uint64(l.Inside), 10)
		b = strconv.AppendUint(append(b, ' '), uint64(l.Outside), 10)
		b = append(strconv.AppendUint(append(b, ' '), uint64(l.Size), 10), '\n')
	}
	return b
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
