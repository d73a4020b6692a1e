package cli

import (
	"os"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
)

func (a *app) importCommand() *cobra.Command {
	var o client.ImageImportOptions
	var platform string
	changes := flagvalue.NewList(nil)
	cmd := &cobra.Command{
		Use:                   "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short:                 "Import the contents from a tarball to create a filesystem image",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "image import, import"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			source := client.ImageImportSource{SourceName: "-"}
			switch {
			case args[0] == "-":
				source.Source = a.stdin
			case strings.HasPrefix(args[0], "http://"), strings.HasPrefix(args[0], "https://"):
				source.SourceName = args[0] // fetched by the daemon
			default:
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				source.Source = f
			}
			name := ""
			if len(args) > 1 {
				name = args[1]
				if _, err := reference.ParseNormalizedNamed(name); err != nil {
					return err
				}
			}
			if platform != "" {
				p, err := platforms.Parse(platform)
				if err != nil {
					return err
				}
				o.Platform = p
			}
			o.Changes = changes.Values()
			api, err := a.api()
			if err != nil {
				return err
			}
			progress, err := api.ImageImport(cmd.Context(), source, name, o)
			if err != nil {
				return err
			}
			defer func() { _ = progress.Close() }()
			return jsonmessage.DisplayJSONMessagesStream(progress, a.stdout, a.stdout.fd, a.stdout.terminal, nil)
		},
	}
	f := cmd.Flags()
	f.VarP(changes, "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	return cmd
}
