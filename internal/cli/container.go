package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// containerGroup is `container`: every container verb under its full name.
func (a *app) containerGroup() *cobra.Command {
	return a.group("container", "Manage containers", []entry{
		{"attach", nil, (*app).attachCommand},
		{"cp", nil, (*app).copyCommand},
		{"create", nil, (*app).createCommand},
		{"diff", nil, (*app).diffCommand},
		{"exec", nil, (*app).execCommand},
		{"export", nil, (*app).exportCommand},
		{"inspect", nil, (*app).containerInspectCommand},
		{"kill", nil, (*app).killCommand},
		{"logs", nil, (*app).logsCommand},
		{"ls", []string{"ps", "list"}, (*app).containerListCommand},
		{"pause", nil, (*app).pauseCommand},
		{"port", nil, (*app).portCommand},
		{"prune", nil, (*app).containerPruneCommand},
		{"rename", nil, (*app).renameCommand},
		{"restart", nil, (*app).restartCommand},
		{"rm", []string{"remove"}, (*app).containerRemoveCommand},
		{"run", nil, (*app).runCommand},
		{"start", nil, (*app).startCommand},
		{"stats", nil, (*app).statsCommand},
		{"stop", nil, (*app).stopCommand},
		{"top", nil, (*app).topCommand},
		{"unpause", nil, (*app).unpauseCommand},
		{"update", nil, (*app).updateCommand},
		{"wait", nil, (*app).waitCommand},
	})
}

// atOnce is how many objects a command acts on at the same time.
const atOnce = 50

// each acts on every name, several at once, and prints each that succeeded, in the order given. The errors come back
// joined; those that ignore accepts are dropped without printing the name.
func (a *app) each(ctx context.Context, names []string, act func(context.Context, string) error, ignore func(error) bool) error {
	results := make([]chan error, len(names))
	slots := make(chan struct{}, atOnce)
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			results[i] <- act(ctx, name)
			<-slots
		}()
	}
	var errs []error
	for i, name := range names {
		switch err := <-results[i]; {
		case err == nil:
			fmt.Fprintln(a.stdout, name)
		case ignore != nil && ignore(err):
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
