package cli

import (
	"context"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "pause CONTAINER [CONTAINER...]",
		Short:                 "Pause all processes within one or more containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container pause, pause"},
		ValidArgsFunction:     a.completeContainers(notPaused),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				_, err := api.ContainerPause(ctx, name, client.ContainerPauseOptions{})
				return err
			}, nil)
		},
	}
}

func (a *app) unpauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "unpause CONTAINER [CONTAINER...]",
		Short:                 "Unpause all processes within one or more containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container unpause, unpause"},
		ValidArgsFunction:     a.completeContainers(paused),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, name string) error {
				_, err := api.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{})
				return err
			}, nil)
		},
	}
}
