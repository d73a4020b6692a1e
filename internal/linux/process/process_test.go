package process_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
)

// TestMain lets the test binary be the program that is started.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		b, _ := os.ReadFile("/proc/thread-self/status")
		_, _ = os.Stdout.Write(b)
		for _, ns := range []string{"user", "uts", "pid", "time", "net"} {
			l, _ := os.Readlink("/proc/self/ns/" + ns)
			_, _ = io.WriteString(os.Stdout, ns+"="+l+"\n")
		}
		a, _ := os.Stat("/proc/self/exe")
		if f, err := process.SealSelf(); err == nil {
			if b, err := f.Stat(); err == nil && os.SameFile(a, b) {
				_, _ = io.WriteString(os.Stdout, "sealed again: same\n")
			}
		}
		b, _ = os.ReadFile("/proc/uptime")
		_, _ = io.WriteString(os.Stdout, "uptime "+string(b))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sealed(t testing.TB) *os.File {
	t.Helper()
	f, err := process.SealSelf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// run starts the child and returns what it printed.
func run(t *testing.T, c process.Command) (string, *process.Process) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := process.Null()
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c.Exe, c.Args, c.Env, c.Files = sealed(t), []string{"stage", "child"}, []string{"A=1"}, []*os.File{null, w, null}
	p, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := p.Started(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	if ws.ExitStatus() != 0 {
		t.Fatalf("child ended with %v: %s", ws, out)
	}
	return string(out), p
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func link(t *testing.T, ns string) string {
	t.Helper()
	l, err := os.Readlink("/proc/self/ns/" + ns)
	if err != nil {
		t.Fatal(err)
	}
	return ns + "=" + l
}

func TestChildRunsInNewNamespaces(t *testing.T) {
	needRoot(t)
	out, _ := run(t, process.Command{New: unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWNET})
	for _, ns := range []string{"uts", "net"} {
		if strings.Contains(out, link(t, ns)) {
			t.Errorf("child is in the parent's namespace %s", link(t, ns))
		}
	}
	if !strings.Contains(out, link(t, "user")) {
		t.Errorf("child left the user namespace:\n%s", out)
	}
	if !strings.Contains(out, "SigBlk:\t0000000000000000") {
		t.Errorf("child has blocked signals:\n%s", out)
	}
}

func TestChildIsRootOfItsUserNamespace(t *testing.T) {
	needRoot(t)
	m := []process.IDMap{{Inside: 0, Outside: 100000, Size: 65536}}
	out, _ := run(t, process.Command{New: unix.CLONE_NEWUSER | unix.CLONE_NEWUTS, UIDs: m, GIDs: m, RootInUser: true})
	for _, want := range []string{"Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0", "Groups:\t \n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "CapEff:\t0000000000000000") {
		t.Errorf("child lost its capabilities:\n%s", out)
	}
}

func TestChildJoinsTheUserAndPidNamespaceOfAnother(t *testing.T) {
	needRoot(t)
	m := []process.IDMap{{Inside: 0, Outside: 200000, Size: 1000}}
	user, err := process.NewUserNamespace(m, m)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	out, p := run(t, process.Command{
		Join: []process.Join{{NS: user, Type: unix.CLONE_NEWUSER}}, New: unix.CLONE_NEWPID | unix.CLONE_NEWNS, RootInUser: true,
	})
	if strings.Contains(out, link(t, "user")) || !strings.Contains(out, "Uid:\t0\t0\t0\t0") {
		t.Errorf("child is not root of the joined namespace:\n%s", out)
	}
	if p.Pid <= 0 {
		t.Errorf("pid %d", p.Pid)
	}
}

func TestChildHasTheOffsetsOfItsTimeNamespace(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("no time namespaces: ", err)
	}
	out, _ := run(t, process.Command{New: unix.CLONE_NEWTIME, TimeOffsets: "boottime 1000000000 0\n"})
	_, uptime, _ := strings.Cut(out, "uptime ")
	if seconds, err := strconv.ParseFloat(strings.Fields(uptime + " none")[0], 64); err != nil || seconds < 1e9 {
		t.Errorf("uptime is not shifted: %v\n%s", err, out)
	}
}

func TestWhatTheChildCouldNotDoIsNamed(t *testing.T) {
	needRoot(t)
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	p, err := (&process.Command{Exe: sealed(t), Args: []string{"x"}, Writes: []process.Write{{File: r, Data: "0"}}}).Start()
	if err != nil {
		t.Fatal(err)
	}
	err = p.Started()
	if err == nil || err.Error() != "write |0: bad file descriptor" {
		t.Fatalf("error %v", err)
	}
	if err := unix.Kill(p.Pid, 0); err != unix.ESRCH {
		t.Errorf("the failed child is still there: %v", err)
	}
}

func TestTheSealedProgramCannotBeWritten(t *testing.T) {
	needRoot(t)
	f := sealed(t)
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it was overwritten")
	}
	w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0)
	if err == nil {
		if _, err = w.WriteAt([]byte("x"), 0); err == nil {
			t.Error("it was overwritten after reopening it")
		}
		_ = w.Close()
	}
	self, _ := os.ReadFile("/proc/self/exe")
	got := make([]byte, len(self))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, self) {
		t.Errorf("content differs: %v", err)
	}
}

func TestAChildSealsItselfForNothing(t *testing.T) {
	needRoot(t)
	out, _ := run(t, process.Command{})
	if !strings.Contains(out, "sealed again: same") {
		t.Errorf("a child of the sealed program sealed another one:\n%s", out)
	}
}

// elf is a program with one program header of the given kind.
func elf(kind uint32) []byte {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	binary.LittleEndian.PutUint16(b[56:], 1)
	binary.LittleEndian.PutUint32(b[64:], kind)
	return b
}

func TestAProgramWithAnInterpreterIsNotStatic(t *testing.T) {
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"static", elf(1), ""},
		{"dynamic", elf(3), "dynamically linked"},
		{"script", []byte("#!/bin/sh\n"), "no ELF program"},
		{"cut off", elf(1)[:64], "program headers"},
		{"damaged", append([]byte("\x7fELF\x02\x01"), make([]byte, 100)...), "makes no sense"},
	} {
		name := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(name, c.content, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		err = process.Static(f)
		_ = f.Close()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if errors.Is(err, process.ErrDynamic) != (c.name == "dynamic") {
			t.Errorf("%s has the wrong class: %v", c.name, err)
		}
	}
}

// children are the pids of this process's children, the ended ones too.
func children(t *testing.T) map[string]bool {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	pids := map[string]bool{}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // of a thread that has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			pids[pid] = true
		}
	}
	return pids
}

// A child that nobody reaps keeps the pid namespace it joined, and with it the
// whole container, from ending.
func TestAFailedExecLeavesNoChild(t *testing.T) {
	needRoot(t)
	name := filepath.Join(t.TempDir(), "program")
	b := elf(3)
	if err := os.WriteFile(name, b, 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	self, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	before := children(t)
	for _, c := range []process.Command{
		{},
		{New: unix.CLONE_NEWPID},
		{New: unix.CLONE_NEWTIME, TimeOffsets: "boottime 1 0\n"},
		{Join: []process.Join{{NS: self, Type: unix.CLONE_NEWPID}}},
		{Join: []process.Join{{NS: self, Type: unix.CLONE_NEWNET}}}, // the join fails already
		{Join: []process.Join{{NS: self, Type: unix.CLONE_NEWPID}, {NS: self, Type: unix.CLONE_NEWNET}}},
	} {
		c.Exe, c.Args = exe, []string{"program"}
		p, err := c.Start()
		if err == nil {
			err = p.Started()
		}
		if err == nil {
			t.Errorf("%+v was started", c)
		}
	}
	for pid := range children(t) {
		if !before[pid] {
			t.Errorf("child %s is left", pid)
		}
	}
}

// BenchmarkStartToExec is the time to a child's execve, for a small and a big parent.
func BenchmarkStartToExec(b *testing.B) {
	for _, mb := range []int{0, 200} {
		b.Run(strconv.Itoa(mb)+"MB", func(b *testing.B) {
			ballast := make([]byte, mb<<20)
			for i := 0; i < len(ballast); i += 4096 {
				ballast[i] = 1
			}
			exe := sealed(b)
			null, err := process.Null()
			if err != nil {
				b.Fatal(err)
			}
			defer null.Close()
			for b.Loop() {
				p, err := (&process.Command{Exe: exe, Args: []string{"stage", "child"}, Files: []*os.File{null, null, null}}).Start()
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Started(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = unix.Kill(p.Pid, unix.SIGKILL)
				_, _ = unix.Wait4(p.Pid, nil, 0, nil)
				_ = p.PidFD.Close()
				b.StartTimer()
			}
			runtime.KeepAlive(ballast)
		})
	}
}

// callsTo are the steps that execute our test binary as "child".
func callsTo(t *testing.T, files int) *process.Calls {
	t.Helper()
	l := process.NewCalls(files)
	exe := l.File(sealed(t))
	l.Add("exec child", unix.SYS_EXECVEAT, exe, l.Str(""), l.Strs([]string{"stage", "child"}), l.Strs([]string{"A=1"}), unix.AT_EMPTY_PATH)
	return l
}

// runCalls starts a child that performs l and returns what it printed.
func runCalls(t *testing.T, c process.Command) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := process.Null()
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c.Files = []*os.File{null, w, null}
	p, err := c.Start()
	_ = w.Close()
	if err != nil {
		return "", err
	}
	if err := p.Started(); err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil || ws != 0 {
		t.Errorf("wait: %v, status %d", err, ws)
	}
	_ = p.PidFD.Close()
	return string(out), nil
}

func TestCallsArePerformedInAnAddressSpaceOfTheirOwn(t *testing.T) {
	out, err := runCalls(t, process.Command{Calls: callsTo(t, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "SigBlk:\t0000000000000000") {
		t.Errorf("signals are blocked:\n%s", out)
	}
}

func TestACallThatFailsIsNamed(t *testing.T) {
	l := process.NewCalls(3)
	l.Add("look for nothing", unix.SYS_CHDIR, l.Str("/nowhere")).Optional()
	l.Add("go nowhere", unix.SYS_CHDIR, l.Str("/nowhere"))
	_, err := runCalls(t, process.Command{Calls: l})
	var step *process.StepError
	if !errors.As(err, &step) || step.Step != "go nowhere" || step.Errno != unix.ENOENT {
		t.Errorf("error %v", err)
	}
}

func TestACallIsSkippedByTheResultOfAnother(t *testing.T) {
	l := process.NewCalls(3)
	first := l.Add("go nowhere", unix.SYS_CHDIR, l.Str("/nowhere")).Optional()
	missing := -int64(unix.ENOENT)
	l.SkipIfResult(first, ^uintptr(0), uintptr(missing), 1)
	l.Add("never done", unix.SYS_CHDIR, l.Str("/nowhere"))
	l.SkipIfResult(first, ^uintptr(0), 0, 1)
	l.Add("done", unix.SYS_CHDIR, l.Str("/nowhere"))
	_, err := runCalls(t, process.Command{Calls: l})
	var step *process.StepError
	if !errors.As(err, &step) || step.Step != "done" {
		t.Errorf("error %v", err)
	}
}

func TestAChildKilledBetweenItsCallsDidNotStart(t *testing.T) {
	c := process.Command{Calls: process.NewCalls(3)}
	null, err := process.Null()
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	c.Calls.Add("wait", unix.SYS_READ, 0, c.Calls.Bytes(make([]byte, 8)), 1)
	c.Calls.Add("exec", unix.SYS_EXECVE, c.Calls.Str("/nowhere"), 0, 0)
	c.Files = []*os.File{r, null, null}
	p, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Started(); err == nil || !strings.Contains(err.Error(), `killed at step`) && !strings.Contains(err.Error(), "before its first step") {
		t.Errorf("error %v", err)
	}
}

func TestCallsJoinNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// A child that waits in new namespaces, and one that joins it.
	null, err := process.Null()
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWNET
	hold := process.NewCalls(3)
	hold.Add("wait", unix.SYS_READ, 0, hold.Bytes(make([]byte, 8)), 1)
	hold.Add("exit", unix.SYS_EXIT_GROUP, 0)
	first := process.Command{Calls: hold, New: namespaces, Files: []*os.File{r, null, null}}
	p, err := first.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(p.Pid, unix.SIGKILL)
		_ = p.Started()
	}()
	out, err := runCalls(t, process.Command{Calls: callsTo(t, 3), Join: []process.Join{{NS: p.PidFD, Type: namespaces}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"pid", "uts", "net"} {
		want, err := os.Readlink("/proc/" + strconv.Itoa(p.Pid) + "/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if ns == "pid" && strings.Contains(out, "pid=\n") {
			continue // /proc is that of another pid namespace
		}
		if !strings.Contains(out, ns+"="+want+"\n") {
			t.Errorf("%s namespace is not %s:\n%s", ns, want, out)
		}
	}
}

func TestOnThreadLeavesNoThreadBehind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	own, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	// Often enough that the main thread would be among them.
	for range 50 {
		process.OnThread(func() {
			if unix.Gettid() == unix.Getpid() {
				t.Error("it runs on the main thread")
			}
			if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
				t.Error(err)
			}
		})
	}
	if now, err := os.Readlink("/proc/self/ns/uts"); err != nil || now != own {
		t.Errorf("the process is in %s, not %s: %v", now, own, err)
	}
}
