package conform

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var arches = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}

// filtered gives a case a profile that allows everything but the given rules.
func filtered(rules ...specs.LinuxSyscall) func(*Env, *specs.Spec) {
	return func(_ *Env, s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: arches, Syscalls: rules}
	}
}

// moreSeccompCases are the rest of "Seccomp" of config-linux.md.
func moreSeccompCases() []Case {
	const section = "config-linux.md#seccomp"
	eperm := uint(unix.EPERM)
	made := []string{"mkdir", "mkdirat"}
	// Personality takes one number: what an operator says of it shows in the answer.
	arg := func(op specs.LinuxSeccompOperator, value, two uint64) func(*Env, *specs.Spec) {
		return filtered(specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{{Index: 1, Value: value, ValueTwo: two, Op: op}}})
	}
	var cases []Case
	// kill -N 1 with N = 0 and 17 (CHLD, which changes nothing).
	for _, o := range []struct {
		op         specs.LinuxSeccompOperator
		value, two uint64
		zero, chld string
	}{
		{specs.OpEqualTo, 17, 0, "0", "1"}, {specs.OpNotEqual, 17, 0, "1", "0"},
		{specs.OpLessThan, 17, 0, "1", "0"}, {specs.OpLessEqual, 17, 0, "1", "1"},
		{specs.OpGreaterThan, 0, 0, "0", "1"}, {specs.OpGreaterEqual, 17, 0, "0", "1"},
		{specs.OpMaskedEqual, 16, 16, "0", "1"},
	} {
		cases = append(cases, Case{Section: section, Name: "operator " + string(o.op), Script: "kill -0 1; a=$?; kill -17 1; echo $a $?", Edit: arg(o.op, o.value, o.two), Want: []string{o.zero + " " + o.chld + "\n"}})
	}
	two := []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}, {Index: 1, Value: 17, Op: specs.OpEqualTo}}
	bad := func(name, alone string, edit func(p *specs.LinuxSeccomp)) Case {
		return Case{Section: section, Name: name, Fails: true, Script: "echo " + ranMark, Alone: alone, Edit: func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})(e, s)
			edit(s.Linux.Seccomp)
		}}
	}
	nospc := uint(28)
	return append(append(cases,
		Case{Section: section, Name: "all conditions of a rule must hold", Script: "kill -0 1; a=$?; kill -17 1; echo $a $?", Want: []string{"0 1\n"},
			Edit: filtered(specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: two})},
		Case{Section: section, Name: "a value of 64 bits", Script: "kill -0 1; echo $?", Want: []string{"0\n"},
			Edit: filtered(specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 1 << 32, Op: specs.OpEqualTo}}})},
		Case{Section: section, Name: "the default action holds for what is not named", Script: "mkdir /d; echo $?", Want: []string{"1\n"}, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: arches, Syscalls: []specs.LinuxSyscall{{Names: allBut("mkdir", "mkdirat"), Action: specs.ActAllow}}}
		}},
		Case{Section: section, Name: "defaultErrnoRet", Script: "mkdir /d", Want: []string{"No space left"}, Code: 1, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &nospc, Architectures: arches, Syscalls: []specs.LinuxSyscall{{Names: allBut("mkdir", "mkdirat"), Action: specs.ActAllow}}}
		}},
		Case{Section: section, Name: "kill is of the thread", Script: "(mkdir /d); echo status $?", Edit: filtered(specs.LinuxSyscall{Names: made, Action: specs.ActKill}), Want: []string{"status 159"}},
		Case{Section: section, Name: "kill of the thread by name", Script: "(mkdir /d); echo status $?", Edit: filtered(specs.LinuxSyscall{Names: made, Action: specs.ActKillThread}), Want: []string{"status 159"}},
		Case{Section: section, Name: "trace without a tracer answers ENOSYS", Script: "mkdir /d; echo $?", Edit: filtered(specs.LinuxSyscall{Names: made, Action: specs.ActTrace}), Want: []string{"not implemented"}},
		Case{Section: section, Name: "the first of two rules counts", Script: "mkdir /d; echo $?", Want: []string{"No space left"},
			Edit: filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno, ErrnoRet: &nospc}, specs.LinuxSyscall{Names: []string{"rmdir"}, Action: specs.ActErrno})},
		Case{Section: section, Name: "flag LOG", Script: "grep Seccomp: /proc/self/status", Want: []string{"2\n"}, Edit: func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})(e, s)
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}
		}},
		Case{Section: section, Name: "flag SPEC_ALLOW", Script: "grep Speculation_Store /proc/self/status", Want: []string{"Speculation_Store_Bypass:"}, Edit: func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})(e, s)
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}
		}},
		Case{Section: section, Name: "flag TSYNC", Script: "grep Seccomp: /proc/self/status", Want: []string{"2\n"}, Edit: func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})(e, s)
			s.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}
		}},
		Case{Section: section, Name: "without architectures the native one is filtered", Script: "mkdir /d; echo $?", Want: []string{"1\n"}, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: made, Action: specs.ActErrno}}}
		}},
		Case{Section: section, Name: "an architecture of another machine does no harm", Script: "echo ok", Want: []string{"ok"}, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: append([]specs.Arch{specs.ArchARM}, arches...), Syscalls: []specs.LinuxSyscall{{Names: made, Action: specs.ActErrno}}}
		}},
		Case{Section: section, Name: "children have the filter", Script: "sh -c 'grep Seccomp: /proc/self/status'", Want: []string{"2\n"}, Edit: filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})},
		bad("an unknown action fails", "", func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = "SCMP_ACT_NONSENSE" }),
		bad("an unknown default action fails", "", func(p *specs.LinuxSeccomp) { p.DefaultAction = "SCMP_ACT_NONSENSE" }),
		bad("an unknown architecture fails", "", func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, "SCMP_ARCH_NONSENSE") }),
		bad("an unknown operator fails", "", func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Op: "SCMP_CMP_NONSENSE"}}
		}),
		bad("an unknown flag fails", "", func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NONSENSE"} }),
		bad("an argument that no call has fails", "", func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Index: 9, Op: specs.OpEqualTo}}
		}),
		bad("an errno of an action that has none fails", "", func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Action, p.Syscalls[0].ErrnoRet = specs.ActAllow, &nospc
		}),
		bad("a rule without names fails", "", func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = nil }),
		bad("notify without a listener path fails", "", func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActNotify }),
		bad("notify with a socket that is not there fails", "", func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Action, p.ListenerPath = specs.ActNotify, "/nowhere/socket"
		}),
		bad("listenerMetadata without listenerPath fails", "runc 1.1.5 and crun 1.8.1 leave it out", func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "x" }),
		Case{Section: section, Name: "listenerPath without notify is ignored", Script: "echo ok", Want: []string{"ok"}, Edit: func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: made, Action: specs.ActErrno})(e, s)
			s.Linux.Seccomp.ListenerPath = "/nowhere/socket"
		}},
	), notifyCases()...)
}

// allBut are the calls that Docker's default profile allows everybody, without some.
func allBut(not ...string) []string {
	var out []string
	for _, c := range profile.DefaultProfile().Syscalls {
		if c.Action != specs.ActAllow || len(c.Args) > 0 {
			continue
		}
		for _, name := range c.Names {
			if !slices.Contains(not, name) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// agent is a seccomp agent that lets every call pass that it is asked about and
// counts them.
type agent struct {
	listener *net.UnixListener
	dir      string
	state    chan specs.ContainerProcessState
	failed   chan error
	// closed gets a value for each connection that its runtime closed.
	closed chan bool
}

// listen makes the agent's socket.
func listen(e *Env) (*agent, error) {
	dir, err := os.MkdirTemp("", "a")
	if err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	a := &agent{listener: l, dir: dir, state: make(chan specs.ContainerProcessState, 8), failed: make(chan error, 8), closed: make(chan bool, 8)}
	e.spec.Linux.Seccomp.ListenerPath = filepath.Join(dir, "s")
	if err := e.Write(); err != nil {
		return nil, err
	}
	go a.serve()
	return a, nil
}

func (a *agent) close() {
	_ = a.listener.Close()
	_ = os.RemoveAll(a.dir)
}

func (a *agent) serve() {
	for {
		msg, f, conn, err := receive(a.listener, json.Valid)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				a.failed <- err
			}
			return
		}
		var st specs.ContainerProcessState
		if err := json.Unmarshal(msg, &st); err != nil {
			a.failed <- fmt.Errorf("%w: %q", err, msg)
			return
		}
		a.state <- st
		go allow(f)
		go func() {
			defer conn.Close()
			if n, err := conn.Read(make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
				a.closed <- true
			}
		}()
	}
}

// allow answers every notification with "go on" (seccomp_unotify(2)).
func allow(f *os.File) {
	defer f.Close()
	for {
		var req [80]byte // struct seccomp_notif
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0xc0502100, uintptr(unsafe.Pointer(&req))); e != 0 {
			if e == unix.EINTR || e == unix.ENOENT {
				continue
			}
			return
		}
		var resp [24]byte // struct seccomp_notif_resp: id, val, error, flags
		copy(resp[:8], req[:8])
		resp[20] = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0xc0182101, uintptr(unsafe.Pointer(&resp)))
	}
}

func notifyCases() []Case {
	const section = "config-linux.md#the-container-process-state"
	notify := func(noNew bool, names ...string) func(*Env, *specs.Spec) {
		return func(e *Env, s *specs.Spec) {
			filtered(specs.LinuxSyscall{Names: names, Action: specs.ActNotify})(e, s)
			s.Linux.Seccomp.ListenerMetadata = "opaque data"
			s.Process.NoNewPrivileges = noNew
		}
	}
	run := func(then func(e *Env, a *agent) error) func(e *Env) error {
		return func(e *Env) error {
			a, err := listen(e)
			if err != nil {
				return err
			}
			defer a.close()
			return then(e, a)
		}
	}
	told := func(e *Env, a *agent) error {
		select {
		case st := <-a.state:
			if st.Version == "" || len(st.Fds) != 1 || st.Fds[0] != specs.SeccompFdName || st.Pid <= 0 || st.Metadata != "opaque data" ||
				st.State.ID != e.ID || st.State.Bundle != e.Dir || st.State.Pid <= 0 {
				return fmt.Errorf("process state %+v", st)
			}
			return nil
		case err := <-a.failed:
			return err
		case <-time.After(limit):
			return errors.New("the agent was told nothing")
		}
	}
	output := func(e *Env, a *agent) error {
		out, code, err := e.Call("run", e.ID)
		if err == nil && (code != 0 || out != "made\n") {
			err = fmt.Errorf("status %d, output %q", code, out)
		}
		if err != nil {
			return err
		}
		return told(e, a)
	}
	var cases []Case
	for _, c := range []struct {
		name  string
		noNew bool
		calls []string
	}{
		{"notify asks the agent", true, []string{"mkdir", "mkdirat"}},
		{"notify without noNewPrivileges", false, []string{"mkdir", "mkdirat"}},
		{"notify of sendmsg", true, []string{"sendmsg", "mkdir", "mkdirat"}},
		{"notify of sendmsg and recvmsg without noNewPrivileges", false, []string{"sendmsg", "recvmsg", "mkdir", "mkdirat"}},
		{"notify of read, close and futex", true, []string{"read", "close", "futex", "poll", "ppoll", "mkdir", "mkdirat"}},
		{"notify of execve", true, []string{"execve"}},
		{"notify of write", true, []string{"write"}},
	} {
		cases = append(cases, Case{Section: section, Name: c.name, Script: "mkdir /d && echo made", Edit: notify(c.noNew, c.calls...), Do: run(output)})
	}
	return append(cases,
		Case{Section: section, Name: "the connection is closed after it", Script: "mkdir /d; sleep 100", Edit: notify(true, "mkdir", "mkdirat"), Do: run(func(e *Env, a *agent) error {
			if err := first(e.Started, func() error { return told(e, a) }); err != nil {
				return err
			}
			select {
			case <-a.closed:
				return nil
			case <-time.After(limit):
				return errors.New("it is open")
			}
		})},
		Case{Section: section, Name: "create and start", Script: "mkdir /d && touch /made; sleep 100", Edit: notify(true, "mkdir", "mkdirat"), Do: run(func(e *Env, a *agent) error {
			return first(e.Started, func() error { return appears(e.Root("made")) }, func() error { return told(e, a) })
		})},
		Case{Section: section, Name: "exec asks the agent too", Script: "sleep 100", Edit: notify(true, "mkdir", "mkdirat"), Do: run(func(e *Env, a *agent) error {
			return first(e.Started, func() error { return told(e, a) }, func() error { return e.Says([]string{"made"}, "exec", e.ID, "sh", "-c", "mkdir /e && echo made") }, func() error { return told(e, a) })
		})},
	)
}
