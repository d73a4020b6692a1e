package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// NewDocker starts Debian's dockerd, unpacked and not installed, in a sandbox
// and returns the sandbox and the daemon's socket: the oracle for what Docker does.
// flags are further ones of dockerd.
func NewDocker(t testing.TB, flags ...string) (*Sandbox, string) {
	t.Helper()
	s := NewSandbox(t)
	dir, err := os.MkdirTemp("", "orlop-test-docker-")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var cmd *exec.Cmd
	var ended chan struct{}
	start := func() error {
		cmd = s.Command(context.Background(), filepath.Join(Root(t), "scripts/peer-engine.sh"), append([]string{dir, "--cgroup-parent", "/" + s.Cgroup}, flags...)...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			return err
		}
		ended = make(chan struct{})
		go func(cmd *exec.Cmd, ended chan struct{}) {
			_ = cmd.Wait()
			close(ended)
		}(cmd, ended)
		return nil
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The daemon, not the nsenter that waits for it: what nsenter leaves behind
		// would be nobody's to reap where the test is the first process of its
		// namespace. The rest ends with the sandbox.
		pid := 0
		if inside, err := os.ReadFile(filepath.Join(dir, "docker.pid")); err == nil {
			pid = s.outerPid(strings.TrimSpace(string(inside)))
		}
		if pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		} else {
			_ = cmd.Process.Kill()
		}
		<-ended
		if err := removeAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	socket := filepath.Join(dir, "docker.sock")
	// It gives up when its containerd does not answer for a while, and gets
	// further tries.
	tries := 3
	err = eventually(func() error {
		select {
		case <-ended:
			if tries--; tries == 0 {
				return final{errors.New("dockerd ended")}
			}
			_ = os.Remove(filepath.Join(dir, "docker.pid"))
			if err := start(); err != nil {
				return final{err}
			}
		default:
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("dockerd: %v\n%s", err, fmt.Sprintf("%.4000s", text))
	}
	return s, socket
}
