package cli

import (
	"fmt"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "diff CONTAINER",
		Short:                 "Inspect changes to files or directories on a container's filesystem",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annAliases: "container diff, diff"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return fmt.Errorf("container name cannot be empty")
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			diff, err := api.ContainerDiff(cmd.Context(), args[0], client.ContainerDiffOptions{})
			if err != nil {
				return err
			}
			for _, change := range diff.Changes {
				fmt.Fprintln(a.stdout, change.Kind.String(), change.Path)
			}
			return nil
		},
	}
}
