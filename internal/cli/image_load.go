package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"
)

func (a *app) loadCommand() *cobra.Command {
	var input string
	var quiet bool
	var platform []string
	cmd := &cobra.Command{
		Use:                   "load [OPTIONS]",
		Short:                 "Load an image from a tar archive or STDIN",
		Args:                  noArgs,
		Annotations:           map[string]string{annAliases: "image load, load"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var from io.Reader = a.stdin
			if input != "" {
				// A pipe or device has no size and is read as it comes.
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				from = f
			} else if a.stdin.terminal {
				return errors.New("requested load from stdin, but stdin is empty")
			}
			list, err := parsePlatforms(platform)
			if err != nil {
				return err
			}
			var options []client.ImageLoadOption
			if quiet || !a.stdout.terminal {
				options = append(options, client.ImageLoadWithQuiet(true))
			}
			if len(list) > 0 {
				options = append(options, client.ImageLoadWithPlatforms(list...))
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			progress, err := api.ImageLoad(cmd.Context(), from, options...)
			if err != nil {
				return err
			}
			defer func() { _ = progress.Close() }()
			return jsonmessage.DisplayJSONMessagesStream(progress, a.stdout, a.stdout.fd, a.stdout.terminal, nil)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	f.StringSliceVar(&platform, "platform", nil, `Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.48"}}
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cmd
}

func (a *app) saveCommand() *cobra.Command {
	var output string
	var platform []string
	cmd := &cobra.Command{
		Use:                   "save [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "image save, save"},
		ValidArgsFunction:     a.completeImages(-1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := parsePlatforms(platform)
			if err != nil {
				return err
			}
			var options []client.ImageSaveOption
			if len(list) > 0 {
				options = append(options, client.ImageSaveWithPlatforms(list...))
			}
			if output == "" && a.stdout.terminal {
				return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			if err := checkOutputPath(output); err != nil {
				return fmt.Errorf("failed to save image: %w", err)
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			archive, err := api.ImageSave(cmd.Context(), args, options...)
			if err != nil {
				return err
			}
			defer func() { _ = archive.Close() }()
			return a.saveTo(output, archive)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	f.StringSliceVar(&platform, "platform", nil, `Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.48"}}
	return cmd
}
