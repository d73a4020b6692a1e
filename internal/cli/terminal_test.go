package cli_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
)

// onTerminal runs a client on a terminal of 40 lines of the given width and returns everything it drew. What is typed
// answers the first question.
func onTerminal(t *testing.T, program string, width uint16, args string, typed string) outcome {
	t.Helper()
	d := newFakeDaemon(t)
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "in.tar"), []byte("tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, invocation{args: args}.words()...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "DOCKER_HOST=unix://" + d.socket, "TZ=UTC", "TERM=xterm"}
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: width})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var drawn bytes.Buffer
	chunk := make([]byte, 4096)
	for {
		n, err := f.Read(chunk)
		drawn.Write(chunk[:n])
		if typed != "" && bytes.Contains(drawn.Bytes(), []byte("[y/N] ")) {
			if _, err := io.WriteString(f, typed); err != nil {
				t.Fatal(err)
			}
			typed = ""
		}
		if err != nil { // EIO: the client has gone
			break
		}
	}
	_ = cmd.Wait()
	o := outcome{Stdout: strings.ReplaceAll(drawn.String(), home, "HOME"), Status: cmd.ProcessState.ExitCode(), Requests: d.asked()}
	return o.comparable(invocation{ignore: execInspects})
}

// TestATerminalShowsWhatDockersClientShows compares what the clients draw where they know that a terminal looks on:
// moving progress, lines wrapped to its width, questions.
func TestATerminalShowsWhatDockersClientShows(t *testing.T) {
	docker, orlop := theirs(t), ours(t)
	for _, c := range []struct {
		args, typed string
		width       uint16
	}{
		{"pull busybox", "", 120}, {"pull busybox", "", 100}, {"pull busybox", "", 40}, {"pull -q busybox", "", 120}, {"pull broken", "", 80},
		{"run --rm absent", "", 120}, {"run -d -q absent", "", 120}, {"create --pull always nginx", "", 60},
		{"push r.example.com/a", "", 120}, {"load -i in.tar", "", 120}, {"load", "", 80}, {"save one", "", 80}, {"export web", "", 80},
		{"ps -a", "", 80}, {"ps --help", "", 200}, {"ps --help", "", 60}, {"container prune", "y\n", 80}, {"image prune", "n\n", 80},
		{"exec -t web true", "", 80},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			want, got := onTerminal(t, docker, c.width, c.args, c.typed), onTerminal(t, orlop, c.width, c.args, c.typed)
			// Docker asks for the exit of a container it does not wait for.
			want.Requests, got.Requests = withoutWaits(want.Requests), withoutWaits(got.Requests)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("docker (-) and we (+) differ:\n%s", diff)
			}
		})
	}
}

func withoutWaits(requests []string) []string {
	var kept []string
	for _, r := range requests {
		if !strings.Contains(r, "/wait?condition=") {
			kept = append(kept, r)
		}
	}
	return kept
}
