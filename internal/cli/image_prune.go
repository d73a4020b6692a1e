package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) imagePruneCommand() *cobra.Command {
	var o pruneFlags
	var all bool
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove unused images",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.force {
				what := "all dangling images"
				if all {
					what = "all images without at least one container associated to them"
				}
				if err := a.confirm(cmd.Context(), "WARNING! This will remove "+what+".\nAre you sure you want to continue?"); err != nil {
					return err
				}
			}
			p, err := a.pruneImages(cmd.Context(), o.filter.Value(), all)
			if err != nil {
				return err
			}
			a.report(p)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	o.add(cmd, "until=<timestamp>")
	return cmd
}

func (a *app) pruneImages(ctx context.Context, filter client.Filters, all bool) (pruned, error) {
	api, err := a.api()
	if err != nil {
		return pruned{}, err
	}
	filter = a.pruneFilters(filter).Add("dangling", strconv.FormatBool(!all))
	result, err := api.ImagePrune(ctx, client.ImagePruneOptions{Filters: filter})
	if err != nil {
		return pruned{}, err
	}
	var text strings.Builder
	for i, item := range result.Report.ImagesDeleted {
		if i == 0 {
			text.WriteString("Deleted Images:\n")
		}
		if item.Untagged != "" {
			text.WriteString("untagged: " + item.Untagged + "\n")
		} else {
			text.WriteString("deleted: " + item.Deleted + "\n")
		}
	}
	return pruned{text.String(), result.Report.SpaceReclaimed}, nil
}
