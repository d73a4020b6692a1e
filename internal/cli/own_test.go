package cli_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestWithoutADaemonOurOwnCommandsSayWhatAllOthersSay: the calls that Docker's
// library does not know have its words all the same.
func TestWithoutADaemonOurOwnCommandsSayWhatAllOthersSay(t *testing.T) {
	program := ours(t)
	said := func(host, line string) string {
		t.Helper()
		var stderr strings.Builder
		cmd := exec.CommandContext(t.Context(), program, append([]string{"-H", host}, strings.Fields(line)...)...)
		cmd.Env, cmd.Stderr = []string{"HOME=" + t.TempDir()}, &stderr
		if err := cmd.Run(); err == nil {
			t.Errorf("%s: no error without a daemon", line)
		}
		return stderr.String()
	}
	// Nobody can listen on port 0.
	for _, host := range []string{"unix://" + t.TempDir() + "/none.sock", "tcp://127.0.0.1:0"} {
		want := said(host, "network ls")
		for _, line := range []string{"network audit", "network audit --format json", "network handover a b"} {
			if got := said(host, line); got != want {
				t.Errorf("%s on %s: %q, want %q", line, host, got, want)
			}
		}
	}
}
