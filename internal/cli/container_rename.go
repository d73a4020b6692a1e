package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "rename CONTAINER NEW_NAME",
		Short:                 "Rename a container",
		Args:                  exactArgs(2),
		Annotations:           map[string]string{annAliases: "container rename, rename"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if from == "" || to == "" {
				return errors.New("Error: Neither old nor new names may be empty")
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			if _, err := api.ContainerRename(cmd.Context(), from, client.ContainerRenameOptions{NewName: to}); err != nil {
				a.complain(err)
				return fmt.Errorf("Error: failed to rename container named %s", from)
			}
			return nil
		},
	}
}
