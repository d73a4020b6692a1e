package command

import "github.com/orlop/orlop/internal/linux/cgroup"

// The statistics of `events` in the form that runc prints and its users read
// (runc's package types): sizes in bytes, times in nanoseconds.

type runcStats struct {
	CPU     runcCPU                `json:"cpu"`
	CPUSet  struct{}               `json:"cpuset"`
	Memory  runcMemory             `json:"memory"`
	Pids    runcPids               `json:"pids"`
	Blkio   runcBlkio              `json:"blkio"`
	Hugetlb map[string]runcHugetlb `json:"hugetlb"`
	// IntelRdt is always empty: it is not supported.
	IntelRdt struct{} `json:"intel_rdt"`
	// NetworkInterfaces is always null, as with runc: engines count them.
	NetworkInterfaces []struct{} `json:"network_interfaces"`
}

type runcPSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

type runcPSI struct {
	Some runcPSIData `json:"some"`
	Full runcPSIData `json:"full"`
}

type runcCPU struct {
	Usage      runcCPUUsage   `json:"usage"`
	Throttling runcThrottling `json:"throttling"`
	PSI        *runcPSI       `json:"psi,omitempty"`
}

type runcCPUUsage struct {
	Total  uint64   `json:"total,omitempty"`
	PerCPU []uint64 `json:"percpu,omitempty"`
	Kernel uint64   `json:"kernel"`
	User   uint64   `json:"user"`
}

type runcThrottling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	BurstPeriods     uint64 `json:"burstPeriods,omitempty"`
	BurstTime        uint64 `json:"burstTime,omitempty"`
}

type runcMemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type runcMemory struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     runcMemoryEntry   `json:"usage"`
	Swap      runcMemoryEntry   `json:"swap"`
	Kernel    runcMemoryEntry   `json:"kernel"`
	KernelTCP runcMemoryEntry   `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *runcPSI          `json:"psi,omitempty"`
}

type runcPids struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type runcBlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type runcBlkio struct {
	ServiceBytes []runcBlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []runcBlkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []runcBlkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []runcBlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []runcBlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []runcBlkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []runcBlkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []runcBlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *runcPSI         `json:"psi,omitempty"`
}

type runcHugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// runcForm turns our statistics into that form.
func runcForm(s *cgroup.Stats) *runcStats {
	m := &s.Memory
	out := &runcStats{
		CPU: runcCPU{
			Usage: runcCPUUsage{Total: s.CPU.Total, PerCPU: s.CPU.PerCPU, Kernel: s.CPU.Kernel, User: s.CPU.User},
			Throttling: runcThrottling{
				Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.ThrottledTime,
				BurstPeriods: s.CPU.BurstPeriods, BurstTime: s.CPU.BurstTime,
			},
			PSI: psiForm(s.CPU.PSI),
		},
		Memory: runcMemory{
			Cache:  m.Stats["cache"],
			Usage:  runcMemoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt},
			Swap:   runcMemoryEntry{Limit: m.SwapLimit, Usage: m.SwapUsage},
			Kernel: runcMemoryEntry{Usage: m.Kernel},
			Raw:    m.Stats,
			PSI:    psiForm(m.PSI),
		},
		Pids: runcPids{Current: s.Pids.Current, Limit: s.Pids.Limit},
		Blkio: runcBlkio{
			ServiceBytes: entries(s.BlkIO.ServiceBytes), Serviced: entries(s.BlkIO.Serviced), Queued: entries(s.BlkIO.Queued),
			ServiceTime: entries(s.BlkIO.ServiceTime), WaitTime: entries(s.BlkIO.WaitTime), Merged: entries(s.BlkIO.Merged),
			Time: entries(s.BlkIO.Time), Sectors: entries(s.BlkIO.Sectors), PSI: psiForm(s.BlkIO.PSI),
		},
		Hugetlb: map[string]runcHugetlb{},
	}
	if s.Version == 1 {
		// v1 counts memory and swap together, and runc prints that.
		out.Memory.Swap.Usage = m.Usage + m.SwapUsage
	} else {
		// What the page cache holds is called otherwise on v2, and swap is
		// counted alone: runc adds memory to both of its numbers.
		out.Memory.Cache = m.Stats["file"]
		out.Memory.Swap.Usage = m.Usage + m.SwapUsage
		if m.SwapLimit != ^uint64(0) && m.Limit != ^uint64(0) {
			out.Memory.Swap.Limit = m.Limit + m.SwapLimit
		}
	}
	for size, h := range s.Hugetlb {
		out.Hugetlb[size] = runcHugetlb{Usage: h.Usage, Max: h.Max, Failcnt: h.Failcnt}
	}
	return out
}

func psiForm(p *cgroup.PSI) *runcPSI {
	if p == nil {
		return nil
	}
	return &runcPSI{Some: runcPSIData(p.Some), Full: runcPSIData(p.Full)}
}

func entries(list []cgroup.BlkIOEntry) []runcBlkioEntry {
	out := make([]runcBlkioEntry, len(list))
	for i, e := range list {
		out[i] = runcBlkioEntry(e)
	}
	return out
}
