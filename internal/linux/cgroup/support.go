package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Support is which limits this host can set, for a daemon that discards the
// others with a warning before a container has them, and for its info.
type Support struct {
	// Version is 2 when cgroup v2 has the controllers, else 1 (also hybrid).
	Version int
	// Controllers in the kernel's names, sorted; on a hybrid host of both
	// versions.
	Controllers []string

	Memory, Swap, MemoryReservation, Swappiness, OOMKillDisable bool
	CPUShares, CPUQuota, CPURealtime, Cpuset                    bool
	Pids, BlkIOWeight, BlkIOThrottle, Hugetlb, Devices, Freezer bool
	// Cpus and Mems are the processors and memory nodes containers may have,
	// as lists ("0-3"); empty when not known.
	Cpus, Mems string
}

// Supported looks at the mounted hierarchies. root is as in Config.
func Supported(root string) (Support, error) {
	hs, err := find(root, false)
	if err != nil {
		return Support{}, err
	}
	s := Support{Version: 1}
	for i := range hs {
		h := &hs[i]
		if h.v2 {
			all, err := readText(h.mount + "/cgroup.controllers")
			if err != nil {
				return s, err
			}
			c := strings.Fields(all)
			s.Controllers = append(s.Controllers, c...)
			s.Hugetlb = s.Hugetlb || slices.Contains(c, "hugetlb")
			if len(hs) == 1 {
				s.lookV2(h.mount, c)
			}
			continue
		}
		for _, c := range h.controllers {
			if !strings.HasPrefix(c, "name=") {
				s.Controllers = append(s.Controllers, c)
			}
		}
		s.lookV1(h)
	}
	slices.Sort(s.Controllers)
	return s, nil
}

func (s *Support) lookV1(h *hierarchy) {
	has := func(file string) bool { return exists(h.mount + "/" + file) }
	for _, c := range h.controllers {
		switch c {
		case "memory":
			s.Memory = true
			s.Swap = has("memory.memsw.limit_in_bytes")
			s.MemoryReservation = has("memory.soft_limit_in_bytes")
			s.Swappiness = has("memory.swappiness")
			s.OOMKillDisable = has("memory.oom_control")
		case "cpu":
			s.CPUShares = has("cpu.shares")
			s.CPUQuota = has("cpu.cfs_quota_us")
			s.CPURealtime = has("cpu.rt_runtime_us")
		case "cpuset":
			s.Cpuset = true
			s.Cpus, _ = readText(h.mount + "/cpuset.cpus")
			s.Mems, _ = readText(h.mount + "/cpuset.mems")
		case "pids":
			s.Pids = true
		case "blkio":
			s.BlkIOThrottle = has("blkio.throttle.read_bps_device")
			s.BlkIOWeight = BlkIOWeight(h.mount)
		case "hugetlb":
			s.Hugetlb = true
		case "devices":
			s.Devices = true
		case "freezer":
			s.Freezer = true
		}
	}
}

// BlkIOWeight reports whether groups of a v1 blkio hierarchy have a weight, of BFQ or
// CFQ. The root group has none, so it is looked for in any other group, or in one
// that is made for it.
func BlkIOWeight(mount string) bool {
	weighs := func(dir string) bool { return exists(dir+"/blkio.weight") || exists(dir+"/blkio.bfq.weight") }
	entries, err := os.ReadDir(mount)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.IsDir() {
			return weighs(filepath.Join(mount, e.Name()))
		}
	}
	dir, err := os.MkdirTemp(mount, fmt.Sprintf("orlop-probe-%d-", os.Getpid()))
	if err != nil {
		return false
	}
	defer func() { _ = os.Remove(dir) }() // empty: nothing but the kernel can hold it
	return weighs(dir)
}

func (s *Support) lookV2(mount string, controllers []string) {
	has := func(c string) bool { return slices.Contains(controllers, c) }
	s.Version = 2
	s.Memory, s.MemoryReservation = has("memory"), has("memory")
	// The root group has no memory.swap.max; the kernel accounts swap
	// unless it was built or started without.
	s.Swap = s.Memory && exists("/proc/swaps") && !bootedWithout("swapaccount=0")
	s.CPUShares, s.CPUQuota = has("cpu"), has("cpu")
	s.Cpuset, s.Pids, s.Hugetlb = has("cpuset"), has("pids"), has("hugetlb")
	s.BlkIOThrottle, s.BlkIOWeight = has("io"), has("io")
	s.Devices, s.Freezer = true, true // not controllers on v2
	s.Cpus, _ = readText(mount + "/cpuset.cpus.effective")
	s.Mems, _ = readText(mount + "/cpuset.mems.effective")
}

func bootedWithout(option string) bool {
	b, err := readFile("/proc/cmdline")
	if errors.Is(err, unix.ENOENT) {
		return false
	}
	return slices.Contains(strings.Fields(string(b)), option)
}
