package cgroup

import (
	"slices"
	"strings"
	"testing"
)

func TestSupportedIsWhatAGroupHas(t *testing.T) {
	for _, w := range worlds(t) {
		t.Run(w.name, func(t *testing.T) {
			s, err := Supported(w.config.Root)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", s)
			if want := map[string]int{"v1": 1, "v2": 2}[w.name]; s.Version != want {
				t.Errorf("version %d", s.Version)
			}
			if s.Memory != w.memory || !slices.IsSorted(s.Controllers) {
				t.Errorf("%+v", s)
			}
			g := newTestGroup(t, w)
			create(t, g, nil)
			for file, said := range map[string]bool{
				"memory/memory.limit_in_bytes": s.Memory, "memory/memory.memsw.limit_in_bytes": s.Swap, "cpu/cpu.cfs_quota_us": s.CPUQuota,
				"cpuset/cpuset.cpus": s.Cpuset, "pids/pids.max": s.Pids, "cpu/cpu.rt_runtime_us": s.CPURealtime,
			} {
				controller, name, _ := strings.Cut(file, "/")
				if p := g.v1(controller); p != nil && exists(p.dir+"/"+name) != said {
					t.Errorf("%s: said %v", file, said)
				}
			}
			if p := g.v1("blkio"); p != nil && s.BlkIOWeight != (exists(p.dir+"/blkio.weight") || exists(p.dir+"/blkio.bfq.weight")) {
				t.Errorf("block IO weight: said %v", s.BlkIOWeight)
			}
		})
	}
}
