package conform

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// first runs steps until one fails.
func first(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// runtimeCases are runtime.md: states, operations, hooks.
func runtimeCases() []Case {
	ok := func(e *Env, args ...string) func() error {
		return func() error { _, err := e.Must(args...); return err }
	}
	fails := func(e *Env, args ...string) func() error { return func() error { return e.MustFail(args...) } }
	is := func(e *Env, s specs.ContainerState) func() error { return func() error { return e.Status(s) } }
	marker := func(e *Env) string { return e.Root("ran") }
	absent := func(name string) func() error {
		return func() error {
			if _, err := os.Lstat(name); err == nil {
				return fmt.Errorf("%s is there", filepath.Base(name))
			}
			return nil
		}
	}
	return append([]Case{
		{Section: "runtime.md#create", Name: "does not run the process", Script: "touch /ran; sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), is(e, specs.StateCreated), absent(marker(e)))
		}},
		{Section: "runtime.md#create", Name: "an id in use fails", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), fails(e, "create", e.ID), is(e, specs.StateCreated))
		}},
		{Section: "runtime.md#create", Name: "a changed config.json has no effect", Script: "exit 7", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), func() error { return os.WriteFile(filepath.Join(e.Dir, "config.json"), []byte("{}"), 0o644) },
				ok(e, "start", e.ID), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#create", Name: "a failure leaves no container", Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"nowhere"} }, Do: func(e *Env) error {
			return first(fails(e, "create", e.ID), fails(e, "state", e.ID))
		}},
		{Section: "runtime.md#create", Name: "no config.json fails", Do: func(e *Env) error {
			return first(func() error { return os.Remove(filepath.Join(e.Dir, "config.json")) }, fails(e, "create", e.ID))
		}},
		{Section: "runtime.md#create", Name: "a config.json that is no JSON fails", Do: func(e *Env) error {
			return first(func() error {
				return os.WriteFile(filepath.Join(e.Dir, "config.json"), []byte("{\"ociVersion\""), 0o644)
			}, fails(e, "create", e.ID))
		}},
		{Section: "runtime.md#create", Name: "a wrong type in config.json fails", Do: func(e *Env) error {
			return first(func() error {
				return os.WriteFile(filepath.Join(e.Dir, "config.json"), []byte(`{"ociVersion":"1.0.2","process":{"args":"sh"}}`), 0o644)
			}, fails(e, "create", e.ID))
		}},
		{Section: "runtime.md#create", Name: "an invalid id fails", Script: "true", Do: func(e *Env) error {
			return first(fails(e, "create", "../x"), fails(e, "create", "a/b"))
		}},
		{Section: "runtime.md#create", Name: "--pid-file", Script: "sleep 100", Do: func(e *Env) error {
			name := filepath.Join(e.Dir, "pid")
			if err := ok(e, "create", "--pid-file", name, e.ID)(); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err != nil {
				return err
			}
			b, err := os.ReadFile(name)
			if err == nil && string(b) != strconv.Itoa(s.Pid) {
				err = fmt.Errorf("pid file has %q, the state %d", b, s.Pid)
			}
			return err
		}},
		{Section: "runtime.md#create", Name: "--bundle", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", "--bundle", e.Dir, e.ID), is(e, specs.StateCreated))
		}},
		{Section: "runtime.md#state", Name: "has what is demanded", Script: "sleep 100", Edit: func(_ *Env, s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} }, Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err != nil {
				return err
			}
			if s.Version == "" || s.ID != e.ID || s.Pid <= 0 || s.Bundle != e.Dir || s.Annotations["a"] != "b" {
				return fmt.Errorf("state %+v", s)
			}
			if _, err := os.Stat("/proc/" + strconv.Itoa(s.Pid)); err != nil {
				return err
			}
			return nil
		}},
		{Section: "runtime.md#state", Name: "of no container fails", Do: func(e *Env) error { return e.MustFail("state", "nobody") }},
		{Section: "runtime.md#start", Name: "runs the process", Script: "touch /ran; sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "runtime.md#start", Name: "of a running container fails", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), fails(e, "start", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "runtime.md#start", Name: "of a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), is(e, specs.StateStopped), fails(e, "start", e.ID))
		}},
		{Section: "runtime.md#start", Name: "of no container fails", Do: func(e *Env) error { return e.MustFail("start", "nobody") }},
		{Section: "runtime.md#start", Name: "without an id fails", Do: func(e *Env) error { return e.MustFail("start") }},
		{Section: "runtime.md#kill", Name: "SIGKILL by number", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), ok(e, "kill", e.ID, "9"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "SIGKILL by name", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), ok(e, "kill", e.ID, "SIGKILL"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "a short name", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), ok(e, "kill", e.ID, "KILL"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "the signal arrives", Script: "trap 'exit 0' TERM; touch /ready; while :; do sleep 1 & wait; done", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), func() error { return appears(e.Root("ready")) },
				ok(e, "kill", e.ID, "TERM"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "a created container", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "kill", e.ID, "KILL"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "of a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), is(e, specs.StateStopped), fails(e, "kill", e.ID, "KILL"))
		}},
		{Section: "runtime.md#kill", Name: "an unknown signal fails", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), fails(e, "kill", e.ID, "NONSENSE"), is(e, specs.StateCreated))
		}},
		{Section: "runtime.md#kill", Name: "of no container fails", Do: func(e *Env) error { return e.MustFail("kill", "nobody", "KILL") }},
		{Section: "runtime.md#delete", Name: "of a stopped container", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), is(e, specs.StateStopped), ok(e, "delete", e.ID), fails(e, "state", e.ID))
		}},
		{Section: "runtime.md#delete", Name: "of a running container fails", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), fails(e, "delete", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "runtime.md#delete", Name: "--force of a running container", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), ok(e, "delete", "--force", e.ID), fails(e, "state", e.ID))
		}},
		{Section: "runtime.md#delete", Name: "of no container fails", Do: func(e *Env) error { return e.MustFail("delete", "nobody") }},
		{Section: "runtime.md#delete", Name: "the id can be used again", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "run", e.ID), ok(e, "run", e.ID))
		}},
		{Section: "command line", Name: "exec", Script: "sleep 100", Do: func(e *Env) error {
			if err := first(ok(e, "create", e.ID), ok(e, "start", e.ID)); err != nil {
				return err
			}
			out, code, err := e.Call("exec", e.ID, "sh", "-c", "hostname; exit 9")
			if err == nil && (code != 9 || !strings.Contains(out, "conform")) {
				err = fmt.Errorf("status %d, output %q", code, out)
			}
			return err
		}},
		{Section: "command line", Name: "exec --process", Script: "sleep 100", Do: func(e *Env) error {
			p := specs.Process{Args: []string{"id", "-u"}, Env: []string{"PATH=/bin"}, Cwd: "/", User: specs.User{UID: 12}}
			b, _ := json.Marshal(p)
			name := filepath.Join(e.Dir, "process.json")
			if err := first(func() error { return os.WriteFile(name, b, 0o644) }, ok(e, "create", e.ID), ok(e, "start", e.ID)); err != nil {
				return err
			}
			out, err := e.Must("exec", "--process", name, e.ID)
			if err == nil && strings.TrimSpace(out) != "12" {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		{Section: "command line", Name: "exec in a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), is(e, specs.StateStopped), fails(e, "exec", e.ID, "true"))
		}},
		{Section: "command line", Name: "exec of a missing program fails", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), fails(e, "exec", e.ID, "nowhere"), is(e, specs.StateRunning))
		}},
		{Section: "command line", Name: "exec in a user namespace", Script: "sleep 100", Edit: userNS, Do: func(e *Env) error {
			if err := first(ok(e, "create", e.ID), ok(e, "start", e.ID)); err != nil {
				return err
			}
			out, err := e.Must("exec", e.ID, "sh", "-c", "id -u; cat /proc/self/uid_map")
			if err == nil && !(strings.HasPrefix(out, "0\n") && strings.Contains(out, "100000")) {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		{Section: "command line", Name: "pause and resume", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), ok(e, "start", e.ID), ok(e, "pause", e.ID), is(e, "paused"), ok(e, "resume", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "command line", Name: "run --detach", Script: "sleep 100", Do: func(e *Env) error {
			return first(ok(e, "run", "--detach", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "command line", Name: "list --quiet", Script: "sleep 100", Do: func(e *Env) error {
			if err := ok(e, "create", e.ID)(); err != nil {
				return err
			}
			out, err := e.Must("list", "-q")
			if err == nil && !strings.Contains(out, e.ID+"\n") {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
	}, hookCases()...)
}

// hookKinds in the order of the life of a container.
func hookCases() []Case {
	const section = "config.md#posix-platform-hooks"
	hook := func(script string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	log := func(e *Env) string { return filepath.Join(e.Dir, "log") }
	set := func(s *specs.Spec, kind string, h []specs.Hook) {
		if s.Hooks == nil {
			s.Hooks = &specs.Hooks{}
		}
		switch kind {
		case "prestart":
			s.Hooks.Prestart = h //nolint:staticcheck // still to be run
		case "createRuntime":
			s.Hooks.CreateRuntime = h
		case "createContainer":
			s.Hooks.CreateContainer = h
		case "startContainer":
			s.Hooks.StartContainer = h
		case "poststart":
			s.Hooks.Poststart = h
		case "poststop":
			s.Hooks.Poststop = h
		}
	}
	var cases []Case
	for kind, status := range map[string]string{"prestart": "created", "createRuntime": "created", "createContainer": "created", "poststart": "running", "poststop": "stopped"} {
		cases = append(cases, Case{
			Section: section, Name: kind + " gets the state", Script: "true",
			Edit: func(e *Env, s *specs.Spec) { set(s, kind, hook("cat > "+log(e))) },
			Do: func(e *Env) error {
				if _, err := e.Must("run", e.ID); err != nil {
					return err
				}
				b, err := os.ReadFile(log(e))
				if err != nil {
					return err
				}
				var st specs.State
				if err := json.Unmarshal(b, &st); err != nil {
					return fmt.Errorf("%w: %q", err, b)
				}
				// "creating" and "created" are both told of the moment before start.
				if st.ID != e.ID || st.Bundle != e.Dir || string(st.Status) != status && !(status == "created" && st.Status == specs.StateCreating) {
					return fmt.Errorf("state %+v", st)
				}
				return nil
			},
		})
		if kind == "poststart" || kind == "poststop" {
			continue
		}
		cases = append(cases, Case{
			Section: section, Name: kind + " that fails stops the creation", Script: "echo " + ranMark, Fails: true,
			Edit: func(_ *Env, s *specs.Spec) { set(s, kind, hook("exit 1")) },
		})
	}
	one := 1
	return append(cases,
		Case{Section: section, Name: "startContainer runs in the container", Script: "cat /log", Edit: func(_ *Env, s *specs.Spec) {
			set(s, "startContainer", []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "hostname > /log"}, Env: []string{"PATH=/bin"}}})
		}, Want: []string{"conform\n"}},
		Case{Section: section, Name: "a hook past its timeout fails", Script: "echo " + ranMark, Fails: true, Edit: func(_ *Env, s *specs.Spec) {
			set(s, "createRuntime", []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}})
		}},
		Case{Section: section, Name: "a relative path fails", Script: "echo " + ranMark, Fails: true, Edit: func(_ *Env, s *specs.Spec) {
			set(s, "createRuntime", []specs.Hook{{Path: "bin/true"}})
		}},
		Case{Section: section, Name: "they run in the order listed", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			set(s, "createRuntime", append(hook("echo 1 >> "+log(e)), hook("echo 2 >> "+log(e))...))
			set(s, "poststop", hook("echo 3 >> "+log(e)))
		}, Do: func(e *Env) error {
			if _, err := e.Must("run", e.ID); err != nil {
				return err
			}
			b, err := os.ReadFile(log(e))
			if err == nil && string(b) != "1\n2\n3\n" {
				err = fmt.Errorf("order %q", b)
			}
			return err
		}},
		Case{Section: section, Name: "a failing poststop hook is no failure of delete", Script: "true", Edit: func(_ *Env, s *specs.Spec) {
			set(s, "poststop", hook("exit 1"))
		}, Do: func(e *Env) error { _, err := e.Must("run", e.ID); return err }},
	)
}
