package pidfd

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// headless makes the test program one whose first thread ends before the others.
const headless = "ORLOP_TEST_HEADLESS"

func init() { //nolint:gochecknoinits // later, main may be on another thread
	if os.Getenv(headless) != "" {
		runtime.LockOSThread() // main's thread is the process's first
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(headless) == "" {
		os.Exit(m.Run())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func TestAProcessEndsWithItsLastThread(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), headless+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	limit := time.Now().Add(30 * time.Second)
	for {
		st, err := ReadStat(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if st.State == 'Z' {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("its first thread does not end: %c", st.State)
		}
	}
	if ended, err := HasEnded(f); ended || err != nil {
		t.Errorf("ended %t, %v, though a thread goes on", ended, err)
	}
	in.Close()
	if err := Ended(f); err != nil {
		t.Fatal(err)
	}
	if ended, err := HasEnded(f); !ended || err != nil {
		t.Errorf("ended %t, %v, after the last thread", ended, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
