package cgroup

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// everything sets every limit.
func everything() *specs.LinuxResources {
	throttle := func(rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = 8, 16
		return []specs.LinuxThrottleDevice{d}
	}
	weight := specs.LinuxWeightDevice{Weight: ptr(uint16(300)), LeafWeight: ptr(uint16(20))}
	weight.Major, weight.Minor = 8, 0
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{
			Limit: ptr(int64(256 << 20)), Swap: ptr(int64(512 << 20)), Reservation: ptr(int64(128 << 20)),
			Swappiness: ptr(uint64(60)), DisableOOMKiller: ptr(true), Kernel: ptr(int64(1 << 20)),
		},
		CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(10000)),
			RealtimePeriod: ptr(uint64(1000000)), RealtimeRuntime: ptr(int64(900)), Cpus: "0-1", Mems: "0",
		},
		Pids: &specs.LinuxPids{Limit: ptr(int64(100))},
		BlockIO: &specs.LinuxBlockIO{
			Weight: ptr(uint16(500)), LeafWeight: ptr(uint16(10)), WeightDevice: []specs.LinuxWeightDevice{weight},
			ThrottleReadBpsDevice: throttle(1048576), ThrottleWriteBpsDevice: throttle(2097152),
			ThrottleReadIOPSDevice: throttle(100), ThrottleWriteIOPSDevice: throttle(0),
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Network:        &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3))}, "mlx5_0": {HcaHandles: ptr(uint32(2)), HcaObjects: ptr(uint32(2000))}},
	}
}

func TestPlanV1(t *testing.T) {
	p, err := planV1(everything())
	if err != nil {
		t.Fatal(err)
	}
	const want = `memory/memory.limit_in_bytes = 268435456
memory/memory.memsw.limit_in_bytes = 536870912
memory/memory.soft_limit_in_bytes = 134217728
memory/memory.oom_control = 1
memory/memory.swappiness = 60
cpu/cpu.shares = 512
cpu/cpu.rt_period_us = 1000000
cpu/cpu.rt_runtime_us = 900
cpu/cpu.cfs_period_us = 100000
cpu/cpu.cfs_quota_us = 50000
cpu/cpu.cfs_burst_us = 10000
cpuset/cpuset.cpus = 0-1
cpuset/cpuset.mems = 0
pids/pids.max = 100
blkio/blkio.weight = 500 (or blkio.bfq.weight = 500)
blkio/blkio.leaf_weight = 10
blkio/blkio.weight_device = 8:0 300 (or blkio.bfq.weight_device = 8:0 300)
blkio/blkio.leaf_weight_device = 8:0 20
blkio/blkio.throttle.read_bps_device = 8:16 1048576
blkio/blkio.throttle.write_bps_device = 8:16 2097152
blkio/blkio.throttle.read_iops_device = 8:16 100
blkio/blkio.throttle.write_iops_device = 8:16 0
hugetlb/hugetlb.2MB.limit_in_bytes = 4194304
hugetlb/hugetlb.2MB.rsvd.limit_in_bytes = 4194304
net_cls/net_cls.classid = 1048577
net_prio/net_prio.ifpriomap = eth0 5
rdma/rdma.max = mlx5_0 hca_handle=2 hca_object=2000
rdma/rdma.max = mlx5_1 hca_handle=3
`
	if d := cmp.Diff(want, p.String()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"kernel memory limit is left out: Linux no longer has it"}, p.warnings); d != "" {
		t.Error(d)
	}
}

func TestPlanV2(t *testing.T) {
	r := everything()
	r.Unified = map[string]string{"memory.high": "200000000", "io.max": "8:0 rbps=1\n8:16 wbps=2\n"}
	p, err := planV2(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = `pids/pids.max = 100
memory/memory.swap.max = 268435456
memory/memory.max = 268435456
memory/memory.low = 134217728
io/io.bfq.weight = 500 (or io.weight = 4950)
io/io.bfq.weight = 8:0 300 (or io.weight = 8:0 2930)
io/io.max = 8:16 rbps=1048576
io/io.max = 8:16 wbps=2097152
io/io.max = 8:16 riops=100
io/io.max = 8:16 wiops=max
cpu/cpu.weight = 59
cpu/cpu.max = 50000 100000
cpu/cpu.max.burst = 10000
cpuset/cpuset.cpus = 0-1
cpuset/cpuset.mems = 0
hugetlb/hugetlb.2MB.max = 4194304
hugetlb/hugetlb.2MB.rsvd.max = 4194304
rdma/rdma.max = mlx5_0 hca_handle=2 hca_object=2000
rdma/rdma.max = mlx5_1 hca_handle=3
io/io.max = 8:0 rbps=1
io/io.max = 8:16 wbps=2
memory/memory.high = 200000000
`
	if d := cmp.Diff(want, p.String()); d != "" {
		t.Error(d)
	}
	if len(p.warnings) != 5 {
		t.Errorf("warnings %q", p.warnings)
	}
}

// Docker's forms of memory and memory+swap: 0 is unset, -1 unlimited.
func TestMemoryAndSwap(t *testing.T) {
	for _, c := range []struct {
		limit, swap int64
		now         int64
		v1, v2      string
	}{
		{100, 0, 0, "limit_in_bytes = 100", "max = 100"},
		{100, 200, 0, "limit_in_bytes = 100, memsw.limit_in_bytes = 200", "swap.max = 100, max = 100"},
		{100, 100, 0, "limit_in_bytes = 100, memsw.limit_in_bytes = 100", "swap.max = 0, max = 100"},
		{100, -1, 0, "limit_in_bytes = 100, memsw.limit_in_bytes = -1", "swap.max = max, max = 100"},
		{-1, 0, 0, "limit_in_bytes = -1, memsw.limit_in_bytes = -1", "swap.max = max, max = max"},
		{-1, 300, 0, "limit_in_bytes = -1, memsw.limit_in_bytes = 300", "swap.max = 300, max = max"},
		{0, 300, 100, "memsw.limit_in_bytes = 300", "swap.max = 200"},
		{0, 300, -1, "memsw.limit_in_bytes = 300", "swap.max = 300"},
		{0, 300, 0, "memsw.limit_in_bytes = 300", "error"},
		{200, 100, 0, "error", "error"},
		{0, 0, 0, "", ""},
	} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &c.limit, Swap: &c.swap}}
		short := func(p plan, err error) string {
			if errdefs.IsInvalidArgument(err) {
				return "error"
			}
			if err != nil {
				t.Error(err)
			}
			return strings.Join(strings.Split(strings.TrimSuffix(strings.ReplaceAll(p.String(), "memory/memory.", ""), "\n"), "\n"), ", ")
		}
		if got := short(planV1(r)); got != c.v1 {
			t.Errorf("v1 limit %d swap %d: %q, want %q", c.limit, c.swap, got, c.v1)
		}
		if got := short(planV2(r, func() int64 { return c.now })); got != c.v2 {
			t.Errorf("v2 limit %d swap %d now %d: %q, want %q", c.limit, c.swap, c.now, got, c.v2)
		}
	}
}

// The library of runc is the oracle.
func TestConversionsAgreeWithRunc(t *testing.T) {
	for shares := uint64(1); shares < 1<<19; shares++ {
		if got, want := weightOf(shares), cgroups.ConvertCPUSharesToCgroupV2Value(shares); got != want {
			t.Fatalf("cpu.shares %d is cpu.weight %d, want %d", shares, got, want)
		}
	}
	for w := uint16(10); w <= 1000; w++ {
		if got, want := ioWeight(w), cgroups.ConvertBlkIOToIOWeightValue(w); got != want {
			t.Fatalf("blkio.weight %d is io.weight %d, want %d", w, got, want)
		}
	}
}

func TestPlansRefuseWhatTheKernelCannotMean(t *testing.T) {
	for name, r := range map[string]*specs.LinuxResources{
		"swappiness":    {Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(101))}},
		"page size":     {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../../x", Limit: 1}}},
		"page size 2":   {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2M", Limit: 1}}},
		"unified path":  {Unified: map[string]string{"../memory.max": "1"}},
		"unified procs": {Unified: map[string]string{"cgroup.procs": "1"}},
	} {
		_, err1 := planV1(r)
		if r.Unified != nil {
			err1 = nil
		}
		_, err2 := planV2(r, nil)
		if (err1 == nil && r.Unified == nil) || err2 == nil {
			t.Errorf("%s: v1 %v, v2 %v", name, err1, err2)
		}
		for _, err := range []error{err1, err2} {
			if err != nil && !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: class of %v", name, err)
			}
		}
	}
	p, err := planV2(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1 << 40))}}, nil)
	if err != nil || len(p.warnings) != 1 || p.String() != "pids/pids.max = max\n" {
		t.Errorf("a pids limit above the kernel's: %v %v %v", p, p.warnings, err)
	}
}

func TestIdleGroupsHaveNoShares(t *testing.T) {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1)), Shares: ptr(uint64(100))}}
	p, _ := planV1(r)
	q, _ := planV2(r, nil)
	if p.String() != "cpu/cpu.idle = 1\n" || q.String() != "cpu/cpu.idle = 1\n" {
		t.Errorf("v1 %q v2 %q", p, q)
	}
}
