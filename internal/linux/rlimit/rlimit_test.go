package rlimit

import (
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestEveryNameOfTheKernel(t *testing.T) {
	// getrlimit(2), numbered without a gap.
	seen := map[int]bool{}
	for _, n := range strings.Fields("CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME") {
		r, err := Parse("RLIMIT_" + n)
		if err != nil || seen[r] {
			t.Errorf("%s is %d %v", n, r, err)
		}
		seen[r] = true
	}
	for r := range 16 {
		if !seen[r] {
			t.Errorf("no name for %d", r)
		}
	}
	if _, err := Parse("RLIMIT_X"); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestHelper(t *testing.T) {
	if os.Getenv("ORLOP_TEST_HOLD") == "" {
		t.Skip("the program of another test")
	}
	io.Copy(io.Discard, os.Stdin)
}

func TestBadLimitsChangeNothing(t *testing.T) {
	good := specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}
	for name, list := range map[string][]specs.POSIXRlimit{
		"unknown": {good, {Type: "X"}},
		"twice":   {good, good},
		"order":   {good, {Type: "RLIMIT_CPU", Soft: 2, Hard: 1}},
	} {
		if w, err := Apply(0, list); !errdefs.IsInvalidArgument(err) || w != nil {
			t.Errorf("%s: %v %v", name, w, err)
		}
	}
	var now unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, nil, &now); err != nil || now.Max == 1 {
		t.Errorf("the good one before the bad was set: %+v %v", now, err)
	}
}

func TestLimitsAreSetOrClipped(t *testing.T) {
	// A process that waits for its input: this program again.
	c := exec.Command("/proc/self/exe", "-test.run=^TestHelper$")
	c.Env = append(os.Environ(), "ORLOP_TEST_HOLD=1")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); c.Process.Kill(); c.Wait() }()
	pid := c.Process.Pid
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	warnings, err := Apply(pid, []specs.POSIXRlimit{
		{Type: "RLIMIT_CORE", Soft: 10, Hard: 20},
		{Type: "RLIMIT_NOFILE", Soft: math.MaxUint64, Hard: math.MaxUint64},
	})
	if err != nil {
		t.Fatal(err)
	}
	var core, files unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &core); err != nil || core != (unix.Rlimit{Cur: 10, Max: 20}) {
		t.Errorf("core %+v %v", core, err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &files); err != nil {
		t.Fatal(err)
	}
	// Nobody may have unlimited descriptors (fs.nr_open), so this is refused
	// on every host.
	if len(warnings) != 1 || !strings.Contains(warnings[0], "RLIMIT_NOFILE=unlimited:unlimited") || files != (unix.Rlimit{Cur: before.Max, Max: before.Max}) {
		t.Errorf("files %+v, before %+v, warnings %q", files, before, warnings)
	}
}
