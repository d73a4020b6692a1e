package childinit

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pty"
)

func program(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker-init")
	if err := os.WriteFile(path, Program(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProgramIsAnExecutableOfOnePage(t *testing.T) {
	p := Program()
	f, err := elf.NewFile(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if len(p) > 4096 || f.Type != elf.ET_DYN || len(f.Progs) != 2 || f.Progs[0].Flags&elf.PF_W != 0 || f.Progs[1].Flags&elf.PF_X != 0 {
		t.Errorf("%d bytes, %v, %v", len(p), f.FileHeader, f.Progs)
	}
}

func TestItEndsAsItsCommandDoes(t *testing.T) {
	folder := t.TempDir()
	script := filepath.Join(folder, "script")
	if err := os.WriteFile(script, []byte("echo $0 $1; exit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := "PATH=/usr/bin:/bin"
	long := "PATH=/" + strings.Repeat("x", 5000) + "::/usr/bin:/bin"
	for _, c := range []struct {
		name     string
		args     []string
		env      []string
		code     int
		out, err string
	}{
		{"status", []string{"--", "sh", "-c", "exit 7"}, []string{path}, 7, "", ""},
		{"without dashes", []string{"sh", "-c", "echo $FOO"}, []string{"FOO=bar", path}, 0, "bar\n", ""},
		{"only the first dashes", []string{"--", "echo", "--", "x"}, []string{path}, 0, "-- x\n", ""},
		{"signal", []string{"sh", "-c", "kill -9 $$"}, []string{path}, 137, "", ""},
		{"no command", nil, []string{path}, 1, "", ""},
		{"dashes only", []string{"--"}, []string{path}, 1, "", ""},
		{"not found", []string{"--", "nosuch"}, []string{path}, 127, "", "docker-init: exec nosuch failed: No such file or directory\n"},
		{"no path", []string{"--", "sh"}, nil, 127, "", "docker-init: exec sh failed: No such file or directory\n"},
		{"empty", []string{"--", ""}, []string{path}, 127, "", "docker-init: exec  failed: No such file or directory\n"},
		{"missing file", []string{"--", "/no/such"}, []string{path}, 127, "", "docker-init: exec /no/such failed: No such file or directory\n"},
		{"not executable", []string{"--", "/etc/passwd"}, []string{path}, 126, "", "docker-init: exec /etc/passwd failed: Permission denied\n"},
		{"denied in one folder", []string{"passwd"}, []string{"PATH=/etc:/nowhere"}, 126, "", "docker-init: exec passwd failed: Permission denied\n"},
		{"another folder has it", []string{"sh", "-c", "exit 3"}, []string{"PATH=/etc:/nowhere:/bin"}, 3, "", ""},
		{"script without interpreter", []string{"--", script, "x"}, []string{path}, 5, script + " x\n", ""},
		{"script in path", []string{"script", "y"}, []string{"PATH=" + folder}, 5, script + " y\n", ""},
		{"long path", []string{"sh", "-c", "exit 4"}, []string{long}, 4, "", ""},
		{"long name", []string{strings.Repeat("n", 5000)}, []string{path}, 127, "", "docker-init: exec " + strings.Repeat("n", 5000) + " failed: No such file or directory\n"},
		{"not a folder", []string{"/etc/passwd/x"}, []string{path}, 1, "", "docker-init: exec /etc/passwd/x failed: cannot be executed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(program(t), c.args...)
			var out, errOut bytes.Buffer
			cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{}, c.env...), &out, &errOut
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.code || out.String() != c.out || errOut.String() != c.err {
				t.Errorf("status %d, out %q, err %q; want %d, %q, %q", got, out.String(), errOut.String(), c.code, c.out, c.err)
			}
		})
	}
}

// The command decides what a signal means.
func TestSignalsArePassedOn(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH, unix.SIGCONT, 34, 64} {
		cmd := exec.Command(program(t), "--", "/bin/sh", "-c", `ulimit -t 60; trap "echo got; exit 9" "$1"; echo ready; while :; do read -r line || :; done`, "sh", itoa(sig))
		in, out := pipes(t, cmd)
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatal(line, err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		// No read waits from here on: one that began just before the signal came,
		// and that a line woke, would be followed by one that nothing wakes.
		_ = in.Close()
		if line, err := out.ReadString('\n'); line != "got\n" {
			t.Errorf("signal %d: %q, %v", sig, line, err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("signal %d: status %d", sig, code)
		}
	}
}

func itoa(sig unix.Signal) string {
	var digits []byte
	for n := int(sig); n > 0; n /= 10 {
		digits = append([]byte{byte('0' + n%10)}, digits...)
	}
	return string(digits)
}

func pipes(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, bufio.NewReader(out)
}

// A first process gets the orphans of its namespace: none stays a zombie, and
// none outlives it.
func TestOrphansAreReaped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	cmd := exec.Command(program(t), "--", "/bin/sh", "-c", `
		mount -t proc proc /proc
		for i in 1 2 3; do (sh -c 'sleep 0 & exec true' &) ; done
		(sleep 1000 &)
		for try in $(seq 1000); do
			zombies=$(grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null)
			test -z "$zombies" && test $(ls -d /proc/[0-9]* | wc -l) -le 5 && break
		done
		echo "zombies:$zombies"; exit 6`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 6 || string(out) != "zombies:\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// With a terminal the command's group is in the foreground: Ctrl-C reaches it
// once, and it may read.
func TestTheCommandHasTheTerminal(t *testing.T) {
	m, sl, _, err := pty.Open(unix.AT_FDCWD, "/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	master, slave := os.NewFile(uintptr(m), "master"), os.NewFile(uintptr(sl), "slave")
	defer master.Close()
	cmd := exec.Command(program(t), "--", "/bin/sh", "-c", `trap 'echo interrupted; exit 8' INT; test $(ps -o tpgid= -p $$) = $$ && echo foreground || echo background; while :; do sleep 0.01; done`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	out := bufio.NewReader(master)
	if line, err := out.ReadString('\n'); line != "foreground\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := master.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); !strings.Contains(line, "interrupted") {
		t.Errorf("%q, %v", line, err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 8 {
		t.Errorf("status %d", code)
	}
}

// What --init costs a start: the command alone, and behind the program.
func BenchmarkStart(b *testing.B) {
	path := program(b)
	for _, c := range []struct {
		name string
		argv []string
	}{{"command", []string{"/bin/true"}}, {"init", []string{path, "--", "/bin/true"}}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if err := exec.Command(c.argv[0], c.argv[1:]...).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
