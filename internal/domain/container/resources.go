package container

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	containertypes "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// minMemory is not the kernel's limit: less than this cannot even start.
const minMemory = 6 << 20

// maxListed bounds the numbers of a cpuset list (CVE-2018-20699).
const maxListed = 8192

// ValidateResources checks the limits of an update request.
func ValidateResources(r *containertypes.Resources, facts HostFacts) ([]string, error) {
	warnings, err := validateResources(r, facts, true)
	if err != nil {
		return warnings, withText(errdefs.ErrInvalidArgument, err.Error())
	}
	return warnings, nil
}

// validateResources takes out what the kernel does not have, with a warning,
// and refuses what makes no sense. update allows a swap limit alone.
func validateResources(r *containertypes.Resources, facts HostFacts, update bool) (warnings []string, _ error) {
	warn := func(text string) { warnings = append(warnings, text) }
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
		r.MemorySwappiness = nil // the API's spelling of "not set"
	}

	if r.Memory != 0 && r.Memory < minMemory {
		return warnings, errors.New("Minimum memory limit allowed is 6MB")
	}
	if r.Memory > 0 && !facts.MemoryLimit {
		warn("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.Memory, r.MemorySwap = 0, -1
	}
	if r.Memory > 0 && r.MemorySwap != -1 && !facts.SwapLimit {
		warn("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		r.MemorySwap = -1
	}
	if r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory {
		return warnings, errors.New("Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	if r.Memory == 0 && r.MemorySwap > 0 && !update {
		return warnings, errors.New("You should always set the Memory limit when using Memoryswap limit, see usage")
	}
	if r.MemorySwappiness != nil && !facts.MemorySwappiness {
		warn("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		r.MemorySwappiness = nil
	}
	if s := r.MemorySwappiness; s != nil && (*s < 0 || *s > 100) {
		return warnings, fmt.Errorf("Invalid value: %v, valid memory swappiness range is 0-100", *s)
	}
	if r.MemoryReservation > 0 && !facts.MemoryReservation {
		warn("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.MemoryReservation = 0
	}
	if r.MemoryReservation > 0 && r.MemoryReservation < minMemory {
		return warnings, errors.New("Minimum memory reservation allowed is 6MB")
	}
	if r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation {
		return warnings, errors.New("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if r.OomKillDisable != nil && !facts.OomKillDisable {
		if *r.OomKillDisable {
			warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
		}
		r.OomKillDisable = nil
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warn("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if r.PidsLimit != nil && !facts.PidsLimit {
		if *r.PidsLimit > 0 {
			warn("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
		}
		r.PidsLimit = nil
	}

	if r.NanoCPUs > 0 && r.CPUPeriod > 0 {
		return warnings, errors.New("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	}
	if r.NanoCPUs > 0 && r.CPUQuota > 0 {
		return warnings, errors.New("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	}
	if r.NanoCPUs > 0 && !facts.CPUCfs {
		return warnings, errors.New("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	}
	if r.NanoCPUs < 0 || r.NanoCPUs > int64(facts.NCPU)*1e9 {
		return warnings, fmt.Errorf("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", facts.NCPU)
	}
	if r.CPUShares < 0 {
		return warnings, fmt.Errorf("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	}
	if r.CPUShares > 0 && !facts.CPUShares {
		warn("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
		r.CPUShares = 0
	}
	if (r.CPUPeriod != 0 || r.CPUQuota != 0) && !facts.CPUCfs {
		warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
		r.CPUPeriod, r.CPUQuota = 0, 0
	}
	if r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000) {
		return warnings, errors.New("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	}
	if r.CPUQuota > 0 && r.CPUQuota < 1000 {
		return warnings, errors.New("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && !facts.CPURealtime {
		return warnings, errors.New("kernel does not support CPU real-time scheduler")
	}
	if r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod {
		return warnings, errors.New("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if r.CPUPercent > 0 {
		warn("linux does not support CPU percent. Percent discarded.")
		r.CPUPercent = 0
	}

	if (r.CpusetCpus != "" || r.CpusetMems != "") && !facts.Cpuset {
		warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.")
		r.CpusetCpus, r.CpusetMems = "", ""
	}
	for _, set := range []struct{ requested, available, short, long string }{
		{r.CpusetCpus, facts.Cpus, "cpuset cpus", "CPUs"},
		{r.CpusetMems, facts.Mems, "cpuset mems", "memory nodes"},
	} {
		ok, err := listContains(set.available, set.requested)
		if err != nil {
			return warnings, fmt.Errorf("Invalid value %s for %s: %w", set.requested, set.short, err)
		}
		if !ok {
			return warnings, fmt.Errorf("Requested %s are not available - requested %s, available: %s", set.long, set.requested, set.available)
		}
	}

	if r.BlkioWeight > 0 && !facts.BlkioWeight {
		warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
		r.BlkioWeight = 0
	}
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return warnings, errors.New("Range of blkio weight is from 10 to 1000")
	}
	if r.IOMaximumBandwidth != 0 || r.IOMaximumIOps != 0 {
		return warnings, errors.New("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
	}
	if len(r.BlkioWeightDevice) > 0 && !facts.BlkioWeightDevice {
		warn("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
		r.BlkioWeightDevice = nil
	}
	for _, t := range []struct {
		devices *[]*blkiodev.ThrottleDevice
		have    bool
		text    string
	}{
		{&r.BlkioDeviceReadBps, facts.BlkioReadBps, "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded."},
		{&r.BlkioDeviceWriteBps, facts.BlkioWriteBps, "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded."},
		{&r.BlkioDeviceReadIOps, facts.BlkioReadIOps, "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded."},
		{&r.BlkioDeviceWriteIOps, facts.BlkioWriteIOps, "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded."},
	} {
		if len(*t.devices) > 0 && !t.have {
			warn(t.text)
			*t.devices = nil
		}
	}
	return warnings, nil
}

// listContains reports whether every number of requested ("0-2,4") is in
// available.
func listContains(available, requested string) (bool, error) {
	want, err := parseList(requested)
	if err != nil {
		return false, err
	}
	have, err := parseList(strings.TrimSpace(available))
	if err != nil {
		return false, err
	}
	for n := range want {
		if !have[n] {
			return false, nil
		}
	}
	return true, nil
}

func parseList(list string) (map[int]bool, error) {
	out := map[int]bool{}
	if list == "" {
		return out, nil
	}
	bad := fmt.Errorf("invalid format: %s", list)
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return nil, bad
		}
		until, err := strconv.Atoi(last)
		if err != nil || until < from {
			return nil, bad
		}
		if until > maxListed {
			return nil, fmt.Errorf("value of out range, maximum is %d", maxListed)
		}
		for n := from; n <= until; n++ {
			out[n] = true
		}
	}
	return out, nil
}

// DeviceNumbers finds the numbers of a block device by its path.
type DeviceNumbers func(path string) (major, minor int64, err error)

// Limits turns a container's resources into those of its runtime. Device lists
// of the spec are not part of it.
func Limits(r containertypes.Resources, numbers DeviceNumbers) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: memoryLimits(r), CPU: cpuLimits(r), Pids: pidsLimit(r)}
	io := &specs.LinuxBlockIO{}
	if r.BlkioWeight != 0 {
		w := r.BlkioWeight
		io.Weight = &w
	}
	for _, d := range r.BlkioWeightDevice {
		w := d.Weight
		dev := specs.LinuxWeightDevice{Weight: &w}
		var err error
		if dev.Major, dev.Minor, err = numbers(d.Path); err != nil {
			return nil, err
		}
		io.WeightDevice = append(io.WeightDevice, dev)
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		into *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &io.ThrottleReadBpsDevice},
		{r.BlkioDeviceWriteBps, &io.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &io.ThrottleReadIOPSDevice},
		{r.BlkioDeviceWriteIOps, &io.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			dev := specs.LinuxThrottleDevice{Rate: d.Rate}
			var err error
			if dev.Major, dev.Minor, err = numbers(d.Path); err != nil {
				return nil, err
			}
			*t.into = append(*t.into, dev)
		}
	}
	out.BlockIO = io
	return out, nil
}

func memoryLimits(r containertypes.Resources) *specs.LinuxMemory {
	var m specs.LinuxMemory
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwap > 0 {
		m.Swap = &r.MemorySwap
	}
	if r.MemorySwappiness != nil {
		s := uint64(*r.MemorySwappiness)
		m.Swappiness = &s
	}
	m.DisableOOMKiller = r.OomKillDisable
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

// cfsPeriod in microseconds is what --cpus is counted in.
const cfsPeriod = 100000

func cpuLimits(r containertypes.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares != 0 {
		n := uint64(r.CPUShares)
		c.Shares = &n
	}
	if r.NanoCPUs > 0 {
		period := uint64(cfsPeriod)
		quota := r.NanoCPUs * cfsPeriod / 1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod != 0 {
		n := uint64(r.CPUPeriod)
		c.Period = &n
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod != 0 {
		n := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &n
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func pidsLimit(r containertypes.Resources) *specs.LinuxPids {
	if r.PidsLimit == nil {
		return nil
	}
	n := *r.PidsLimit
	if n <= 0 {
		n = -1 // the runtime's spelling of unlimited
	}
	return &specs.LinuxPids{Limit: &n}
}
