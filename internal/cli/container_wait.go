package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// awaitExit asks the daemon for the container's next exit, or for its removal with autoRemove, and returns once the
// daemon has taken the question: an exit after that is not missed. The channel yields the status, 125 when the
// answer failed, and is closed without one when ctx ends.
func (a *app) awaitExit(ctx context.Context, api *client.Client, id string, autoRemove bool) <-chan int {
	condition := container.WaitConditionNextExit
	if autoRemove {
		condition = container.WaitConditionRemoved
	}
	wait := api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: condition})
	status := make(chan int, 1)
	go func() {
		defer close(status)
		select {
		case <-ctx.Done():
		case result := <-wait.Result:
			if result.Error != nil {
				fmt.Fprintln(a.stderr, "Error waiting for container:", result.Error.Message)
				status <- 125
				return
			}
			status <- int(result.StatusCode)
		case err := <-wait.Error:
			if errors.Is(err, context.Canceled) {
				return
			}
			fmt.Fprintln(a.stderr, "error waiting for container:", err)
			status <- 125
		}
	}()
	return status
}

// awaitRemoval returns when the container is gone, however that came about.
func awaitRemoval(ctx context.Context, api *client.Client, id string) {
	wait := api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case <-wait.Result:
	case <-wait.Error: // not found: already gone
	}
}

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "wait CONTAINER [CONTAINER...]",
		Short:                 "Block until one or more containers stop, then print their exit codes",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container wait, wait"},
		ValidArgsFunction:     a.completeContainers(running),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				wait := api.ContainerWait(cmd.Context(), name, client.ContainerWaitOptions{})
				select {
				case result := <-wait.Result:
					fmt.Fprintln(a.stdout, strconv.FormatInt(result.StatusCode, 10))
				case err := <-wait.Error:
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
}
