package command

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// number is an option that remembers whether it was given.
type number[T int64 | uint64] struct {
	to    **T
	bytes bool
}

func (n number[T]) String() string { return "" }

func (n number[T]) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil && n.bytes {
		v, err = units.RAMInBytes(s)
	}
	if err != nil {
		return fmt.Errorf("not a number: %q", s)
	}
	t := T(v)
	*n.to = &t
	return nil
}

func update(ctx context.Context, g *global, args []string) (int, error) {
	fs := g.options("update", "ID")
	r := &specs.LinuxResources{}
	memory, cpu := &specs.LinuxMemory{}, &specs.LinuxCPU{}
	var pids, blkio *int64
	file := fs.String("resources", "", `file with a resources object, "-" is the standard input`)
	fs.StringVar(file, "r", "", "short for --resources")
	resourceOptions(fs, memory, cpu, &pids, &blkio)
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if *file != "" {
		if r, err = readResources(*file); err != nil {
			return 0, err
		}
	} else {
		if *memory != (specs.LinuxMemory{}) {
			r.Memory = memory
		}
		if *cpu != (specs.LinuxCPU{}) {
			r.CPU = cpu
		}
		if pids != nil {
			r.Pids = &specs.LinuxPids{Limit: pids}
		}
		if blkio != nil {
			w := uint16(*blkio)
			r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		}
	}
	return 0, c.Update(ctx, r)
}

func resourceOptions(fs *flag.FlagSet, m *specs.LinuxMemory, cpu *specs.LinuxCPU, pids, blkio **int64) {
	for name, to := range map[string]**int64{
		"memory": &m.Limit, "memory-reservation": &m.Reservation, "memory-swap": &m.Swap, "kernel-memory": &m.Kernel, "kernel-memory-tcp": &m.KernelTCP, //nolint:staticcheck // old callers give them
	} {
		fs.Var(number[int64]{to, true}, name, "bytes, or with a suffix of k, m, g; -1 is no limit")
	}
	fs.Var(number[int64]{&cpu.Quota, false}, "cpu-quota", "microseconds of a period")
	fs.Var(number[uint64]{&cpu.Period, false}, "cpu-period", "microseconds")
	fs.Var(number[uint64]{&cpu.Burst, false}, "cpu-burst", "microseconds")
	fs.Var(number[uint64]{&cpu.Shares, false}, "cpu-share", "relative weight")
	fs.Var(number[int64]{&cpu.RealtimeRuntime, false}, "cpu-rt-runtime", "microseconds of a realtime period")
	fs.Var(number[uint64]{&cpu.RealtimePeriod, false}, "cpu-rt-period", "microseconds")
	fs.Var(number[int64]{&cpu.Idle, false}, "cpu-idle", "1 runs only when nothing else does")
	fs.StringVar(&cpu.Cpus, "cpuset-cpus", "", "processors, 0-3,7")
	fs.StringVar(&cpu.Mems, "cpuset-mems", "", "memory nodes, 0-1")
	fs.Var(number[int64]{pids, false}, "pids-limit", "number of processes; -1 is no limit")
	fs.Var(number[int64]{blkio, false}, "blkio-weight", "10 to 1000")
}

// maxResources bounds the file of limits, in bytes.
const maxResources = 1 << 20

func readResources(name string) (*specs.LinuxResources, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var r specs.LinuxResources
	if err := json.NewDecoder(io.LimitReader(in, maxResources)).Decode(&r); err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return &r, nil
}
