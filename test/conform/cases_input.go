package conform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// inputCases give a runtime what is wrong: a clear error, the exit status that
// runc has, and nothing half-made.
func inputCases() []Case {
	const section = "runtime.md#errors"
	// create fails with status 1, tells all of words, and leaves nothing.
	refused := func(name string, edit func(*Env, *specs.Spec), before func(e *Env) error, words ...string) Case {
		return Case{Section: section, Name: name, Script: "touch /ran", Edit: edit, Do: func(e *Env) error {
			if before != nil {
				if err := before(e); err != nil {
					return err
				}
			}
			out, err := e.Exits(1, "create", e.ID)
			if err != nil {
				return err
			}
			for _, w := range words {
				if !strings.Contains(out, w) {
					return fmt.Errorf("no %q in %q", w, out)
				}
			}
			if _, err := os.Lstat(e.Root("ran")); err == nil {
				return fmt.Errorf("the process ran")
			}
			if _, code, err := e.Call("state", e.ID); err != nil || code == 0 {
				return fmt.Errorf("there is a container: %w", err)
			}
			return nothingLeft(e)
		}}
	}
	exits := func(name string, code int, script string, do func(e *Env) []string) Case {
		return Case{Section: section, Name: name, Script: script, Do: func(e *Env) error {
			args := do(e)
			if args == nil {
				return fmt.Errorf("could not be prepared")
			}
			out, err := e.Exits(code, args...)
			if err == nil && strings.TrimSpace(out) == "" {
				err = fmt.Errorf("it failed without a word")
			}
			return err
		}}
	}
	stopped := func(e *Env) bool { return e.Started() == nil && e.Status(specs.StateStopped) == nil }
	cases := []Case{
		refused("no bundle", nil, func(e *Env) error { return os.Remove(filepath.Join(e.Dir, "config.json")) }, "config.json"),
		refused("a config.json that ends in the middle", nil, func(e *Env) error {
			return os.WriteFile(filepath.Join(e.Dir, "config.json"), []byte(`{"ociVersion":"1.0.2","process":{`), 0o644)
		}),
		refused("an empty config.json", nil, func(e *Env) error { return os.WriteFile(filepath.Join(e.Dir, "config.json"), nil, 0o644) }),
		refused("a wrong type", nil, func(e *Env) error {
			return os.WriteFile(filepath.Join(e.Dir, "config.json"), []byte(`{"ociVersion":"1.0.2","process":{"args":"sh"}}`), 0o644)
		}),
		refused("no rootfs", nil, func(e *Env) error { return os.RemoveAll(e.Root("")) }, "rootfs"),
		refused("a program that is not there", func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"nowhere-to-be-found"} }, nil, "nowhere-to-be-found"),
		refused("a program that cannot be executed", func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} }, nil, "/etc/passwd"),
		refused("a mount source that is not there", func(_ *Env, s *specs.Spec) { mounts(s, "/data", "bind", "/nowhere/source", "bind") }, nil, "/nowhere/source"),
		refused("a file system that the kernel does not have", func(_ *Env, s *specs.Spec) { mounts(s, "/data", "nonsensefs", "x") }, nil, "data"),
		refused("a namespace path that is not there", func(_ *Env, s *specs.Spec) { namespace(s, specs.IPCNamespace, "/nowhere/ipc") }, nil, "/nowhere/ipc"),
		refused("a limit that the kernel refuses", func(_ *Env, s *specs.Spec) {
			s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "4000"}
		}, nil, "cpuset"),
		refused("a sysctl that is not there", sysctl("net.nonsense.name", "1"), nil, "nonsense"),
		refused("a cwd that is a file", func(_ *Env, s *specs.Spec) { s.Process.Cwd = "/etc/passwd" }, nil, "/etc/passwd"),
		refused("a hook that fails", func(_ *Env, s *specs.Spec) { setHook(s, "createRuntime", shell("echo why it failed >&2; exit 1")) }, nil),
		refused("a createContainer hook that fails", func(_ *Env, s *specs.Spec) { setHook(s, "createContainer", shell("exit 1")) }, nil),
		exits("state of nobody", 1, "true", func(*Env) []string { return []string{"state", "nobody"} }),
		exits("start of nobody", 1, "true", func(*Env) []string { return []string{"start", "nobody"} }),
		exits("kill of nobody", 1, "true", func(*Env) []string { return []string{"kill", "nobody", "KILL"} }),
		exits("delete of nobody", 1, "true", func(*Env) []string { return []string{"delete", "nobody"} }),
		exits("pause of nobody", 1, "true", func(*Env) []string { return []string{"pause", "nobody"} }),
		exits("exec in nobody", 255, "true", func(*Env) []string { return []string{"exec", "nobody", "true"} }),
		exits("start of a dead one", 1, "true", func(e *Env) []string {
			if !stopped(e) {
				return nil
			}
			return []string{"start", e.ID}
		}),
		exits("kill of a dead one", 1, "true", func(e *Env) []string {
			if !stopped(e) {
				return nil
			}
			return []string{"kill", e.ID, "TERM"}
		}),
		exits("exec in a dead one", 255, "true", func(e *Env) []string {
			if !stopped(e) {
				return nil
			}
			return []string{"exec", e.ID, "true"}
		}),
		exits("exec of a missing program", 255, "sleep 100", func(e *Env) []string {
			if e.Started() != nil {
				return nil
			}
			return []string{"exec", e.ID, "nowhere"}
		}),
		exits("an id that is taken", 1, "sleep 100", func(e *Env) []string {
			if e.Started() != nil {
				return nil
			}
			return []string{"create", e.ID}
		}),
		exits("an id that is a path", 1, "true", func(*Env) []string { return []string{"create", "../../escape"} }),
		exits("an empty id", 1, "true", func(*Env) []string { return []string{"create", ""} }),
		exits("an id with a blank", 1, "true", func(*Env) []string { return []string{"create", "a b"} }),
		exits("a bundle that is not there", 1, "true", func(*Env) []string { return []string{"create", "--bundle", "/nowhere", "x"} }),
		exits("a number that is none", 1, "true", func(*Env) []string { return []string{"create", "--preserve-fds", "many", "x"} }),
	}
	// What a state folder may look like after an accident.
	for name, damage := range map[string]func(dir string) error{
		"a state that is cut": func(dir string) error { return eachState(dir, func(n string) error { return os.Truncate(n, 10) }) },
		"a state that is empty": func(dir string) error {
			return eachState(dir, func(n string) error { return os.Truncate(n, 0) })
		},
		"a state that is no JSON": func(dir string) error {
			return eachState(dir, func(n string) error { return os.WriteFile(n, []byte("nonsense\n"), 0o600) })
		},
	} {
		cases = append(cases, Case{Section: section, Name: name, Script: "sleep 100", Do: func(e *Env) error {
			if err := e.Started(); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err != nil {
				return err
			}
			if err := damage(filepath.Join(e.State, e.ID)); err != nil {
				return err
			}
			err = first(func() error { return e.MustFail("state", e.ID) }, func() error { return e.MustFail("start", e.ID) }, func() error { return e.MustFail("kill", e.ID, "KILL") })
			if p, perr := os.FindProcess(s.Pid); perr == nil {
				_ = p.Kill() // nobody else can find it now
			}
			return err
		}})
	}
	return cases
}

// eachState calls f for the state file of a container, whatever it is called.
func eachState(dir string, f func(name string) error) error {
	names, err := filepath.Glob(filepath.Join(dir, "st*e*.json"))
	more, _ := filepath.Glob(filepath.Join(dir, "status"))
	for _, n := range append(names, more...) {
		if err := f(n); err != nil {
			return err
		}
	}
	if err == nil && len(names)+len(more) == 0 {
		err = fmt.Errorf("no state in %s", dir)
	}
	return err
}
