package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) containerInspectCommand() *cobra.Command {
	var format string
	var size bool
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Display detailed information on one or more containers",
		Args:                  minArgs(1),
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.inspectWith(args, format, lookupContainer(cmd.Context(), api, size))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&format, "format", "f", "", inspectFormatHelp)
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

func lookupContainer(ctx context.Context, api *client.Client, size bool) render.Lookup {
	return func(ref string) (any, []byte, error) {
		c, err := api.ContainerInspect(ctx, ref, client.ContainerInspectOptions{Size: size})
		if err != nil {
			return nil, nil, err
		}
		return &c.Container, c.Raw, nil
	}
}

// inspectWith prints objects and gives failures their status: 64 for a format that does not parse, else 1.
func (a *app) inspectWith(refs []string, format string, lookup render.Lookup) error {
	err := render.Inspect(a.stdout, refs, format, lookup)
	var bad *render.BadFormatError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return &statusError{code: 64, cause: err}
	}
	return &statusError{code: 1, cause: a.reworded(err)}
}
