package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain is also a program that attaches a filter and makes a call, for
// filters that end the process.
func TestMain(m *testing.M) {
	act := os.Getenv("ORLOP_TEST_ACTION")
	if act == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	f, err := Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"getpgid"}, Action: specs.LinuxSeccompAction(act)}},
	})
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err == nil {
		err = f.Install()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	_, _, e := unix.RawSyscall(unix.SYS_GETPGID, 0, 0, 0)
	fmt.Println("result:", e)
	os.Exit(0)
}

// onThreadOfItsOwn runs f on a thread that ends with it: a filter cannot be
// taken off, and the process's first thread would keep it.
func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run()
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		f()
	}
	go run()
	<-done
}

// filtered attaches a filter to a thread and runs f on it.
func filtered(t *testing.T, p *specs.LinuxSeccomp, f func(t *testing.T)) {
	t.Helper()
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	// As another process would get it.
	b, err := filter.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if filter, err = UnmarshalFilter(b); err != nil {
		t.Fatal(err)
	}
	onThreadOfItsOwn(func() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		if err := filter.Install(); err != nil {
			t.Errorf("install: %v", err)
			return
		}
		f(t)
	})
}

func TestErrnoAndConditionsInTheKernel(t *testing.T) {
	errno := uint(unix.EXDEV)
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getpgid"}, Action: specs.ActErrno, ErrnoRet: &errno},
			{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpGreaterThan, Value: 0xfffffffe}}},
			{Names: []string{"lseek"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpMaskedEqual, Value: 0xff00000000, ValueTwo: 0x1200000000}}},
		},
	}
	filtered(t, p, func(t *testing.T) {
		if _, _, e := unix.RawSyscall(unix.SYS_GETPGID, 0, 0, 0); e != unix.EXDEV {
			t.Errorf("getpgid: %v", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); e != unix.EPERM {
			t.Errorf("personality above the limit: %v", e)
		}
		bad := ^uintptr(0)
		var matching, other uint64 = 0x12_3456_7890, 0x13_3456_7890
		if _, _, e := unix.RawSyscall(unix.SYS_LSEEK, bad, uintptr(matching), 0); e != unix.EPERM {
			t.Errorf("lseek with the mask's value: %v", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_LSEEK, bad, uintptr(other), 0); e != unix.EBADF {
			t.Errorf("lseek with another value: %v", e)
		}
	})
}

func TestDefaultProfileInTheKernel(t *testing.T) {
	p, err := DefaultProfile(dockerCaps)
	if err != nil {
		t.Fatal(err)
	}
	filtered(t, p, func(t *testing.T) {
		for _, c := range []struct {
			name    string
			nr      uintptr
			a, b, c uintptr
			want    unix.Errno
		}{
			{"getpid", unix.SYS_GETPID, 0, 0, 0, 0},
			{"mount", unix.SYS_MOUNT, 0, 0, 0, unix.EPERM},
			{"clone3", unix.SYS_CLONE3, 0, 0, 0, unix.ENOSYS},
			{"unshare", unix.SYS_UNSHARE, 0, 0, 0, unix.EPERM},
			{"personality", unix.SYS_PERSONALITY, 0xffffffff, 0, 0, 0},
			{"a call above all the profile names", 999, 0, 0, 0, unix.ENOSYS},
			{"socket of the vsock family", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0, unix.EPERM},
		} {
			_, _, e := unix.RawSyscall(c.nr, c.a, c.b, c.c)
			if e != c.want {
				t.Errorf("%s: %v, want %v", c.name, e, c.want)
			}
		}
	})
}

func TestActionsThatEndAProcess(t *testing.T) {
	for act, want := range map[specs.LinuxSeccompAction]string{
		specs.ActKillProcess: "bad system call",
		specs.ActTrap:        "SIGSYS",
		specs.ActLog:         "result: errno 0",
		specs.ActAllow:       "result: errno 0",
		specs.ActErrno:       "result: operation not permitted",
		specs.ActTrace:       "result: function not implemented", // no tracer
	} {
		c := exec.Command("/proc/self/exe", "-test.run=^$")
		c.Env = append(os.Environ(), "ORLOP_TEST_ACTION="+string(act))
		out, err := c.CombinedOutput()
		if text := fmt.Sprint(string(out), err); !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %q", act, text, want)
		}
	}
}

func TestNotifyHandsTheListenerOver(t *testing.T) {
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"getpgid"}, Action: specs.ActNotify}},
		Flags:         []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagLog},
	}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Notify() {
		t.Fatal("the filter does not know that it notifies")
	}
	if err := f.Install(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("attached without a listener: %v", err)
	}
	listeners := make(chan *os.File)
	answer := make(chan error, 1)
	go func() {
		l := <-listeners
		if l == nil {
			answer <- errors.New("no listener")
			return
		}
		defer l.Close()
		// struct seccomp_notif and struct seccomp_notif_resp (linux/seccomp.h).
		var req struct {
			id         uint64
			pid, flags uint32
			nr         int32
			arch       uint32
			ip         uint64
			args       [6]uint64
		}
		for {
			_, _, e := unix.Syscall(unix.SYS_IOCTL, l.Fd(), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&req)))
			if e == 0 {
				break
			}
			if e != unix.EINTR { // which kernels before 6.6 say to any signal
				answer <- e
				return
			}
		}
		if req.nr != unix.SYS_GETPGID {
			answer <- fmt.Errorf("call %d", req.nr)
			return
		}
		resp := struct {
			id           uint64
			val          int64
			error, flags int32
		}{id: req.id, val: 4711}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, l.Fd(), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp))); e != 0 {
			answer <- e
			return
		}
		answer <- nil
	}()
	onThreadOfItsOwn(func() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		l, err := f.InstallNotify()
		if err != nil {
			t.Error(err)
		}
		listeners <- l
		if l == nil {
			return
		}
		if v, _, e := unix.Syscall(unix.SYS_GETPGID, 0, 0, 0); v != 4711 || e != 0 {
			t.Errorf("the supervised call says %d %v", v, e)
		}
	})
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	p, err := DefaultProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	g, err := UnmarshalFilter(b)
	if err != nil {
		t.Fatal(err)
	}
	g.ignored = f.ignored
	if d := cmp.Diff(f, g, cmp.AllowUnexported(Filter{})); d != "" {
		t.Error(d)
	}
	for _, bad := range [][]byte{nil, b[:10], b[:len(b)-1], append([]byte("x"), b[1:]...), append(b, 0)} {
		if _, err := UnmarshalFilter(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestProfilesThatAreRefused(t *testing.T) {
	errno, large := uint(1), uint(70000)
	ok := func(f func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
		f(p)
		return p
	}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"none":               nil,
		"default action":     ok(func(p *specs.LinuxSeccomp) { p.DefaultAction = "SCMP_ACT_X" }),
		"no default action":  ok(func(p *specs.LinuxSeccomp) { p.DefaultAction = "" }),
		"notify by default":  ok(func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActNotify }),
		"architecture":       ok(func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{"SCMP_ARCH_VAX"} }),
		"flag":               ok(func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{"X"} }),
		"errno for allow":    ok(func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &errno }),
		"errno too large":    ok(func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &large }),
		"rule without calls": ok(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = nil }),
		"call without name":  ok(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{""} }),
		"seventh argument": ok(func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}
		}),
		"operator":                ok(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Op: "SCMP_CMP_X"}} }),
		"action of a rule":        ok(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = "" }),
		"errno of default action": ok(func(p *specs.LinuxSeccomp) { p.DefaultAction, p.DefaultErrnoRet = specs.ActKill, &errno }),
	} {
		if _, err := Compile(p); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := Compile(ok(func(p *specs.LinuxSeccomp) {
		p.Syscalls[0].Names = append(p.Syscalls[0].Names, "no_such_call")
		p.Architectures = []specs.Arch{specs.ArchS390X}
	}))
	if err != nil || !cmp.Equal(f.Ignored(), []string{"no_such_call"}) {
		t.Errorf("%v ignored %v", err, f.Ignored())
	}
}

func TestLoadProfile(t *testing.T) {
	const body = `{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}, {"architecture": "SCMP_ARCH_AARCH64"}],
		"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}]}`
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}} {
		p, err := LoadProfile([]byte(body), caps)
		if err != nil || len(p.Syscalls) != 1+len(caps) {
			t.Errorf("with %v: %+v %v", caps, p, err)
		}
	}
	if _, err := LoadProfile([]byte("{"), nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("broken JSON: %v", err)
	}
	if p, err := LoadProfile([]byte("{}"), nil); p != nil || err != nil {
		t.Errorf("an empty profile: %v %v", p, err)
	}
}

func TestCacheKnowsContent(t *testing.T) {
	var c Cache
	compileFor := func(caps []string) *Filter {
		p, err := DefaultProfile(caps)
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a := compileFor(dockerCaps)
	if compileFor(dockerCaps) != a {
		t.Error("the same profile was compiled twice")
	}
	if compileFor(append([]string{"CAP_SYS_ADMIN"}, dockerCaps...)) == a {
		t.Error("another capability set got the same filter")
	}
	for i := range uint64(2 * cacheSize) {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
			Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Value: i, Op: specs.OpEqualTo}},
		}}}
		if _, err := c.Compile(p); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.entries) != cacheSize || len(c.order) != cacheSize {
		t.Errorf("%d entries, %d in order", len(c.entries), len(c.order))
	}
	if _, err := c.Compile(nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no profile: %v", err)
	}
}

func BenchmarkInstallDefault(b *testing.B) {
	p, err := DefaultProfile(dockerCaps)
	if err != nil {
		b.Fatal(err)
	}
	f, err := Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		// A thread each: filters add up.
		b.StopTimer()
		onThreadOfItsOwn(func() {
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			b.StartTimer()
			err = f.Install()
			b.StopTimer()
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkCacheHit(b *testing.B) {
	p, err := DefaultProfile(dockerCaps)
	if err != nil {
		b.Fatal(err)
	}
	var c Cache
	for b.Loop() {
		if _, err := c.Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
