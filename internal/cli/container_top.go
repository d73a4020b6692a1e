package cli

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "top CONTAINER [ps OPTIONS]",
		Short:                 "Display the running processes of a container",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container top, top"},
		ValidArgsFunction:     a.completeContainers(running),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			top, err := api.ContainerTop(cmd.Context(), args[0], client.ContainerTopOptions{Arguments: args[1:]})
			if err != nil {
				return err
			}
			var cells bytes.Buffer
			for _, row := range append([][]string{top.Titles}, top.Processes...) {
				fmt.Fprintln(&cells, strings.Join(row, "\t"))
			}
			return render.Columnize(a.stdout, cells.Bytes(), 20, 3)
		},
	}
	// What follows the container are options of ps.
	cmd.Flags().SetInterspersed(false)
	return cmd
}
