package conform

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// processCases are config.md, "Process" and its Linux and POSIX parts.
func processCases() []Case {
	const section = "config.md#process"
	cases := []Case{
		{Section: section, Name: "args are passed unchanged", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", `printf '<%s>' "$@"`, "sh", "a b", "", "*", "ü"}
		}, Want: []string{"<a b><><*><ü>"}},
		{Section: section, Name: "args[0] is looked up in PATH of env", Script: "echo $0", Want: []string{"sh"}},
		{Section: section, Name: "a program that is not there fails", Fails: true, Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"nowhere"} }},
		{Section: section, Name: "a program that cannot be executed fails", Fails: true, Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} }},
		{Section: section, Name: "empty args fail", Fails: true, Edit: func(_ *Env, s *specs.Spec) { s.Process.Args = nil }},
		{Section: section, Name: "env is complete", Script: "env", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Env = append(s.Process.Env, "A=1", "B=x=y", "EMPTY=")
		}, Want: []string{"A=1\n", "B=x=y\n", "EMPTY=\n"}, Not: []string{"LD_LIBRARY_PATH", "GOMAXPROCS"}},
		{Section: section, Name: "HOME is that of the user", Script: "echo $HOME", Want: []string{"/root\n"}},
		{Section: section, Name: "HOME in env wins", Script: "echo $HOME", Edit: func(_ *Env, s *specs.Spec) { s.Process.Env = append(s.Process.Env, "HOME=/h") }, Want: []string{"/h\n"}},
		{Section: section, Name: "cwd is the current folder", Script: "pwd", Edit: func(_ *Env, s *specs.Spec) { s.Process.Cwd = "/data" }, Want: []string{"/data\n"}},
		{Section: section, Name: "cwd must be absolute", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { s.Process.Cwd = "data" }},
		{Section: section, Name: "the exit status is the process's", Script: "exit 42", Code: 42},
		{Section: section, Name: "standard input arrives", Do: func(e *Env) error {
			e.Spec().Process.Args = []string{"cat"}
			if err := e.Write(); err != nil {
				return err
			}
			out, code, err := e.CallIn("hello", "run", e.ID)
			if err == nil && (code != 0 || out != "hello") {
				err = fmt.Errorf("status %d, output %q", code, out)
			}
			return err
		}},
		{Section: section, Name: "only three descriptors are open", Script: "ls /proc/self/fd | wc -l", Want: []string{"4\n"}},
		{Section: section, Name: "noNewPrivileges", Script: "grep NoNewPrivs /proc/self/status", Want: []string{"NoNewPrivs:\t1"}},
		{Section: section, Name: "noNewPrivileges false", Script: "grep NoNewPrivs /proc/self/status", Edit: func(_ *Env, s *specs.Spec) { s.Process.NoNewPrivileges = false }, Want: []string{"NoNewPrivs:\t0"}},
		{Section: "config.md#posix-process", Name: "an unknown rlimit fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE", Soft: 1, Hard: 1}}
		}},
		{Section: "config.md#user", Name: "uid and gid", Script: "id -u; id -g", Edit: user(33, 44), Want: []string{"33\n44\n"}},
		{Section: "config.md#user", Name: "additionalGids", Script: "id -G", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{5, 6}}
		}, Want: []string{"2 5 6"}},
		{Section: "config.md#user", Name: "no group is inherited", Script: "id -G", Edit: user(33, 44), Want: []string{"44\n"}},
		{Section: "config.md#user", Name: "umask", Script: "umask", Edit: func(_ *Env, s *specs.Spec) {
			m := uint32(0o137)
			s.Process.User.Umask = &m
		}, Want: []string{"0137"}},
		{Section: "config.md#user", Name: "umask default is 0022", Script: "umask", Want: []string{"0022"}},
		{Section: "config.md#linux-process", Name: "oomScoreAdj", Script: "cat /proc/self/oom_score_adj", Edit: func(_ *Env, s *specs.Spec) {
			n := 333
			s.Process.OOMScoreAdj = &n
		}, Want: []string{"333\n"}},
		{Section: "config.md#linux-process", Name: "without capabilities there are none", Script: "grep Cap /proc/self/status", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{}
		}, Want: []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapInh:\t0000000000000000"}},
		{Section: "config.md#linux-process", Name: "another user has no effective ones", Script: "grep CapEff /proc/self/status", Edit: user(33, 44), Want: []string{"0000000000000000"}},
		{Section: "config.md#linux-process", Name: "ambient ones reach another user", Script: "grep Cap[AE] /proc/self/status", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.User.UID = 33
			s.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
			s.Process.Capabilities.Ambient = []string{"CAP_KILL"}
		}, Want: []string{"CapEff:\t0000000000000020", "CapAmb:\t0000000000000020"}},
	}
	for i, name := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
		"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
		"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
		"PERFMON", "BPF", "CHECKPOINT_RESTORE",
	} {
		if name == "" {
			continue // CAP_SYS_RESOURCE: not every machine that tests has it to give
		}
		set := fmt.Sprintf("%016x", uint64(1)<<i)
		cases = append(cases, Case{
			Section: "config.md#linux-process", Name: "capability " + name, Script: "grep Cap /proc/self/status",
			Edit: func(_ *Env, s *specs.Spec) {
				one := []string{"CAP_" + name}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one}
			},
			Want: []string{"CapBnd:\t" + set, "CapPrm:\t" + set, "CapEff:\t" + set, "CapAmb:\t0000000000000000"},
		})
	}
	for name, line := range map[string]string{
		"RLIMIT_AS": "Max address space", "RLIMIT_CORE": "Max core file size", "RLIMIT_CPU": "Max cpu time", "RLIMIT_DATA": "Max data size",
		"RLIMIT_FSIZE": "Max file size", "RLIMIT_LOCKS": "Max file locks", "RLIMIT_MEMLOCK": "Max locked memory", "RLIMIT_MSGQUEUE": "Max msgqueue size",
		"RLIMIT_NICE": "Max nice priority", "RLIMIT_NOFILE": "Max open files", "RLIMIT_NPROC": "Max processes", "RLIMIT_RSS": "Max resident set",
		"RLIMIT_RTPRIO": "Max realtime priority", "RLIMIT_RTTIME": "Max realtime timeout", "RLIMIT_SIGPENDING": "Max pending signals", "RLIMIT_STACK": "Max stack size",
	} {
		soft, hard := uint64(1000), uint64(2000)
		switch name {
		case "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_FSIZE":
			soft, hard = 1<<30, 2<<30
		case "RLIMIT_NICE", "RLIMIT_RTPRIO":
			soft, hard = 0, 0 // a higher one needs CAP_SYS_RESOURCE
		}
		cases = append(cases, Case{
			Section: "config.md#posix-process", Name: "rlimit " + name, Script: "cat /proc/self/limits | sed 's/  */ /g'",
			Edit: func(_ *Env, s *specs.Spec) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: name, Soft: soft, Hard: hard}}
			},
			Want: []string{fmt.Sprintf("%s %d %d", strings.TrimSpace(line), soft, hard)},
		})
	}
	return cases
}

func user(uid, gid uint32) func(*Env, *specs.Spec) {
	return func(_ *Env, s *specs.Spec) { s.Process.User = specs.User{UID: uid, GID: gid} }
}
