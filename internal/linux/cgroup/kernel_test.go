package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The tests below use groups with a name of their own on the real kernel and
// leave none behind.

// TestMain is also the program that the tests put into groups: it joins v1
// groups by the descriptors it inherits, then does what ORLOP_TEST_DO says.
func TestMain(m *testing.M) {
	do := os.Getenv("ORLOP_TEST_DO")
	if do == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	n, _ := strconv.Atoi(os.Getenv("ORLOP_TEST_JOIN"))
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			fmt.Println("join:", err)
			os.Exit(1)
		}
	}
	if n > 0 {
		// Only the thread that executes is in the groups, as a container's init.
		os.Setenv("ORLOP_TEST_JOIN", "0")
		err := unix.Exec("/proc/self/exe", os.Args, os.Environ())
		fmt.Println("exec:", err)
		os.Exit(1)
	}
	switch {
	case do == "hold":
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	case do == "breed":
		// A process that makes others all the time: what killing must catch.
		fmt.Println("ready")
		for {
			c := exec.Command("/proc/self/exe")
			c.Env = []string{"ORLOP_TEST_DO=hold"}
			in, _ := c.StdinPipe()
			_ = in
			if c.Start() != nil {
				continue
			}
		}
	case do == "eat":
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = byte(i)
			}
			all = append(all, b)
			_ = all
		}
	case strings.HasPrefix(do, "open "):
		f, err := os.OpenFile(strings.Fields(do)[1], os.O_RDWR, 0)
		if err != nil {
			if pe := new(os.PathError); errors.As(err, &pe) {
				err = pe.Err
			}
			fmt.Println(err)
			os.Exit(0)
		}
		f.Close()
		fmt.Println("opened")
	}
	os.Exit(0)
}

func root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
}

var serial atomic.Int32

// world is a way to have groups that the suite runs in.
type world struct {
	name   string
	config Config
	// memory: the memory controller is there.
	memory bool
}

// worlds are the host's own mixture and, where it has a v2 side, that alone.
func worlds(t testing.TB) []world {
	t.Helper()
	root(t)
	hs, err := find("", false)
	if err != nil {
		t.Skip(err)
	}
	var out []world
	v2 := hs[len(hs)-1]
	if !hs[0].v2 {
		out = append(out, world{"v1", Config{}, slices.ContainsFunc(hs, func(h hierarchy) bool { return h.has("memory") })})
	}
	if v2.v2 {
		c, err := readText(v2.mount + "/cgroup.controllers")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, world{"v2", Config{Root: v2.mount}, slices.Contains(strings.Fields(c), "memory")})
	}
	return out
}

// each runs a test in every world, with a group of its own below a parent of
// its own.
func each(t *testing.T, f func(t *testing.T, w world, g *group)) {
	for _, w := range worlds(t) {
		t.Run(w.name, func(t *testing.T) { f(t, w, newTestGroup(t, w)) })
	}
}

func newTestGroup(t testing.TB, w world) *group {
	t.Helper()
	parent := fmt.Sprintf("/orlop-cgroup-test-%d-%d", os.Getpid(), serial.Add(1))
	c := w.config
	c.Path = parent + "/c1"
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Path, c.Parent = parent, true
	up, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(up.Kill(ctx), up.Remove(ctx)); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + parent + "*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return m.(*group)
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return c
}

func create(t testing.TB, g *group, r *specs.LinuxResources) {
	t.Helper()
	if err := g.Create(ctx(t), r); err != nil {
		t.Fatal(err)
	}
}

// child is a process in a group.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t testing.TB, m Manager, do string) *child {
	t.Helper()
	files, err := m.JoinFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := m.DirFD()
	if err != nil {
		t.Fatal(err)
	}
	paths := m.JoinPaths()
	if len(paths) != len(files) {
		t.Fatalf("JoinPaths %q, JoinFiles %d", paths, len(files))
	}
	for i, f := range files {
		if f.Name() != paths[i] {
			t.Fatalf("JoinPaths %q, JoinFiles has %s", paths, f.Name())
		}
	}
	c := &child{Cmd: exec.Command("/proc/self/exe", "-test.run=^$")}
	c.Env = append(os.Environ(), "ORLOP_TEST_DO="+do, "ORLOP_TEST_JOIN="+strconv.Itoa(len(files)))
	c.ExtraFiles = files
	c.SysProcAttr = &unix.SysProcAttr{}
	if dir != nil {
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	if dir != nil {
		dir.Close()
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return c
}

// says waits for a line of the child.
func (c *child) says(t testing.TB, want string) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if strings.TrimSpace(line) != want {
		t.Fatalf("child says %q (%v), want %q", line, err, want)
	}
}

// ended waits for the child and returns the signal that ended it.
func (c *child) ended(t testing.TB) unix.Signal {
	t.Helper()
	c.Wait()
	return c.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal()
}

func TestLifeOfAGroup(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		if g.Exists() {
			t.Fatal("it is there before it is made")
		}
		if pids, err := g.Pids(); err != nil || len(pids) > 0 {
			t.Fatalf("processes of no group: %v %v", pids, err)
		}
		if err := g.Remove(ctx(t)); err != nil {
			t.Fatalf("remove no group: %v", err)
		}
		create(t, g, nil)
		create(t, g, nil) // may be repeated
		a, b := start(t, g, "hold"), start(t, g, "hold")
		a.says(t, "ready")
		b.says(t, "ready")
		want := []int{a.Process.Pid, b.Process.Pid}
		pids, err := g.Pids()
		slices.Sort(pids)
		slices.Sort(want)
		if err != nil || !slices.Equal(pids, want) {
			t.Fatalf("processes %v %v, want %v", pids, err, want)
		}
		// The kernel's own word for it, in every hierarchy.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", a.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g.all() {
			if p.v2 && !g.pure {
				continue
			}
			if rel := strings.TrimPrefix(p.dir, p.mount); !strings.Contains(string(text), ":"+rel+"\n") {
				t.Errorf("not in %s:\n%s", p.dir, text)
			}
		}
		// Another manager sees the same group.
		again, err := New(g.config)
		if err != nil || !again.Exists() {
			t.Fatal(err)
		}
		if d := cmp.Diff(g.Paths(), again.Paths()); d != "" {
			t.Errorf("found again elsewhere: %s", d)
		}
		// With a process in it the group stays until the context ends.
		short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		if err := again.Remove(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.EBUSY) {
			t.Fatalf("remove a group with processes: %v", err)
		}
		if err := again.Kill(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if s := a.ended(t); s != unix.SIGKILL {
			t.Errorf("ended by %v", s)
		}
		b.ended(t)
		if err := again.Remove(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if g.Exists() {
			t.Error("still there")
		}
		create(t, g, nil) // and may be made again
	})
}

func TestAFailedCreateLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		bad := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "64GB", Limit: 1}}}
		err := g.Create(ctx(t), bad)
		if err == nil || !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Fatalf("%v", err)
		}
		t.Log(err)
		if g.Exists() {
			t.Errorf("left: %v", g.Paths())
		}
	})
}

func TestLimitsReachTheKernel(t *testing.T) {
	for _, w := range worlds(t) {
		if w.name != "v1" {
			continue
		}
		g := newTestGroup(t, w)
		r := everything()
		// What this kernel or host has not: other tests are about that.
		r.Network, r.Rdma, r.HugepageLimits = nil, nil, nil
		r.CPU.RealtimePeriod, r.CPU.RealtimeRuntime = nil, nil
		r.CPU.Cpus = "0"
		r.BlockIO = nil
		create(t, g, r)
		for _, c := range []struct{ controller, file, want string }{
			{"memory", "memory.limit_in_bytes", "268435456"}, {"memory", "memory.memsw.limit_in_bytes", "536870912"},
			{"memory", "memory.soft_limit_in_bytes", "134217728"}, {"memory", "memory.swappiness", "60"},
			{"cpu", "cpu.shares", "512"}, {"cpu", "cpu.cfs_quota_us", "50000"}, {"cpu", "cpu.cfs_burst_us", "10000"},
			{"cpuset", "cpuset.cpus", "0"}, {"cpuset", "cpuset.mems", "0"}, {"pids", "pids.max", "100"},
		} {
			p := g.v1(c.controller)
			if p == nil {
				continue
			}
			got, err := readText(p.dir + "/" + c.file)
			if errors.Is(err, unix.ENOENT) {
				t.Logf("this kernel has no %s", c.file)
				continue
			}
			if got != c.want {
				t.Errorf("%s is %q %v, want %q", c.file, got, err, c.want)
			}
		}
		// Up and down, both orders of memory and memory+swap.
		for _, m := range [][2]int64{{1 << 30, 2 << 30}, {64 << 20, 64 << 20}, {512 << 20, -1}, {128 << 20, 256 << 20}, {-1, 0}} {
			if err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &m[0], Swap: &m[1]}}); err != nil {
				t.Errorf("update memory to %v: %v", m, err)
			}
		}
		// A burst above the old quota, with a new one.
		for _, c := range [][2]int64{{200000, 150000}, {20000, 5000}} {
			if err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &c[0], Burst: ptr(uint64(c[1]))}}); err != nil {
				t.Errorf("update quota and burst to %v: %v", c, err)
			}
		}
		err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-4095"}})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `set cpuset.cpus to "0-4095"`) {
			t.Errorf("processors that are not there: %v", err)
		}
		if got, _ := readText(g.v1("cpuset").dir + "/cpuset.cpus"); got != "0" {
			t.Errorf("the refused update changed cpuset.cpus to %q", got)
		}
		err = g.Set(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("unified limit on v1: %v", err)
		}
		if err := g.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300)), LeafWeight: ptr(uint16(300))}}); err != nil {
			t.Error(err)
		}
		t.Logf("warnings: %q", g.Warnings())
	}
}

func TestLimitsReachTheKernelOnV2(t *testing.T) {
	for _, w := range worlds(t) {
		if w.name != "v2" {
			continue
		}
		if !w.memory {
			t.Skip("the v2 side of this host has no memory controller")
		}
		g := newTestGroup(t, w)
		r := everything()
		r.Rdma, r.BlockIO, r.CPU.Cpus = nil, nil, "0"
		r.Unified = map[string]string{"memory.high": "209715200", "pids.max": "77"}
		create(t, g, r)
		check := func(want map[string]string) {
			t.Helper()
			for file, v := range want {
				if got, err := readText(g.v2().dir + "/" + file); got != v {
					t.Errorf("%s is %q %v, want %q", file, got, err, v)
				}
			}
		}
		check(map[string]string{
			"memory.max": "268435456", "memory.low": "134217728", "memory.high": "209715200", "memory.swap.max": "268435456",
			"cpu.weight": "59", "cpu.max": "50000 100000", "cpu.max.burst": "10000", "cpuset.cpus": "0", "cpuset.mems": "0",
			"pids.max": "77", "hugetlb.2MB.max": "4194304",
		})
		for _, u := range []struct {
			r    *specs.LinuxResources
			want map[string]string
		}{
			{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 30)), Swap: ptr(int64(-1))}}, map[string]string{"memory.max": "1073741824", "memory.swap.max": "max"}},
			{&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(3 << 30))}}, map[string]string{"memory.swap.max": "2147483648"}},
			{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, map[string]string{"memory.max": "max", "memory.swap.max": "max"}},
			// A burst above the old quota, with a new one, and back.
			{&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(200000)), Burst: ptr(uint64(150000))}}, map[string]string{"cpu.max": "200000 100000", "cpu.max.burst": "150000"}},
			{&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(20000)), Burst: ptr(uint64(5000))}}, map[string]string{"cpu.max": "20000 100000", "cpu.max.burst": "5000"}},
			{&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1)), Burst: ptr(uint64(0))}}, map[string]string{"cpu.max": "max 100000"}},
			{&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}}, map[string]string{"cpu.idle": "1"}},
			{&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(0)), Shares: ptr(uint64(1024))}}, map[string]string{"cpu.idle": "0", "cpu.weight": "100"}},
		} {
			if err := g.Set(u.r); err != nil {
				t.Errorf("update to %v: %v", u.want, err)
			}
			check(u.want)
		}
		c := start(t, g, "hold")
		c.says(t, "ready")
		err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)}})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("a limit below the usage, to be checked: %v", err)
		}
		if err := unix.Kill(c.Process.Pid, 0); err != nil {
			t.Error("the check did not save the process")
		}
		s, err := g.Stats()
		if err != nil || s.Memory.Usage == 0 || s.Memory.Limit != ^uint64(0) || s.Pids.Limit != 77 || s.Pids.Current == 0 || s.Memory.Stats["anon"] == 0 {
			t.Errorf("%+v %v", s, err)
		}
		t.Logf("warnings: %q", g.Warnings())
	}
}

func TestHybridHostsMakeTheirV2SideOnDemand(t *testing.T) {
	for _, w := range worlds(t) {
		if w.name != "v1" {
			continue
		}
		g := newTestGroup(t, w)
		v2 := g.v2()
		if v2 == nil {
			t.Skip("no v2 beside v1")
		}
		all, _ := readText(v2.mount + "/cgroup.controllers")
		if !strings.Contains(all, "hugetlb") {
			t.Skipf("v2 beside v1 has controllers %q, not hugetlb", all)
		}
		create(t, g, nil)
		c := start(t, g, "hold")
		c.says(t, "ready")
		if exists(v2.dir) {
			t.Error("it was made without a limit that needs it")
		}
		limit := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
		if err := g.Set(limit); err != nil {
			t.Fatal(err)
		}
		if v, err := readText(v2.dir + "/hugetlb.2MB.max"); v != "4194304" {
			t.Errorf("hugetlb.2MB.max is %q %v", v, err)
		}
		if pids, err := readPids(v2.dir); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
			t.Errorf("processes there: %v %v", pids, err)
		}
		s, err := g.Stats()
		if err != nil || len(s.Hugetlb) == 0 {
			t.Errorf("huge pages of %+v %v", s, err)
		}
		// Given at once, the process is cloned into it.
		h := newTestGroup(t, w)
		create(t, h, limit)
		d := start(t, h, "hold")
		d.says(t, "ready")
		if pids, err := readPids(h.v2().dir); err != nil || !slices.Equal(pids, []int{d.Process.Pid}) {
			t.Errorf("processes there: %v %v", pids, err)
		}
	}
}

func TestFreezeAndThaw(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		create(t, g, nil)
		c := start(t, g, "hold")
		c.says(t, "ready")
		if f, err := g.Frozen(); f || err != nil {
			t.Fatalf("frozen before: %v %v", f, err)
		}
		if err := g.Freeze(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if f, err := g.Frozen(); !f || err != nil {
			t.Fatalf("not frozen: %v %v", f, err)
		}
		c.in.Close() // would end it
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if s := state[strings.LastIndex(string(state), ")")+2]; s != 'D' && s != 'S' {
			t.Errorf("frozen process has state %c", s)
		}
		if err := g.Freeze(ctx(t)); err != nil {
			t.Errorf("freeze again: %v", err)
		}
		if err := g.Thaw(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if s := c.ended(t); s != -1 {
			t.Errorf("thawed process ended by %v", s)
		}
	})
}

func TestKillReachesAFrozenGroup(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		create(t, g, nil)
		c := start(t, g, "hold")
		c.says(t, "ready")
		if err := g.Freeze(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if err := g.Kill(ctx(t)); err != nil {
			t.Fatal(err)
		}
		if s := c.ended(t); s != unix.SIGKILL {
			t.Errorf("ended by %v", s)
		}
	})
}

func TestKillCatchesProcessesThatFork(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		create(t, g, &specs.LinuxResources{Pids: nil})
		c := start(t, g, "breed")
		c.says(t, "ready")
		for {
			if pids, err := g.Pids(); err != nil || len(pids) > 5 {
				break
			}
		}
		if err := g.Kill(ctx(t)); err != nil {
			t.Fatal(err)
		}
		c.ended(t)
		// Orphans are reaped by the host's init; Remove waits for that.
		if err := g.Remove(ctx(t)); err != nil {
			pids, _ := g.Pids()
			t.Fatalf("%v; left %v", err, pids)
		}
	})
}

func TestSubGroupOfAnExec(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		create(t, g, nil)
		c := start(t, g, "hold")
		c.says(t, "ready")
		sub := g.Sub("exec-1")
		if err := sub.Create(ctx(t), nil); err != nil {
			t.Fatal(err)
		}
		e := start(t, sub, "hold")
		e.says(t, "ready")
		pids, err := g.Pids()
		if err != nil || !slices.Contains(pids, e.Process.Pid) || !slices.Contains(pids, c.Process.Pid) {
			t.Fatalf("processes %v %v", pids, err)
		}
		if w.name == "v2" {
			if pids, err := sub.Pids(); err != nil || !slices.Equal(pids, []int{e.Process.Pid}) {
				t.Errorf("processes of the exec: %v %v", pids, err)
			}
			if err := sub.Kill(ctx(t)); err != nil {
				t.Fatal(err)
			}
			e.ended(t)
			if err := sub.Remove(ctx(t)); err != nil {
				t.Fatal(err)
			}
		} else if err := errors.Join(sub.Kill(ctx(t)), sub.Remove(ctx(t))); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(c.Process.Pid, 0); err != nil || !g.Exists() {
			t.Errorf("the container's process went with the exec: %v", err)
		}
		if err := g.Kill(ctx(t)); err != nil {
			t.Fatal(err)
		}
		c.ended(t)
		e.ended(t)
	})
}

func TestOOMKillsAreCountedAndTold(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		if !w.memory {
			t.Skip("no memory controller in this hierarchy")
		}
		create(t, g, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(24 << 20)), Swap: ptr(int64(24 << 20))}})
		c := start(t, g, "eat")
		c.says(t, "ready")
		watch, stop := context.WithCancel(ctx(t))
		defer stop()
		events, err := g.OOMEvents(watch)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := g.OOM(); n != 0 || err != nil {
			t.Fatalf("%d kills before: %v", n, err)
		}
		io.WriteString(c.in, "go\n")
		select {
		case _, ok := <-events:
			if !ok {
				t.Fatal("the watch ended")
			}
		case <-ctx(t).Done():
			t.Fatal("no event")
		}
		if s := c.ended(t); s != unix.SIGKILL {
			t.Errorf("ended by %v", s)
		}
		if n, err := g.OOM(); n != 1 || err != nil {
			t.Errorf("%d kills: %v", n, err)
		}
		s, err := g.Stats()
		if err != nil || s.Memory.OOMKills != 1 || s.Memory.Limit != 24<<20 || s.Memory.MaxUsage < 20<<20 {
			t.Errorf("%+v %v", s.Memory, err)
		}
		stop()
		for range events {
		}
	})
}

func TestOOMWatchEndsWithTheGroup(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		if !w.memory {
			t.Skip("no memory controller in this hierarchy")
		}
		create(t, g, nil)
		events, err := g.OOMEvents(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(ctx(t)); err != nil {
			t.Fatal(err)
		}
		for range events {
			t.Error("an event of an empty group")
		}
	})
}

func TestDevicesAreLimited(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		null, kmsg := "opened", "operation not permitted"
		if f, err := os.OpenFile("/dev/kmsg", os.O_RDWR, 0); err != nil {
			t.Skipf("/dev/kmsg: %v", err)
		} else {
			f.Close()
		}
		try := func(g Manager, device, want string) {
			t.Helper()
			c := start(t, g, "open "+device)
			c.says(t, want)
			c.Wait()
		}
		create(t, g, &specs.LinuxResources{Devices: dockerRules()})
		try(g, "/dev/null", null)
		try(g, "/dev/kmsg", kmsg)
		if w.name == "v1" {
			if p := g.v1("devices"); p != nil && path.Base(path.Dir(p.dir)) != sharedName {
				t.Errorf("the default list is not shared: %s", p.dir)
			}
		}
		hold := start(t, g, "hold")
		hold.says(t, "ready")
		// An update opens a device, another closes it again.
		if err := g.Set(&specs.LinuxResources{Devices: append(dockerRules(), rule(true, "c", 1, 11, "rw"))}); err != nil {
			t.Fatal(err)
		}
		try(g, "/dev/kmsg", "opened")
		if pids, err := g.Pids(); err != nil || !slices.Contains(pids, hold.Process.Pid) {
			t.Errorf("processes %v %v", pids, err)
		}
		if p := g.v1("devices"); p != nil {
			if pids, err := readPids(p.dir); err != nil || !slices.Equal(pids, []int{hold.Process.Pid}) {
				t.Errorf("processes with the new list: %v %v", pids, err)
			}
		}
		if err := g.Set(&specs.LinuxResources{Devices: dockerRules()}); err != nil {
			t.Fatal(err)
		}
		try(g, "/dev/kmsg", kmsg)
		if err := g.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
			t.Fatal(err)
		}
		try(g, "/dev/kmsg", "opened")

		// A privileged one beside it.
		p := newTestGroup(t, w)
		create(t, p, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}})
		try(p, "/dev/kmsg", "opened")
	})
}

func TestStartersShareOneDeviceListWithoutARace(t *testing.T) {
	for _, w := range worlds(t) {
		if w.name != "v1" {
			continue
		}
		g := newTestGroup(t, w)
		if g.v1("devices") == nil {
			t.Skip("no devices controller")
		}
		want := defaultRules().String()
		errs := make(chan error, 16)
		for i := range cap(errs) {
			go func() {
				c := g.config
				c.Path = path.Dir(c.Path) + "/x" + strconv.Itoa(i)
				m, err := New(c)
				if err == nil {
					err = m.Create(context.Background(), nil)
				}
				if err == nil {
					b, rerr := readFile(m.Paths()["devices"] + "/devices.list")
					if have, _ := parseDevicesV1(b); have.String() != want {
						rerr = fmt.Errorf("list of %s:\n%s", c.Path, b)
					}
					err = rerr
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestStatsCount(t *testing.T) {
	each(t, func(t *testing.T, w world, g *group) {
		if _, err := g.Stats(); !errors.Is(err, unix.ENOENT) {
			t.Errorf("statistics of no group: %v", err)
		}
		create(t, g, &specs.LinuxResources{})
		c := start(t, g, "hold")
		c.says(t, "ready")
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.CPU.Total == 0 || s.Pids.Current == 0 {
			t.Errorf("%+v", s)
		}
		if w.name == "v1" && (len(s.CPU.PerCPU) == 0 || s.Memory.Usage == 0 || s.Memory.Limit != ^uint64(0) || len(s.Memory.Stats) < 10) {
			t.Errorf("%+v", s)
		}
		if w.name == "v2" && (s.Version != 2 || s.CPU.PSI == nil) {
			t.Errorf("%+v", s)
		}
	})
}

func TestSubtreeControlIsHandedDown(t *testing.T) {
	for _, w := range worlds(t) {
		if w.name != "v2" {
			continue
		}
		g := newTestGroup(t, w)
		p := g.v2()
		all, err := readText(p.mount + "/cgroup.controllers")
		if err != nil {
			t.Fatal(err)
		}
		create(t, g, nil)
		have, err := readText(p.dir + "/cgroup.controllers")
		if err != nil || have != all {
			t.Errorf("controllers %q %v, want %q", have, err, all)
		}
	}
}

func BenchmarkGroup(b *testing.B) {
	for _, w := range worlds(b) {
		up := newTestGroup(b, w)
		r := &specs.LinuxResources{Devices: dockerRules()}
		create(b, up, r)
		n := 0
		bench := func(name string, f func(m Manager)) {
			b.Run(w.name+"/"+name, func(b *testing.B) {
				var at []time.Duration
				defer func() {
					slices.Sort(at)
					b.ReportMetric(float64(at[0].Nanoseconds()), "min-ns")
					b.ReportMetric(float64(at[len(at)/2].Nanoseconds()), "median-ns")
				}()
				for b.Loop() {
					b.StopTimer()
					c := up.config
					n++
					c.Path = path.Dir(c.Path) + "/b" + strconv.Itoa(n)
					m, err := New(c)
					if err != nil {
						b.Fatal(err)
					}
					f(timed{m, b, &at})
					m.Remove(context.Background())
					b.StartTimer()
				}
			})
		}
		must := func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		b.Run(w.name+"/new", func(b *testing.B) {
			for b.Loop() {
				_, err := New(up.config)
				must(err)
			}
		})
		bench("create default", func(m Manager) { m.(timed).time(func() { must(m.Create(context.Background(), r)) }) })
		if w.name == "v1" {
			limited := *r
			limited.Memory = &specs.LinuxMemory{Limit: ptr(int64(256 << 20)), Swap: ptr(int64(512 << 20))}
			limited.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}
			limited.Pids = &specs.LinuxPids{Limit: ptr(int64(100))}
			bench("create with memory, cpu and pids limits", func(m Manager) { m.(timed).time(func() { must(m.Create(context.Background(), &limited)) }) })
			device := *r
			device.Devices = append(dockerRules(), rule(true, "c", 10, 229, "rwm"))
			bench("create with a device more", func(m Manager) { m.(timed).time(func() { must(m.Create(context.Background(), &device)) }) })
		}
		bench("join", func(m Manager) {
			must(m.Create(context.Background(), r))
			done := make(chan struct{})
			go onThreadOfItsOwn(func() {
				defer close(done)
				m.(timed).time(func() {
					files, err := m.JoinFiles()
					must(err)
					for _, f := range files {
						if _, err := f.WriteString("0"); err != nil {
							b.Error(err)
						}
						f.Close()
					}
				})
			})
			<-done
		})
		bench("stats", func(m Manager) {
			must(m.Create(context.Background(), r))
			m.(timed).time(func() { _, err := m.Stats(); must(err) })
		})
		bench("remove", func(m Manager) {
			must(m.Create(context.Background(), r))
			m.(timed).time(func() { must(m.Remove(context.Background())) })
		})
	}
}

// onThreadOfItsOwn runs f on a thread that ends with it, and with it what the
// thread has joined. The process's first thread would never end.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go onThreadOfItsOwn(func() { defer close(done); f() })
	<-done
	runtime.UnlockOSThread()
}

type timed struct {
	Manager
	b  *testing.B
	at *[]time.Duration
}

func (t timed) time(f func()) {
	t.b.StartTimer()
	from := time.Now()
	f()
	*t.at = append(*t.at, time.Since(from))
	t.b.StopTimer()
}
