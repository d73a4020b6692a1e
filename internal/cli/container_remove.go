package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	var o client.ContainerRemoveOptions
	cmd := &cobra.Command{
		Use:                   "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Remove one or more containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container rm, container remove, rm"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			remove := func(ctx context.Context, name string) error {
				if name = strings.Trim(name, "/"); name == "" {
					return errors.New("container name cannot be empty")
				}
				_, err := api.ContainerRemove(ctx, name, o)
				return err
			}
			// With --force a container that is already gone is as wanted: it is told, and is no failure.
			return a.each(cmd.Context(), args, remove, func(err error) bool {
				if !o.Force || !errdefs.IsNotFound(err) {
					return false
				}
				a.complain(err)
				return true
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	f.BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	f.BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cmd
}

func (a *app) containerRemoveCommand() *cobra.Command {
	cmd := a.rmCommand()
	cmd.Aliases = []string{"remove"}
	return cmd
}
