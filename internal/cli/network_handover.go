package cli

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// networkHandOverCommand is ours and not shown under the name docker.
func (a *app) networkHandOverCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "handover FROM TO",
		Short: "Lead the published ports of a running container to another one",
		Long: "Lead the published ports of a running container to another one.\n\n" +
			"New connections go to the other container at once; those that are\nestablished stay until the first one ends. No connection is refused.",
		Args:                  exactArgs(2),
		ValidArgsFunction:     a.completeContainers(running),
		Hidden:                a.name == "docker",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			query := url.Values{"from": {args[0]}, "to": {args[1]}}
			return ownCall(cmd.Context(), api, http.MethodPost, "/orlop/ports/handover?"+query.Encode(), nil)
		},
	}
}
