package daemonside

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// play is a monitor that says what was recorded, byte for byte, and wants to be
// asked what was recorded: the same header, and at least the same payload.
func play(t *testing.T, dir, recording string) <-chan error {
	t.Helper()
	text, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(listener, &unix.SockaddrUnix{Name: filepath.Join(dir, socketFile)}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer unix.Close(listener)
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			done <- err
			return
		}
		conn, err := protocol.NewConn(fd, "daemon")
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		for line := range strings.Lines(string(text)) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
			if f[0] == "#" {
				continue
			}
			head, err := hex.DecodeString(f[1])
			if err == nil && f[0] == "<" {
				err = conn.Control(func(fd uintptr) {
					if _, werr := unix.Write(int(fd), append(head, f[2]...)); werr != nil {
						t.Errorf("write: %v", werr)
					}
				})
			} else if err == nil {
				err = asked(conn, head, f[2])
			}
			if err != nil {
				done <- errors.Join(errors.New(strings.TrimSpace(line)), err)
				return
			}
		}
		done <- nil
	}()
	return done
}

// asked reads a frame and compares it with a recorded one.
func asked(conn *protocol.Conn, head []byte, payload string) error {
	f, files, err := conn.Read()
	if err != nil {
		return err
	}
	for _, file := range files {
		file.Close()
	}
	got := protocol.AppendHeader(nil, protocol.Header{Kind: f.Kind, Files: len(files), Op: f.Op, ID: f.ID})
	if !bytes.Equal(got[4:], head[4:]) {
		return errors.New("header " + hex.EncodeToString(got))
	}
	var want, have any
	if err := errors.Join(json.Unmarshal([]byte(payload), &want), json.Unmarshal(f.Payload, &have)); err != nil {
		return err
	}
	if !contains(have, want) {
		return errors.New("payload " + string(f.Payload))
	}
	return nil
}

// contains: an older side ignores keys it does not know, and needs its own.
func contains(have, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(have, want)
	}
	h, ok := have.(map[string]any)
	for key := range w {
		ok = ok && contains(h[key], w[key])
	}
	return ok
}

func TestADaemonSpeaksWithAMonitorOfTheFirstRelease(t *testing.T) {
	l, ctx := newLauncher(t)
	done := play(t, l.Dir("a"), "testdata/conversation-v1.txt")
	m, err := l.Adopt(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if r := m.Running(); r.InitPid != 4321 || r.InitStart != 99 || r.StartedAt.Unix() != 1793527200 {
		t.Errorf("running %+v", r)
	}
	execs, err := m.Execs(ctx)
	if err != nil || len(execs) != 1 || execs[0].ID() != "e1" || execs[0].Pid() != 5000 {
		t.Fatalf("execs %+v, %v", execs, err)
	}
	if err := m.Signal(ctx, 15, false); err != nil {
		t.Error(err)
	}
	if err := m.Pause(ctx); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "it is paused already") {
		t.Errorf("pause: %v", err)
	}
	limit := int64(5)
	if err := m.Update(ctx, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err == nil || !strings.HasSuffix(err.Error(), "no") {
		t.Errorf("update: %v", err)
	}
	_, err = m.Exec(ctx, ExecRequest{ID: "x", Stdout: true, Process: &specs.Process{Args: []string{"nothing"}, Cwd: "/"}})
	var failed *StartFailed
	if !errors.As(err, &failed) || failed.Code != 127 {
		t.Errorf("exec: %v", err)
	}
	if exit, err := execs[0].Wait(ctx); err != nil || exit.Code != 9 {
		t.Errorf("exec ended %+v, %v", exit, err)
	}
	<-m.Exited()
	if exit := m.Exit(); exit.Code != 3 || !exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	<-m.Gone()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
