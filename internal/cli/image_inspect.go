package cli

import (
	"bytes"
	"context"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) imageInspectCommand() *cobra.Command {
	var format, platform string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Display detailed information on one or more images",
		Args:                  minArgs(1),
		ValidArgsFunction:     a.completeImages(-1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := parsePlatforms(optional(platform))
			if err != nil {
				return err
			}
			var options []client.ImageInspectOption
			if len(list) > 0 {
				options = append(options, client.ImageInspectWithPlatform(&list[0]))
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.inspectWith(args, format, lookupImage(cmd.Context(), api, options...))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&format, "format", "f", "", inspectFormatHelp)
	f.StringVar(&platform, "platform", "", `Inspect a specific platform of the multi-platform image.
If the image or the server is not multi-platform capable, the command will error out if the platform does not match.
'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.49"}}
	return cmd
}

func lookupImage(ctx context.Context, api *client.Client, options ...client.ImageInspectOption) render.Lookup {
	return func(ref string) (any, []byte, error) {
		var raw bytes.Buffer
		image, err := api.ImageInspect(ctx, ref, append([]client.ImageInspectOption{client.ImageInspectWithRawResponse(&raw)}, options...)...)
		if err != nil {
			return nil, nil, err
		}
		return &image.InspectResponse, raw.Bytes(), nil
	}
}
