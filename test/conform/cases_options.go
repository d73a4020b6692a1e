package conform

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shown prints the flags of the mount at dir, each in angle brackets.
func shown(dir string) string {
	return `for f in $(grep ' ` + dir + ` ' /proc/self/mountinfo | cut -d' ' -f6 | tr , ' '); do echo "<$f>"; done`
}

// hostMount mounts a tmpfs with flags below the bundle; the test's namespaces
// take it away.
func hostMount(e *Env, flags uintptr) string {
	dir := filepath.Join(e.Dir, "mounted")
	_ = os.MkdirAll(dir, 0o755)
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=755"); err != nil {
		return filepath.Join(e.Dir, "mount-failed")
	}
	sub := filepath.Join(dir, "sub")
	_ = os.Mkdir(sub, 0o755)
	if err := unix.Mount("tmpfs", sub, "tmpfs", flags, "mode=755"); err != nil {
		return filepath.Join(e.Dir, "mount-failed")
	}
	_ = os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644)
	return dir
}

// diskMount is a mount of the host with another one below it, both of the file
// system of the case's folder: tmpfs takes no mapping of ids before Linux 6.3.
func diskMount(e *Env) string {
	dir := filepath.Join(e.Dir, "mounted")
	sub := filepath.Join(dir, "sub")
	_ = os.MkdirAll(sub, 0o755)
	_ = os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	_ = os.WriteFile(filepath.Join(sub, "file"), nil, 0o644)
	for _, d := range []string{dir, sub} {
		if err := unix.Mount(d, d, "", unix.MS_BIND, ""); err != nil {
			return filepath.Join(e.Dir, "mount-failed")
		}
	}
	return dir
}

// optionCases are the table "Linux mount options" of config.md.
func optionCases() []Case {
	const section = "config.md#linux-mount-options"
	var cases []Case
	// Every option of the table that is a MUST is accepted by a new file system.
	for _, o := range []string{
		"async", "atime", "defaults", "dev", "diratime", "exec", "iversion", "loud", "mand", "noiversion", "nolazytime", "nomand",
		"norelatime", "nostrictatime", "silent", "strictatime", "suid", "symfollow",
	} {
		c := Case{Section: section, Name: "tmpfs " + o + " is accepted", Script: "grep -c ' /m tmpfs ' /proc/self/mounts",
			Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/m", "tmpfs", "tmpfs", o) }, Want: []string{"1\n"}}
		cases = append(cases, c)
	}
	for _, o := range []string{"dirsync", "sync", "lazytime"} {
		cases = append(cases, Case{Section: section, Name: "tmpfs " + o, Script: "grep ' /m ' /proc/self/mountinfo",
			Edit: func(_ *Env, s *specs.Spec) { mounts(s, "/m", "tmpfs", "tmpfs", o) }, Want: []string{o}})
	}
	// Those that take an attribute away from what the source has.
	for _, o := range []struct {
		option, gone string
		flag         uintptr
	}{
		{"rw", "ro", unix.MS_RDONLY}, {"suid", "nosuid", unix.MS_NOSUID}, {"dev", "nodev", unix.MS_NODEV}, {"exec", "noexec", unix.MS_NOEXEC},
		{"diratime", "nodiratime", unix.MS_NODIRATIME},
	} {
		alone := ""
		if o.option == "diratime" {
			alone = "runc 1.1.5 and crun 1.8.1 leave the access times of a bind mount as they are"
		}
		cases = append(cases, Case{Section: section, Alone: alone, Name: "bind " + o.option + " takes " + o.gone + " away", Script: shown("/m"), Edit: func(e *Env, s *specs.Spec) {
			dir := hostMount(e, 0)
			_ = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|o.flag, "")
			mounts(s, "/m", "bind", dir, "bind", o.option)
		}, Not: []string{"<" + o.gone + ">"}, Want: []string{"<"}})
	}
	for _, o := range []struct{ last, shows, not string }{
		{"ro rw", "<rw>", "<ro>"}, {"rw ro", "<ro>", "<rw>"}, {"noexec exec", "<rw>", "<noexec>"}, {"dev nodev", "<nodev>", "<dev>"},
	} {
		var a, b string
		_, _ = fmt.Sscan(o.last, &a, &b)
		cases = append(cases, Case{Section: section, Name: "of two opposites the last one counts: " + o.last, Script: shown("/m"),
			Edit: func(e *Env, s *specs.Spec) { bindDir(e, s, "/m", "bind", a, b) }, Want: []string{o.shows}, Not: []string{o.not}})
	}
	cases = append(cases, recursiveCases(section)...)
	return append(cases,
		Case{Section: section, Name: "bind does not take what is below", Script: "ls /m/sub; cat /m/file; ls -d /m/sub/only; echo end", Edit: func(e *Env, s *specs.Spec) {
			dir := hostMount(e, 0)
			_ = os.WriteFile(filepath.Join(dir, "sub", "only"), nil, 0o644)
			mounts(s, "/m", "bind", dir, "bind")
		}, Want: []string{"content", "No such file", "end"}},
		Case{Section: section, Name: "rbind ro protects the top only", Script: "touch /m/x; touch /m/sub/y && echo below", Edit: func(e *Env, s *specs.Spec) {
			mounts(s, "/m", "bind", hostMount(e, 0), "rbind", "ro")
		}, Want: []string{"Read-only", "below"}},
		Case{Section: section, Name: "remount", Script: "touch /m/x; echo $?", Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/m", "tmpfs", "tmpfs")
			mounts(s, "/m", "tmpfs", "tmpfs", "remount", "ro")
		}, Want: []string{"Read-only", "1\n"}},
		Case{Section: section, Name: "an unknown option goes to the file system", Script: "grep ' /m ' /proc/self/mounts", Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/m", "tmpfs", "tmpfs", "nr_inodes=77", "nr_blocks=33")
		}, Want: []string{"nr_inodes=77", "size=132k"}},
		Case{Section: section, Name: "an option that the file system refuses fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/m", "tmpfs", "tmpfs", "nonsense_option=1")
		}},
		Case{Section: section, Name: "tmpcopyup", Script: "cat /data/file; grep -c ' /data tmpfs ' /proc/self/mounts", Edit: func(e *Env, s *specs.Spec) {
			_ = os.WriteFile(e.Root("data/file"), []byte("content\n"), 0o640)
			mounts(s, "/data", "tmpfs", "tmpfs", "tmpcopyup")
		}, Want: []string{"content\n", "1\n"}},
		Case{Section: section, Name: "tmpcopyup keeps modes and links", Script: "stat -c '%a %u' /data/file; readlink /data/link; stat -c %a /data/dir", Edit: func(e *Env, s *specs.Spec) {
			_ = os.WriteFile(e.Root("data/file"), nil, 0o640)
			_ = os.Chown(e.Root("data/file"), 7, 8)
			_ = os.Symlink("file", e.Root("data/link"))
			_ = os.Mkdir(e.Root("data/dir"), 0o711)
			mounts(s, "/data", "tmpfs", "tmpfs", "tmpcopyup")
		}, Want: []string{"640 7\n", "file\n", "711\n"}},
		Case{Section: section, Name: "a slave of a shared mount", Script: "grep ' /m ' /proc/self/mountinfo", Edit: func(e *Env, s *specs.Spec) {
			dir := hostMount(e, 0)
			_ = unix.Mount("", dir, "", unix.MS_SHARED, "")
			mounts(s, "/m", "bind", dir, "bind", "rslave")
		}, Want: []string{"master:"}},
		Case{Section: section, Name: "shared with the host", Script: "mount -t tmpfs tmpfs /m/new && echo mounted", Edit: func(e *Env, s *specs.Spec) {
			dir := hostMount(e, 0)
			_ = os.Mkdir(filepath.Join(dir, "new"), 0o755)
			_ = unix.Mount("", dir, "", unix.MS_SHARED, "")
			mounts(s, "/m", "bind", dir, "bind", "rshared")
			s.Linux.RootfsPropagation = "shared"
			for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
				*set = append(*set, "CAP_SYS_ADMIN")
			}
		}, Do: func(e *Env) error {
			if err := e.Says([]string{"mounted"}, "run", e.ID); err != nil {
				return err
			}
			var a, b unix.Stat_t
			dir := filepath.Join(e.Dir, "mounted")
			if err := unix.Stat(dir, &a); err != nil {
				return err
			}
			if err := unix.Stat(filepath.Join(dir, "new"), &b); err != nil {
				return err
			}
			if a.Dev == b.Dev {
				return fmt.Errorf("the host does not see the mount")
			}
			return nil
		}},
	)
}

// recursiveCases are the options with "r" before them: they reach the mounts below.
func recursiveCases(section string) []Case {
	var cases []Case
	for _, o := range []struct {
		option, want, not string
		flag              uintptr
	}{
		{"rro", "<ro>", "<rw>", 0},
		{"rrw", "<rw>", "<ro>", unix.MS_RDONLY},
		{"rnosuid", "<nosuid>", "", 0},
		{"rsuid", "<rw>", "<nosuid>", unix.MS_NOSUID},
		{"rnodev", "<nodev>", "", 0},
		{"rdev", "<rw>", "<nodev>", unix.MS_NODEV},
		{"rnoexec", "<noexec>", "", 0},
		{"rexec", "<rw>", "<noexec>", unix.MS_NOEXEC},
		{"rnodiratime", "<nodiratime>", "", 0},
		{"rdiratime", "<rw>", "<nodiratime>", unix.MS_NODIRATIME},
		{"rnoatime", "<noatime>", "", 0},
		{"ratime", "<rw>", "<noatime>", unix.MS_NOATIME},
		{"rrelatime", "<relatime>", "<noatime>", unix.MS_NOATIME},
		{"rnorelatime", "<rw>", "<relatime>", 0},
		{"rstrictatime", "<rw>", "<relatime>", 0},
		{"rnostrictatime", "<relatime>", "", unix.MS_STRICTATIME},
		{"rnosymfollow", "<nosymfollow>", "", 0},
		{"rsymfollow", "<rw>", "<nosymfollow>", 256},
	} {
		c := Case{Section: section, Name: o.option + " reaches a mount below", Script: shown("/m/sub"), Edit: func(e *Env, s *specs.Spec) {
			dir := hostMount(e, 0)
			if o.flag != 0 {
				_ = unix.Mount("", filepath.Join(dir, "sub"), "", unix.MS_REMOUNT|unix.MS_BIND|o.flag, "")
			}
			mounts(s, "/m", "bind", dir, "rbind", o.option)
		}, Want: []string{o.want}}
		if o.not != "" {
			c.Not = []string{o.not}
		}
		if o.option == "ratime" || o.option == "rnorelatime" || o.option == "rnostrictatime" {
			c.Alone = "runc 1.1.5 and crun 1.8.1 do not clear the field of access times that they set, which the kernel refuses or ignores"
		}
		cases = append(cases, c)
	}
	return cases
}

// idmapCases are the options idmap and ridmap and the mappings of a mount.
func idmapCases() []Case {
	const section = "config.md#linux-mount-options"
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 1000}}
	mapped := func(edit func(m *specs.Mount), options ...string) func(*Env, *specs.Spec) {
		return func(e *Env, s *specs.Spec) {
			mounts(s, "/m", "bind", diskMount(e), options...)
			edit(&s.Mounts[len(s.Mounts)-1])
		}
	}
	both := func(m *specs.Mount) { m.UIDMappings, m.GIDMappings = maps, maps }
	return []Case{
		{Section: section, Name: "idmap", Script: "stat -c '%u %g' /m/file", Edit: mapped(both, "bind", "idmap"), Want: []string{"5000 5000\n"}},
		{Section: section, Name: "idmap with rbind leaves what is below", Alone: "idmapped mounts are newer than runc 1.1.5, and crun 1.8.1 maps what is below too", Script: "stat -c '%u %g' /m/file /m/sub/file", Edit: mapped(both, "rbind", "idmap"), Want: []string{"5000 5000\n0 0\n"}},
		{Section: section, Name: "ridmap", Script: "stat -c '%u %g' /m/file /m/sub/file", Edit: mapped(both, "rbind", "ridmap"), Want: []string{"5000 5000\n5000 5000\n"}},
		{Section: "config.md#posix-platform-mounts", Name: "uidMappings and gidMappings without the option", Script: "stat -c '%u %g' /m/file", Edit: mapped(both, "bind"), Want: []string{"5000 5000\n"}},
		{Section: "config.md#posix-platform-mounts", Name: "uid and gid mappings differ", Script: "stat -c '%u %g' /m/file", Edit: mapped(func(m *specs.Mount) {
			m.UIDMappings, m.GIDMappings = maps, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 6000, Size: 10}}
		}, "bind", "idmap"), Want: []string{"5000 6000\n"}},
		{Section: "config.md#posix-platform-mounts", Name: "uidMappings without gidMappings fail", Fails: true, Script: "echo " + ranMark,
			Edit: mapped(func(m *specs.Mount) { m.UIDMappings = maps }, "bind", "idmap")},
		{Section: section, Name: "idmap without any mapping fails", Fails: true, Script: "echo " + ranMark, Edit: mapped(func(*specs.Mount) {}, "bind", "idmap")},
		{Section: section, Name: "idmap takes the mapping of the user namespace", Script: "stat -c '%u %g' /m/file", Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			mapped(func(*specs.Mount) {}, "bind", "idmap")(e, s)
		}, Want: []string{"0 0\n"}},
	}
}
