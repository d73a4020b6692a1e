package conform

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// shell is a hook that runs a script of the host's shell.
func shell(script string) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}}
}

// setHook puts a list into its place.
func setHook(s *specs.Spec, kind string, h []specs.Hook) {
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

// logged runs the container and compares what its hooks wrote to the bundle's log.
func logged(want func(e *Env) string) func(e *Env) error {
	return func(e *Env) error {
		if _, err := e.Must("run", e.ID); err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(e.Dir, "log"))
		if err == nil && string(b) != want(e) {
			err = fmt.Errorf("the hooks wrote %q, want %q", b, want(e))
		}
		return err
	}
}

// moreHookCases are the demands on hooks beside those of hookCases.
func moreHookCases() []Case {
	const section = "config.md#posix-platform-hooks"
	log := func(e *Env) string { return filepath.Join(e.Dir, "log") }
	is := func(s string) func(*Env) string { return func(*Env) string { return s } }
	cases := []Case{
		{Section: section, Name: "kinds run in the order of the lifecycle", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			for _, kind := range []string{"poststop", "poststart", "createContainer", "createRuntime", "prestart"} {
				setHook(s, kind, shell("echo "+kind+" >> "+log(e)))
			}
		}, Do: logged(is("prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n"))},
		{Section: section, Name: "env is the hook's own", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createRuntime", []specs.Hook{{Path: "/usr/bin/env", Args: []string{"env", "sh", "-c", "env | grep -v -e PWD -e SHLVL -e _= > " + log(e)}, Env: []string{"PATH=/bin:/usr/bin", "ONLY=this"}}})
		}, Do: logged(is("PATH=/bin:/usr/bin\nONLY=this\n"))},
		{Section: section, Name: "timer slack is the caller's", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createRuntime", shell("cat "+timerSlack+" > "+log(e)))
		}, Do: func(e *Env) error {
			own, err := os.ReadFile(timerSlack)
			if err != nil {
				return err
			}
			return logged(is(string(own)))(e)
		}},
		{Section: section, Name: "args[0] is free", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createRuntime", []specs.Hook{{Path: "/bin/sh", Args: []string{"another-name", "-c", "echo $0 > " + log(e)}, Env: []string{"PATH=/bin"}}})
		}, Do: logged(is("another-name\n"))},
		{Section: section, Name: "a timeout that is not reached does no harm", Script: "echo ran", Edit: func(_ *Env, s *specs.Spec) {
			ten := 10
			h := shell("true")
			h[0].Timeout = &ten
			setHook(s, "createRuntime", h)
		}, Want: []string{"ran"}},
		{Section: section, Name: "a timeout of zero fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			zero := 0
			h := shell("true")
			h[0].Timeout = &zero
			setHook(s, "createRuntime", h)
		}},
		{Section: section, Name: "a program that is not there fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			setHook(s, "createRuntime", []specs.Hook{{Path: "/nowhere/hook"}})
		}},
		{Section: section, Name: "after a failed one the next is not run", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createRuntime", append(shell("echo 1 >> "+log(e)+"; exit 1"), shell("echo 2 >> "+log(e))...))
		}, Do: func(e *Env) error {
			if err := e.MustFail("create", e.ID); err != nil {
				return err
			}
			b, err := os.ReadFile(log(e))
			if err == nil && string(b) != "1\n" {
				err = fmt.Errorf("the hooks wrote %q", b)
			}
			return err
		}},
		{Section: "runtime.md#lifecycle", Name: "a failed hook leaves no container", Script: "true", Edit: func(_ *Env, s *specs.Spec) {
			setHook(s, "createRuntime", shell("exit 3"))
		}, Do: func(e *Env) error {
			return first(func() error { return e.MustFail("create", e.ID) }, func() error { return e.MustFail("state", e.ID) }, func() error { return nothingLeft(e) })
		}},
		{Section: "runtime.md#lifecycle", Name: "a failed startContainer hook stops the container", Script: "touch /ran; sleep 100", Edit: func(_ *Env, s *specs.Spec) {
			setHook(s, "startContainer", []specs.Hook{{Path: "/bin/false"}})
		}, Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			_, _, _ = e.Call("start", e.ID) // whether it can tell is the runtime's
			if err := e.Gone(); err != nil {
				return err
			}
			if _, err := os.Lstat(e.Root("ran")); err == nil {
				return fmt.Errorf("the process ran")
			}
			return nil
		}},
		{Section: "runtime.md#lifecycle", Name: "a failed poststart hook stops the container", Script: "sleep 100", Edit: func(_ *Env, s *specs.Spec) {
			setHook(s, "poststart", shell("exit 1"))
		}, Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			if err := e.MustFail("start", e.ID); err != nil {
				return err
			}
			return e.Gone()
		}, Alone: "before 1.2 of the specification it was a warning, which crun 1.8.1 prints"},
		{Section: section, Name: "a failing poststop hook does not keep the next from running", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "poststop", append(shell("exit 1"), shell("echo next >> "+log(e))...))
		}, Do: logged(is("next\n"))},
		{Section: section, Name: "a hook has no terminal and no descriptor of the runtime", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createContainer", shell("ls /proc/self/fd | wc -l > "+log(e)))
		}, Do: logged(is("4\n"))},
		{Section: section, Name: "annotations are in the state", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			s.Annotations = map[string]string{"org.example.key": "value 1"}
			setHook(s, "createRuntime", shell(`grep -o '"org.example.key": *"value 1"' | tr -d ' ' > `+log(e)))
		}, Do: logged(is("\"org.example.key\":\"value1\"\n"))},
		{Section: section, Name: "a hook that does not read its input does no harm", Script: "echo ran", Edit: func(_ *Env, s *specs.Spec) {
			s.Annotations = map[string]string{"long": strings.Repeat("x", 200<<10)}
			setHook(s, "createRuntime", []specs.Hook{{Path: "/bin/true"}})
		}, Want: []string{"ran"}},
	}
	// Where a hook runs: the mount table it sees and the namespaces it is in.
	for kind, inside := range map[string]bool{"prestart": false, "createRuntime": false, "createContainer": true, "poststart": false, "poststop": false} {
		cases = append(cases, Case{
			Section: section, Name: kind + " runs in the right namespaces", Script: "true",
			Edit: func(e *Env, s *specs.Spec) { setHook(s, kind, shell("readlink /proc/self/ns/mnt > "+log(e))) },
			Do: func(e *Env) error {
				own, err := os.Readlink("/proc/self/ns/mnt")
				if err != nil {
					return err
				}
				if _, err := e.Must("run", e.ID); err != nil {
					return err
				}
				b, err := os.ReadFile(log(e))
				if err == nil && (strings.TrimSpace(string(b)) != own) != inside {
					err = fmt.Errorf("it was in %q, the runtime is in %q", b, own)
				}
				return err
			},
		})
	}
	return append(cases,
		Case{Section: section, Name: "createRuntime comes before pivot_root", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			setHook(s, "createRuntime", shell(`pid=$(grep -o '"pid": *[0-9]*' | grep -o '[0-9]*'); test -e /proc/$pid/ns/mnt && echo alive > `+log(e)))
		}, Do: logged(is("alive\n"))},
		Case{Section: section, Name: "createContainer sees the mounts of the container", Script: "true", Edit: func(e *Env, s *specs.Spec) {
			mounts(s, "/m", "tmpfs", "tmpfs", "size=4k")
			setHook(s, "createContainer", shell("grep -c 'rw.*size=4k' /proc/self/mountinfo > "+log(e)))
		}, Do: logged(is("1\n"))},
		Case{Section: section, Name: "startContainer has the path of the container", Script: "cat /log", Edit: func(_ *Env, s *specs.Spec) {
			setHook(s, "startContainer", []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "ls /usr > /log 2>&1; cat /proc/self/cgroup >> /log"}, Env: []string{"PATH=/bin"}}})
		}, Want: []string{"No such file"}})
}
