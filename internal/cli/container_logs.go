package cli

import (
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) logsCommand() *cobra.Command {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := &cobra.Command{
		Use:                   "logs [OPTIONS] CONTAINER",
		Short:                 "Fetch the logs of a container",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annAliases: "container logs, logs"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			api, err := a.api()
			if err != nil {
				return err
			}
			// The log of a terminal is one raw stream, any other is multiplexed.
			c, err := api.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			logs, err := api.ContainerLogs(ctx, c.Container.ID, o)
			if err != nil {
				return err
			}
			defer func() { _ = logs.Close() }()
			if c.Container.Config.Tty {
				_, err = io.Copy(a.stdout, logs)
			} else {
				_, err = stdcopy.StdCopy(a.stdout, a.stderr, logs)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	f.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	return cmd
}
