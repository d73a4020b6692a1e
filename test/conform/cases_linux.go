package conform

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// files are the names in /proc/<pid>/ns.
var files = map[specs.LinuxNamespaceType]string{
	specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
	specs.MountNamespace: "mnt", specs.CgroupNamespace: "cgroup",
}

// linuxCases are config-linux.md without mounts and devices.
func linuxCases() []Case {
	const section = "config-linux.md#namespaces"
	var cases []Case
	for t, file := range files {
		own, _ := os.Readlink("/proc/self/ns/" + file)
		cases = append(cases, Case{
			Section: section, Name: "new " + file, Script: "readlink /proc/self/ns/" + file,
			Edit: func(_ *Env, s *specs.Spec) { namespace(s, t, "") }, Want: []string{file + ":"}, Not: []string{own},
		})
		if t == specs.MountNamespace {
			continue
		}
		cases = append(cases,
			Case{
				Section: section, Name: "inherited " + file, Script: "readlink /proc/self/ns/" + file,
				Edit: func(_ *Env, s *specs.Spec) {
					without(s, t)
					if t == specs.UTSNamespace {
						s.Hostname = ""
					}
					if t == specs.NetworkNamespace {
						s.Mounts[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
					}
				}, Want: []string{own},
			},
			Case{
				Section: section, Name: "joined by path " + file, Script: "readlink /proc/self/ns/" + file,
				Edit: func(_ *Env, s *specs.Spec) {
					namespace(s, t, fmt.Sprintf("/proc/%d/ns/%s", os.Getpid(), file))
					if t == specs.UTSNamespace {
						s.Hostname = ""
					}
				}, Want: []string{own},
			},
			Case{
				Section: section, Name: "a path that is not there fails " + file, Fails: true, Script: "echo " + ranMark,
				Edit: func(_ *Env, s *specs.Spec) { namespace(s, t, "/nowhere/"+file) },
			},
			Case{
				Section: section, Name: "a path of another type fails " + file, Fails: true, Script: "echo " + ranMark,
				Edit: func(_ *Env, s *specs.Spec) { namespace(s, t, "/proc/self/ns/user") },
			})
	}
	cases = append(cases,
		Case{Section: section, Name: "a type given twice fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.IPCNamespace})
		}},
		Case{Section: section, Name: "an unknown type fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { namespace(s, "nonsense", "") }},
		Case{Section: section, Name: "the process is number 1", Script: "echo pid $$", Want: []string{"pid 1\n"}},
		Case{Section: section, Name: "lo is up in a new network namespace", Script: "cat /sys/class/net/lo/flags", Want: []string{"0x9"}},
		Case{Section: "config-linux.md#user-namespace-mappings", Name: "maps", Script: "cat /proc/self/uid_map /proc/self/gid_map; id -u", Edit: userNS, Want: []string{"100000", "1000\n", "0\n"}},
		Case{Section: "config-linux.md#user-namespace-mappings", Name: "null works", Script: "echo x > /dev/null && echo ok", Edit: userNS, Want: []string{"ok"}},
		Case{Section: "config.md#hostname", Name: "hostname", Script: "hostname", Want: []string{"conform\n"}},
		Case{Section: "config.md#hostname", Name: "needs a uts namespace", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { without(s, specs.UTSNamespace) }},
		Case{Section: "config.md#domainname", Name: "domainname", Script: "cat /proc/sys/kernel/domainname", Edit: func(_ *Env, s *specs.Spec) { s.Domainname = "example.org" }, Want: []string{"example.org\n"}},
		Case{Section: "config-linux.md#sysctl", Name: "net", Script: "cat /proc/sys/net/ipv4/ip_forward", Edit: sysctl("net.ipv4.ip_forward", "1"), Want: []string{"1\n"}},
		Case{Section: "config-linux.md#sysctl", Name: "net with slashes", Script: "cat /proc/sys/net/ipv4/ip_forward", Edit: sysctl("net/ipv4/ip_forward", "1"), Want: []string{"1\n"}},
		Case{Section: "config-linux.md#sysctl", Name: "ipc", Script: "cat /proc/sys/kernel/msgmax", Edit: sysctl("kernel.msgmax", "4321"), Want: []string{"4321\n"}},
		Case{Section: "config-linux.md#sysctl", Name: "mqueue", Script: "cat /proc/sys/fs/mqueue/msg_max", Edit: sysctl("fs.mqueue.msg_max", "15"), Want: []string{"15\n"}},
		Case{Section: "config-linux.md#sysctl", Name: "one of the host fails", Fails: true, Script: "echo " + ranMark, Edit: sysctl("kernel.panic", "1")},
		Case{Section: "config-linux.md#sysctl", Name: "net in the host's namespace fails", Fails: true, Script: "echo " + ranMark, Edit: func(e *Env, s *specs.Spec) {
			without(s, specs.NetworkNamespace)
			s.Mounts[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
			sysctl("net.ipv4.ip_forward", "1")(e, s)
		}},
	)
	return append(cases, seccompCases()...)
}

func userNS(e *Env, s *specs.Spec) {
	namespace(s, specs.UserNamespace, "")
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	s.Linux.Resources = nil
	_ = os.Chown(e.Root(""), 100000, 100000)
	var keep []specs.Mount
	for _, mnt := range s.Mounts {
		if mnt.Destination == "/dev/pts" {
			mnt.Options = []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
		}
		keep = append(keep, mnt)
	}
	s.Mounts = keep
}

func sysctl(key, value string) func(*Env, *specs.Spec) {
	return func(_ *Env, s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: value} }
}

func seccompCases() []Case {
	const section = "config-linux.md#seccomp"
	profile := func(action specs.LinuxSeccompAction, errno *uint, names ...string) func(*Env, *specs.Spec) {
		return func(_ *Env, s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
				Syscalls: []specs.LinuxSyscall{{Names: names, Action: action, ErrnoRet: errno}},
			}
		}
	}
	nospc := uint(28)
	return []Case{
		{Section: section, Name: "errno is EPERM by default", Script: "mkdir /d; echo $?", Edit: profile(specs.ActErrno, nil, "mkdir", "mkdirat"), Want: []string{"not permitted"}},
		{Section: section, Name: "errnoRet", Script: "mkdir /d; echo $?", Edit: profile(specs.ActErrno, &nospc, "mkdir", "mkdirat"), Want: []string{"No space left"}},
		{Section: section, Name: "kill", Script: "(mkdir /d); echo status $?", Edit: profile(specs.ActKillProcess, nil, "mkdir", "mkdirat"), Want: []string{"status 159"}},
		{Section: section, Name: "trap", Script: "(mkdir /d); echo status $?", Edit: profile(specs.ActTrap, nil, "mkdir", "mkdirat"), Want: []string{"status 159"}},
		{Section: section, Name: "log lets it pass", Script: "mkdir /d && echo ok", Edit: profile(specs.ActLog, nil, "mkdir", "mkdirat"), Want: []string{"ok"}},
		{Section: section, Name: "an unknown call is ignored", Script: "echo ok", Edit: profile(specs.ActErrno, nil, "nonsense_call"), Want: []string{"ok"}},
		{Section: section, Name: "the filter is on", Script: "grep Seccomp: /proc/self/status", Edit: profile(specs.ActErrno, nil, "mkdir"), Want: []string{"2\n"}},
		{Section: section, Name: "without noNewPrivileges too", Script: "grep Seccomp: /proc/self/status", Edit: func(e *Env, s *specs.Spec) {
			profile(specs.ActErrno, nil, "mkdir")(e, s)
			s.Process.NoNewPrivileges = false
			s.Process.User.UID = 33
		}, Want: []string{"2\n"}},
	}
}
