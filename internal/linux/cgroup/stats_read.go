package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reader reads statistics; a missing file is a missing controller, the first
// other error is kept.
type reader struct{ err error }

func (r *reader) note(err error) {
	if err != nil && r.err == nil && !gone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
		r.err = err
	}
}

func (r *reader) uint(path string) uint64 {
	v, err := readUint(path)
	r.note(err)
	return v
}

func (r *reader) pairs(path string, f func(string, uint64)) { r.note(eachPair(path, f)) }

func (g *group) Stats() (*Stats, error) {
	s := &Stats{Version: 1}
	if g.pure {
		s.Version = 2
	}
	if !exists(g.home()) {
		return nil, fmt.Errorf("read statistics of cgroup %s: %w", g.config.Path, unix.ENOENT)
	}
	var r reader
	if g.pure {
		r.statsV2(g.v2().dir, s)
	} else {
		r.statsV1(g, s)
	}
	if p := g.v2(); p != nil && !g.pure && g.v1("hugetlb") == nil {
		r.hugetlbV2(p.dir, s)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read statistics of cgroup %s: %w", g.config.Path, r.err)
	}
	return s, nil
}

func (r *reader) statsV1(g *group, s *Stats) {
	if p := g.v1("cpuacct"); p != nil {
		s.CPU.Total = r.uint(p.dir + "/cpuacct.usage")
		b, err := readFile(p.dir + "/cpuacct.usage_percpu")
		r.note(err)
		for _, f := range bytes.Fields(b) {
			if v, err := parseUint(f); err == nil {
				s.CPU.PerCPU = append(s.CPU.PerCPU, v)
			}
		}
		// Ticks of 1/100 s, the kernel's USER_HZ on every architecture.
		const tick = 1e9 / 100
		r.pairs(p.dir+"/cpuacct.stat", func(k string, v uint64) {
			switch k {
			case "user":
				s.CPU.User = v * tick
			case "system":
				s.CPU.Kernel = v * tick
			}
		})
	}
	if p := g.v1("cpu"); p != nil {
		r.pairs(p.dir+"/cpu.stat", func(k string, v uint64) {
			switch k {
			case "nr_periods":
				s.CPU.Periods = v
			case "nr_throttled":
				s.CPU.ThrottledPeriods = v
			case "throttled_time":
				s.CPU.ThrottledTime = v
			case "nr_bursts":
				s.CPU.BurstPeriods = v
			case "burst_time":
				s.CPU.BurstTime = v
			}
		})
	}
	if p := g.v1("memory"); p != nil {
		m := &s.Memory
		m.Stats = make(map[string]uint64, 48)
		r.pairs(p.dir+"/memory.stat", func(k string, v uint64) { m.Stats[k] = v })
		m.Usage = r.uint(p.dir + "/memory.usage_in_bytes")
		m.MaxUsage = r.uint(p.dir + "/memory.max_usage_in_bytes")
		m.Failcnt = r.uint(p.dir + "/memory.failcnt")
		m.Limit = noLimit(r.uint(p.dir + "/memory.limit_in_bytes"))
		if both := r.uint(p.dir + "/memory.memsw.usage_in_bytes"); both > m.Usage {
			m.SwapUsage = both - m.Usage
		}
		m.SwapLimit = noLimit(r.uint(p.dir + "/memory.memsw.limit_in_bytes"))
		m.Kernel = r.uint(p.dir + "/memory.kmem.usage_in_bytes")
		r.pairs(p.dir+"/memory.oom_control", func(k string, v uint64) {
			if k == "oom_kill" {
				m.OOMKills = v
			}
		})
	}
	if p := g.v1("pids"); p != nil {
		r.pids(p.dir, s)
	}
	if p := g.v1("blkio"); p != nil {
		r.blkioV1(p.dir, &s.BlkIO)
	}
	if p := g.v1("hugetlb"); p != nil {
		for _, size := range pageSizes(p.dir, ".limit_in_bytes") {
			r.hugetlb(s, size, p.dir+"/hugetlb."+size, ".usage_in_bytes", ".max_usage_in_bytes", ".failcnt")
		}
	}
	if p := g.v1("rdma"); p != nil {
		r.rdma(p.dir, s)
	}
}

// noLimit turns v1's largest limit (the highest page-aligned int64) into v2's.
func noLimit(v uint64) uint64 {
	if v >= math.MaxInt64&^0xffff {
		return math.MaxUint64
	}
	return v
}

func (r *reader) pids(dir string, s *Stats) {
	s.Pids.Current = r.uint(dir + "/pids.current")
	if v := r.uint(dir + "/pids.max"); v != math.MaxUint64 {
		s.Pids.Limit = v
	}
}

func (r *reader) blkioV1(dir string, s *BlkIOStats) {
	// The schedulers' own counters when there are any, else the throttling
	// layer's, which counts every request.
	for _, t := range []struct {
		to    *[]BlkIOEntry
		files []string
	}{
		{&s.ServiceBytes, []string{"io_service_bytes_recursive", "bfq.io_service_bytes_recursive", "throttle.io_service_bytes_recursive", "throttle.io_service_bytes"}},
		{&s.Serviced, []string{"io_serviced_recursive", "bfq.io_serviced_recursive", "throttle.io_serviced_recursive", "throttle.io_serviced"}},
		{&s.Queued, []string{"io_queued_recursive", "bfq.io_queued_recursive"}},
		{&s.ServiceTime, []string{"io_service_time_recursive", "bfq.io_service_time_recursive"}},
		{&s.WaitTime, []string{"io_wait_time_recursive", "bfq.io_wait_time_recursive"}},
		{&s.Merged, []string{"io_merged_recursive", "bfq.io_merged_recursive"}},
		{&s.Time, []string{"time_recursive", "bfq.time_recursive"}},
		{&s.Sectors, []string{"sectors_recursive", "bfq.sectors_recursive"}},
	} {
		for _, f := range t.files {
			b, err := readFile(dir + "/blkio." + f)
			r.note(err)
			if *t.to = parseBlkIO(b); len(*t.to) > 0 {
				break
			}
		}
	}
}

// parseBlkIO reads lines "8:0 Read 4096" or "8:0 4096"; the sum over all
// devices ("Total 4096") is left out.
func parseBlkIO(b []byte) (out []BlkIOEntry) {
	eachLine(b, func(line []byte) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			return
		}
		major, minor, ok := deviceNumbers(f[0])
		if !ok {
			return
		}
		e := BlkIOEntry{Major: major, Minor: minor}
		if len(f) == 3 {
			e.Op = f[1]
		}
		v, err := strconv.ParseUint(f[len(f)-1], 10, 64)
		if err != nil {
			return
		}
		e.Value = v
		out = append(out, e)
	})
	return out
}

func deviceNumbers(s string) (major, minor uint64, ok bool) {
	a, b, found := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, found && err1 == nil && err2 == nil
}

func (r *reader) statsV2(dir string, s *Stats) {
	r.pairs(dir+"/cpu.stat", func(k string, v uint64) {
		switch k { // microseconds
		case "usage_usec":
			s.CPU.Total = v * 1000
		case "user_usec":
			s.CPU.User = v * 1000
		case "system_usec":
			s.CPU.Kernel = v * 1000
		case "nr_periods":
			s.CPU.Periods = v
		case "nr_throttled":
			s.CPU.ThrottledPeriods = v
		case "throttled_usec":
			s.CPU.ThrottledTime = v * 1000
		case "nr_bursts":
			s.CPU.BurstPeriods = v
		case "burst_usec":
			s.CPU.BurstTime = v * 1000
		}
	})
	s.CPU.PSI = r.psi(dir + "/cpu.pressure")

	m := &s.Memory
	m.Stats = make(map[string]uint64, 64)
	r.pairs(dir+"/memory.stat", func(k string, v uint64) { m.Stats[k] = v })
	m.Usage = r.uint(dir + "/memory.current")
	m.MaxUsage = r.uint(dir + "/memory.peak")
	m.Limit = math.MaxUint64
	if v, err := readUint(dir + "/memory.max"); err == nil {
		m.Limit = v
	}
	m.SwapUsage = r.uint(dir + "/memory.swap.current")
	m.SwapLimit = r.uint(dir + "/memory.swap.max")
	r.pairs(dir+"/memory.events", func(k string, v uint64) {
		switch k {
		case "oom_kill":
			m.OOMKills = v
		case "max":
			m.Failcnt = v
		}
	})
	m.PSI = r.psi(dir + "/memory.pressure")

	r.pids(dir, s)
	if !exists(dir + "/pids.current") {
		// No controller: count them.
		pids, err := readPids(dir)
		r.note(err)
		s.Pids.Current = uint64(len(pids))
	}

	b, err := readFile(dir + "/io.stat")
	r.note(err)
	eachLine(b, func(line []byte) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			return
		}
		major, minor, ok := deviceNumbers(f[0])
		if !ok {
			return
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			e := BlkIOEntry{Major: major, Minor: minor, Value: n}
			switch k {
			case "rbytes":
				e.Op = "Read"
				s.BlkIO.ServiceBytes = append(s.BlkIO.ServiceBytes, e)
			case "wbytes":
				e.Op = "Write"
				s.BlkIO.ServiceBytes = append(s.BlkIO.ServiceBytes, e)
			case "rios":
				e.Op = "Read"
				s.BlkIO.Serviced = append(s.BlkIO.Serviced, e)
			case "wios":
				e.Op = "Write"
				s.BlkIO.Serviced = append(s.BlkIO.Serviced, e)
			}
		}
	})
	s.BlkIO.PSI = r.psi(dir + "/io.pressure")
	r.hugetlbV2(dir, s)
	r.rdma(dir, s)
}

func (r *reader) hugetlbV2(dir string, s *Stats) {
	for _, size := range pageSizes(dir, ".max") {
		h := HugetlbStats{Usage: r.uint(dir + "/hugetlb." + size + ".current")}
		r.pairs(dir+"/hugetlb."+size+".events", func(k string, v uint64) {
			if k == "max" {
				h.Failcnt = v
			}
		})
		if s.Hugetlb == nil {
			s.Hugetlb = map[string]HugetlbStats{}
		}
		s.Hugetlb[size] = h
	}
}

func (r *reader) hugetlb(s *Stats, size, prefix, usage, peak, fail string) {
	if s.Hugetlb == nil {
		s.Hugetlb = map[string]HugetlbStats{}
	}
	s.Hugetlb[size] = HugetlbStats{Usage: r.uint(prefix + usage), Max: r.uint(prefix + peak), Failcnt: r.uint(prefix + fail)}
}

// pageSizes are the kernel's huge page sizes that the directory has files for,
// of those any architecture has.
func pageSizes(dir, suffix string) (out []string) {
	for _, s := range []string{"64KB", "256KB", "1MB", "2MB", "4MB", "16MB", "32MB", "256MB", "512MB", "1GB", "2GB", "16GB"} {
		if exists(dir + "/hugetlb." + s + suffix) {
			out = append(out, s)
		}
	}
	return out
}

func (r *reader) rdma(dir string, s *Stats) {
	b, err := readFile(dir + "/rdma.current")
	r.note(err)
	eachLine(b, func(line []byte) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			return
		}
		var st RDMAStats
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "hca_handle":
				st.Handles = n
			case "hca_object":
				st.Objects = n
			}
		}
		if s.RDMA == nil {
			s.RDMA = map[string]RDMAStats{}
		}
		s.RDMA[f[0]] = st
	})
}

// psi reads a pressure file (accounting/psi.rst); nil where the kernel has
// none.
func (r *reader) psi(path string) *PSI {
	b, err := readFile(path)
	if err != nil {
		r.note(err)
		return nil
	}
	var p PSI
	eachLine(b, func(line []byte) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			return
		}
		l := &p.Some
		if f[0] == "full" {
			l = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				l.Avg10, _ = strconv.ParseFloat(v, 64)
			case "avg60":
				l.Avg60, _ = strconv.ParseFloat(v, 64)
			case "avg300":
				l.Avg300, _ = strconv.ParseFloat(v, 64)
			case "total":
				l.Total, _ = strconv.ParseUint(v, 10, 64)
			}
		}
	})
	return &p
}
