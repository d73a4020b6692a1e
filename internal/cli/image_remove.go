package cli

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) rmiCommand() *cobra.Command {
	var force, noPrune bool
	var platform []string
	cmd := &cobra.Command{
		Use:                   "rmi [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Remove one or more images",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "image rm, image remove, rmi"},
		ValidArgsFunction:     a.completeImages(-1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := parsePlatforms(platform)
			if err != nil {
				return err
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			options := client.ImageRemoveOptions{Force: force, PruneChildren: !noPrune, Platforms: list}
			var errs []error
			onlyMissing := true
			for _, name := range args {
				removed, err := api.ImageRemove(cmd.Context(), name, options)
				if err != nil {
					onlyMissing = onlyMissing && errdefs.IsNotFound(err)
					errs = append(errs, err)
					continue
				}
				for _, item := range removed.Items {
					if item.Deleted != "" {
						fmt.Fprintln(a.stdout, "Deleted:", item.Deleted)
					} else {
						fmt.Fprintln(a.stdout, "Untagged:", item.Untagged)
					}
				}
			}
			err = errors.Join(errs...)
			if err != nil && force && onlyMissing {
				// Wanted gone and gone: told, and no failure.
				a.complain(err)
				return nil
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	f.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	f.StringSliceVar(&platform, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.50"}}
	return cmd
}

func (a *app) imageRemoveCommand() *cobra.Command {
	cmd := a.rmiCommand()
	cmd.Use, cmd.Aliases = "rm [OPTIONS] IMAGE [IMAGE...]", []string{"remove"}
	return cmd
}

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:                 "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:                  exactArgs(2),
		Annotations:           map[string]string{annAliases: "image tag, tag"},
		ValidArgsFunction:     a.completeImages(2),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			if _, err := reference.ParseAnyReference(args[1]); err != nil {
				return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
			}
			_, err = api.ImageTag(cmd.Context(), client.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}
