package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// show prints what a process of a container is given, a line per fact, sorted
// within its section. id is the container's, which is left out of the lines.
func show(id string) error {
	clean := func(s string) string {
		if len(id) >= 64 {
			s = strings.ReplaceAll(s, id, "<id>")
			s = strings.ReplaceAll(s, id[:12], "<short id>")
		}
		return s
	}
	section := func(name string, lines []string) {
		for _, l := range lines {
			fmt.Printf("%s | %s\n", name, clean(l))
		}
	}
	for _, s := range []struct {
		name string
		of   func() []string
	}{
		{"status", status}, {"mount", mounts}, {"dev", devices}, {"limit", limits}, {"cgroup", groups}, {"env", environment},
		{"fd", descriptors}, {"file", files}, {"root", rootEntries}, {"process", process}, {"sysctl", sysctls}, {"net", interfaces},
	} {
		section(s.name, s.of())
	}
	return nil
}

func linesOf(name string) []string {
	body, err := os.ReadFile(name)
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimRight(string(body), "\n"), "\n")
}

// status is /proc/self/status without what differs from run to run.
func status() []string {
	var out []string
	for _, l := range linesOf("/proc/self/status") {
		key, _, _ := strings.Cut(l, ":")
		switch {
		case strings.HasPrefix(key, "Vm"), strings.HasPrefix(key, "Rss"), strings.HasSuffix(key, "ctxt_switches"), key == "HugetlbPages",
			key == "State", key == "FDSize", key == "Threads", key == "SigQ", key == "SigPnd", key == "ShdPnd":
		default:
			out = append(out, strings.Join(strings.Fields(l), " "))
		}
	}
	return out
}

// mounts is mountinfo: where, options, propagation, type, options of the file
// system; ids, devices and sources differ.
func mounts() []string {
	var out []string
	for _, l := range linesOf("/proc/self/mountinfo") {
		left, right, ok := strings.Cut(l, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(g) < 3 {
			out = append(out, l)
			continue
		}
		var super []string
		for _, o := range strings.Split(g[2], ",") {
			switch key, _, _ := strings.Cut(o, "="); key {
			case "lowerdir", "upperdir", "workdir":
			default:
				super = append(super, o)
			}
		}
		slices.Sort(super)
		source := f[3]
		if g[0] != "cgroup" && g[0] != "proc" && g[0] != "tmpfs" {
			source = ""
		}
		propagation := []string{}
		for _, p := range f[6:] {
			kind, _, _ := strings.Cut(p, ":")
			propagation = append(propagation, kind)
		}
		out = append(out, fmt.Sprintf("%s of %s %s: %s [%s] %s", f[4], g[0], source, f[5], strings.Join(propagation, ","), strings.Join(super, ",")))
	}
	slices.Sort(out)
	return out
}

func devices() []string {
	var out []string
	_ = filepath.WalkDir("/dev", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			out = append(out, err.Error())
			return nil
		}
		if strings.HasPrefix(name, "/dev/shm/") {
			return nil // with the host's, whatever its processes have there
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			out = append(out, err.Error())
			return nil
		}
		l := fmt.Sprintf("%s mode %o owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, _ := os.Readlink(name)
			l += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			l += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, l)
		return nil
	})
	return out
}

func limits() []string {
	var out []string
	for _, l := range linesOf("/proc/self/limits") {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	return out
}

// groups is /proc/self/cgroup without the numbers of hierarchies.
func groups() []string {
	var out []string
	for _, l := range linesOf("/proc/self/cgroup") {
		_, rest, _ := strings.Cut(l, ":")
		out = append(out, rest)
	}
	slices.Sort(out)
	return out
}

func environment() []string {
	out := os.Environ()
	slices.Sort(out)
	return out
}

// descriptors are those we were born with; ours of now are above them.
func descriptors() []string {
	var out []string
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasSuffix(target, "/fd") || strings.Contains(target, "eventpoll") || strings.Contains(target, "eventfd") {
			continue
		}
		kind, _, _ := strings.Cut(target, ":")
		out = append(out, e.Name()+" -> "+kind)
	}
	return out
}

// files are what the engine writes into /etc.
func files() []string {
	var out []string
	for _, name := range []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"} {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			out = append(out, err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%s mode %o owner %d:%d", name, st.Mode, st.Uid, st.Gid))
		for _, l := range linesOf(name) {
			if !strings.HasPrefix(l, "#") {
				out = append(out, name+": "+strings.Join(strings.Fields(l), " "))
			}
		}
	}
	return out
}

// rootEntries are the folders of the root with modes.
func rootEntries() []string {
	var out []string
	entries, err := os.ReadDir("/")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Lstat("/"+e.Name(), &st); err == nil {
			out = append(out, fmt.Sprintf("/%s mode %o owner %d:%d", e.Name(), st.Mode, st.Uid, st.Gid))
		}
	}
	return out
}

func process() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	umask := unix.Umask(0)
	unix.Umask(umask)
	add("umask %04o", umask)
	cwd, err := os.Getwd()
	add("cwd %s %v", cwd, err)
	host, err := os.Hostname()
	add("hostname %s %v", host, err)
	add("args %q", os.Args[:2])
	sid, _ := unix.Getsid(0)
	add("pid %d parent %d group %d session %d", os.Getpid(), os.Getppid(), unix.Getpgrp(), sid)
	groups, err := os.Getgroups()
	add("uid %d gid %d groups %v %v", os.Getuid(), os.Getgid(), groups, err)
	nice, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	add("priority %d", nice)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	add("dumpable %d", dumpable)
	keep, _ := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	add("securebits %d", keep)
	sub, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	add("timer slack %d", sub)
	persona, _, _ := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	add("personality %#x", persona)
	_, _, tty := unix.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCGPGRP, ptr(make([]byte, 8)))
	add("terminal %v", tty == syscall.Errno(0))
	for _, f := range []string{"oom_score_adj", "oom_adj", "loginuid", "sessionid", "setgroups", "uid_map", "gid_map", "coredump_filter", "comm"} {
		for _, l := range linesOf("/proc/self/" + f) {
			add("%s %s", f, strings.Join(strings.Fields(l), " "))
		}
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	add("domain name %s", unix.ByteSliceToString(u.Domainname[:]))
	return out
}

func sysctls() []string {
	var out []string
	for _, name := range []string{
		"net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_forward", "net/ipv6/conf/all/disable_ipv6",
		"net/ipv6/conf/lo/disable_ipv6", "net/ipv6/conf/eth0/disable_ipv6", "kernel/shmmax", "kernel/shm_rmid_forced", "kernel/msgmax", "fs/mqueue/msg_max",
		"kernel/domainname",
	} {
		out = append(out, name+" "+strings.Join(strings.Fields(strings.Join(linesOf("/proc/sys/"+name), " ")), " "))
	}
	return out
}

func interfaces() []string {
	var out []string
	list, err := net.Interfaces()
	if err != nil {
		return []string{err.Error()}
	}
	for _, i := range list {
		out = append(out, fmt.Sprintf("%s mtu %d %s", i.Name, i.MTU, i.Flags))
	}
	slices.Sort(out)
	return out
}
