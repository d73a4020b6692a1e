package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
)

// pruneFlags are the flags of every prune command.
type pruneFlags struct {
	force  bool
	filter flagvalue.Filter
}

func (o *pruneFlags) add(cmd *cobra.Command, example string) {
	cmd.Flags().Var(&o.filter, "filter", `Provide filter values (e.g. "`+example+`")`)
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
}

// confirm asks on stdout and reads one line; a signal or the end of input is no.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprint(a.stdout, question+" [y/N] ")
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answered <- line
	}()
	select {
	case line := <-answered:
		if strings.EqualFold(strings.TrimSpace(line), "y") {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(a.stdout)
		return context.Cause(ctx)
	}
	return declined{}
}

// pruneFilters are the filters of the command line joined with the configured ones, except those the command line
// speaks against.
func (a *app) pruneFilters(f client.Filters) client.Filters {
	for _, configured := range a.configFile().PruneFilters {
		key, value, ok := strings.Cut(configured, "=")
		if !ok {
			continue
		}
		if key == "label" && f["label!"][value] || key == "label!" && f["label"][value] {
			continue
		}
		f.Add(key, value)
	}
	return f
}

// pruned is the outcome of a prune: a list to show, and the bytes freed.
type pruned struct {
	text  string
	freed uint64
}

// report prints what one prune command did.
func (a *app) report(p pruned) {
	if p.text != "" {
		fmt.Fprintln(a.stdout, p.text)
	}
	fmt.Fprintln(a.stdout, "Total reclaimed space:", units.HumanSize(float64(p.freed)))
}

func (a *app) containerPruneCommand() *cobra.Command {
	var o pruneFlags
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove all stopped containers",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.force {
				if err := a.confirm(cmd.Context(), "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?"); err != nil {
					return err
				}
			}
			p, err := a.pruneContainers(cmd.Context(), o.filter.Value())
			if err != nil {
				return err
			}
			a.report(p)
			return nil
		},
	}
	o.add(cmd, "until=<timestamp>")
	return cmd
}

// declined is the answer no: the command ends without a word and without failure, as one that was canceled.
type declined struct{}

func (declined) Error() string        { return "declined" }
func (declined) Is(target error) bool { return target == context.Canceled }

func (a *app) pruneContainers(ctx context.Context, filter client.Filters) (pruned, error) {
	api, err := a.api()
	if err != nil {
		return pruned{}, err
	}
	result, err := api.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: a.pruneFilters(filter)})
	if err != nil {
		return pruned{}, err
	}
	return pruned{deletedList("Deleted Containers:", result.Report.ContainersDeleted), result.Report.SpaceReclaimed}, nil
}

func deletedList(title string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return title + "\n" + strings.Join(names, "\n") + "\n"
}
