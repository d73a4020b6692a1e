package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fakeSystemd is a service on a bus of its own that makes scopes as systemd
// does: the directory, the processes in it, a job that ends. It is written
// with the complete D-Bus library, which is the oracle of ours.
type fakeSystemd struct {
	conn  *godbus.Conn
	mount string
	// calls are the methods called, in order.
	calls chan string
	props chan []property
	// failed is a unit that is in the way until it is reset.
	failed string
	refuse string
}

type property struct {
	Name  string
	Value godbus.Variant
}

type aux struct {
	Name  string
	Props []property
}

func (f *fakeSystemd) Subscribe() *godbus.Error { f.calls <- "Subscribe"; return nil }

func (f *fakeSystemd) StartTransientUnit(name, mode string, props []property, _ []aux) (godbus.ObjectPath, *godbus.Error) {
	f.calls <- "StartTransientUnit " + name + " " + mode
	if f.failed == name {
		return "", godbus.NewError("org.freedesktop.systemd1.UnitExists", []any{"Unit " + name + " was already loaded or has a fragment file."})
	}
	f.props <- props
	slice := ""
	for _, p := range props {
		switch p.Name {
		case "Slice":
			slice = p.Value.Value().(string)
		case "PIDs":
			dir, _ := slicePath(slice)
			dir = path.Join(f.mount, dir, name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", godbus.MakeFailedError(err)
			}
			for _, pid := range p.Value.Value().([]uint32) {
				if err := writeFile(dir+"/cgroup.procs", fmt.Sprint(pid)); err != nil {
					return "", godbus.MakeFailedError(err)
				}
			}
		}
	}
	return f.job(name), nil
}

func (f *fakeSystemd) StopUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	f.calls <- "StopUnit " + name + " " + mode
	if f.refuse == "StopUnit" {
		return "", godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + name + " not loaded."})
	}
	return f.job(name), nil
}

func (f *fakeSystemd) ResetFailedUnit(name string) *godbus.Error {
	f.calls <- "ResetFailedUnit " + name
	if f.failed != name {
		return godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + name + " not loaded."})
	}
	f.failed = ""
	return nil
}

func (f *fakeSystemd) SetUnitProperties(name string, runtime bool, props []property) *godbus.Error {
	f.calls <- fmt.Sprintf("SetUnitProperties %s %v", name, runtime)
	f.props <- props
	return nil
}

// job tells of another job's end first, and of this one's before the answer
// to the call: a client must not lose a signal that comes early.
func (f *fakeSystemd) job(unit string) godbus.ObjectPath {
	const at = "/org/freedesktop/systemd1"
	f.conn.Emit(at, "org.freedesktop.systemd1.Manager.JobRemoved", uint32(1), godbus.ObjectPath(at+"/job/1"), "other.service", "failed")
	f.conn.Emit(at, "org.freedesktop.systemd1.Manager.JobRemoved", uint32(2), godbus.ObjectPath(at+"/job/2"), unit, "done")
	return at + "/job/2"
}

func startSystemd(t *testing.T, mount string) (*fakeSystemd, string) {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("no dbus-daemon (apt-get install dbus)")
	}
	dir := t.TempDir()
	socket := dir + "/bus"
	config := dir + "/bus.conf"
	os.WriteFile(config, []byte(`<busconfig><type>session</type><listen>unix:path=`+socket+`</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600)
	c := exec.Command(daemon, "--config-file="+config, "--nofork", "--print-address")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	conn, err := godbus.Connect("unix:path=" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fakeSystemd{conn: conn, mount: mount, calls: make(chan string, 100), props: make(chan []property, 10)}
	if err := conn.Export(f, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName("org.freedesktop.systemd1", godbus.NameFlagDoNotQueue); err != nil || r != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	return f, socket
}

func (f *fakeSystemd) called() (out []string) {
	for {
		select {
		case c := <-f.calls:
			out = append(out, c)
		default:
			return out
		}
	}
}

func TestAScopeOfSystemd(t *testing.T) {
	root(t)
	hs, err := find("", false)
	if err != nil {
		t.Skip(err)
	}
	v2 := hs[len(hs)-1]
	if !v2.v2 {
		t.Skip("no cgroup v2")
	}
	f, socket := startSystemd(t, v2.mount)
	slice := fmt.Sprintf("orlopcgrouptest%d.slice", os.Getpid())
	g, err := newGroup(Config{Path: slice + ":orlop:c1", Systemd: true}, []hierarchy{v2})
	if err != nil {
		t.Fatal(err)
	}
	g.scope.bus = socket
	t.Cleanup(func() {
		short, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		removeTree(short, path.Join(v2.mount, slice))
		if left, _ := filepath.Glob(v2.mount + "/" + slice); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	// A failed scope of an earlier container is in the way.
	f.failed = "orlop-c1.scope"
	r := &specs.LinuxResources{Devices: dockerRules()}
	create(t, g, r)
	want := []string{
		"Subscribe", "StartTransientUnit orlop-c1.scope replace", "ResetFailedUnit orlop-c1.scope", "StartTransientUnit orlop-c1.scope replace",
	}
	if d := cmp.Diff(want, f.called()); d != "" {
		t.Error(d)
	}
	placeholder := g.scope.placeholder
	var props []string
	for _, p := range <-f.props {
		props = append(props, p.Name+"="+p.Value.String())
	}
	wantProps := []string{
		`Description="orlop container orlop-c1"`, `Slice="` + slice + `"`, "Delegate=true", fmt.Sprintf("PIDs=@au [%d]", placeholder), "DefaultDependencies=false",
		"MemoryAccounting=true", "CPUAccounting=true", "TasksAccounting=true", "IOAccounting=true",
	}
	if d := cmp.Diff(wantProps, props); d != "" {
		t.Error(d)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{placeholder}) {
		t.Errorf("processes %v %v, placeholder %d", pids, err, placeholder)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", placeholder))
	if err != nil || len(fds) > 0 {
		t.Errorf("the placeholder holds descriptors: %v %v", fds, err)
	}
	c := start(t, g, "hold")
	c.says(t, "ready")
	if err := errors.Join(g.Joined(), g.Joined()); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("processes %v %v, want %d", pids, err, c.Process.Pid)
	}
	d := start(t, g, "open /dev/kmsg")
	d.says(t, "operation not permitted")

	// Only what systemd has a property for is told to it.
	if err := g.Set(&specs.LinuxResources{Pids: nil}); err != nil {
		t.Fatal(err)
	}
	if got := f.called(); len(got) > 0 {
		t.Errorf("an empty update called %v", got)
	}
	err = g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Quota: ptr(int64(150000))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}})
	if got := f.called(); len(got) != 1 || got[0] != "SetUnitProperties orlop-c1.scope true" {
		t.Errorf("update called %v (%v)", got, err)
	}
	props = nil
	for _, p := range <-f.props {
		props = append(props, fmt.Sprintf("%s=%v", p.Name, p.Value.Value()))
	}
	if d := cmp.Diff([]string{"TasksMax=18446744073709551615", "AllowedCPUs=[3]", "CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=1500000"}, props); d != "" {
		t.Error(d)
	}

	if err := g.Kill(ctx(t)); err != nil {
		t.Fatal(err)
	}
	c.ended(t)
	if err := g.Remove(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Subscribe", "StopUnit orlop-c1.scope replace", "ResetFailedUnit orlop-c1.scope"}, f.called()); d != "" {
		t.Error(d)
	}
	f.refuse = "StopUnit"
	if err := g.Remove(ctx(t)); err != nil {
		t.Errorf("remove a scope that is gone: %v", err)
	}
	if g.Exists() {
		t.Error("still there")
	}
}

func TestSystemdThatDoesNotAnswer(t *testing.T) {
	root(t)
	hs, err := find("", false)
	if err != nil || !hs[len(hs)-1].v2 {
		t.Skip("no cgroup v2")
	}
	g, err := newGroup(Config{Path: "orlopcgrouptest.slice:orlop:c2", Systemd: true}, hs[len(hs)-1:])
	if err != nil {
		t.Fatal(err)
	}
	g.scope.bus = t.TempDir() + "/nobody"
	if err := g.Create(ctx(t), nil); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "start unit orlop-c2.scope: connect to D-Bus at ") {
		t.Errorf("%v", err)
	}
	// A bus that accepts and says nothing.
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: g.scope.bus}), unix.Listen(l, 5)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.Create(short, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if g.scope.placeholder != 0 || g.Exists() {
		t.Error("something was left")
	}
}
