package conform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Gone waits until the container is stopped or no longer known.
func (e *Env) Gone() error {
	deadline := time.Now().Add(limit)
	for {
		out, code, err := e.Call("state", e.ID)
		if err != nil || code != 0 || strings.Contains(out, `"stopped"`) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it is still there: %s", out)
		}
		// No event tells about another process's container.
		<-time.After(10 * time.Millisecond)
	}
}

// timerSlack is what a process inherits from who starts it (prctl(2)), and no
// field of the configuration names.
const timerSlack = "/proc/self/timerslack_ns"

// commandCases are verbs and options of the usual command line.
func commandCases() []Case {
	const section = "command line"
	const sleeps = "sleep 100"
	started := func(name string, do func(e *Env) error) Case {
		return Case{Section: section, Name: name, Script: sleeps, Do: func(e *Env) error { return first(e.Started, func() error { return do(e) }) }}
	}
	ok := func(e *Env, args ...string) func() error {
		return func() error { _, err := e.Must(args...); return err }
	}
	fails := func(e *Env, args ...string) func() error { return func() error { return e.MustFail(args...) } }
	is := func(e *Env, s specs.ContainerState) func() error { return func() error { return e.Status(s) } }
	exec := func(name, want string, options []string, command ...string) Case {
		return started("exec "+name, func(e *Env) error {
			return e.Says([]string{want}, append(append(append([]string{"exec"}, options...), e.ID), command...)...)
		})
	}
	cases := []Case{
		exec("--user", "33 44", []string{"--user", "33:44"}, "sh", "-c", "echo $(id -u) $(id -g)"),
		exec("--user without a group", "33 0", []string{"--user", "33"}, "sh", "-c", "echo $(id -u) $(id -g)"),
		exec("--cwd", "/data\n", []string{"--cwd", "/data"}, "pwd"),
		exec("--env", "A=1\nB=2\n", []string{"--env", "A=1", "--env", "B=2"}, "sh", "-c", "env | grep -e ^A= -e ^B= | sort"),
		exec("-e", "A=1\n", []string{"-e", "A=1"}, "env"),
		exec("--cap", "CapEff:\t00000000080004e1", []string{"--cap", "CAP_NET_BIND_SERVICE"}, "grep", "CapEff", "/proc/self/status"),
		exec("--additional-gids", "0 7 8", []string{"--additional-gids", "7", "--additional-gids", "8"}, "id", "-G"),
		exec("has the variables of the container", "PATH=/bin", nil, "env"),
		exec("passes arguments that look like options", "-n -x --", nil, "sh", "-c", "printf '%s ' \"$@\"", "sh", "-n", "-x", "--"),
		exec("is in the container's namespaces", "conform\n", nil, "hostname"),
		exec("has no descriptor but three", "4\n", nil, "sh", "-c", "ls /proc/self/fd | wc -l"),
		exec("has no_new_privs of the container", "NoNewPrivs:\t1", nil, "grep", "NoNewPrivs", "/proc/self/status"),
		exec("has the capabilities of the container", "CapBnd:\t00000000080004e1", nil, "grep", "CapBnd", "/proc/self/status"),
		started("exec has the caller's timer slack", func(e *Env) error {
			own, err := os.ReadFile(timerSlack)
			if err != nil {
				return err
			}
			return e.Says([]string{string(own)}, "exec", e.ID, "cat", timerSlack)
		}),
		started("exec is in the container's group", func(e *Env) error {
			out, err := e.Must("exec", e.ID, "cat", "/proc/self/cgroup")
			if err == nil && !strings.Contains(out, e.Cgroup+"\n") && !strings.Contains(out, e.Cgroup+"/") {
				err = fmt.Errorf("no %s in %q", e.Cgroup, out)
			}
			return err
		}),
		{Section: section, Name: "exec has the filter", Script: sleeps, Edit: filtered(specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}), Do: func(e *Env) error {
			return first(e.Started, func() error {
				return e.Says([]string{"Seccomp:\t2"}, "exec", e.ID, "grep", "Seccomp:", "/proc/self/status")
			})
		}},
		started("exec passes its exit status on", func(e *Env) error { _, err := e.Exits(42, "exec", e.ID, "sh", "-c", "exit 42"); return err }),
		started("exec of a killed process is 128 and the signal", func(e *Env) error {
			_, err := e.Exits(137, "exec", e.ID, "sh", "-c", "kill -9 $$")
			return err
		}),
		started("exec without a command fails", func(e *Env) error { return e.MustFail("exec", e.ID) }),
		started("exec in a paused container fails", func(e *Env) error {
			return first(ok(e, "pause", e.ID), fails(e, "exec", e.ID, "true"), ok(e, "resume", e.ID))
		}),
		{Section: section, Name: "exec in no container fails", Do: func(e *Env) error { return e.MustFail("exec", "nobody", "true") }},
		{Section: section, Name: "exec in a created container", Script: sleeps, Do: func(e *Env) error {
			return first(ok(e, "create", e.ID), func() error { return e.Says([]string{"here"}, "exec", e.ID, "echo", "here") }, is(e, specs.StateCreated))
		}},
		started("exec --detach and --pid-file", func(e *Env) error {
			name := filepath.Join(e.Dir, "pid")
			if err := ok(e, "exec", "--detach", "--pid-file", name, e.ID, "sh", "-c", "touch /ran; sleep 100; :")(); err != nil {
				return err
			}
			if err := appears(e.Root("ran")); err != nil {
				return err
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			cmd, err := os.ReadFile("/proc/" + string(b) + "/cmdline")
			if err == nil && !bytes.HasPrefix(cmd, []byte("sh\x00")) {
				err = fmt.Errorf("pid %s is %q", b, cmd)
			}
			return err
		}),
		started("exec --preserve-fds", func(e *Env) error {
			f, err := os.CreateTemp(e.Dir, "given")
			if err != nil {
				return err
			}
			defer f.Close()
			e.Extra = []*os.File{f}
			if _, err := e.Must("exec", "--preserve-fds", "1", e.ID, "sh", "-c", "echo given >&3"); err != nil {
				return err
			}
			b, err := os.ReadFile(f.Name())
			if err == nil && string(b) != "given\n" {
				err = fmt.Errorf("the file has %q", b)
			}
			return err
		}),
		{Section: section, Name: "run --preserve-fds", Script: "echo given >&3; ls /proc/self/fd | wc -l", Do: func(e *Env) error {
			f, err := os.CreateTemp(e.Dir, "given")
			if err != nil {
				return err
			}
			defer f.Close()
			e.Extra = []*os.File{f, f}
			if err := e.Says([]string{"5\n"}, "run", "--preserve-fds", "1", e.ID); err != nil {
				return err
			}
			b, err := os.ReadFile(f.Name())
			if err == nil && string(b) != "given\n" {
				err = fmt.Errorf("the file has %q", b)
			}
			return err
		}},
		{Section: section, Name: "run --preserve-fds of descriptors that are not there fails", Script: "echo " + ranMark, Do: func(e *Env) error { return e.MustFail("run", "--preserve-fds", "5", e.ID) }},
		{Section: section, Name: "run --pid-file", Script: "true", Do: func(e *Env) error {
			name := filepath.Join(e.Dir, "pid")
			if err := ok(e, "run", "--pid-file", name, e.ID)(); err != nil {
				return err
			}
			b, err := os.ReadFile(name)
			if err == nil {
				_, err = strconv.Atoi(string(b))
			}
			return err
		}},
		{Section: section, Name: "run --bundle", Script: "echo ran", Do: func(e *Env) error { return e.Says([]string{"ran\n"}, "run", "--bundle", e.Dir, e.ID) }},
		{Section: section, Name: "run -b", Script: "echo ran", Do: func(e *Env) error { return e.Says([]string{"ran\n"}, "run", "-b", e.Dir, e.ID) }},
		{Section: section, Name: "run --no-pivot", Script: "ls /; cat /etc/passwd", Do: func(e *Env) error {
			out, err := e.Must("run", "--no-pivot", e.ID)
			if err == nil && (!strings.Contains(out, "root:x:0") || strings.Contains(out, "usr")) {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		{Section: section, Name: "run --no-new-keyring", Script: "echo ran", Do: func(e *Env) error { return e.Says([]string{"ran\n"}, "run", "--no-new-keyring", e.ID) }},
		{Section: section, Name: "a container has a keyring of its own", Script: "cat /proc/keys", Want: []string{"_ses"}, Needs: func() string {
			if _, err := os.Stat("/proc/keys"); err != nil {
				return "a kernel without keys"
			}
			return ""
		}},
		{Section: section, Name: "run --keep", Script: "exit 3", Do: func(e *Env) error {
			if _, err := e.Exits(3, "run", "--keep", e.ID); err != nil {
				return err
			}
			return e.Status(specs.StateStopped)
		}},
		{Section: section, Name: "run deletes the container at its end", Script: "true", Do: func(e *Env) error {
			return first(ok(e, "run", e.ID), fails(e, "state", e.ID), func() error { return nothingLeft(e) })
		}},
		{Section: section, Name: "run --no-subreaper", Script: "echo ran", Do: func(e *Env) error { return e.Says([]string{"ran\n"}, "run", "--no-subreaper", e.ID) }},
		{Section: section, Name: "LISTEN_FDS", Script: "echo $LISTEN_FDS $LISTEN_PID; echo given >&3", Do: func(e *Env) error {
			f, err := os.CreateTemp(e.Dir, "given")
			if err != nil {
				return err
			}
			defer f.Close()
			e.Extra, e.Runtime.Env = []*os.File{f}, append(e.Runtime.Env, "LISTEN_FDS=1")
			return e.Says([]string{"1 1\n"}, "run", e.ID)
		}, Alone: "runc 1.1.5 takes the descriptor for its own when it is the only one, and crun 1.8.1 does not set LISTEN_PID"},
		started("kill --all", func(e *Env) error {
			return first(ok(e, "exec", "--detach", e.ID, "sleep", "100"), ok(e, "kill", "--all", e.ID, "KILL"), is(e, specs.StateStopped), func() error { return noProcess(e) })
		}),
		started("kill -a", func(e *Env) error { return first(ok(e, "kill", "-a", e.ID, "KILL"), is(e, specs.StateStopped)) }),
		started("kill of a paused container", func(e *Env) error {
			return first(ok(e, "pause", e.ID), ok(e, "kill", e.ID, "KILL"), func() error { _, _, err := e.Call("resume", e.ID); return err }, is(e, specs.StateStopped))
		}),
		{Section: "runtime.md#kill", Name: "the signal is the one asked for", Script: "trap 'touch /got' USR1; trap 'exit 9' TERM; touch /ready; while :; do sleep 1 & wait; done", Do: func(e *Env) error {
			return first(e.Started, func() error { return appears(e.Root("ready")) }, ok(e, "kill", e.ID, "USR1"), func() error { return appears(e.Root("got")) }, is(e, specs.StateRunning))
		}},
		{Section: "runtime.md#kill", Name: "without a signal it is TERM", Script: "trap 'touch /got; exit 0' TERM; touch /ready; while :; do sleep 1 & wait; done", Do: func(e *Env) error {
			return first(e.Started, func() error { return appears(e.Root("ready")) }, ok(e, "kill", e.ID), func() error { return appears(e.Root("got")) }, is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "a name in small letters", Script: sleeps, Do: func(e *Env) error {
			return first(e.Started, ok(e, "kill", e.ID, "kill"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#kill", Name: "without an id fails", Do: func(e *Env) error { return e.MustFail("kill") }},
		{Section: "runtime.md#kill", Name: "of a stopped container has no effect", Script: "true", Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), fails(e, "kill", e.ID, "TERM"), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#state", Name: "a stopped container has no pid", Script: "true", Do: func(e *Env) error {
			if err := first(e.Started, is(e, specs.StateStopped)); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err == nil && s.Pid != 0 {
				err = fmt.Errorf("pid %d", s.Pid)
			}
			return err
		}},
		{Section: "runtime.md#state", Name: "without an id fails", Do: func(e *Env) error { return e.MustFail("state") }},
		{Section: "runtime.md#state", Name: "is JSON with the version of the specification", Script: sleeps, Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err == nil && !strings.HasPrefix(s.Version, "1.") {
				err = fmt.Errorf("version %q", s.Version)
			}
			return err
		}},
		{Section: "runtime.md#state", Name: "the pid is that of the process", Script: sleeps, Do: func(e *Env) error {
			if err := e.Started(); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err != nil {
				return err
			}
			var st, root unix.Stat_t
			if err := unix.Stat(fmt.Sprintf("/proc/%d/root", s.Pid), &st); err != nil {
				return err
			}
			if err := unix.Stat(e.Root(""), &root); err != nil {
				return err
			}
			if st.Ino != root.Ino {
				return fmt.Errorf("pid %d has another root", s.Pid)
			}
			return nil
		}},
		{Section: "runtime.md#delete", Name: "without an id fails", Do: func(e *Env) error { return e.MustFail("delete") }},
		{Section: "runtime.md#delete", Name: "--force of no container is no error", Do: func(e *Env) error { _, err := e.Must("delete", "--force", "nobody"); return err }},
		{Section: "runtime.md#delete", Name: "-f", Script: sleeps, Do: func(e *Env) error { return first(e.Started, ok(e, "delete", "-f", e.ID), fails(e, "state", e.ID)) }},
		{Section: "runtime.md#delete", Name: "leaves nothing", Script: "true", Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), ok(e, "delete", e.ID), func() error { return nothingLeft(e) })
		}},
		{Section: "runtime.md#delete", Name: "what the container did not make stays", Script: "touch /m/by-container", Edit: func(e *Env, s *specs.Spec) { bindDir(e, s, "/m", "bind") }, Do: func(e *Env) error {
			if err := first(e.Started, is(e, specs.StateStopped), ok(e, "delete", e.ID)); err != nil {
				return err
			}
			for _, name := range []string{"src/file", "src/by-container", "rootfs/bin/busybox", "config.json"} {
				if _, err := os.Stat(filepath.Join(e.Dir, name)); err != nil {
					return err
				}
			}
			return nil
		}},
		{Section: "runtime.md#delete", Name: "of a running container has no effect", Script: sleeps, Do: func(e *Env) error {
			return first(e.Started, fails(e, "delete", e.ID), is(e, specs.StateRunning), func() error { return e.Says([]string{"alive"}, "exec", e.ID, "echo", "alive") })
		}},
		{Section: "runtime.md#delete", Name: "ends what outlived the process", Script: "sleep 1000 & touch /started; exit 0", Edit: func(_ *Env, s *specs.Spec) { without(s, specs.PIDNamespace) }, Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), ok(e, "delete", "--force", e.ID), func() error { return noProcess(e) })
		}},
		{Section: "runtime.md#start", Name: "without create fails", Script: "true", Do: func(e *Env) error { return e.MustFail("start", e.ID) }},
		{Section: "runtime.md#create", Name: "without an id fails", Script: "true", Do: func(e *Env) error { return e.MustFail("create") }},
		{Section: "runtime.md#create", Name: "an id of a running container fails", Script: sleeps, Do: func(e *Env) error {
			return first(e.Started, fails(e, "create", e.ID), is(e, specs.StateRunning))
		}},
		{Section: "runtime.md#create", Name: "an id of a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), fails(e, "create", e.ID), is(e, specs.StateStopped))
		}},
		{Section: "runtime.md#create", Name: "everything but the process is applied", Script: sleeps, Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/m", "tmpfs", "tmpfs", "size=4k") }, Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err != nil {
				return err
			}
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", s.Pid))
			if err == nil && !bytes.Contains(b, []byte(" /m tmpfs ")) {
				err = fmt.Errorf("no /m in %s", b)
			}
			return err
		}},
		{Section: "runtime.md#create", Name: "two containers of one bundle", Script: sleeps, Do: func(e *Env) error {
			other := *e
			other.ID = e.ID + "-other"
			defer other.Close()
			if err := e.Started(); err != nil {
				return err
			}
			spec := *e.spec
			linux := *spec.Linux
			spec.Linux = &linux
			linux.CgroupsPath += "-other"
			other.spec = &spec
			return first(other.Write, other.Started, func() error { return other.Status(specs.StateRunning) }, is(e, specs.StateRunning))
		}},
		started("pause of a paused container", func(e *Env) error {
			return first(ok(e, "pause", e.ID), func() error { _, _, err := e.Call("pause", e.ID); return err }, is(e, "paused"), ok(e, "resume", e.ID))
		}),
		started("resume of a running container fails", func(e *Env) error { return first(fails(e, "resume", e.ID), is(e, specs.StateRunning)) }),
		started("a paused container stands still", func(e *Env) error {
			if err := ok(e, "exec", "--detach", e.ID, "sh", "-c", "while :; do date +%N > /tick; done")(); err != nil {
				return err
			}
			if err := first(func() error { return appears(e.Root("tick")) }, ok(e, "pause", e.ID)); err != nil {
				return err
			}
			a, err := os.ReadFile(e.Root("tick"))
			if err != nil {
				return err
			}
			for range 20 {
				<-time.After(5 * time.Millisecond) // time in which it could go on
				b, err := os.ReadFile(e.Root("tick"))
				if err != nil || !bytes.Equal(a, b) {
					return errors.Join(err, fmt.Errorf("it went on"))
				}
			}
			return ok(e, "resume", e.ID)()
		}),
		{Section: section, Name: "pause of no container fails", Do: func(e *Env) error { return e.MustFail("pause", "nobody") }},
		{Section: section, Name: "pause of a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), fails(e, "pause", e.ID))
		}},
		started("ps lists the processes", func(e *Env) error { return e.Says([]string{"sleep 100", "PID"}, "ps", e.ID) }),
		started("ps --format json", func(e *Env) error {
			out, err := e.Must("ps", "--format", "json", e.ID)
			var pids []int
			if err == nil {
				err = json.Unmarshal([]byte(out), &pids)
			}
			s, serr := e.StateOf()
			if err == nil && serr == nil && (len(pids) == 0 || pids[0] != s.Pid) {
				err = fmt.Errorf("pids %v, the process is %d", pids, s.Pid)
			}
			return errors.Join(err, serr)
		}),
		started("list --format json", func(e *Env) error {
			out, err := e.Must("list", "--format", "json")
			var l []struct {
				ID, Status, Bundle string
				Pid                int
			}
			if err == nil {
				err = json.Unmarshal([]byte(out), &l)
			}
			if err == nil && (len(l) != 1 || l[0].ID != e.ID || l[0].Status != "running" || l[0].Bundle != e.Dir || l[0].Pid == 0) {
				err = fmt.Errorf("list %+v", l)
			}
			return err
		}),
		started("list as a table", func(e *Env) error {
			return e.Says([]string{"ID ", "PID ", "STATUS ", "BUNDLE ", "CREATED ", "OWNER", e.ID, "running"}, "list")
		}),
		{Section: section, Name: "list of no container", Do: func(e *Env) error {
			out, err := e.Must("list", "-q")
			if err == nil && strings.TrimSpace(out) != "" {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		started("update of pids", func(e *Env) error {
			l := limit1{controller: "pids", file: "pids.max", want: "33", file2: "pids.max", want2: "33"}
			return first(ok(e, "update", "--pids-limit", "33", e.ID), func() error { return l.check(e) })
		}),
		started("update of cpu shares", func(e *Env) error {
			if pure() {
				return ok(e, "update", "--cpu-share", "512", e.ID)()
			}
			l := limit1{controller: "cpu", file: "cpu.shares", want: "512"}
			return first(ok(e, "update", "--cpu-share", "512", e.ID), func() error { return l.check(e) })
		}),
		started("update of the cpu quota", func(e *Env) error {
			l := limit1{controller: "cpu", file: "cpu.cfs_quota_us", want: "30000", file2: "cpu.max", want2: "30000 100000"}
			return first(ok(e, "update", "--cpu-quota", "30000", "--cpu-period", "100000", e.ID), func() error { return l.check(e) })
		}),
		started("update of cpuset", func(e *Env) error {
			l := limit1{controller: "cpuset", file: "cpuset.cpus", want: "0", file2: "cpuset.cpus", want2: "0"}
			return first(ok(e, "update", "--cpuset-cpus", "0", e.ID), func() error { return l.check(e) })
		}),
		started("update from a file", func(e *Env) error {
			name := filepath.Join(e.Dir, "resources.json")
			if err := os.WriteFile(name, []byte(`{"pids":{"limit":44}}`), 0o644); err != nil {
				return err
			}
			l := limit1{controller: "pids", file: "pids.max", want: "44", file2: "pids.max", want2: "44"}
			return first(ok(e, "update", "--resources", name, e.ID), func() error { return l.check(e) })
		}),
		started("update from the standard input", func(e *Env) error {
			out, code, err := e.CallIn(`{"pids":{"limit":55}}`, "update", "--resources", "-", e.ID)
			if err == nil && code != 0 {
				err = fmt.Errorf("exit status %d: %s", code, out)
			}
			if err != nil {
				return err
			}
			return limit1{controller: "pids", file: "pids.max", want: "55", file2: "pids.max", want2: "55"}.check(e)
		}),
		started("update keeps what it does not name", func(e *Env) error {
			l := limit1{controller: "pids", file: "pids.max", want: "66", file2: "pids.max", want2: "66"}
			return first(ok(e, "update", "--pids-limit", "66", e.ID), ok(e, "update", "--memory", "64M", e.ID), func() error { return l.check(e) })
		}),
		{Section: section, Name: "update of no container fails", Do: func(e *Env) error { return e.MustFail("update", "--memory", "64M", "nobody") }},
		started("update of a limit that is no number fails", func(e *Env) error { return e.MustFail("update", "--pids-limit", "many", e.ID) }),
		{Section: section, Name: "update of a stopped container fails", Script: "true", Do: func(e *Env) error {
			return first(e.Started, is(e, specs.StateStopped), fails(e, "update", "--pids-limit", "7", e.ID))
		}},
		started("events --stats", statsForm),
		{Section: section, Name: "events --stats of no container fails", Do: func(e *Env) error { return e.MustFail("events", "--stats", "nobody") }},
		{Section: section, Name: "spec writes a configuration that runs", Do: func(e *Env) error {
			if err := first(func() error { return os.Remove(filepath.Join(e.Dir, "config.json")) }, ok(e, "spec")); err != nil {
				return err
			}
			b, err := os.ReadFile(filepath.Join(e.Dir, "config.json"))
			if err != nil {
				return err
			}
			var s specs.Spec
			if err := json.Unmarshal(b, &s); err != nil {
				return err
			}
			s.Process.Terminal, s.Process.Args, s.Linux.CgroupsPath = false, []string{"sh", "-c", "echo ran"}, e.spec.Linux.CgroupsPath
			e.spec = &s
			return first(e.Write, func() error { return e.Says([]string{"ran\n"}, "run", e.ID) })
		}},
		{Section: section, Name: "spec does not overwrite", Do: func(e *Env) error { return e.MustFail("spec") }},
		{Section: section, Name: "spec --bundle", Do: func(e *Env) error {
			dir := filepath.Join(e.Dir, "other")
			return first(func() error { return os.Mkdir(dir, 0o755) }, ok(e, "spec", "--bundle", dir), func() error { _, err := os.Stat(filepath.Join(dir, "config.json")); return err })
		}},
		{Section: section, Name: "--version", Do: func(e *Env) error { return e.Says([]string{"version", "spec: 1."}, "--version") }},
		{Section: section, Name: "--log in JSON", Do: func(e *Env) error {
			name := filepath.Join(e.Dir, "log.json")
			if err := e.MustFail("--log", name, "--log-format", "json", "start", "nobody"); err != nil {
				return err
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
			var entry struct{ Level, Msg, Time string }
			if err := json.Unmarshal(lines[len(lines)-1], &entry); err != nil {
				return fmt.Errorf("%w: %q", err, b)
			}
			if entry.Msg == "" || entry.Level != "error" {
				return fmt.Errorf("entry %+v", entry)
			}
			return nil
		}},
		{Section: section, Name: "--log as text", Do: func(e *Env) error {
			name := filepath.Join(e.Dir, "log.text")
			if err := e.MustFail("--log", name, "start", "nobody"); err != nil {
				return err
			}
			b, err := os.ReadFile(name)
			if err == nil && len(bytes.TrimSpace(b)) == 0 {
				err = fmt.Errorf("an empty log")
			}
			return err
		}},
		{Section: section, Name: "an unknown log format fails", Do: func(e *Env) error { return e.MustFail("--log-format", "nonsense", "list") }},
		{Section: section, Name: "an unknown verb fails", Do: func(e *Env) error { return e.MustFail("nonsense") }},
		{Section: section, Name: "an unknown option fails", Script: "true", Do: func(e *Env) error { return e.MustFail("run", "--nonsense", e.ID) }},
		{Section: "features.md#features-document", Name: "names what is supported", Do: func(e *Env) error {
			out, err := e.Must("features")
			if err != nil {
				return err
			}
			var f struct {
				OCIVersionMin, OCIVersionMax string
				Hooks, MountOptions          []string
				Linux                        struct {
					Namespaces, Capabilities []string
					Cgroup                   map[string]any
					Seccomp                  map[string]any
				}
			}
			if err := json.Unmarshal([]byte(out), &f); err != nil {
				return err
			}
			if f.OCIVersionMin == "" || f.OCIVersionMax == "" || len(f.Hooks) != 6 || len(f.MountOptions) < 40 || len(f.Linux.Namespaces) < 7 || len(f.Linux.Capabilities) < 38 || f.Linux.Cgroup == nil || f.Linux.Seccomp == nil {
				return fmt.Errorf("features %+v", f)
			}
			return nil
		}},
	}
	return cases
}

// statsForm compares the statistics with the form that runc's users read. Until
// the container's program runs there may be nothing to count, or threads of the
// runtime's.
func statsForm(e *Env) error {
	deadline := time.Now().Add(limit)
	for {
		out, err := e.Must("events", "--stats", e.ID)
		if err != nil {
			return err
		}
		if err = isStats(e, out); err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func isStats(e *Env, out string) error {
	var ev struct {
		Type, ID string
		Data     struct {
			CPU struct {
				Usage struct {
					Total, Kernel, User uint64
				}
				Throttling map[string]any
			}
			Memory struct {
				Usage struct{ Limit, Usage uint64 }
				Raw   map[string]uint64
			}
			Pids struct{ Current, Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(out), &ev); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	d := ev.Data
	if ev.Type != "stats" || ev.ID != e.ID || d.CPU.Usage.Total == 0 || d.Memory.Usage.Usage == 0 || d.Memory.Usage.Limit == 0 || len(d.Memory.Raw) == 0 || d.Pids.Current != 1 || d.CPU.Throttling == nil {
		return fmt.Errorf("statistics %s", out)
	}
	return nil
}
