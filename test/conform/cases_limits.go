package conform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v2Root is where a host with nothing but cgroup v2 mounts it.
const v2Root = "/sys/fs/cgroup"

// pure says whether the host has nothing but cgroup v2.
func pure() bool {
	_, err := os.Stat(v2Root + "/cgroup.controllers")
	return err == nil
}

// groupDir is the container's group in the hierarchy of a v1 controller, or in
// the one hierarchy there is.
func groupDir(e *Env, controller string) string {
	if pure() {
		return v2Root + e.Cgroup
	}
	return filepath.Join(v2Root, controller, e.Cgroup)
}

// limit1 is one limit and where it shows.
type limit1 struct {
	section, name string
	edit          func(r *specs.LinuxResources)
	// controller with file and content on v1; "" is not to be seen there.
	controller, file, want string
	// file2 and want2 are those of v2.
	file2, want2 string
	alone        string
}

func (l limit1) needs() string {
	file := l.file2
	dir := v2Root
	if !pure() {
		if l.file == "" {
			return "no control file of cgroup v1"
		}
		file, dir = l.file, filepath.Join(v2Root, l.controller)
	} else if l.file2 == "" {
		return "no control file of cgroup v2"
	}
	if pure() {
		// A controller is there for groups below once the root lends it, as runtimes
		// have it do.
		lend := filepath.Join(dir, "cgroup.subtree_control")
		err := os.WriteFile(lend, []byte("+"+strings.SplitN(file, ".", 2)[0]), 0)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // neither: the kernel has no such controller
			return "" // the case will say more
		}
	}
	// The root group lacks some files; a group of another process shows.
	if found, _ := filepath.Glob(filepath.Join(dir, "*", file)); len(found) > 0 {
		return ""
	}
	probe := filepath.Join(dir, fmt.Sprintf("conform-probe-%d", serial.Add(1)))
	if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	defer func() { _ = os.Remove(probe) }()
	if _, err := os.Stat(filepath.Join(probe, file)); errors.Is(err, fs.ErrNotExist) {
		return "this kernel has no " + file
	}
	return ""
}

func (l limit1) check(e *Env) error {
	file, want := l.file, l.want
	if pure() {
		file, want = l.file2, l.want2
	}
	b, err := os.ReadFile(filepath.Join(groupDir(e, l.controller), file))
	got := strings.TrimSpace(string(b))
	if err == nil && !strings.Contains("\n"+got+"\n", "\n"+want+"\n") {
		err = fmt.Errorf("%s is %q, want %q", file, got, want)
	}
	return err
}

// limitCases are "Control groups" of config-linux.md.
func limitCases() []Case {
	i64 := func(n int64) *int64 { return &n }
	u64 := func(n uint64) *uint64 { return &n }
	u16 := func(n uint16) *uint16 { return &n }
	memory := func(m specs.LinuxMemory) func(*specs.LinuxResources) {
		return func(r *specs.LinuxResources) { r.Memory = &m }
	}
	cpu := func(c specs.LinuxCPU) func(*specs.LinuxResources) {
		return func(r *specs.LinuxResources) { r.CPU = &c }
	}
	pids := func(n int64) func(*specs.LinuxResources) {
		return func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: &n} }
	}
	io := func(edit func(b *specs.LinuxBlockIO, d specs.LinuxThrottleDevice)) func(*specs.LinuxResources) {
		return func(r *specs.LinuxResources) {
			r.BlockIO = &specs.LinuxBlockIO{}
			d := specs.LinuxThrottleDevice{Rate: 1048576}
			d.Major, d.Minor = disk()
			edit(r.BlockIO, d)
		}
	}
	major, minor := disk()
	dev := fmt.Sprintf("%d:%d", major, minor)
	yes := true
	const mem, proc, block = "config-linux.md#memory", "config-linux.md#cpu", "config-linux.md#block-io"
	table := []limit1{
		{mem, "limit", memory(specs.LinuxMemory{Limit: i64(64 << 20)}), "memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864", ""},
		{mem, "reservation", memory(specs.LinuxMemory{Reservation: i64(32 << 20)}), "memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432", ""},
		{mem, "limit of -1 is none", memory(specs.LinuxMemory{Limit: i64(-1)}), "memory", "memory.limit_in_bytes", "9223372036854771712", "memory.max", "max", ""},
		{mem, "swap", memory(specs.LinuxMemory{Limit: i64(64 << 20), Swap: i64(96 << 20)}), "memory", "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432", ""},
		{mem, "swap of -1 is none", memory(specs.LinuxMemory{Limit: i64(64 << 20), Swap: i64(-1)}), "memory", "memory.memsw.limit_in_bytes", "9223372036854771712", "memory.swap.max", "max", ""},
		{mem, "swappiness", memory(specs.LinuxMemory{Swappiness: u64(7)}), "memory", "memory.swappiness", "7", "", "", ""},
		{mem, "disableOOMKiller", memory(specs.LinuxMemory{DisableOOMKiller: &yes}), "memory", "memory.oom_control", "oom_kill_disable 1", "", "", ""},
		{proc, "shares", cpu(specs.LinuxCPU{Shares: u64(512)}), "cpu", "cpu.shares", "512", "", "", ""},
		{proc, "quota", cpu(specs.LinuxCPU{Quota: i64(50000), Period: u64(100000)}), "cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000", ""},
		{proc, "period", cpu(specs.LinuxCPU{Quota: i64(50000), Period: u64(200000)}), "cpu", "cpu.cfs_period_us", "200000", "cpu.max", "50000 200000", ""},
		{proc, "quota of -1 is none", cpu(specs.LinuxCPU{Quota: i64(-1)}), "cpu", "cpu.cfs_quota_us", "-1", "cpu.max", "max 100000", ""},
		{proc, "burst", cpu(specs.LinuxCPU{Quota: i64(50000), Period: u64(100000), Burst: u64(20000)}), "cpu", "cpu.cfs_burst_us", "20000", "cpu.max.burst", "20000", "burst is newer than Debian 12's runtimes"},
		{proc, "idle", cpu(specs.LinuxCPU{Idle: i64(1)}), "cpu", "cpu.idle", "1", "cpu.idle", "1", ""},
		{proc, "realtimeRuntime", cpu(specs.LinuxCPU{RealtimeRuntime: i64(0), RealtimePeriod: u64(500000)}), "cpu", "cpu.rt_period_us", "500000", "", "", ""},
		{proc, "cpus", cpu(specs.LinuxCPU{Cpus: "0"}), "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0", ""},
		{proc, "cpus as a range", cpu(specs.LinuxCPU{Cpus: "0-1"}), "cpuset", "cpuset.cpus", "0-1", "cpuset.cpus", "0-1", ""},
		{proc, "mems", cpu(specs.LinuxCPU{Mems: "0"}), "cpuset", "cpuset.mems", "0", "cpuset.mems", "0", ""},
		{"config-linux.md#pids", "limit", pids(17), "pids", "pids.max", "17", "pids.max", "17", ""},
		{"config-linux.md#pids", "no limit", pids(-1), "pids", "pids.max", "max", "pids.max", "max", ""},
		{block, "throttleReadBpsDevice", io(func(b *specs.LinuxBlockIO, d specs.LinuxThrottleDevice) {
			b.ThrottleReadBpsDevice = []specs.LinuxThrottleDevice{d}
		}), "blkio", "blkio.throttle.read_bps_device", dev + " 1048576", "", "", ""},
		{block, "throttleWriteBpsDevice", io(func(b *specs.LinuxBlockIO, d specs.LinuxThrottleDevice) {
			b.ThrottleWriteBpsDevice = []specs.LinuxThrottleDevice{d}
		}), "blkio", "blkio.throttle.write_bps_device", dev + " 1048576", "", "", ""},
		{block, "throttleReadIOPSDevice", io(func(b *specs.LinuxBlockIO, d specs.LinuxThrottleDevice) {
			b.ThrottleReadIOPSDevice = []specs.LinuxThrottleDevice{d}
		}), "blkio", "blkio.throttle.read_iops_device", dev + " 1048576", "", "", ""},
		{block, "throttleWriteIOPSDevice", io(func(b *specs.LinuxBlockIO, d specs.LinuxThrottleDevice) {
			b.ThrottleWriteIOPSDevice = []specs.LinuxThrottleDevice{d}
		}), "blkio", "blkio.throttle.write_iops_device", dev + " 1048576", "", "", ""},
		{block, "weight", io(func(b *specs.LinuxBlockIO, _ specs.LinuxThrottleDevice) { b.Weight = u16(300) }), "blkio", "blkio.bfq.weight", "300", "io.bfq.weight", "default 300", ""},
	}
	var cases []Case
	for _, l := range table {
		cases = append(cases, Case{
			Section: l.section, Name: l.name, Script: "sleep 100", Alone: l.alone, Needs: l.needs,
			Edit: func(_ *Env, s *specs.Spec) { l.edit(s.Linux.Resources) },
			Do: func(e *Env) error {
				if _, err := e.Must("create", e.ID); err != nil {
					return err
				}
				return l.check(e)
			},
		})
	}
	return append(append(cases, groupCases()...), ruleCases()...)
}

// disk is a block device that whole requests can be counted for.
func disk() (major, minor int64) {
	names, _ := filepath.Glob("/sys/block/*/dev")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || strings.Contains(name, "/loop") || strings.Contains(name, "/zram") || strings.Contains(name, "/ram") || strings.Contains(name, "/sr") {
			continue
		}
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err == nil {
			return major, minor
		}
	}
	return 7, 0
}

// groupCases are about the group itself.
func groupCases() []Case {
	const section, paths = "config-linux.md#control-groups", "config-linux.md#cgroups-path"
	in := func(e *Env, out, path string) error {
		for _, line := range strings.Split(out, "\n") {
			f := strings.SplitN(line, ":", 3)
			if len(f) == 3 && (f[1] == "memory" || f[1] == "" && pure()) && strings.HasSuffix(f[2], path) {
				return nil
			}
		}
		return fmt.Errorf("no %s in %q", path, out)
	}
	v1 := func() string {
		if pure() {
			return "cgroup v2"
		}
		return ""
	}
	v2 := func() string {
		if !pure() {
			return "cgroup v1"
		}
		return ""
	}
	bad := func(name string, edit func(r *specs.LinuxResources), alone string) Case {
		return Case{Section: section, Name: name, Fails: true, Script: "echo " + ranMark, Alone: alone,
			Edit: func(_ *Env, s *specs.Spec) { edit(s.Linux.Resources) }}
	}
	return []Case{
		{Section: paths, Name: "the path is the same in every hierarchy", Script: "cat /proc/self/cgroup", Needs: v1, Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				f := strings.SplitN(strings.TrimSpace(line), ":", 3)
				// The host's own manager may keep the named one.
				if len(f) == 3 && f[1] != "" && !strings.HasPrefix(f[1], "name=") && f[2] != e.Cgroup {
					return fmt.Errorf("%q, want %s", line, e.Cgroup)
				}
			}
			return nil
		}},
		{Section: "config-linux.md#cgroup-ownership", Name: "a writable mount gives the group to the user", Script: "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/below && echo made", Needs: v2, Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			namespace(s, specs.CgroupNamespace, "")
			mounts(s, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "rw")
		}, Want: []string{"0\n0\n", "made\n"}},
		{Section: "config-linux.md#cgroup-ownership", Name: "a read-only mount does not", Script: "stat -c %u /sys/fs/cgroup", Needs: v2, Edit: func(e *Env, s *specs.Spec) {
			userNS(e, s)
			namespace(s, specs.CgroupNamespace, "")
			mounts(s, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
		}, Not: []string{"0\n0"}, Want: []string{"65534\n"}},
		{Section: "config-linux.md#memory", Name: "checkBeforeUpdate", Script: "touch /done; sleep 100", Do: func(e *Env) error {
			// Before its program runs a container may use less than the limit.
			if err := first(e.Started, func() error { return appears(e.Root("done")) }); err != nil {
				return err
			}
			out, code, err := e.CallIn(`{"memory":{"limit":4096,"checkBeforeUpdate":true}}`, "update", "--resources", "-", e.ID)
			if err == nil && code == 0 {
				err = fmt.Errorf("a limit below what is used was taken: %s", out)
			}
			if err != nil {
				return err
			}
			return e.Status(specs.StateRunning)
		}},
		{Section: section, Name: "the process is in its group", Script: "cat /proc/self/cgroup", Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err != nil {
				return err
			}
			return in(e, out, e.Cgroup)
		}},
		{Section: section, Name: "children of the process are in its group", Script: "sh -c 'sh -c \"cat /proc/self/cgroup\"'", Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err != nil {
				return err
			}
			return in(e, out, e.Cgroup)
		}},
		{Section: section, Name: "the group is gone after delete", Script: "true", Do: func(e *Env) error {
			if _, err := e.Must("run", e.ID); err != nil {
				return err
			}
			return nothingLeft(e)
		}},
		{Section: paths, Name: "the groups on the way are made", Script: "cat /proc/self/cgroup", Edit: func(e *Env, s *specs.Spec) {
			if !e.Runtime.Systemd {
				s.Linux.CgroupsPath = filepath.Dir(e.Cgroup) + "/some/where/" + e.ID
			}
		}, Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err != nil || e.Runtime.Systemd {
				return err
			}
			return in(e, out, "/some/where/"+e.ID)
		}},
		{Section: paths, Name: "the same path is the same place", Script: "cat /proc/self/cgroup", Do: func(e *Env) error {
			a, err := e.Must("run", e.ID)
			if err != nil {
				return err
			}
			b, err := e.Must("run", e.ID)
			if err == nil && a != b {
				err = fmt.Errorf("%q, then %q", a, b)
			}
			return err
		}},
		{Section: paths, Name: "not specified, one is chosen", Script: "cat /proc/self/cgroup", Edit: func(_ *Env, s *specs.Spec) { s.Linux.CgroupsPath = "" }, Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err == nil && !strings.Contains(out, e.ID) {
				err = fmt.Errorf("no %s in %q", e.ID, out)
			}
			return err
		}},
		{Section: "config-linux.md#namespaces", Name: "a new cgroup namespace shows its group as root", Script: "cat /proc/self/cgroup", Edit: func(_ *Env, s *specs.Spec) {
			namespace(s, specs.CgroupNamespace, "")
		}, Do: func(e *Env) error {
			out, err := e.Must("run", e.ID)
			if err != nil {
				return err
			}
			return in(e, out+"\n", ":/"[1:])
		}},
		{Section: section, Name: "a mount of type cgroup shows the group", Script: "cat /sys/fs/cgroup/memory/cgroup.procs", Needs: v1, Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
		}, Want: []string{"1\n"}},
		{Section: section, Name: "a read-only mount of type cgroup cannot be written", Script: "echo 1 > /sys/fs/cgroup/memory/cgroup.procs; echo $?", Needs: v1, Edit: func(_ *Env, s *specs.Spec) {
			mounts(s, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
		}, Want: []string{"Read-only", "1\n"}},
		{Section: "config-linux.md#unified", Name: "a controller that cgroup v2 does not have fails", Fails: true, Script: "echo " + ranMark, Edit: func(_ *Env, s *specs.Spec) {
			s.Linux.Resources.Unified = map[string]string{"nonsense.max": "1"}
		}},
		bad("a negative swap below the limit fails", func(r *specs.LinuxResources) {
			l, w := int64(64<<20), int64(32<<20)
			r.Memory = &specs.LinuxMemory{Limit: &l, Swap: &w}
		}, ""),
		bad("a swappiness above 100 fails", func(r *specs.LinuxResources) {
			n := uint64(500)
			r.Memory = &specs.LinuxMemory{Swappiness: &n}
		}, ""),
		bad("a CPU that is not there fails", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "4000"} }, ""),
		bad("a list of CPUs that is none fails", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Cpus: "zero"} }, ""),
		bad("a node that is not there fails", func(r *specs.LinuxResources) { r.CPU = &specs.LinuxCPU{Mems: "900"} }, ""),
		bad("a period that the kernel refuses fails", func(r *specs.LinuxResources) {
			n := uint64(1)
			r.CPU = &specs.LinuxCPU{Period: &n}
		}, ""),
		bad("a huge page size that is none fails", func(r *specs.LinuxResources) {
			r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "nonsense", Limit: 1}}
		}, ""),
		{Section: "config-linux.md#memory", Name: "update changes a limit", Script: "sleep 100", Edit: func(_ *Env, s *specs.Spec) {
			n := int64(64 << 20)
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &n}
		}, Do: func(e *Env) error {
			l := limit1{controller: "memory", file: "memory.limit_in_bytes", want: "50331648", file2: "memory.max", want2: "50331648"}
			return first(e.Started, func() error { _, err := e.Must("update", "--memory", "50331648", e.ID); return err }, func() error { return l.check(e) })
		}},
		// The kernel takes another one when what it has killed does not go within a
		// second: these have to be before the shell.
		{Section: "config-linux.md#memory", Name: "a process beyond its limit is killed", Script: "(echo 1000 >/proc/self/oom_score_adj; head -c 200m /dev/zero | tail) ; echo status $?", Edit: func(_ *Env, s *specs.Spec) {
			n := int64(24 << 20)
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &n, Swap: &n}
		}, Want: []string{"status 137"}},
		{Section: "config-linux.md#pids", Name: "a process beyond the limit is not made", Script: "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done 2>&1; echo end", Edit: func(_ *Env, s *specs.Spec) {
			n := int64(6)
			s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n}
		}, Do: func(e *Env) error {
			out, _, err := e.Call("run", e.ID)
			if err == nil && !strings.Contains(out, "fork") {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
	}
}

// ruleCases are "Allowed Device list".
func ruleCases() []Case {
	const section = "config-linux.md#allowed-device-list"
	n := func(v int64) *int64 { return &v }
	var cases []Case
	for _, d := range []struct {
		name, script, has string
		rules             []specs.LinuxDeviceCgroup
	}{
		{"null may be written", "echo x > /dev/null && echo ok", "ok", nil},
		{"zero may be read", "head -c 3 /dev/zero | wc -c", "3", nil},
		{"urandom may be read", "head -c 3 /dev/urandom | wc -c", "3", nil},
		{"full answers that it is full", "echo x > /dev/full", "No space", nil},
		{"a pseudoterminal may be made", "head -c 0 /dev/ptmx && echo ok", "ok", nil},
		{"another one may not be opened", "mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg; echo $?", "not permitted", nil},
		{"an allowed one may", "mknod /tmp/mem c 1 11; head -c 1 /tmp/mem >/dev/null && echo ok", "ok", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "rwm"}}},
		{"read does not allow to write", "mknod /tmp/k c 1 11; echo x > /tmp/k; head -c 1 /tmp/k > /dev/null && echo read", "read", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "rm"}}},
		{"a missing minor is every one", "mknod /tmp/k c 1 11; head -c 1 /tmp/k > /dev/null && echo ok", "ok", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Access: "rwm"}}},
		{"the last matching entry counts", "mknod /tmp/k c 1 11; head -c 1 /tmp/k > /dev/null || echo denied", "denied", []specs.LinuxDeviceCgroup{
			{Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "rwm"}, {Allow: false, Type: "c", Major: n(1), Minor: n(11), Access: "rwm"},
		}},
		{"type a allows all", "mknod /tmp/k c 1 11; head -c 1 /tmp/k > /dev/null && echo ok", "ok", []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}},
		{"a block device has rules of its own", "mknod /tmp/k c 1 11; head -c 1 /tmp/k > /dev/null || echo denied", "denied", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(1), Minor: n(11), Access: "rwm"}}},
	} {
		cases = append(cases, Case{
			Section: section, Name: d.name, Do: nil, Script: "(" + d.script + ") 2>&1; true", Want: []string{d.has},
			Edit: func(_ *Env, s *specs.Spec) {
				c := s.Process.Capabilities // the kernel's log needs one beside the device
				for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
					*set = append(*set, "CAP_SYSLOG")
				}
				s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, d.rules...)
			},
		})
	}
	return cases
}

// nothingLeft looks for a group and a state of the container.
func nothingLeft(e *Env) error {
	// The places are those of the kernel's file systems: what other runtimes
	// make on a plain folder is theirs.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var dirs []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[2], "cgroup") {
			dirs = append(dirs, f[1]+e.Cgroup)
		}
	}
	dirs = append(dirs, filepath.Join(e.State, e.ID))
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err == nil {
			return fmt.Errorf("%s is left", dir)
		}
	}
	// A mount of the bundle in the namespaces of the caller.
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil && strings.Contains(string(b), e.Dir+"/rootfs") {
		err = fmt.Errorf("a mount of %s is left", e.Dir)
	}
	if err != nil {
		return err
	}
	return noProcess(e)
}

// noProcess looks for a process whose root is the bundle's.
func noProcess(e *Env) error {
	var root unix.Stat_t
	if err := unix.Stat(e.Root(""), &root); err != nil {
		return nil // a case took it away
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, p := range procs {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Dev == root.Dev && st.Ino == root.Ino {
			return fmt.Errorf("process %s is left", strings.Split(p, "/")[2])
		}
	}
	return nil
}
