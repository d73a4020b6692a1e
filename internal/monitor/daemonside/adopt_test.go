package daemonside

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// oldMonitor listens like a monitor of another release, in this process.
type oldMonitor struct {
	t     *testing.T
	hello protocol.Hello
	conns chan *protocol.Conn
	// states counts questions about the state; stopped is closed by who wants
	// the monitor to go on.
	states  atomic.Int32
	execs   bool
	stopped chan struct{}
}

func listen(t *testing.T, dir string, hello protocol.Hello) *oldMonitor {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, socketFile)}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	o := &oldMonitor{t: t, hello: hello, conns: make(chan *protocol.Conn, 8), stopped: make(chan struct{})}
	done := make(chan struct{})
	t.Cleanup(func() {
		unix.Shutdown(fd, unix.SHUT_RDWR)
		unix.Close(fd)
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			conn, err := protocol.NewConn(c, "daemon")
			if err != nil {
				continue
			}
			go o.serve(conn)
		}
	}()
	return o
}

func (o *oldMonitor) serve(c *protocol.Conn) {
	defer c.Close()
	c.Send(protocol.KindHello, 0, 0, o.hello)
	o.conns <- c
	var slow protocol.Frame
	for {
		f, _, err := c.Read()
		if err != nil {
			return
		}
		if f.Kind != protocol.KindRequest {
			continue
		}
		switch protocol.Operation(f.Op) {
		case protocol.OpState:
			// What later releases added is not there, what they dropped is.
			result := json.RawMessage(`{"result":{"started":{"pid":4321,"startTime":99},"mood":"fine"}}`)
			c.Send(protocol.KindReply, f.Op, f.ID, result)
			if o.states.Add(1) > 2 && slow.ID != 0 {
				c.Answer(slow, protocol.Empty{}, nil)
				slow.ID = 0
			}
		case protocol.OpExecs:
			if !o.execs {
				o.t.Error("was asked for execs")
			}
			c.Answer(f, protocol.Execs{}, nil)
		case protocol.OpResize, protocol.OpResume, protocol.OpAttach, protocol.OpExec:
			// Asked while it was stopped.
			c.Answer(f, protocol.Empty{}, nil)
		case protocol.OpSignal:
			c.Answer(f, protocol.Empty{}, nil)
		case protocol.OpPause:
			slow = f // it takes a while; questions are answered meanwhile
			slow.Payload = nil
		case protocol.OpUpdate:
			<-o.stopped // as after SIGSTOP
		default:
			o.t.Errorf("was asked to %s", protocol.Operation(f.Op))
		}
	}
}

func newLauncher(t *testing.T) (*Launcher, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	l, err := New(Config{Runtime: "/proc/self/exe", ExecRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, ctx
}

func TestANewerDaemonAsksAnOlderMonitorOnlyForWhatItKnows(t *testing.T) {
	l, ctx := newLauncher(t)
	o := listen(t, l.Dir("a"), protocol.Hello{Version: 1, MinVersion: 1, Capabilities: []string{"state", "signal", "juggle"}})
	m, err := l.Adopt(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if r := m.Running(); r.InitPid != 4321 || r.InitStart != 99 || r.MonitorPid != os.Getpid() {
		t.Errorf("running %+v", r)
	}
	if err := m.Signal(ctx, 15, false); err != nil {
		t.Error(err)
	}
	if err := m.Pause(ctx); !errdefs.IsNotImplemented(err) {
		t.Errorf("pause: %v", err)
	}
	if _, err := m.Attach(ctx, AttachOptions{Stdout: true}); !errdefs.IsNotImplemented(err) {
		t.Errorf("attach: %v", err)
	}
	c := <-o.conns
	c.Send(protocol.KindEvent, 777, 0, map[string]int{"x": 1})
	c.Tell(protocol.EventOOM, protocol.OOM{Kills: 2})
	c.Tell(protocol.EventExit, protocol.Exit{Code: 3, OOMKilled: true})
	<-m.Exited()
	if exit := m.Exit(); exit.Code != 3 || !exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	kills := 0
	for range m.OOM() {
		kills++
	}
	if kills != 2 {
		t.Errorf("%d OOM kills", kills)
	}
	if err := m.Signal(ctx, 15, false); !errdefs.IsNotFound(err) {
		t.Errorf("after the end: %v", err)
	}
}

func TestWhatIsMissingInTheLogIsTold(t *testing.T) {
	l, ctx := newLauncher(t)
	o := listen(t, l.Dir("a"), protocol.Hello{Version: 1, MinVersion: 1, Capabilities: protocol.Capabilities()})
	o.execs = true
	m, err := l.Adopt(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	c := <-o.conns
	c.Tell(protocol.EventLogDropped, protocol.LogDropped{Bytes: 10})
	if n := <-m.LogDropped(); n != 10 {
		t.Errorf("%d bytes", n)
	}
	// Only the newest count waits for somebody who comes late, and none that is lower.
	for _, n := range []uint64{20, 30, 25} {
		c.Tell(protocol.EventLogDropped, protocol.LogDropped{Bytes: n})
	}
	c.Tell(protocol.EventExit, protocol.Exit{Code: 3, LogDropped: 40})
	<-m.Exited()
	if n := <-m.LogDropped(); n != 30 {
		t.Errorf("%d bytes", n)
	}
	if exit := m.Exit(); exit.LogDropped != 40 {
		t.Errorf("exit %+v", exit)
	}
}

func TestAMonitorThatIsTooNewIsLeftAlone(t *testing.T) {
	l, ctx := newLauncher(t)
	listen(t, l.Dir("a"), protocol.Hello{Version: 9, MinVersion: 8})
	_, err := l.Adopt(ctx, "a")
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

func TestABrokenConnectionIsMadeAgain(t *testing.T) {
	l, ctx := newLauncher(t)
	o := listen(t, l.Dir("a"), protocol.Hello{Version: 1, MinVersion: 1, Capabilities: []string{"state", "signal"}})
	m, err := l.Adopt(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	(<-o.conns).Close()
	next := <-o.conns
	for errdefs.IsUnavailable(m.Signal(ctx, 15, false)) { // until it is in use
		if ctx.Err() != nil {
			t.Fatal("no connection")
		}
	}
	next.Tell(protocol.EventExit, protocol.Exit{Code: 8})
	<-m.Exited()
	if m.Exit().Code != 8 {
		t.Errorf("exit %+v", m.Exit())
	}
}

func TestWhatIsNotKnownIsNotFound(t *testing.T) {
	l, ctx := newLauncher(t)
	if _, err := l.Adopt(ctx, "a"); !errdefs.IsNotFound(err) {
		t.Errorf("adopt: %v", err)
	}
	if _, err := l.LastExit("a"); !errdefs.IsNotFound(err) {
		t.Errorf("last exit: %v", err)
	}
	if err := l.Forget(ctx, "a"); err != nil {
		t.Errorf("forget: %v", err)
	}
	for _, id := range []string{"", "..", "a/b", "a\x00"} {
		if _, err := l.Adopt(ctx, id); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
	// A container of another boot is the engine's to decide.
	if err := os.MkdirAll(l.Dir("b"), 0o700); err != nil {
		t.Fatal(err)
	}
	data := fmt.Sprintf(`{"id":"b","bootId":"another","cgroupsPath":%q}`, "/nowhere/b")
	if err := os.WriteFile(filepath.Join(l.Dir("b"), placeFile), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LastExit("b"); !errdefs.IsNotFound(err) {
		t.Errorf("another boot: %v", err)
	}
	if ids, _ := l.Leftovers(); len(ids) != 1 || ids[0] != "b" {
		t.Errorf("left over: %q", ids)
	}
	if err := l.Forget(ctx, "b"); err != nil {
		t.Error(err)
	}
}

func TestAStoppedMonitorIsNotWaitedForButASlowOneIs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := New(Config{Runtime: "/proc/self/exe", ExecRoot: t.TempDir(), Patience: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := listen(t, l.Dir("a"), protocol.Hello{Version: 1, MinVersion: 1, Capabilities: []string{"state", "signal", "pause", "update", "attach", "resize", "exec"}})
	o.execs = true
	m, err := l.Adopt(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	// It answers the pause only after it was asked for its state again and again.
	l.patience = time.Second
	if err := m.Pause(ctx); err != nil {
		t.Errorf("pause by a slow monitor: %v", err)
	}
	l.patience = 20 * time.Millisecond
	calls := map[string]func() error{
		"update": func() error { return m.Update(ctx, nil) },
		"resize": func() error { return m.Resize(ctx, 1, 2) },
		"resume": func() error { return m.Resume(ctx) },
		"attach": func() error { _, err := m.Attach(ctx, AttachOptions{Stdout: true}); return err },
		"exec": func() error {
			_, err := m.Exec(ctx, ExecRequest{ID: "x", Process: &specs.Process{Args: []string{"x"}}})
			return err
		},
	}
	if err := calls["update"](); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("update by a stopped monitor: %v", err)
	}
	for name, call := range calls {
		if err := call(); !errdefs.IsUnavailable(err) {
			t.Errorf("%s by a stopped monitor: %v", name, err)
		}
	}
	m.mu.Lock()
	left := len(m.calls)
	m.mu.Unlock()
	if left != 0 {
		t.Errorf("%d calls are still waited for", left)
	}
	close(o.stopped)
	for m.Signal(ctx, 15, false) != nil { // until it has answered what came before
		if ctx.Err() != nil {
			t.Fatal("it goes on and yet does not answer")
		}
	}
}
