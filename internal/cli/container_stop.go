package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// stopFlags are the flags of stop and restart.
type stopFlags struct {
	signal  string
	seconds int
}

func (o *stopFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&o.seconds, "timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(&o.seconds, "time", 0, "Seconds to wait before killing the container (deprecated: use --timeout)")
	f.Lookup("time").Deprecated = "use --timeout instead"
	f.Lookup("time").Hidden = true
}

// timeout is nil when not given: the container's own, or 10 seconds.
func (o *stopFlags) timeout(cmd *cobra.Command) (*int, error) {
	old, current := cmd.Flags().Changed("time"), cmd.Flags().Changed("timeout")
	if old && current {
		return nil, errors.New("conflicting options: cannot specify both --timeout and --time")
	}
	if old || current {
		return &o.seconds, nil
	}
	return nil, nil
}

func (a *app) stopCommand() *cobra.Command {
	var o stopFlags
	cmd := &cobra.Command{
		Use:                   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Stop one or more running containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container stop, stop"},
		ValidArgsFunction:     a.completeContainers(running),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			timeout, err := o.timeout(cmd)
			if err != nil {
				return err
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				_, err := api.ContainerStop(ctx, name, client.ContainerStopOptions{Signal: o.signal, Timeout: timeout})
				return err
			}, nil)
		},
	}
	o.add(cmd)
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var o stopFlags
	cmd := &cobra.Command{
		Use:                   "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Restart one or more containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container restart, restart"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			timeout, err := o.timeout(cmd)
			if err != nil {
				return err
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			// One after the other: the order may be the one the services need.
			var errs []error
			for _, name := range args {
				if _, err := api.ContainerRestart(cmd.Context(), name, client.ContainerRestartOptions{Signal: o.signal, Timeout: timeout}); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(a.stdout, name)
			}
			return errors.Join(errs...)
		},
	}
	o.add(cmd)
	return cmd
}
