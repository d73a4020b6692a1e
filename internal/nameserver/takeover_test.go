package nameserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func successor(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Socket: filepath.Join(t.TempDir(), "netd.sock"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.reactor.close() })
	return s
}

// predecessor is a process that the pid file names; it ends by itself after
// some seconds, or with the test.
func predecessor(t *testing.T, s *Server, seconds string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", seconds)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.pidFile(), fmt.Appendf(nil, "%d %d\n", cmd.Process.Pid, start), 0o600); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// One that has let go of its sockets, and finishes what it has begun, is not
// waited for.
func TestAPredecessorThatHasLetGoIsLeftAlone(t *testing.T) {
	s := successor(t)
	cmd := predecessor(t, s, "1000")
	if err := s.dropPid(); err != nil {
		t.Fatal(err)
	}
	if pid, _, err := s.readPid(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("the number of another one: %d, %v", pid, err)
	}
	over := make(chan error, 1)
	go func() {
		_, err := s.takeOver(nil)
		over <- err
	}()
	if err := os.Remove(s.pidFile()); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it was ended: %v", err)
	}
}

func TestANumberThatCannotBeReadIsNoObstacle(t *testing.T) {
	s := successor(t)
	if err := os.WriteFile(s.pidFile(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := s.takeOver(nil); c != nil || err != nil {
		t.Errorf("%v, %v", c, err)
	}
}

// A netd that was killed, or ends by itself, may have ports for a moment more.
func TestAPredecessorThatIsEndingIsWaitedFor(t *testing.T) {
	for _, refused := range []bool{false, true} {
		s := successor(t)
		if refused {
			if err := s.listen(); err != nil {
				t.Fatal(err)
			}
			_ = s.control.Close() // the file stays
			s.control = nil
		}
		cmd := predecessor(t, s, "0.3")
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		if c, err := s.takeOver(nil); c != nil || err != nil {
			t.Errorf("took over from one that does not listen: %v, %v", c, err)
		}
		if ended, err := endsWithin(pidfd, 0); !ended || err != nil {
			t.Errorf("listening refused %v: the predecessor was not waited for: %v", refused, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("listening refused %v: the predecessor: %v", refused, err)
		}
	}
}
