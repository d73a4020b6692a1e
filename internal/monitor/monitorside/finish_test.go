package monitorside

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// reaped tells whether the monitor could have become another program while the
// status of its container was taken.
type reaped struct {
	*puppet
	m    *monitor
	free chan bool
}

func (r *reaped) Wait() (int, error) {
	free := r.m.moving.TryLock()
	if free {
		r.m.moving.Unlock()
	}
	r.free <- free
	return r.puppet.Wait()
}

// A monitor that executes itself again between its container's end and the note
// of it leaves a program that finds no child, and the container is "lost".
func TestTheStatusIsTakenOnlyByAProgramThatStays(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := protocol.NewConn(fds[0], "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	control, err := protocol.NewConn(fds[1], "control")
	if err != nil {
		t.Fatal(err)
	}
	r := &reaped{free: make(chan bool, 1)}
	r.m = newMonitor(platform{now: time.Now, bootID: "boot", start: func(_ context.Context, _ *launch, s stdio) (runner, error) {
		r.puppet = newPuppet(s)
		return r, nil
	}})
	over := make(chan error, 1)
	go func() { over <- r.m.run(control) }()
	raw, err := json.Marshal(launch{
		LaunchArgs: protocol.LaunchArgs{ID: "c", RunDir: t.TempDir(), Log: protocol.Log{Driver: "none"}},
		Spec:       &specs.Spec{Process: &specs.Process{Args: []string{"x"}, Cwd: "/"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Send(protocol.KindHello, 0, 0, protocol.Hello{Version: 1, MinVersion: 1}); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Write(protocol.Frame{Kind: protocol.KindRequest, Op: uint16(protocol.OpLaunch), ID: 1, Payload: raw}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.m.ready:
	case err := <-over:
		t.Fatal(err)
	}
	if r.puppet == nil {
		t.Fatalf("not started: %v", <-over)
	}
	r.end()
	if <-r.free {
		t.Error("the status was taken while the monitor could become another program")
	}
	daemon.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
