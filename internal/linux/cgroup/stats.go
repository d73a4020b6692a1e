package cgroup

// Stats is the usage of a group. Times are nanoseconds, sizes bytes.
type Stats struct {
	// Version is 1 or 2: Docker's clients compute memory usage differently.
	Version int         `json:"version"`
	CPU     CPUStats    `json:"cpu"`
	Memory  MemoryStats `json:"memory"`
	Pids    PidsStats   `json:"pids"`
	BlkIO   BlkIOStats  `json:"blkio"`
	// Hugetlb by page size ("2MB").
	Hugetlb map[string]HugetlbStats `json:"hugetlb,omitempty"`
	// RDMA by device; nil without the controller.
	RDMA map[string]RDMAStats `json:"rdma,omitempty"`
}

// CPUStats is processor time.
type CPUStats struct {
	Total  uint64 `json:"total"`
	User   uint64 `json:"user"`
	Kernel uint64 `json:"kernel"`
	// PerCPU is v1 only.
	PerCPU []uint64 `json:"perCPU,omitempty"`
	// Periods, ThrottledPeriods and ThrottledTime are of the quota.
	Periods          uint64 `json:"periods"`
	ThrottledPeriods uint64 `json:"throttledPeriods"`
	ThrottledTime    uint64 `json:"throttledTime"`
	BurstPeriods     uint64 `json:"burstPeriods,omitempty"`
	BurstTime        uint64 `json:"burstTime,omitempty"`
	PSI              *PSI   `json:"psi,omitempty"`
}

// MemoryStats is memory usage; Limit is ^uint64(0) when there is none.
type MemoryStats struct {
	Usage    uint64 `json:"usage"`
	MaxUsage uint64 `json:"maxUsage,omitempty"`
	Limit    uint64 `json:"limit"`
	Failcnt  uint64 `json:"failcnt,omitempty"`
	// SwapUsage is swap alone; SwapLimit is swap alone on v2 and
	// memory+swap on v1, as the kernel counts.
	SwapUsage uint64 `json:"swapUsage,omitempty"`
	SwapLimit uint64 `json:"swapLimit,omitempty"`
	// Kernel is kernel memory (v1).
	Kernel uint64 `json:"kernel,omitempty"`
	// Stats are the lines of memory.stat.
	Stats map[string]uint64 `json:"stats,omitempty"`
	// OOMKills counts killed processes.
	OOMKills uint64 `json:"oomKills,omitempty"`
	PSI      *PSI   `json:"psi,omitempty"`
}

// PidsStats counts tasks; Limit 0 is none.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// BlkIOEntry is one counter of one device.
type BlkIOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	// Op is "Read", "Write", "Sync", "Async", "Discard", "Total" or empty.
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value"`
}

// BlkIOStats has the names of Docker's API; v2 fills the first two.
type BlkIOStats struct {
	ServiceBytes []BlkIOEntry `json:"serviceBytes,omitempty"`
	Serviced     []BlkIOEntry `json:"serviced,omitempty"`
	Queued       []BlkIOEntry `json:"queued,omitempty"`
	ServiceTime  []BlkIOEntry `json:"serviceTime,omitempty"`
	WaitTime     []BlkIOEntry `json:"waitTime,omitempty"`
	Merged       []BlkIOEntry `json:"merged,omitempty"`
	Time         []BlkIOEntry `json:"time,omitempty"`
	Sectors      []BlkIOEntry `json:"sectors,omitempty"`
	PSI          *PSI         `json:"psi,omitempty"`
}

// HugetlbStats is usage of one huge page size.
type HugetlbStats struct {
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// RDMAStats is usage of one RDMA device.
type RDMAStats struct {
	Handles uint64 `json:"handles"`
	Objects uint64 `json:"objects"`
}

// PSI is pressure stall information (v2, or v1's v2 side on a hybrid host).
type PSI struct {
	Some PSILine `json:"some"`
	Full PSILine `json:"full"`
}

// PSILine has averages in percent and the total stall time in microseconds.
type PSILine struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}
