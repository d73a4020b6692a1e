package quickstart_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/runtime/quickstart"
)

const entry = "github.com/orlop/orlop/internal/runtime/quickstart.entry"

// program is orlop-runtime with the entry point of this package.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "orlop-quickstart-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "orlop-runtime")
	cmd := exec.Command("go", "build", "-ldflags", "-E "+entry, "-o", name, "../../../cmd/orlop-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, _ := program(); name != "" {
		_ = os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// created is a state folder that looks created to the kernel, and to nobody else:
// its state is no JSON, so that the Go program would refuse it.
type created struct {
	t         *testing.T
	root, dir string
	freezer   string
	gate      int
}

const refused = "damaged state"

func newCreated(t *testing.T) *created {
	t.Helper()
	c := &created{t: t, root: filepath.Join(t.TempDir(), "root"), freezer: filepath.Join(t.TempDir(), "freezer.state")}
	c.dir = filepath.Join(c.root, "box")
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{quickstart.StateFile: "whole", quickstart.SpecFile: "whole too", quickstart.LockFile: ""} {
		c.write(filepath.Join(c.dir, name), text)
	}
	c.write(c.freezer, "THAWED\n")
	if err := unix.Mkfifo(filepath.Join(c.dir, quickstart.GateFile), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.gate, err = unix.Open(filepath.Join(c.dir, quickstart.GateFile), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.gate >= 0 {
			_ = unix.Close(c.gate)
		}
	})
	if err := quickstart.Write(c.dir, c.freezer, "THAWED\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *created) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// run runs the program; the result is what it printed.
func (c *created) run(args ...string) (string, error) {
	c.t.Helper()
	name, err := program()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := exec.CommandContext(c.t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// opened reports whether whoever waits at the gate has been told to go on.
func (c *created) opened() bool {
	c.t.Helper()
	b := make([]byte, 8)
	n, err := unix.Read(c.gate, b)
	_, gone := os.Lstat(filepath.Join(c.dir, quickstart.GateFile))
	switch {
	case err == nil && n == 1 && errors.Is(gone, os.ErrNotExist):
		return true
	case (errors.Is(err, unix.EAGAIN) || n == 0) && gone == nil:
		return false
	}
	c.t.Fatalf("gate: read %d, %v; its file: %v", n, err, gone)
	return false
}

func TestStartOpensTheGateWithoutTheGoProgram(t *testing.T) {
	for _, options := range [][]string{
		{},
		{"--log-format", "json"},
		{"--systemd-cgroup", "--log-format", "text"},
		{"--log-format=json"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			c := newCreated(t)
			log := filepath.Join(t.TempDir(), "log")
			out, err := c.run(append(append([]string{"--root=" + c.root, "--log", log}, options...), "start", "box")...)
			if err != nil || out != "" {
				t.Fatalf("start: %v, %q", err, out)
			}
			if !c.opened() {
				t.Fatal("the gate is closed")
			}
			if st, err := os.Stat(log); err != nil || st.Size() != 0 {
				t.Fatalf("log: %v, %v", st, err)
			}
			if _, err := c.run("--root", c.root, "start", "box"); err == nil {
				t.Fatal("a container was started twice")
			}
		})
	}
}

// Where anything is not as the record says, the Go program has to look: it finds
// what is wrong with this state.
func TestWhatIsUnusualIsForTheGoProgram(t *testing.T) {
	for name, change := range map[string]func(c *created){
		"state changed": func(c *created) { c.write(filepath.Join(c.dir, quickstart.StateFile), "wholE") },
		"state exchanged": func(c *created) {
			c.write(filepath.Join(c.dir, "new"), "whole")
			if err := os.Rename(filepath.Join(c.dir, "new"), filepath.Join(c.dir, quickstart.StateFile)); err != nil {
				c.t.Fatal(err)
			}
		},
		"configuration changed": func(c *created) { c.write(filepath.Join(c.dir, quickstart.SpecFile), "whole two") },
		"frozen":                func(c *created) { c.write(c.freezer, "FROZEN\n") },
		"freezing":              func(c *created) { c.write(c.freezer, "FREEZING\n") },
		"freezer's text longer": func(c *created) { c.write(c.freezer, "THAWED\n\n") },
		"no freezer": func(c *created) {
			if err := os.Remove(c.freezer); err != nil {
				c.t.Fatal(err)
			}
		},
		"no record": func(c *created) {
			if err := os.Remove(filepath.Join(c.dir, quickstart.File)); err != nil {
				c.t.Fatal(err)
			}
		},
		"record of another form": func(c *created) { c.patch(func(b []byte) []byte { b[0]++; return b }) },
		"short record":           func(c *created) { c.patch(func(b []byte) []byte { return b[:20] }) },
		"record without end":     func(c *created) { c.patch(func(b []byte) []byte { return b[:len(b)-1] }) },
		"nobody waits": func(c *created) {
			_ = unix.Close(c.gate)
			c.gate = -1
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCreated(t)
			change(c)
			out, err := c.run("--root", c.root, "start", "box")
			if err == nil || !strings.Contains(out, refused) {
				t.Fatalf("start: %v, %q", err, out)
			}
			if c.gate >= 0 && c.opened() {
				t.Fatal("the gate was opened")
			}
		})
	}
}

// patch changes the record.
func (c *created) patch(f func([]byte) []byte) {
	c.t.Helper()
	name := filepath.Join(c.dir, quickstart.File)
	b, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(name, string(f(b)))
}

// Arguments that the entry point does not know in full are not its business.
func TestOtherArgumentsAreForTheGoProgram(t *testing.T) {
	for _, args := range [][]string{
		{"-root", "ROOT", "start", "box"}, // the Go program knows this form alone
		{"--rootROOT", "start", "box"},
		{"--root", "start", "box"},
		{"--root", "ROOT", "--debug", "start", "box"},
		{"--root", "ROOT", "start", "--", "box"},
		{"--root", "ROOT", "start", "box", "more"},
		{"--root", "ROOT", "start"},
		{"--root", "ROOT", "start", "../root/box"},
		{"--root", "ROOT", "--log-format", "xml", "start", "box"},
		{"--root", "ROOT", "--log", "/no/such/folder/log", "start", "box"},
		{"--root", "ROOT", "state", "box"},
		{"--root", "ROOT", "--root"},
		{"--version"},
		{},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			c := newCreated(t)
			for i := range args {
				args[i] = strings.Replace(args[i], "ROOT", c.root, 1)
			}
			out, _ := c.run(args...)
			if out == "" {
				t.Fatal("it said nothing")
			}
			if c.opened() {
				t.Fatal("the gate was opened")
			}
		})
	}
}

// Two verbs at once: one of them starts the container.
func TestStartWaitsForTheLock(t *testing.T) {
	c := newCreated(t)
	lock, err := os.OpenFile(filepath.Join(c.dir, quickstart.LockFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	name, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, "--root", c.root, "start", "box")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The change is made while it waits, or before it looked: it sees it.
	c.write(c.freezer, "FROZEN\n")
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("a frozen container was started")
	}
	if c.opened() {
		t.Fatal("the gate was opened")
	}
}
