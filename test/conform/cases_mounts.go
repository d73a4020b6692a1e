package conform

import (
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mountCases are config.md, "Root" and "Mounts", and the root parts of config-linux.md.
func mountCases() []Case {
	const section = "config.md#mounts"
	cases := []Case{
		{Section: "config.md#root", Name: "readonly", Script: "touch /x; echo $?", Edit: func(_ *Env, s *specs.Spec) { s.Root.Readonly = true }, Want: []string{"Read-only", "1\n"}},
		{Section: "config.md#root", Name: "writable by default", Script: "touch /x && echo made", Want: []string{"made"}},
		{Section: "config.md#root", Name: "a path that is not there fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { s.Root.Path = "nowhere" }},
		{Section: "config.md#root", Name: "an absolute path", Script: "echo ok", Edit: func(e *Env, s *specs.Spec) { s.Root.Path = e.Root("") }, Want: []string{"ok"}},
		{Section: "config.md#root", Name: "the host's root is gone", Script: "ls /; ls /proc/1/root/", Not: []string{"usr"}},
		{Section: section, Name: "mounts are made in the order listed", Script: "ls /a/b/c", Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/a", "tmpfs", "tmpfs")
			mounts(s, "/a/b", "tmpfs", "tmpfs")
			mounts(s, "/a/b/c", "tmpfs", "tmpfs")
		}},
		{Section: section, Name: "a missing destination is made", Script: "ls -d /new/deep", Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/new/deep", "tmpfs", "tmpfs") }, Want: []string{"/new/deep"}},
		{Section: section, Name: "a file is bound on a missing file", Script: "cat /etc/made", Edit: bindFile("/etc/made", "bind"), Want: []string{"content"}},
		{Section: section, Name: "a bind source that is not there fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/data", "bind", "/nowhere/at/all", "bind")
		}},
		{Section: section, Name: "a relative bind source starts at the bundle", Script: "cat /data/file", Edit: func(e *Env, s *specs.Spec) {
			dir := filepath.Join(e.Dir, "src")
			_ = os.MkdirAll(dir, 0o755)
			_ = os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644)
			mounts(s, "/data", "bind", "src", "bind")
		}, Want: []string{"content"}},
		{Section: section, Name: "a link in the root is resolved in the root", Script: "cat /link/file", Edit: func(e *Env, s *specs.Spec) {
			_ = os.Symlink("/data", e.Root("link"))
			bindDir(e, s, "/link", "bind")
		}, Want: []string{"content"}},
		{Section: section, Name: "proc on a link fails", Fails: true, Script: "echo " + ranMark, Edit: func(e *Env, _ *specs.Spec) {
			_ = os.Remove(e.Root("proc"))
			_ = os.Symlink("data", e.Root("proc"))
		}},
		{Section: section, Name: "tmpfs options", Script: "grep ' /t ' /proc/self/mounts; stat -c %a /t", Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/t", "tmpfs", "tmpfs", "size=4096k", "mode=700")
		}, Want: []string{"size=4096k", "700\n"}},
		{Section: section, Name: "an unknown file system fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/t", "nonsense", "x") }},
		{Section: section, Name: "rbind takes what is below", Script: "cat /data/sub/file", Edit: func(e *Env, s *specs.Spec) {
			// Below the bundle's rootfs nothing is mounted, so a mount of the host serves.
			mounts(s, "/data", "bind", "/sys", "rbind")
			s.Process.Args = []string{"ls", "/data/fs/cgroup"}
		}, Want: []string{"memory"}},
		{Section: section, Name: "rbind of the host's root shows the host's files", Script: "cd /host && ls -d usr proc/self sys/fs/cgroup", Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/host", "bind", "/", "rbind", "rprivate")
		}, Want: []string{"usr", "proc/self", "sys/fs/cgroup"}},
		{Section: "config-linux.md#default-filesystems", Name: "proc", Script: "grep ' /proc ' /proc/self/mounts", Want: []string{"proc /proc proc"}},
		{Section: "config-linux.md#default-filesystems", Name: "sys", Script: "grep ' /sys ' /proc/self/mounts", Want: []string{"sysfs /sys sysfs ro"}},
		{Section: "config-linux.md#default-filesystems", Name: "dev/pts", Script: "grep ' /dev/pts ' /proc/self/mounts", Want: []string{"devpts"}},
		{Section: "config-linux.md#default-filesystems", Name: "dev/shm", Script: "grep ' /dev/shm ' /proc/self/mounts; stat -c %a /dev/shm", Want: []string{"tmpfs", "1777"}},
		{Section: "config-linux.md#masked-paths", Name: "a file reads empty", Script: "cat /etc/passwd; echo end", Edit: func(_ *Env, s *specs.Spec) { s.Linux.MaskedPaths = []string{"/etc/passwd"} }, Want: []string{"end"}, Not: []string{"root"}},
		{Section: "config-linux.md#masked-paths", Name: "a folder is empty", Script: "ls /etc; echo end", Edit: func(_ *Env, s *specs.Spec) { s.Linux.MaskedPaths = []string{"/etc"} }, Want: []string{"end"}, Not: []string{"passwd"}},
		{Section: "config-linux.md#masked-paths", Name: "a missing one is no error", Script: "echo ok", Edit: func(_ *Env, s *specs.Spec) { s.Linux.MaskedPaths = []string{"/nowhere"} }, Want: []string{"ok"}},
		{Section: "config-linux.md#masked-paths", Name: "must be absolute", Alone: "runc and crun take a relative one as absolute", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) { s.Linux.MaskedPaths = []string{"etc"} }},
		{Section: "config-linux.md#readonly-paths", Name: "a folder", Script: "touch /etc/x; echo $?", Edit: func(_ *Env, s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/etc"} }, Want: []string{"Read-only", "1\n"}},
		{Section: "config-linux.md#readonly-paths", Name: "a file", Script: "echo x >> /etc/passwd; echo $?", Edit: func(_ *Env, s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/etc/passwd"} }, Want: []string{"Read-only"}},
		{Section: "config-linux.md#readonly-paths", Name: "/proc/sys", Script: "echo x > /proc/sys/kernel/domainname; echo $?", Edit: func(_ *Env, s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/proc/sys"} }, Want: []string{"Read-only"}},
		{Section: "config-linux.md#readonly-paths", Name: "a missing one is no error", Script: "echo ok", Edit: func(_ *Env, s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/nowhere"} }, Want: []string{"ok"}},
	}
	// Options that show in mountinfo, on a tmpfs and on a bind mount.
	for _, o := range []struct{ option, shows string }{
		{"ro", "ro"}, {"rw", "rw"}, {"nosuid", "nosuid"}, {"nodev", "nodev"}, {"noexec", "noexec"}, {"noatime", "noatime"},
		{"nodiratime", "nodiratime"}, {"relatime", "relatime"}, {"nosymfollow", "nosymfollow"},
	} {
		script := shown("/m")
		cases = append(cases,
			Case{Section: "config.md#linux-mount-options", Name: "tmpfs " + o.option, Script: script,
				Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/m", "tmpfs", "tmpfs", o.option) }, Want: []string{"<" + o.shows + ">"}},
			Case{Section: "config.md#linux-mount-options", Name: "bind " + o.option, Script: script,
				Edit: func(e *Env, s *specs.Spec) { bindDir(e, s, "/m", "bind", o.option) }, Want: []string{"<" + o.shows + ">"}})
	}
	for _, o := range []struct{ option, shows string }{
		{"rro", "ro"}, {"rnosuid", "nosuid"}, {"rnodev", "nodev"}, {"rnoexec", "noexec"}, {"rnoatime", "noatime"}, {"rnodiratime", "nodiratime"},
	} {
		cases = append(cases, Case{
			Section: "config.md#linux-mount-options", Name: "recursive " + o.option, Script: shown("/m/sub"),
			Edit: func(e *Env, s *specs.Spec) { mounts(s, "/m", "bind", hostMount(e, 0), "rbind", o.option) }, Want: []string{"<" + o.shows + ">"},
		})
	}
	for _, p := range []struct{ option, has, not string }{
		{"private", "", "shared:"}, {"rprivate", "", "shared:"}, {"shared", "shared:", ""}, {"rshared", "shared:", ""},
		{"unbindable", "unbindable", ""}, {"runbindable", "unbindable", ""},
	} {
		c := Case{
			Section: "config.md#linux-mount-options", Name: "propagation " + p.option, Script: "grep ' /m ' /proc/self/mountinfo",
			Edit: func(e *Env, s *specs.Spec) { bindDir(e, s, "/m", "bind", p.option) }, Want: []string{" /m " + ""},
		}
		if p.has != "" {
			c.Want = append(c.Want, p.has)
		}
		if p.not != "" {
			c.Not = []string{p.not}
		}
		cases = append(cases, c)
	}
	for _, p := range []struct{ value, has string }{{"shared", "shared:"}, {"rshared", "shared:"}, {"private", ""}, {"rprivate", ""}, {"unbindable", "unbindable"}} {
		c := Case{
			Section: "config-linux.md#rootfs-mount-propagation", Name: p.value, Script: "grep ' / / \\| /.* / ' /proc/self/mountinfo | head -1",
			Edit: func(_ *Env, s *specs.Spec) { s.Linux.RootfsPropagation = p.value },
		}
		if p.has != "" {
			c.Want = []string{p.has}
		} else {
			c.Not = []string{"shared:"}
		}
		cases = append(cases, c)
	}
	return append(cases, deviceCases()...)
}

func deviceCases() []Case {
	const section = "config-linux.md#default-devices"
	var cases []Case
	for name, numbers := range map[string]string{"null": "1,3", "zero": "1,5", "full": "1,7", "random": "1,8", "urandom": "1,9", "tty": "5,0"} {
		major, minor, _ := strings.Cut(numbers, ",")
		cases = append(cases, Case{
			Section: section, Name: name, Script: "stat -c '%F %t %T %a' /dev/" + name,
			Want: []string{"character special file " + major + " " + minor + " 666"},
		})
	}
	cases = append(cases, Case{Section: section, Name: "ptmx", Script: "readlink /dev/ptmx", Want: []string{"pts/ptmx"}})
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		cases = append(cases, Case{Section: "runtime-linux.md#dev-symbolic-links", Name: link, Script: "readlink /dev/" + link, Want: []string{target + "\n"}})
	}
	mode, uid, gid := os.FileMode(0o640), uint32(7), uint32(8)
	for kind, shows := range map[string]string{"c": "character special file 63 1 640 7 8", "b": "block special file 63 1 640 7 8", "p": "fifo 0 0 640 7 8"} {
		cases = append(cases, Case{
			Section: "config-linux.md#devices", Name: "type " + kind, Script: "stat -c '%F %t %T %a %u %g' /dev/own",
			Edit: func(_ *Env, s *specs.Spec) {
				d := specs.LinuxDevice{Path: "/dev/own", Type: kind, Major: 99, Minor: 1, FileMode: &mode, UID: &uid, GID: &gid}
				if kind == "p" {
					d.Major, d.Minor = 0, 0
				}
				s.Linux.Devices = append(s.Linux.Devices, d)
			}, Want: []string{shows},
		})
	}
	return cases
}

func bindFile(dest string, options ...string) func(*Env, *specs.Spec) {
	return func(e *Env, s *specs.Spec) {
		src := filepath.Join(e.Dir, "file")
		_ = os.WriteFile(src, []byte("content\n"), 0o644)
		mounts(s, dest, "bind", src, options...)
	}
}

func bindDir(e *Env, s *specs.Spec, dest string, options ...string) {
	src := filepath.Join(e.Dir, "src")
	_ = os.MkdirAll(src, 0o755)
	_ = os.WriteFile(filepath.Join(src, "file"), []byte("content\n"), 0o644)
	mounts(s, dest, "bind", src, options...)
}
