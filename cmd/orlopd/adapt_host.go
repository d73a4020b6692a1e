package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/feature"
	"github.com/orlop/orlop/internal/linux/lsm"
)

// host is containers.Host: this machine.
type host struct {
	facts  container.HostFacts
	bootID string
}

// newHost probes what does not change while the daemon runs. forwarding tells
// whether the daemon switches packet forwarding on.
//
// Where the kernel has AppArmor the default profile is loaded, as Docker does;
// a host that cannot compile one (apparmor_parser is missing) runs containers
// without a profile and says so, also to whoever asks for its information.
func newHost(ctx context.Context, driver string, forwarding bool, log *slog.Logger) (*host, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	f := container.HostFacts{
		NCPU:                  runtime.NumCPU(),
		Seccomp:               feature.Probe(feature.SeccompFilter) == nil,
		AppArmor:              lsm.AppArmorEnabled(),
		SELinux:               lsm.SELinuxEnabled(),
		CgroupNamespaces:      feature.Probe(feature.CgroupNamespace) == nil,
		RecursiveReadOnly:     feature.Probe(feature.MountSetattr) == nil,
		TimeNamespaces:        exists("/proc/self/ns/time"),
		PingGroupRange:        exists("/proc/sys/net/ipv4/ping_group_range"),
		UnprivilegedPortStart: exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
	}
	if f.AppArmor {
		if err := lsm.LoadDefaultAppArmor(ctx, lsm.DefaultProfile); err != nil {
			log.Warn("containers are not confined by AppArmor", "error", err)
			f.AppArmorMissing = err.Error()
		}
	}
	if !forwarding {
		on, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		f.IPv4ForwardingDisabled = err == nil && strings.TrimSpace(string(on)) == "0"
	}
	if err := cgroupFacts(&f, driver); err != nil {
		return nil, err
	}
	have, err := capability.Current()
	if err != nil {
		return nil, err
	}
	known, err := capability.Supported()
	if err != nil {
		return nil, err
	}
	f.Capabilities, f.KnownCapabilities = (have.Permitted & have.Bounding).Names(), known.Names()
	// The pattern has no mistakes, which is all that Glob can fail with.
	f.ThermalThrottle, _ = filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	return &host{facts: f, bootID: strings.TrimSpace(string(boot))}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cgroupFacts finds out which limits this kernel has, by the files that set
// them.
func cgroupFacts(f *container.HostFacts, driver string) error {
	// A group at the top, which is not made, tells where the hierarchies are.
	probe, err := cgroup.New(cgroup.Config{Path: "/orlop-probe"})
	if err != nil {
		return fmt.Errorf("find cgroups: %w", err)
	}
	paths := probe.Paths()
	for controller, dir := range paths {
		paths[controller] = filepath.Dir(dir)
	}
	if top, unified := paths[""]; unified && len(paths) == 1 {
		f.CgroupVersion = 2
		f.CgroupSystemd = driver == "systemd" || driver == "" && exists("/run/systemd/system")
		return unifiedFacts(f, top)
	}
	f.CgroupVersion = 1
	f.CgroupSystemd = driver == "systemd"
	has := func(controller, file string) bool {
		dir, ok := paths[controller]
		return ok && exists(filepath.Join(dir, file))
	}
	f.MemoryLimit = has("memory", "memory.limit_in_bytes")
	f.SwapLimit = has("memory", "memory.memsw.limit_in_bytes")
	f.MemoryReservation = has("memory", "memory.soft_limit_in_bytes")
	f.MemorySwappiness = has("memory", "memory.swappiness")
	f.OomKillDisable = has("memory", "memory.oom_control")
	f.CPUShares = has("cpu", "cpu.shares")
	f.CPUCfs = has("cpu", "cpu.cfs_quota_us")
	f.CPURealtime = has("cpu", "cpu.rt_runtime_us")
	f.PidsLimit = paths["pids"] != ""
	f.BlkioWeight = paths["blkio"] != "" && cgroup.BlkIOWeight(paths["blkio"])
	f.BlkioWeightDevice = f.BlkioWeight // either scheduler has both
	f.BlkioReadBps = has("blkio", "blkio.throttle.read_bps_device")
	f.BlkioWriteBps = has("blkio", "blkio.throttle.write_bps_device")
	f.BlkioReadIOps = has("blkio", "blkio.throttle.read_iops_device")
	f.BlkioWriteIOps = has("blkio", "blkio.throttle.write_iops_device")
	if dir, ok := paths["cpuset"]; ok {
		f.Cpuset = true
		f.Cpus, f.Mems = line(filepath.Join(dir, "cpuset.cpus")), line(filepath.Join(dir, "cpuset.mems"))
	}
	return nil
}

func unifiedFacts(f *container.HostFacts, top string) error {
	raw, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("find cgroups: %w", err)
	}
	for _, controller := range strings.Fields(string(raw)) {
		switch controller {
		case "memory":
			f.MemoryLimit, f.MemoryReservation = true, true
			f.SwapLimit = swapAccounting(top)
		case "cpu":
			f.CPUShares, f.CPUCfs = true, true
		case "cpuset":
			f.Cpuset = true
			f.Cpus, f.Mems = line(filepath.Join(top, "cpuset.cpus.effective")), line(filepath.Join(top, "cpuset.mems.effective"))
		case "pids":
			f.PidsLimit = true
		case "io":
			f.BlkioWeight, f.BlkioWeightDevice = true, true
			f.BlkioReadBps, f.BlkioWriteBps, f.BlkioReadIOps, f.BlkioWriteIOps = true, true, true, true
		}
	}
	return nil
}

// swapAccounting looks into the daemon's own group: the root group has no such
// file.
func swapAccounting(top string) bool {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for l := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(l), "0::"); ok && path != "/" {
			return exists(filepath.Join(top, path, "memory.swap.max"))
		}
	}
	return exists("/proc/swaps")
}

func line(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func (h *host) Facts() container.HostFacts { return h.facts }
func (h *host) BootID() string             { return h.bootID }

func (h *host) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func (h *host) Device(path string) (specs.LinuxDevice, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return specs.LinuxDevice{}, err
	}
	d, ok, err := device(target)
	if err == nil && !ok {
		err = errdefs.ErrInvalidArgument.WithMessage("not a device node: " + path)
	}
	d.Path = path
	return d, err
}

// device describes a node; ok is false for what is not one.
func device(path string) (specs.LinuxDevice, bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return specs.LinuxDevice{}, false, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	d := specs.LinuxDevice{Path: path, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), UID: &st.Uid, GID: &st.Gid}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode = &mode
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFCHR:
		d.Type = "c"
	default:
		return d, false, nil
	}
	return d, true, nil
}

// hiddenDevices are made anew for every container, or belong to one program.
func hiddenDevice(name string, isDir bool) bool {
	switch name {
	case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
		return isDir
	case "console":
		return !isDir
	}
	return false
}

func (h *host) Devices(dir string) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != dir:
			return nil // gone meanwhile
		case err != nil:
			return err
		case path != dir && hiddenDevice(entry.Name(), entry.IsDir()):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.Type()&fs.ModeDevice == 0:
			return nil
		}
		d, ok, err := device(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if ok && err == nil {
			out = append(out, d)
		}
		return err
	})
	return out, err
}

// Weighs implements containers.Host: of the schedulers only BFQ has weights.
func (h *host) Weighs(path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return true
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	list, err := os.ReadFile(dir + "/queue/scheduler")
	if errors.Is(err, os.ErrNotExist) { // of a partition, its disk
		list, err = os.ReadFile(dir + "/../queue/scheduler")
	}
	return err != nil || strings.Contains(string(list), "[bfq]")
}

func (h *host) MountOf(path string) (mountpoint, propagation string, err error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", "", err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(target))
	if err != nil {
		return "", "", fmt.Errorf("find the mount of %s: %w", path, err)
	}
	if len(mounts) == 0 {
		return "", "", fmt.Errorf("find the mount of %s: %w", path, errdefs.ErrNotFound)
	}
	// The longest is the innermost; of several on one place the last is on top.
	best := mounts[0]
	for _, m := range mounts[1:] {
		if len(m.Mountpoint) >= len(best.Mountpoint) {
			best = m
		}
	}
	propagation = "private"
	for _, tag := range strings.Fields(best.Optional) {
		if strings.HasPrefix(tag, "shared:") {
			propagation = "shared"
			break
		}
		if strings.HasPrefix(tag, "master:") {
			propagation = "slave"
		}
	}
	return best.Mountpoint, propagation, nil
}

// group finds the cgroup of a process by one controller's path, or the unified
// one.
func group(pid int) (cgroup.Manager, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d is gone: %w", pid, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	path := ""
	for l := range strings.Lines(string(raw)) {
		field := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(field) != 3 {
			continue
		}
		if field[1] == "memory" || field[1] == "pids" || field[1] == "" && path == "" {
			path = field[2]
		}
	}
	return cgroup.New(cgroup.Config{Path: path})
}

func (h *host) Processes(pid int) ([]int, error) {
	g, err := group(pid)
	if err != nil {
		return nil, err
	}
	return g.Pids()
}

func (h *host) PS(ctx context.Context, args []string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		// What ps says about its arguments is for the user.
		said, _, _ := strings.Cut(strings.TrimSpace(string(failed.Stderr)), "\n")
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%v: %s", failed, said))
	}
	return out, err
}

func (h *host) Stats(ctx context.Context, pid int) (*containertypes.StatsResponse, error) {
	g, err := group(pid)
	if err != nil {
		return nil, err
	}
	s, err := g.Stats()
	if err != nil {
		return nil, err
	}
	resp := statsResponse(s, h.facts.NCPU)
	if resp.CPUStats.SystemUsage, err = systemCPU(); err != nil {
		return nil, err
	}
	if resp.Networks, err = networkStats(pid); err != nil {
		return nil, err
	}
	return resp, nil
}

// statsResponse is what the API shows of a cgroup's counters.
func statsResponse(s *cgroup.Stats, cpus int) *containertypes.StatsResponse {
	r := &containertypes.StatsResponse{}
	r.CPUStats = containertypes.CPUStats{
		CPUUsage: containertypes.CPUUsage{
			TotalUsage: s.CPU.Total, PercpuUsage: s.CPU.PerCPU,
			UsageInKernelmode: s.CPU.Kernel, UsageInUsermode: s.CPU.User,
		},
		OnlineCPUs: uint32(cpus),
		ThrottlingData: containertypes.ThrottlingData{
			Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.ThrottledTime,
		},
	}
	limit := s.Memory.Limit
	if total := memTotal(); total > 0 && limit > total {
		limit = total
	}
	r.MemoryStats = containertypes.MemoryStats{
		Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Stats: s.Memory.Stats, Failcnt: s.Memory.Failcnt, Limit: limit,
	}
	r.PidsStats = containertypes.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	entries := func(list []cgroup.BlkIOEntry) []containertypes.BlkioStatEntry {
		var out []containertypes.BlkioStatEntry
		for _, e := range list {
			out = append(out, containertypes.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
		}
		return out
	}
	r.BlkioStats = containertypes.BlkioStats{
		IoServiceBytesRecursive: entries(s.BlkIO.ServiceBytes), IoServicedRecursive: entries(s.BlkIO.Serviced),
		IoQueuedRecursive: entries(s.BlkIO.Queued), IoServiceTimeRecursive: entries(s.BlkIO.ServiceTime),
		IoWaitTimeRecursive: entries(s.BlkIO.WaitTime), IoMergedRecursive: entries(s.BlkIO.Merged),
		IoTimeRecursive: entries(s.BlkIO.Time), SectorsRecursive: entries(s.BlkIO.Sectors),
	}
	return r
}

func memTotal() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}

// clockTick is USER_HZ, in which /proc/stat counts: 100 on every architecture
// that Linux containers run on.
const clockTick = 100

// systemCPU is the time in nanoseconds that all processors have spent, idle
// time included (proc(5), /proc/stat): what Docker's clients divide by.
func systemCPU() (uint64, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		field := strings.Fields(in.Text())
		if len(field) < 8 || field[0] != "cpu" {
			continue
		}
		var ticks uint64
		for _, s := range field[1:8] { // user nice system idle iowait irq softirq
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read /proc/stat: %w", err)
			}
			ticks += n
		}
		return ticks * (1e9 / clockTick), nil
	}
	return 0, errors.New("read /proc/stat: it has no cpu line")
}

// networkStats counts what went through the interfaces of a process's network
// namespace.
func networkStats(pid int) (map[string]containertypes.NetworkStats, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("process %d is gone: %w", pid, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	out := map[string]containertypes.NetworkStats{}
	for l := range strings.Lines(string(raw)) {
		name, rest, ok := strings.Cut(l, ":")
		field := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(field) < 12 {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(field[i], 10, 64)
			return v
		}
		out[name] = containertypes.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out, nil
}
