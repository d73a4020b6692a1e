package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// systemGroup is `system`.
func (a *app) systemGroup() *cobra.Command {
	return a.group("system", "Manage "+a.product, []entry{
		{"df", nil, (*app).diskUsageCommand},
		{"dial-stdio", nil, (*app).dialStdioCommand},
		{"events", nil, (*app).eventsCommand},
		{"info", nil, (*app).infoCommand},
		{"prune", nil, (*app).systemPruneCommand},
	})
}

// dialStdioCommand joins stdin and stdout with the daemon's socket: the far end of an ssh:// address.
func (a *app) dialStdioCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		Args:   noArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			api, err := a.api()
			if err != nil {
				return err
			}
			conn, err := api.Dialer()(ctx)
			if err != nil {
				return fmt.Errorf("failed to open the raw stream connection: %w", err)
			}
			defer func() { _ = conn.Close() }()
			answered := make(chan error, 1)
			go func() {
				_, err := io.Copy(a.stdout, conn)
				answered <- err
			}()
			go func() {
				_, _ = io.Copy(conn, a.stdin)
				if half, ok := conn.(client.CloseWriter); ok {
					_ = half.CloseWrite()
				}
			}()
			select {
			case err := <-answered:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

func (a *app) systemPruneCommand() *cobra.Command {
	var o pruneFlags
	var all, volumes bool
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove unused data",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.systemPrune(cmd.Context(), &o, all, volumes)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	f.BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	o.add(cmd, "label=<key>=<value>")
	return cmd
}

// pruner removes the unused objects of one kind.
type pruner struct {
	warning string
	run     func(context.Context, client.Filters) (pruned, error)
}

func (a *app) pruners(all, volumes bool) []pruner {
	list := []pruner{{"all stopped containers", a.pruneContainers}, {"all networks not used by at least one container", a.pruneNetworks}}
	if volumes {
		list = append(list, pruner{"all anonymous volumes not used by at least one container", a.pruneVolumes})
	}
	images, cache := "all dangling images", "unused build cache"
	if all {
		images, cache = "all images without at least one container associated to them", "all build cache"
	}
	return append(list,
		pruner{images, func(ctx context.Context, f client.Filters) (pruned, error) { return a.pruneImages(ctx, f, all) }},
		pruner{cache, func(ctx context.Context, f client.Filters) (pruned, error) { return a.pruneBuildCache(ctx, f, all) }},
	)
}

func (a *app) systemPrune(ctx context.Context, o *pruneFlags, all, volumes bool) error {
	if volumes && o.filter.Value()["until"] != nil {
		return fmt.Errorf(`ERROR: The "until" filter is not supported with "--volumes"`)
	}
	list := a.pruners(all, volumes)
	if !o.force {
		if err := a.confirm(ctx, a.pruneWarning(list, o.filter.Value())); err != nil {
			return err
		}
	}
	var freed uint64
	for _, p := range list {
		done, err := p.run(ctx, o.filter.Value())
		if errdefs.IsNotImplemented(err) {
			continue
		}
		if err != nil {
			return err
		}
		freed += done.freed
		if done.text != "" {
			fmt.Fprintln(a.stdout, done.text)
		}
	}
	fmt.Fprintln(a.stdout, "Total reclaimed space:", units.HumanSize(float64(freed)))
	return nil
}

func (a *app) pruneWarning(list []pruner, given client.Filters) string {
	var b strings.Builder
	b.WriteString("WARNING! This will remove:")
	for _, p := range list {
		b.WriteString("\n  - " + p.warning)
	}
	b.WriteString("\n")
	var filters []string
	joined := a.pruneFilters(given)
	for _, key := range []string{"label", "label!", "until"} {
		for value := range joined[key] {
			filters = append(filters, key+"="+value)
		}
	}
	if len(filters) > 0 {
		slices.SortFunc(filters, naturally)
		b.WriteString("\n  Items to be pruned will be filtered with:\n")
		for _, f := range filters {
			b.WriteString("  - " + f + "\n")
		}
	}
	b.WriteString("\nAre you sure you want to continue?")
	return b.String()
}

func (a *app) pruneNetworks(ctx context.Context, filter client.Filters) (pruned, error) {
	api, err := a.api()
	if err != nil {
		return pruned{}, err
	}
	result, err := api.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: a.pruneFilters(filter)})
	if err != nil {
		return pruned{}, err
	}
	return pruned{text: deletedList("Deleted Networks:", result.Report.NetworksDeleted)}, nil
}

func (a *app) pruneVolumes(ctx context.Context, filter client.Filters) (pruned, error) {
	api, err := a.api()
	if err != nil {
		return pruned{}, err
	}
	result, err := api.VolumePrune(ctx, client.VolumePruneOptions{Filters: a.pruneFilters(filter)})
	if err != nil {
		return pruned{}, err
	}
	return pruned{deletedList("Deleted Volumes:", result.Report.VolumesDeleted), result.Report.SpaceReclaimed}, nil
}

func (a *app) pruneBuildCache(ctx context.Context, filter client.Filters, all bool) (pruned, error) {
	api, err := a.api()
	if err != nil {
		return pruned{}, err
	}
	result, err := api.BuildCachePrune(ctx, client.BuildCachePruneOptions{All: all, Filters: filter})
	if err != nil {
		return pruned{}, err
	}
	return pruned{deletedList("Deleted build cache objects:", result.Report.CachesDeleted), result.Report.SpaceReclaimed}, nil
}
