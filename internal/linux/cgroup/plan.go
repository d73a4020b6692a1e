package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// write is one control file to write. Limits become a list of writes first;
// the list is what is tested and logged, and performing it is dumb.
type write struct {
	// controller that has the file; on v1 it names the hierarchy.
	controller string
	file       string
	value      string
	// instead is used when file does not exist (a scheduler's own name for
	// the same thing).
	instead, insteadValue string
	// optional says what is lost when the host has no such file: a warning
	// rather than an error, where Docker's daemon would have discarded the
	// limit with one too. "-" is not even worth a warning.
	optional string
}

// String is the form tests compare: "memory/memory.max = 1".
func (w write) String() string {
	s := w.controller + "/" + w.file + " = " + w.value
	if w.instead != "" {
		s += " (or " + w.instead + " = " + w.insteadValue + ")"
	}
	return s
}

// plan is an ordered list of writes and what could not become one.
type plan struct {
	writes   []write
	warnings []string
}

// String is one write a line.
func (p plan) String() string {
	var b strings.Builder
	for _, w := range p.writes {
		b.WriteString(w.String())
		b.WriteByte('\n')
	}
	return b.String()
}

func (p *plan) add(controller, file, value string) {
	p.writes = append(p.writes, write{controller: controller, file: file, value: value})
}

func (p *plan) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func itoa(v int64) string  { return strconv.FormatInt(v, 10) }
func utoa(v uint64) string { return strconv.FormatUint(v, 10) }

// pidsMax is the kernel's largest limit, PID_MAX_LIMIT.
const pidsMax = 4 * 1024 * 1024

// pids is the same on v1 and v2. 0 becomes 1, as runc does: systemd cannot
// say 0, and no process fits either way.
func (p *plan) pids(r *specs.LinuxResources) {
	if r.Pids == nil || r.Pids.Limit == nil {
		return
	}
	switch n := *r.Pids.Limit; {
	case n < 0:
		p.add("pids", "pids.max", "max")
	case n == 0:
		p.add("pids", "pids.max", "1")
	case n > pidsMax:
		p.warn("pids limit %d is above the kernel's %d: unlimited", n, pidsMax)
		p.add("pids", "pids.max", "max")
	default:
		p.add("pids", "pids.max", itoa(n))
	}
}

// rdma is the same on v1 and v2 (admin-guide/cgroup-v1/rdma.rst).
func (p *plan) rdma(r *specs.LinuxResources) {
	for _, dev := range sortedKeys(r.Rdma) {
		l := r.Rdma[dev]
		value := dev
		if l.HcaHandles != nil {
			value += " hca_handle=" + utoa(uint64(*l.HcaHandles))
		}
		if l.HcaObjects != nil {
			value += " hca_object=" + utoa(uint64(*l.HcaObjects))
		}
		if value != dev {
			p.add("rdma", "rdma.max", value)
		}
	}
}

// planV1 lists the writes of v1 (admin-guide/cgroup-v1). Unset fields are not
// written. The order of a pair does not matter: perform tries a write that is
// refused again after its neighbors.
func planV1(r *specs.LinuxResources) (plan, error) {
	var p plan
	if err := p.memoryV1(r.Memory); err != nil {
		return p, err
	}
	p.cpuV1(r.CPU)
	p.pids(r)
	p.blkioV1(r.BlockIO)
	for _, l := range r.HugepageLimits {
		if err := checkPageSize(l.Pagesize); err != nil {
			return p, err
		}
		p.add("hugetlb", "hugetlb."+l.Pagesize+".limit_in_bytes", utoa(l.Limit))
		p.writes = append(p.writes, write{controller: "hugetlb", file: "hugetlb." + l.Pagesize + ".rsvd.limit_in_bytes", value: utoa(l.Limit), optional: "-"})
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			p.add("net_cls", "net_cls.classid", utoa(uint64(*n.ClassID)))
		}
		for _, i := range n.Priorities {
			p.add("net_prio", "net_prio.ifpriomap", i.Name+" "+utoa(uint64(i.Priority)))
		}
	}
	p.rdma(r)
	return p, nil
}

func (p *plan) memoryV1(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	limit, swap := value(m.Limit), value(m.Swap)
	if limit == -1 && swap == 0 {
		swap = -1 // unlimited memory means unlimited memory+swap
	}
	if limit > 0 && swap > 0 && swap < limit {
		return invalid("memory+swap limit %d is below the memory limit %d", swap, limit)
	}
	if limit != 0 {
		p.add("memory", "memory.limit_in_bytes", itoa(limit))
	}
	if swap != 0 {
		w := write{controller: "memory", file: "memory.memsw.limit_in_bytes", value: itoa(swap), optional: "memory is limited without swap: the kernel does not account swap"}
		if swap == -1 {
			w.optional = "-"
		}
		p.writes = append(p.writes, w)
	}
	if v := value(m.Reservation); v != 0 {
		p.add("memory", "memory.soft_limit_in_bytes", itoa(v))
	}
	if value(m.Kernel) > 0 || value(m.KernelTCP) > 0 { //nolint:staticcheck // old clients still send it
		p.warn("kernel memory limit is left out: Linux no longer has it")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		p.add("memory", "memory.oom_control", "1")
	}
	if m.Swappiness != nil && *m.Swappiness != math.MaxUint64 { // -1, unset, as uint64
		if *m.Swappiness > 100 {
			return invalid("memory swappiness %d is not within 0 and 100", *m.Swappiness)
		}
		p.add("memory", "memory.swappiness", utoa(*m.Swappiness))
	}
	return nil
}

func (p *plan) cpuV1(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	idle := c.Idle != nil && *c.Idle != 0
	if c.Idle != nil {
		p.writes = append(p.writes, write{controller: "cpu", file: "cpu.idle", value: itoa(*c.Idle), optional: "cpu idle is left out: the kernel does not have it (since Linux 5.15)"})
	}
	if c.Shares != nil && *c.Shares != 0 && !idle {
		p.add("cpu", "cpu.shares", utoa(*c.Shares))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		p.add("cpu", "cpu.rt_period_us", utoa(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		p.add("cpu", "cpu.rt_runtime_us", itoa(*c.RealtimeRuntime))
	}
	if c.Period != nil && *c.Period != 0 {
		p.add("cpu", "cpu.cfs_period_us", utoa(*c.Period))
	}
	if c.Quota != nil && *c.Quota != 0 {
		p.add("cpu", "cpu.cfs_quota_us", itoa(*c.Quota))
	}
	if c.Burst != nil {
		p.writes = append(p.writes, write{controller: "cpu", file: "cpu.cfs_burst_us", value: utoa(*c.Burst), optional: "cpu burst is left out: the kernel does not have it (since Linux 5.14)"})
	}
	if c.Cpus != "" {
		p.add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		p.add("cpuset", "cpuset.mems", c.Mems)
	}
}

const noWeight = "block IO weight is left out: no IO scheduler of this host has it"

func (p *plan) blkioV1(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	weight := func(file, bfq, v string) {
		p.writes = append(p.writes, write{controller: "blkio", file: "blkio." + file, value: v, instead: bfq, insteadValue: v, optional: noWeight})
	}
	if b.Weight != nil && *b.Weight != 0 {
		weight("weight", "blkio.bfq.weight", utoa(uint64(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		weight("leaf_weight", "", utoa(uint64(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weight("weight_device", "blkio.bfq.weight_device", device(d.Major, d.Minor)+" "+utoa(uint64(*d.Weight)))
		}
		if d.LeafWeight != nil {
			weight("leaf_weight_device", "", device(d.Major, d.Minor)+" "+utoa(uint64(*d.LeafWeight)))
		}
	}
	for _, t := range []struct {
		file string
		list []specs.LinuxThrottleDevice
	}{
		{"read_bps", b.ThrottleReadBpsDevice}, {"write_bps", b.ThrottleWriteBpsDevice},
		{"read_iops", b.ThrottleReadIOPSDevice}, {"write_iops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			p.add("blkio", "blkio.throttle."+t.file+"_device", device(d.Major, d.Minor)+" "+utoa(d.Rate))
		}
	}
}

// planV2 lists the writes of v2 (admin-guide/cgroup-v2.rst). memoryNow is the
// group's present memory limit, -1 for none: what memory+swap is
// computed from when the resources change only swap.
func planV2(r *specs.LinuxResources, memoryNow func() int64) (plan, error) {
	var p plan
	p.pids(r)
	if err := p.memoryV2(r.Memory, memoryNow); err != nil {
		return p, err
	}
	p.ioV2(r.BlockIO)
	p.cpuV2(r.CPU)
	for _, l := range r.HugepageLimits {
		if err := checkPageSize(l.Pagesize); err != nil {
			return p, err
		}
		p.add("hugetlb", "hugetlb."+l.Pagesize+".max", utoa(l.Limit))
		p.writes = append(p.writes, write{controller: "hugetlb", file: "hugetlb." + l.Pagesize + ".rsvd.max", value: utoa(l.Limit), optional: "-"})
	}
	if n := r.Network; n != nil && (n.ClassID != nil && *n.ClassID != 0 || len(n.Priorities) > 0) {
		p.warn("network class and priorities are left out: cgroup v2 does not have them")
	}
	p.rdma(r)
	// Last: what is said in the kernel's own words wins.
	for _, file := range sortedKeys(r.Unified) {
		controller, _, ok := strings.Cut(file, ".")
		if !ok || strings.ContainsAny(file, "/\x00") || file == "cgroup.procs" || file == "cgroup.threads" {
			return p, invalid("unified %q is not a control file", file)
		}
		// A multi-line value is one write a line ("io.max").
		for v := range strings.Lines(r.Unified[file]) {
			p.add(controller, file, strings.TrimSuffix(v, "\n"))
		}
		if r.Unified[file] == "" {
			p.add(controller, file, "")
		}
	}
	return p, nil
}

func (p *plan) memoryV2(m *specs.LinuxMemory, memoryNow func() int64) error {
	if m == nil {
		return nil
	}
	limit, swap := value(m.Limit), value(m.Swap)
	both := limit
	if limit == 0 && swap > 0 && memoryNow != nil {
		both = memoryNow()
	}
	switch {
	case limit == -1 && swap == 0, swap == -1:
		p.writes = append(p.writes, write{controller: "memory", file: "memory.swap.max", value: "max", optional: "-"})
	case swap == 0:
	case both == 0:
		return invalid("memory+swap limit %d needs a memory limit", swap)
	case both > 0 && swap < both:
		return invalid("memory+swap limit %d is below the memory limit %d", swap, both)
	default:
		if both < 0 {
			both = 0 // unlimited memory: all of it may be swap
		}
		w := write{controller: "memory", file: "memory.swap.max", value: itoa(swap - both), optional: "memory is limited without swap: the kernel does not account swap"}
		if swap == both {
			w.optional = "-"
		}
		p.writes = append(p.writes, w)
	}
	if limit != 0 {
		p.add("memory", "memory.max", max64(limit))
	}
	if v := value(m.Reservation); v != 0 {
		p.add("memory", "memory.low", max64(v))
	}
	if value(m.Kernel) > 0 || value(m.KernelTCP) > 0 { //nolint:staticcheck // old clients still send it
		p.warn("kernel memory limit is left out: Linux no longer has it")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		p.warn("the OOM killer stays on: cgroup v2 cannot switch it off")
	}
	if m.Swappiness != nil && *m.Swappiness != math.MaxUint64 {
		if *m.Swappiness > 100 {
			return invalid("memory swappiness %d is not within 0 and 100", *m.Swappiness)
		}
		p.warn("memory swappiness is left out: cgroup v2 does not have it")
	}
	return nil
}

func (p *plan) cpuV2(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	idle := c.Idle != nil && *c.Idle != 0
	if c.Idle != nil {
		p.writes = append(p.writes, write{controller: "cpu", file: "cpu.idle", value: itoa(*c.Idle), optional: "cpu idle is left out: the kernel does not have it (since Linux 5.15)"})
	}
	if c.Shares != nil && *c.Shares != 0 && !idle {
		p.add("cpu", "cpu.weight", utoa(weightOf(*c.Shares)))
	}
	if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
		v := "max"
		if c.Quota != nil && *c.Quota > 0 {
			v = itoa(*c.Quota)
		}
		period := uint64(100000) // the kernel's default, in microseconds
		if c.Period != nil && *c.Period != 0 {
			period = *c.Period
		}
		p.add("cpu", "cpu.max", v+" "+utoa(period))
	}
	if c.Burst != nil {
		p.writes = append(p.writes, write{controller: "cpu", file: "cpu.max.burst", value: utoa(*c.Burst), optional: "cpu burst is left out: the kernel does not have it (since Linux 5.14)"})
	}
	if value(c.RealtimeRuntime) != 0 || c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		p.warn("real-time cpu limits are left out: cgroup v2 does not have them")
	}
	if c.Cpus != "" {
		p.add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		p.add("cpuset", "cpuset.mems", c.Mems)
	}
}

// weightOf maps v1's cpu.shares (2…262144, default 1024) to cpu.weight
// (1…10000, default 100). It is the curve runc, crun and systemd's users agreed
// on, through (2, 1), (1024, 100) and (262144, 10000):
// log10(weight) = (l² + 125 l)/612 − 7/34 with l = log2(shares).
func weightOf(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (p *plan) ioV2(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	weight := func(dev string, w uint16) {
		// BFQ takes 1…1000 as it is; io.weight's range is 1…10000, Docker's 10…1000.
		p.writes = append(p.writes, write{controller: "io", file: "io.bfq.weight", value: dev + utoa(uint64(w)),
			instead: "io.weight", insteadValue: dev + utoa(ioWeight(w)), optional: noWeight})
	}
	if b.Weight != nil && *b.Weight != 0 {
		weight("", *b.Weight)
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weight(device(d.Major, d.Minor)+" ", *d.Weight)
		}
	}
	for _, t := range []struct {
		key  string
		list []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			rate := "max"
			if d.Rate != 0 {
				rate = utoa(d.Rate)
			}
			p.add("io", "io.max", device(d.Major, d.Minor)+" "+t.key+"="+rate)
		}
	}
}

// ioWeight maps blkio.weight (10…1000) to io.weight (1…10000) linearly.
func ioWeight(w uint16) uint64 {
	if w < 10 {
		return 1
	}
	return 1 + (uint64(w)-10)*9999/990
}

func device(major, minor int64) string { return itoa(major) + ":" + itoa(minor) }

func value(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

// max64 writes -1, which means no limit, in v2's word.
func max64(v int64) string {
	if v < 0 {
		return "max"
	}
	return itoa(v)
}

// checkPageSize takes the kernel's spelling: "64KB", "2MB", "1GB".
func checkPageSize(s string) error {
	digits := strings.TrimRight(s, "KMGB")
	if n, err := strconv.ParseUint(digits, 10, 32); err != nil || n == 0 || (s[len(digits):] != "KB" && s[len(digits):] != "MB" && s[len(digits):] != "GB") {
		return invalid("huge page size %q is not like 2MB", s)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
