package conform

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// configCases are the parts of config.md and config-linux.md that the other
// files leave out.
func configCases() []Case {
	return append(append(append(processMore(), linuxMore()...), formCases()...), deviceMore()...)
}

func processMore() []Case {
	const section, lin = "config.md#process", "config.md#linux-process"
	ref := func(n int) *int { return &n }
	return []Case{
		{Section: section, Name: "a signal is 128 and its number", Script: "kill -9 $$", Code: 137, Edit: func(_ *Env, s *specs.Spec) { without(s, specs.PIDNamespace) }},
		{Section: section, Name: "a signal ignored by the caller is not ignored", Script: "grep Sig[BI] /proc/$$/status > /out; touch /done; sleep 100", Do: func(e *Env) error {
			e.Via = []string{"/bin/sh", "-c", `trap "" HUP INT QUIT USR1 PIPE TERM TSTP; exec "$@"`, "sh"}
			if err := first(e.Started, func() error { return appears(e.Root("done")) }); err != nil {
				return err
			}
			b, err := os.ReadFile(e.Root("out"))
			// The shell itself ignores SIGQUIT, number 3.
			if err == nil && strings.Replace(string(b), "0004\n", "0000\n", 1) != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" {
				err = fmt.Errorf("the process has %q", b)
			}
			return err
		}},
		{Section: section, Name: "a path in args[0] is taken as it is", Script: "", Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"/bin/echo", "direct"} }, Want: []string{"direct\n"}},
		{Section: section, Name: "a relative path in args[0] starts at cwd", Edit: func(_ *Env, s *specs.Spec) { s.Process.Args, s.Process.Cwd = []string{"./echo", "direct"}, "/bin" }, Want: []string{"direct\n"}},
		{Section: section, Name: "PATH is searched in its order", Edit: func(e *Env, s *specs.Spec) {
			_ = os.Symlink("../bin/echo", e.Root("data/true"))
			s.Process.Env = []string{"PATH=/data:/bin"}
			s.Process.Args = []string{"/bin/sh", "-c", "echo $PATH"}
		}, Want: []string{"/data:/bin\n"}},
		{Section: section, Name: "a folder as args[0] fails", Fails: true, Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"/etc"} }},
		{Section: section, Name: "a long argument is passed whole", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", `echo ${#1}`, "sh", strings.Repeat("x", 100000)}
		}, Want: []string{"100000\n"}},
		{Section: section, Name: "many variables are passed", Script: "env | grep -c ^V", Edit: func(_ *Env, s *specs.Spec) {
			for i := range 500 {
				s.Process.Env = append(s.Process.Env, fmt.Sprintf("V%d=%d", i, i))
			}
		}, Want: []string{"500\n"}},
		{Section: section, Name: "cwd that is not there is made or fails", Script: "pwd", Edit: func(_ *Env, s *specs.Spec) { s.Process.Cwd = "/made/for/it" }, Do: func(e *Env) error {
			out, code, err := e.Call("run", e.ID)
			if err == nil && code == 0 && out != "/made/for/it\n" {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		{Section: section, Name: "cwd on a mount", Script: "pwd; cat file", Edit: func(e *Env, s *specs.Spec) {
			bindDir(e, s, "/m", "bind")
			s.Process.Cwd = "/m"
		}, Want: []string{"/m\ncontent\n"}},
		{Section: section, Name: "standard error is a stream of its own", Script: "echo out; echo err >&2", Want: []string{"out\n", "err\n"}},
		{Section: section, Name: "the process leads a session", Script: "cut -d' ' -f6 /proc/self/stat; cut -d' ' -f1 /proc/1/stat", Want: []string{"1\n1\n"}},
		{Section: section, Name: "the process has no other one beside it", Script: "set -- /proc/[0-9]*; echo $#", Want: []string{"1\n"}},
		{Section: section, Name: "without process start fails", Edit: func(_ *Env, s *specs.Spec) { s.Process = nil }, Do: func(e *Env) error {
			_, code, err := e.Call("create", e.ID)
			if err != nil || code != 0 {
				return err // it may be refused right away
			}
			return e.MustFail("start", e.ID)
		}},
		{Section: "config.md#posix-process", Name: "an rlimit given twice fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}, {Type: "RLIMIT_NOFILE", Soft: 11, Hard: 21}}
		}},
		{Section: "config.md#posix-process", Name: "a soft limit above the hard one fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 30, Hard: 20}}
		}},
		{Section: "config.md#posix-process", Name: "limits hold for children", Script: "sh -c 'ulimit -n'", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 123, Hard: 456}}
		}, Want: []string{"123\n"}},
		{Section: "config.md#user", Name: "umask 0", Script: "umask; touch /f; mkdir /d; stat -c %a /f /d", Edit: func(_ *Env, s *specs.Spec) {
			m := uint32(0)
			s.Process.User.Umask = &m
		}, Want: []string{"0000\n666\n777\n"}},
		{Section: "config.md#user", Name: "the largest ids", Script: "id -u; id -g", Edit: user(4294967294, 4294967294), Want: []string{"4294967294\n4294967294\n"}},
		{Section: "config.md#user", Name: "a user without an entry in passwd", Script: "id -u; echo $HOME", Edit: user(4711, 0), Want: []string{"4711\n/\n"}},
		{Section: lin, Name: "inheritable ones are those listed", Script: "grep Cap[IP] /proc/self/status", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
		}, Want: []string{"CapInh:\t0000000000000020"}},
		{Section: lin, Name: "effective ones are those listed", Edit: func(_ *Env, s *specs.Spec) {
			// What root executes has every permitted one effective (capabilities(7)),
			// so that the difference shows with another user and ambient ones.
			s.Process.User.UID = 33
			s.Process.Capabilities = &specs.LinuxCapabilities{
				Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: []string{"CAP_KILL", "CAP_CHOWN"}, Inheritable: []string{"CAP_KILL"},
				Ambient: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"},
			}
			s.Process.Args = []string{"grep", "Cap", "/proc/self/status"}
		}, Want: []string{"CapPrm:\t0000000000000020", "CapEff:\t0000000000000020", "CapAmb:\t0000000000000020", "CapBnd:\t0000000000000021"}},
		{Section: lin, Name: "the bounding set may be larger", Script: "grep Cap /proc/self/status", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.User.UID = 33
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}}
		}, Want: []string{"CapBnd:\t0000000000000021", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"}},
		{Section: lin, Name: "an unknown capability is a warning", Script: "echo ok", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_NONSENSE")
		}, Want: []string{"ok\n"}},
		{Section: lin, Name: "noNewPrivileges reaches children", Script: "sh -c 'grep NoNewPrivs /proc/self/status'", Want: []string{"NoNewPrivs:\t1"}},
		{Section: lin, Name: "oomScoreAdj of 0", Script: "cat /proc/self/oom_score_adj", Edit: func(_ *Env, s *specs.Spec) { s.Process.OOMScoreAdj = ref(0) }, Do: func(e *Env) error {
			own, err := os.ReadFile("/proc/self/oom_score_adj")
			if err != nil {
				return err
			}
			if strings.HasPrefix(string(own), "-") || strings.TrimSpace(string(own)) == "0" {
				return e.Says([]string{"0\n"}, "run", e.ID)
			}
			_, err = e.Must("run", e.ID)
			return err
		}},
		{Section: lin, Name: "without oomScoreAdj it is the caller's", Script: "cat /proc/self/oom_score_adj", Do: func(e *Env) error {
			own, err := os.ReadFile("/proc/self/oom_score_adj")
			if err != nil {
				return err
			}
			return e.Says([]string{string(own)}, "run", e.ID)
		}},
		{Section: lin, Name: "timer slack is the caller's", Script: "cat " + timerSlack, Do: func(e *Env) error {
			own, err := os.ReadFile(timerSlack)
			if err != nil {
				return err
			}
			return e.Says([]string{string(own)}, "run", e.ID)
		}},
		{Section: lin, Name: "an AppArmor profile that the kernel does not have fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.ApparmorProfile = "no-profile-of-this-name"
		}},
		{Section: lin, Name: "ioPriority", Script: "ionice", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}, Want: []string{"best-effort: prio 6"}, Alone: "ioPriority is newer than Debian 12's runtimes"},
		{Section: lin, Name: "ioPriority idle", Script: "ionice", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		}, Want: []string{"idle"}, Alone: "ioPriority is newer than Debian 12's runtimes"},
		{Section: lin, Name: "an ioPriority of an unknown class fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_NONSENSE", Priority: 1}
		}, Alone: "ioPriority is newer than Debian 12's runtimes"},
		{Section: lin, Name: "an ioPriority above 7 fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, Alone: "ioPriority is newer than Debian 12's runtimes"},
		{Section: lin, Name: "scheduler", Script: "cut -d' ' -f41,19 /proc/self/stat", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
		}, Want: []string{"5 3\n"}, Alone: "scheduler is newer than Debian 12's runtimes"},
		{Section: lin, Name: "scheduler idle", Script: "cut -d' ' -f41 /proc/self/stat", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
		}, Want: []string{"5\n"}, Alone: "scheduler is newer than Debian 12's runtimes"},
		{Section: lin, Name: "scheduler flag RESET_ON_FORK", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: -5, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
			s.Process.Args = []string{"sh", "-c", "cut -d' ' -f19 /proc/$$/stat; cut -d' ' -f19 /proc/self/stat; true"}
		}, Want: []string{"-5\n0\n"}, Alone: "scheduler is newer than Debian 12's runtimes"},
		{Section: lin, Name: "an unknown scheduler policy fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_NONSENSE"}
		}, Alone: "scheduler is newer than Debian 12's runtimes"},
		{Section: lin, Name: "execCPUAffinity final", Script: "sleep 100", Do: func(e *Env) error {
			return execProcess(e, func(p *specs.Process) {
				p.Args = []string{"grep", "Cpus_allowed_list", "/proc/self/status"}
				p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
			}, "Cpus_allowed_list:\t0\n")
		}, Alone: "execCPUAffinity is newer than Debian 12's runtimes"},
		{Section: lin, Name: "execCPUAffinity is not of the container's process", Script: "grep Cpus_allowed_list /proc/self/status", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
		}, Do: func(e *Env) error {
			b, err := os.ReadFile("/proc/self/status")
			if err != nil {
				return err
			}
			_, line, _ := strings.Cut(string(b), "Cpus_allowed_list:\t")
			line, _, _ = strings.Cut(line, "\n")
			return e.Says([]string{line}, "run", e.ID)
		}},
		{Section: lin, Name: "an execCPUAffinity that is no list fails", Script: "sleep 100", Do: func(e *Env) error {
			err := execProcess(e, func(p *specs.Process) {
				p.Args = []string{"echo", ranMark}
				p.ExecCPUAffinity = &specs.CPUAffinity{Final: "zero"}
			})
			if err == nil {
				return fmt.Errorf("it was taken")
			}
			return nil
		}, Alone: "execCPUAffinity is newer than Debian 12's runtimes"},
	}
}

// execProcess starts the container and runs a process from a file in it.
func execProcess(e *Env, edit func(p *specs.Process), want ...string) error {
	p := specs.Process{Env: []string{"PATH=/bin"}, Cwd: "/"}
	edit(&p)
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	name := filepath.Join(e.Dir, "process.json")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		return err
	}
	if err := e.Started(); err != nil {
		return err
	}
	return e.Says(want, "exec", "--process", name, e.ID)
}

// formCases are about the configuration as a document.
func formCases() []Case {
	raw := func(edit func(m map[string]any)) func(e *Env) error {
		return func(e *Env) error {
			b, err := json.Marshal(e.spec)
			if err != nil {
				return err
			}
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				return err
			}
			edit(m)
			if b, err = json.Marshal(m); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.Dir, "config.json"), b, 0o644)
		}
	}
	refused := func(section, name, alone string, edit func(m map[string]any)) Case {
		return Case{Section: section, Name: name, Alone: alone, Script: "touch /ran", Do: func(e *Env) error {
			return first(func() error { return raw(edit)(e) }, func() error { return e.MustFail("run", e.ID) }, func() error {
				if _, err := os.Lstat(e.Root("ran")); err == nil {
					return fmt.Errorf("the process ran")
				}
				return nil
			})
		}}
	}
	taken := func(section, name string, edit func(m map[string]any)) Case {
		return Case{Section: section, Name: name, Script: "echo ran", Do: func(e *Env) error {
			return first(func() error { return raw(edit)(e) }, func() error { return e.Says([]string{"ran\n"}, "run", e.ID) })
		}}
	}
	linux := func(m map[string]any) map[string]any { return m["linux"].(map[string]any) }
	const old = "runc 1.1.5 and crun 1.8.1 do not check it"
	return []Case{
		taken("config.md#extensibility", "an unknown property is ignored", func(m map[string]any) { m["unknownProperty"] = map[string]any{"a": 1} }),
		taken("config.md#extensibility", "an unknown property of linux is ignored", func(m map[string]any) { linux(m)["unknownProperty"] = "x" }),
		taken("config.md#extensibility", "an unknown property of process is ignored", func(m map[string]any) { m["process"].(map[string]any)["unknownProperty"] = 7 }),
		taken("config.md#specification-version", "1.0.0", func(m map[string]any) { m["ociVersion"] = "1.0.0" }),
		taken("config.md#specification-version", "1.0.2-dev", func(m map[string]any) { m["ociVersion"] = "1.0.2-dev" }),
		refused("config.md#specification-version", "no version fails", "", func(m map[string]any) { delete(m, "ociVersion") }),
		refused("config.md#specification-version", "what is no version fails", "", func(m map[string]any) { m["ociVersion"] = "one" }),
		refused("config.md#specification-version", "another major version fails", "", func(m map[string]any) { m["ociVersion"] = "2.0.0" }),
		refused("config.md#valid-values", "a number for a string fails", "", func(m map[string]any) { m["hostname"] = 7 }),
		refused("config.md#valid-values", "a string for a list fails", "", func(m map[string]any) { m["mounts"] = "none" }),
		refused("config.md#valid-values", "a negative id fails", "", func(m map[string]any) { m["process"].(map[string]any)["user"] = map[string]any{"uid": -1, "gid": 0} }),
		refused("config.md#root", "no root fails", "", func(m map[string]any) { delete(m, "root") }),
		refused("config.md#root", "an empty root path fails", "", func(m map[string]any) { m["root"] = map[string]any{"path": ""} }),
		refused("config.md#root", "a root that is a file fails", "", func(m map[string]any) { m["root"] = map[string]any{"path": "config.json"} }),
		refused("config.md#mounts", "a mount without a destination fails", "", func(m map[string]any) {
			m["mounts"] = append(m["mounts"].([]any), map[string]any{"type": "tmpfs", "source": "tmpfs"})
		}),
		refused("config-linux.md#intelrdt", "without a resctrl file system it fails", "runc 1.1.5 and crun 1.8.1 look for one only with a schema", func(m map[string]any) {
			linux(m)["intelRdt"] = map[string]any{"closID": "guaranteed_group"}
		}),
		refused("config-vm.md#virtual-machine-specific-container-configuration", "a virtual machine is refused", "runc and crun leave the section out", func(m map[string]any) {
			m["vm"] = map[string]any{"kernel": map[string]any{"path": "/boot/vmlinuz"}}
		}),
		refused("config-linux.md#rootfs-mount-propagation", "an unknown one fails", "", func(m map[string]any) { linux(m)["rootfsPropagation"] = "nonsense" }),
		refused("config-linux.md#namespaces", "a type that is no string fails", "", func(m map[string]any) { linux(m)["namespaces"] = []any{map[string]any{"type": 3}} }),
		refused("config-linux.md#namespaces", "a relative path fails", "", func(m map[string]any) {
			linux(m)["namespaces"] = append(linux(m)["namespaces"].([]any)[1:], map[string]any{"type": "pid", "path": "proc/self/ns/pid"})
		}),
		refused("config-linux.md#user-namespace-mappings", "a new user namespace without mappings fails", "", func(m map[string]any) {
			linux(m)["namespaces"] = append(linux(m)["namespaces"].([]any), map[string]any{"type": "user"})
		}),
		refused("config-linux.md#user-namespace-mappings", "mappings without a user namespace fail", old, func(m map[string]any) {
			one := []any{map[string]any{"containerID": 0, "hostID": 1000, "size": 1}}
			linux(m)["uidMappings"], linux(m)["gidMappings"] = one, one
		}),
		refused("config-linux.md#offset-for-time-namespace", "offsets without a time namespace fail", old, func(m map[string]any) {
			linux(m)["timeOffsets"] = map[string]any{"boottime": map[string]any{"secs": 5}}
		}),
		refused("config-linux.md#personality", "an unknown domain fails", "", func(m map[string]any) {
			linux(m)["personality"] = map[string]any{"domain": "LINUX99"}
		}),
		refused("config-linux.md#memory-policy", "an unknown mode fails", "memoryPolicy is newer than Debian 12's runtimes (1.3)", func(m map[string]any) {
			linux(m)["memoryPolicy"] = map[string]any{"mode": "MPOL_NONSENSE"}
		}),
		refused("config-linux.md#memory-policy", "a mode that needs nodes fails without", "memoryPolicy is newer than Debian 12's runtimes (1.3)", func(m map[string]any) {
			linux(m)["memoryPolicy"] = map[string]any{"mode": "MPOL_BIND"}
		}),
		refused("config-linux.md#memory-policy", "nodes that are no list fail", "memoryPolicy is newer than Debian 12's runtimes (1.3)", func(m map[string]any) {
			linux(m)["memoryPolicy"] = map[string]any{"mode": "MPOL_BIND", "nodes": "zero"}
		}),
		refused("config-linux.md#memory-policy", "an unknown flag fails", "memoryPolicy is newer than Debian 12's runtimes (1.3)", func(m map[string]any) {
			linux(m)["memoryPolicy"] = map[string]any{"mode": "MPOL_BIND", "nodes": "0", "flags": []any{"MPOL_F_NONSENSE"}}
		}),
		{Section: "config.md#annotations", Name: "an absent one is the same as an empty one", Script: "sleep 100", Do: func(e *Env) error {
			if _, err := e.Must("create", e.ID); err != nil {
				return err
			}
			s, err := e.StateOf()
			if err == nil && len(s.Annotations) != 0 {
				err = fmt.Errorf("annotations %v", s.Annotations)
			}
			return err
		}},
	}
}

// linuxMore are namespaces, mappings, clocks, personality and memory.
func linuxMore() []Case {
	const section, maps = "config-linux.md#namespaces", "config-linux.md#user-namespace-mappings"
	const clocks = "time namespaces are newer than runc 1.1.5"
	timeNS := func(offsets map[string]specs.LinuxTimeOffset) func(*Env, *specs.Spec) {
		return func(_ *Env, s *specs.Spec) {
			namespace(s, specs.TimeNamespace, "")
			s.Linux.TimeOffsets = offsets
		}
	}
	ownTime, _ := os.Readlink("/proc/self/ns/time")
	return []Case{
		{Section: section, Name: "new time", Script: "readlink /proc/self/ns/time", Edit: timeNS(nil), Want: []string{"time:"}, Not: []string{ownTime}, Alone: clocks},
		{Section: section, Name: "inherited time", Script: "readlink /proc/self/ns/time", Want: []string{ownTime}},
		{Section: section, Name: "joined by path time", Script: "readlink /proc/self/ns/time", Edit: func(_ *Env, s *specs.Spec) {
			namespace(s, specs.TimeNamespace, fmt.Sprintf("/proc/%d/ns/time", os.Getpid()))
		}, Want: []string{ownTime}, Alone: clocks},
		{Section: "config-linux.md#offset-for-time-namespace", Name: "boottime", Script: "cut -d. -f1 /proc/uptime", Edit: timeNS(map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}), Alone: clocks, Do: func(e *Env) error {
			var ts unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
				return err
			}
			out, err := e.Must("run", e.ID)
			var n int64
			if err == nil {
				_, err = fmt.Sscan(out, &n)
			}
			if err == nil && (n < ts.Sec+1000000 || n > ts.Sec+1000000+int64(limit/time.Second)) {
				err = fmt.Errorf("uptime %d, the host's was %d", n, ts.Sec)
			}
			return err
		}},
		{Section: "config-linux.md#offset-for-time-namespace", Name: "monotonic", Script: "cat /proc/self/timens_offsets", Edit: timeNS(map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 4321, Nanosecs: 77}}), Want: []string{"4321", "77"}, Alone: clocks},
		{Section: "config-linux.md#offset-for-time-namespace", Name: "an unknown clock fails", Fails: true, Script: "echo " + ranMark, Edit: timeNS(map[string]specs.LinuxTimeOffset{"nonsense": {Secs: 1}})},
		{Section: maps, Name: "uid and gid maps differ", Script: "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '", Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 500}, {ContainerID: 500, HostID: 200000, Size: 10}}
		}, Want: []string{" 0 100000 1000\n", " 0 100000 500\n", " 500 200000 10\n"}},
		{Section: maps, Name: "files belong to the mapped ids", Script: "touch /data/new && stat -c %u /data/new", Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			_ = os.Chown(e.Root("data"), 100000, 100000)
		}, Do: func(e *Env) error {
			if err := e.Says([]string{"0\n"}, "run", e.ID); err != nil {
				return err
			}
			var st unix.Stat_t
			err := unix.Stat(e.Root("data/new"), &st)
			if err == nil && st.Uid != 100000 {
				err = fmt.Errorf("on the host it belongs to %d", st.Uid)
			}
			return err
		}},
		{Section: maps, Name: "the runtime does not change owners", Script: "true", Edit: userNS, Do: func(e *Env) error {
			if _, err := e.Must("run", e.ID); err != nil {
				return err
			}
			var st unix.Stat_t
			err := unix.Stat(e.Root("etc/passwd"), &st)
			if err == nil && st.Uid != 0 {
				err = fmt.Errorf("passwd belongs to %d now", st.Uid)
			}
			return err
		}},
		{Section: maps, Name: "additionalGids in a user namespace", Script: "id -G", Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			s.Process.User.AdditionalGids = []uint32{7, 8}
		}, Want: []string{"0 7 8"}},
		{Section: maps, Name: "an id that is not mapped fails", Fails: true, Script: "echo " + ranMark, Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			s.Process.User.UID = 5000
		}},
		{Section: maps, Name: "a hostname in a user namespace", Script: "hostname", Edit: userNS, Want: []string{"conform\n"}},
		{Section: maps, Name: "masks in a user namespace", Script: "cat /proc/kcore; cat /etc/passwd; echo end", Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			s.Linux.MaskedPaths = []string{"/proc/kcore", "/etc/passwd"}
		}, Want: []string{"end"}, Not: []string{"root:"}},
		{Section: "config-linux.md#personality", Name: "LINUX32", Script: "uname -m", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		}, Want: []string{"i686"}},
		{Section: "config-linux.md#personality", Name: "LINUX", Script: "uname -m", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
		}, Want: []string{"64"}},
		{Section: "config-linux.md#personality", Name: "an exec has it too", Script: "sleep 100", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		}, Do: func(e *Env) error {
			return first(e.Started, func() error { return e.Says([]string{"i686"}, "exec", e.ID, "uname", "-m") })
		}},
		{Section: "config-linux.md#memory-policy", Name: "MPOL_BIND", Script: "head -1 /proc/self/numa_maps", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
		}, Want: []string{"bind:0"}, Alone: "memoryPolicy is newer than Debian 12's runtimes (1.3)", Needs: numa},
		{Section: "config-linux.md#memory-policy", Name: "MPOL_INTERLEAVE with a flag", Script: "head -1 /proc/self/numa_maps", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
		}, Want: []string{"interleave=static:0"}, Alone: "memoryPolicy is newer than Debian 12's runtimes (1.3)", Needs: numa},
		{Section: "config-linux.md#memory-policy", Name: "an exec has it too", Script: "sleep 100", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolPreferred, Nodes: "0"}
		}, Do: func(e *Env) error {
			return first(e.Started, func() error { return e.Says([]string{"prefer:0"}, "exec", e.ID, "head", "-1", "/proc/self/numa_maps") })
		}, Alone: "memoryPolicy is newer than Debian 12's runtimes (1.3)", Needs: numa},
		{Section: "config-linux.md#masked-paths", Name: "a masked file cannot be written", Script: "echo x > /etc/passwd; umount /etc/passwd 2>/dev/null || echo kept", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MaskedPaths = []string{"/etc/passwd"}
		}, Want: []string{"kept"}},
		{Section: "config-linux.md#masked-paths", Name: "a masked folder is read-only", Script: "touch /etc/x || echo kept", Edit: func(_ *Env, s *specs.Spec) { s.Linux.MaskedPaths = []string{"/etc"} }, Want: []string{"kept"}},
		{Section: "config-linux.md#masked-paths", Name: "a file of a mount", Script: "cat /m/file; echo end", Edit: func(e *Env, s *specs.Spec) {
			bindDir(e, s, "/m", "bind")
			s.Linux.MaskedPaths = []string{"/m/file"}
		}, Want: []string{"end"}, Not: []string{"content"}},
		{Section: "config-linux.md#masked-paths", Name: "many", Script: "cat /proc/kcore /proc/keys /proc/timer_list /etc/passwd; ls /etc; echo end", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/etc"}
		}, Want: []string{"end"}, Not: []string{"root:"}},
		{Section: "config-linux.md#readonly-paths", Name: "what is mounted below is protected too", Script: "touch /m/sub/x; echo $?", Edit: func(e *Env, s *specs.Spec) {
			mounts(s, "/m", "bind", hostMount(e, 0), "rbind")
			s.Linux.ReadonlyPaths = []string{"/m"}
		}, Want: []string{"Read-only", "1\n"}, Alone: "a path is protected with its own mount alone by runc and crun"},
		{Section: "config-linux.md#readonly-paths", Name: "must be absolute", Alone: "runc and crun take a relative one as absolute", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.ReadonlyPaths = []string{"etc"}
		}},
		{Section: "config-linux.md#mount-label", Name: "without SELinux it does no harm", Script: "echo ok", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.MountLabel = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"
		}, Want: []string{"ok"}, Needs: func() string {
			if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
				return "SELinux is on"
			}
			return ""
		}},
		{Section: "config-linux.md#sysctl", Name: "several", Script: "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni", Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmni": "123"}
		}, Want: []string{"1\n123\n"}},
		{Section: "config-linux.md#sysctl", Name: "a name that is not there fails", Fails: true, Script: "echo " + ranMark, Edit: sysctl("net.nonsense.name", "1")},
		{Section: "config-linux.md#sysctl", Name: "a value that the kernel refuses fails", Fails: true, Script: "echo " + ranMark, Edit: sysctl("net.ipv4.ip_forward", "nonsense")},
		{Section: "config-linux.md#sysctl", Name: "kernel.domainname", Script: "cat /proc/sys/kernel/domainname", Edit: sysctl("kernel.domainname", "example.org"), Want: []string{"example.org\n"}},
		{Section: "config-linux.md#sysctl", Name: "ipc in the host's namespace fails", Fails: true, Script: "echo " + ranMark, Edit: func(e *Env, s *specs.Spec) {
			without(s, specs.IPCNamespace)
			sysctl("kernel.msgmax", "4321")(e, s)
		}},
		{Section: "config.md#domainname", Name: "needs a uts namespace", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			without(s, specs.UTSNamespace)
			s.Hostname, s.Domainname = "", "example.org"
		}},
	}
}

func numa() string {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		return "a kernel without NUMA"
	}
	return ""
}

// deviceMore are devices beside those of deviceCases.
func deviceMore() []Case {
	const section = "config-linux.md#devices"
	device := func(d specs.LinuxDevice) func(*Env, *specs.Spec) {
		return func(_ *Env, s *specs.Spec) { s.Linux.Devices = append(s.Linux.Devices, d) }
	}
	return []Case{
		{Section: section, Name: "outside of /dev", Script: "stat -c '%F %t %T' /data/null", Edit: device(specs.LinuxDevice{Path: "/data/null", Type: "c", Major: 1, Minor: 3}), Want: []string{"character special file 1 3"}},
		{Section: section, Name: "in a folder that is not there", Script: "stat -c '%F %t %T' /dev/new/deep", Edit: device(specs.LinuxDevice{Path: "/dev/new/deep", Type: "c", Major: 1, Minor: 5}), Want: []string{"character special file 1 5"}},
		{Section: section, Name: "type u", Script: "stat -c '%F %t %T' /dev/own", Edit: device(specs.LinuxDevice{Path: "/dev/own", Type: "u", Major: 1, Minor: 5}), Want: []string{"character special file 1 5"}},
		{Section: section, Name: "an unknown type fails", Fails: true, Script: "echo " + ranMark, Edit: device(specs.LinuxDevice{Path: "/dev/own", Type: "x", Major: 1, Minor: 5})},
		{Section: section, Name: "a relative path fails", Fails: true, Script: "echo " + ranMark, Edit: device(specs.LinuxDevice{Path: "dev/own", Type: "c", Major: 1, Minor: 5})},
		{Section: section, Name: "another file at the path fails", Fails: true, Script: "echo " + ranMark, Edit: func(e *Env, s *specs.Spec) {
			_ = os.WriteFile(e.Root("data/own"), []byte("x"), 0o644)
			device(specs.LinuxDevice{Path: "/data/own", Type: "c", Major: 1, Minor: 5})(e, s)
		}, Alone: "runc 1.1.5 covers it with a bind mount, crun 1.8.1 leaves it"},
		{Section: section, Name: "the same device at the path is no error", Script: "stat -c '%F %t %T' /data/own", Edit: func(e *Env, s *specs.Spec) {
			_ = unix.Mknod(e.Root("data/own"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
			device(specs.LinuxDevice{Path: "/data/own", Type: "c", Major: 1, Minor: 5})(e, s)
		}, Want: []string{"character special file 1 5"}},
		{Section: section, Name: "a fifo", Script: "stat -c %F /dev/pipe", Edit: device(specs.LinuxDevice{Path: "/dev/pipe", Type: "p"}), Want: []string{"fifo"}},
		{Section: section, Name: "one at the path of a default device replaces it", Script: "stat -c %a /dev/zero", Edit: func(e *Env, s *specs.Spec) {
			mode := os.FileMode(0o600)
			device(specs.LinuxDevice{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode})(e, s)
		}, Want: []string{"600\n"}},
		{Section: "config-linux.md#default-devices", Name: "with a /dev that is bound nothing is made in it", Script: "ls /dev", Edit: func(e *Env, s *specs.Spec) {
			dir := filepath.Join(e.Dir, "dev")
			_ = os.Mkdir(dir, 0o755)
			for _, name := range []string{"pts", "shm", "mqueue"} {
				_ = os.Mkdir(filepath.Join(dir, name), 0o755)
			}
			_ = unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
			s.Mounts[1] = specs.Mount{Destination: "/dev", Type: "bind", Source: dir, Options: []string{"bind"}}
		}, Want: []string{"null"}, Not: []string{"random", "core"}},
		{Section: "config-linux.md#default-devices", Name: "in a user namespace", Script: "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done | wc -l", Edit: userNS, Want: []string{"6\n"}},
	}
}
