package cli

import (
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/creation"
	"github.com/orlop/orlop/internal/cli/flagvalue"
)

func (a *app) updateCommand() *cobra.Command {
	var r container.Resources
	var memory, reservation flagvalue.Bytes
	var swap flagvalue.SwapBytes
	var cpus flagvalue.CPUs
	var pids int64
	var restart string
	cmd := &cobra.Command{
		Use:                   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Update configuration of one or more containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container update, update"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			policy, err := creation.ParseRestart(restart)
			if err != nil {
				return err
			}
			r.Memory, r.MemoryReservation, r.MemorySwap, r.NanoCPUs = int64(memory), int64(reservation), int64(swap), int64(cpus)
			if pids != 0 {
				r.PidsLimit = &pids
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			var errs []error
			var warnings []string
			for _, name := range args {
				result, err := api.ContainerUpdate(cmd.Context(), name, client.ContainerUpdateOptions{Resources: &r, RestartPolicy: &policy})
				if err != nil {
					errs = append(errs, err)
				} else {
					fmt.Fprintln(a.stdout, name)
				}
				warnings = append(warnings, result.Warnings...)
			}
			for _, warning := range warnings {
				fmt.Fprintln(a.stdout, warning)
			}
			return errors.Join(errs...)
		},
	}
	f := cmd.Flags()
	f.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	f.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	f.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Var(&cpus, "cpus", "Number of CPUs")
	f.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.VarP(&memory, "memory", "m", "Memory limit")
	f.Var(&reservation, "memory-reservation", "Memory soft limit")
	f.Var(&swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	f.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	f.Var(new(flagvalue.Bytes), "kernel-memory", "Kernel memory limit (deprecated)")
	f.Lookup("kernel-memory").Deprecated = "and no longer supported by the kernel"
	f.Lookup("kernel-memory").Hidden = true
	return cmd
}
