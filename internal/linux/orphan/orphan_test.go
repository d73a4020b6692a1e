package orphan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/linux/pidfd"
)

// inside runs a test in a process of its own: a subreaper stays one.
const inside = "ORLOP_TEST_ORPHANS"

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(m.Run())
	}
	if err := adopting(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestOrphansAreReapedAndNoStatusIsStolen(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inside+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func adopting() error {
	if err := Adopt(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx) }()
	// A child that nobody waits for yet, which hides what ends after it.
	late := exec.Command("sh", "-c", "exit 9")
	if err := late.Start(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	failures := make(chan error, 200)
	var orphans [20]*os.File
	for i := range orphans {
		// A leader of a session leaves a child behind and dies, as a killed monitor does.
		leader := exec.Command("sh", "-c", "sleep 0.0"+strconv.Itoa(1+i%9)+" >/dev/null 2>&1 & echo $!; kill -9 $$")
		leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, _ := leader.Output()
		pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			return err
		}
		// One that is reaped already is as good.
		orphans[i], _ = pidfd.Open(pid)
	}
	for i := range 40 {
		wg.Go(func() {
			err := exec.Command("sh", "-c", "exit "+strconv.Itoa(i)).Run()
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code, err = exit.ExitCode(), nil
			}
			if err != nil || code != i {
				failures <- fmt.Errorf("a command that exits %d: %d, %w", i, code, err)
			}
		})
	}
	wg.Wait()
	if err := late.Wait(); late.ProcessState.ExitCode() != 9 {
		return fmt.Errorf("a child waited for late: %w", err)
	}
	close(failures)
	for err := range failures {
		return err
	}
	limit := time.Now().Add(30 * time.Second)
	for i, f := range orphans {
		if f == nil {
			continue
		}
		if err := pidfd.Ended(f); err != nil {
			return fmt.Errorf("orphan %d: %w", i, err)
		}
		// No event tells of its reaping, which follows at once.
		for pidfd.Alive(f) {
			if time.Now().After(limit) {
				return fmt.Errorf("orphan %d is not reaped", i)
			}
			runtime.Gosched()
		}
	}
	cancel()
	return <-done
}
