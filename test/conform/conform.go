// Package conform holds what the OCI runtime specification demands as cases, each
// with the chapter it is from, and runs them against any runtime's command
// line. Cases lists them; its test runs them on ours and on Debian's runc and
// crun, because a case that no other runtime passes is suspect itself.
package conform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Case is one demand.
type Case struct {
	// Section is the file and heading of runtime-spec 1.3 it is from.
	Section string
	Name    string
	// Edit changes the example configuration; nil leaves it.
	Edit func(e *Env, s *specs.Spec)
	// Script is run by the container's shell unless Do is set.
	Script string
	// Want and Not are what the output must and must not contain.
	Want, Not []string
	// Code is the exit status of `run`.
	Code int
	// Fails: `run` must fail, before the process runs.
	Fails bool
	// Do is a case that a script cannot tell.
	Do func(e *Env) error
	// Alone says why no peer of Debian 12 can pass it, or is empty: a feature
	// newer than runc 1.1.5 and crun 1.8.1, or a demand that they do not keep.
	Alone string
	// Needs says what this machine lacks for the case, "" when nothing.
	Needs func() string
}

// ID is the case's name in reports.
func (c Case) ID() string { return c.Section + "/" + c.Name }

// Runtime is a command line under test.
type Runtime struct {
	Name, Path string
	// Env is added to its environment, e.g. where its libraries are.
	Env []string
	// Systemd: it is called with --systemd-cgroup.
	Systemd bool
}

// Env is one case's place: a bundle of its own and a state folder.
type Env struct {
	Runtime Runtime
	// Dir is the bundle; its rootfs is a copy with nothing but busybox.
	Dir, State string
	ID         string
	// Cgroup is the path of the container's group.
	Cgroup string
	// Via is a command that the runtime is called by, or empty.
	Via []string
	// Extra are descriptors from 3 on that the runtime gets.
	Extra []*os.File
	spec  *specs.Spec
}

// serial makes container ids unique in this process.
var serial atomic.Int64

// Prepare makes the bundle of case c below dir; image is a folder with a busybox
// root that is bound, not copied.
func Prepare(rt Runtime, c Case, dir, image, group string) (*Env, error) {
	e := &Env{Runtime: rt, Dir: filepath.Join(dir, "bundle"), State: filepath.Join(dir, "state"), ID: fmt.Sprintf("conform-%d", serial.Add(1))}
	e.Cgroup = "/" + group + "/" + e.ID
	path := e.Cgroup
	if rt.Systemd {
		path, e.Cgroup = "system.slice:conform:"+e.ID, "/system.slice/conform-"+e.ID+".scope"
	}
	if err := os.MkdirAll(e.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := clone(image, filepath.Join(e.Dir, "rootfs")); err != nil {
		return nil, fmt.Errorf("copy root: %w", err)
	}
	e.spec = Base(path)
	e.spec.Process.Args = []string{"sh", "-c", c.Script}
	if c.Edit != nil {
		c.Edit(e, e.spec)
	}
	return e, e.Write()
}

// clone copies a root; programs are linked, because no case changes them.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		dest := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dest, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		case strings.HasPrefix(rel, "bin/"):
			return os.Link(name, dest)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(dest, b, 0o644)
	})
}

// Spec is the configuration; Write puts a changed one into the bundle.
func (e *Env) Spec() *specs.Spec { return e.spec }

// Write writes config.json.
func (e *Env) Write() error {
	b, err := json.MarshalIndent(e.spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.Dir, "config.json"), b, 0o644)
}

// Root is a path inside the container's root as the host sees it.
func (e *Env) Root(name string) string { return filepath.Join(e.Dir, "rootfs", name) }

// limit bounds one command of a runtime.
const limit = 20 * time.Second

// Call runs the runtime with args and returns its output and exit status.
func (e *Env) Call(args ...string) (string, int, error) {
	return e.CallIn("", args...)
}

// CallIn is Call with a standard input.
func (e *Env) CallIn(stdin string, args ...string) (string, int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	global := []string{"--root", e.State}
	if e.Runtime.Systemd {
		global = append(global, "--systemd-cgroup")
	}
	line := append(append(slices.Clone(e.Via), e.Runtime.Path), append(global, args...)...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.ExtraFiles = e.Extra
	cmd.Env = append(os.Environ(), e.Runtime.Env...)
	cmd.Dir = e.Dir
	cmd.Stdin = strings.NewReader(stdin)
	// A file, not a pipe: a detached container keeps it.
	out, err := os.CreateTemp(filepath.Dir(e.Dir), "out")
	if err != nil {
		return "", 0, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	body, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		return "", 0, rerr
	}
	if cmd.ProcessState == nil {
		return string(body), -1, err
	}
	if ctx.Err() != nil {
		return string(body), -1, fmt.Errorf("%s %v: no end after %v", e.Runtime.Name, args, limit)
	}
	return string(body), cmd.ProcessState.ExitCode(), nil
}

// Must is Call that must succeed.
func (e *Env) Must(args ...string) (string, error) {
	out, code, err := e.Call(args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%v: exit status %d: %s", args, code, out)
	}
	return out, err
}

// MustFail is Call that must fail with a message.
func (e *Env) MustFail(args ...string) error {
	out, code, err := e.Call(args...)
	if err != nil {
		return err
	}
	if code == 0 {
		return fmt.Errorf("%v succeeded: %s", args, out)
	}
	if strings.TrimSpace(out) == "" {
		return fmt.Errorf("%v failed without a word", args)
	}
	return nil
}

// State asks for the container's state.
func (e *Env) StateOf() (specs.State, error) {
	var s specs.State
	out, err := e.Must("state", e.ID)
	if err != nil {
		return s, err
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(out))).Decode(&s); err != nil {
		return s, fmt.Errorf("state is not JSON: %w: %s", err, out)
	}
	return s, nil
}

// Status polls until the container has the wanted status.
func (e *Env) Status(want specs.ContainerState) error {
	deadline := time.Now().Add(limit)
	for {
		s, err := e.StateOf()
		if err != nil {
			return err
		}
		if s.Status == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("status is %s, want %s", s.Status, want)
		}
		// No event tells about another process's container.
		<-time.After(10 * time.Millisecond)
	}
}

// Started creates and starts the container. When start is done the container's
// process may not have become the program yet, with any runtime: that is waited
// for.
func (e *Env) Started() error {
	if _, err := e.Must("create", e.ID); err != nil {
		return err
	}
	s, err := e.StateOf()
	if err != nil {
		return err
	}
	exe := fmt.Sprintf("/proc/%d/exe", s.Pid)
	var before, now unix.Stat_t
	if err := unix.Stat(exe, &before); err != nil {
		return &os.PathError{Op: "stat", Path: exe, Err: err}
	}
	if _, err := e.Must("start", e.ID); err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	for unix.Stat(exe, &now) == nil && now.Dev == before.Dev && now.Ino == before.Ino {
		if time.Now().After(deadline) {
			return fmt.Errorf("the program of %s does not run", e.ID)
		}
		<-time.After(time.Millisecond)
	}
	return nil // gone is for the case to judge
}

// Exits runs a command that must end with the given status and returns its output.
func (e *Env) Exits(code int, args ...string) (string, error) {
	out, got, err := e.Call(args...)
	if err == nil && got != code {
		err = fmt.Errorf("%v: exit status %d, want %d: %s", args, got, code, out)
	}
	return out, err
}

// Says runs a command that must succeed and print all of want.
func (e *Env) Says(want []string, args ...string) error {
	out, err := e.Must(args...)
	for _, w := range want {
		if err == nil && !strings.Contains(out, w) {
			err = fmt.Errorf("%v: no %q in %q", args, w, out)
		}
	}
	return err
}

// Close removes the container, whatever became of it, and what a case has
// mounted below the bundle.
func (e *Env) Close() {
	defer e.unmount()
	_, _, _ = e.Call("kill", e.ID, "KILL")
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if _, code, err := e.Call("delete", "--force", e.ID); code == 0 && err == nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// unmount takes away the mounts below the bundle, the last first.
func (e *Env) unmount() {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return // the folder cannot be removed, and says so
	}
	var below []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], e.Dir+"/") {
			below = append(below, f[4])
		}
	}
	for _, at := range slices.Backward(below) {
		_ = unix.Unmount(at, unix.MNT_DETACH) // as above
	}
}

// Run performs the case and says why it does not hold.
func (c Case) Run(e *Env) error {
	if c.Do != nil {
		return c.Do(e)
	}
	out, code, err := e.Call("run", e.ID)
	if err != nil {
		return err
	}
	if c.Fails {
		if code == 0 || strings.Contains(out, ranMark) {
			return fmt.Errorf("it was run: exit status %d, output %q", code, out)
		}
		if strings.TrimSpace(out) == "" {
			return fmt.Errorf("it failed without a word")
		}
		return nil
	}
	if code != c.Code {
		return fmt.Errorf("exit status %d, want %d: %s", code, c.Code, out)
	}
	for _, w := range c.Want {
		if !strings.Contains(out, w) {
			return fmt.Errorf("no %q in %q", w, out)
		}
	}
	for _, n := range c.Not {
		if strings.Contains(out, n) {
			return fmt.Errorf("%q in %q", n, out)
		}
	}
	return nil
}

// ranMark is what the scripts of failing cases print if they are run after all.
const ranMark = "process-was-run"
