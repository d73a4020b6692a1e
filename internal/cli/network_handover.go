package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"context"

	"github.com/moby/moby/client"
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
			return ownCall(cmd.Context(), api, http.MethodPost, "/orlop/ports/handover?"+query.Encode())
		},
	}
}

// ownCall is a call of the API that only this engine has. An answer that tells
// of an error is that error.
func ownCall(ctx context.Context, api *client.Client, method, path string) error {
	over := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return api.Dialer()(ctx) },
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, nil)
	if err != nil {
		return err
	}
	resp, err := over.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = strings.TrimSpace(string(body))
	}
	if resp.StatusCode == http.StatusNotFound && strings.Contains(said.Message, "page not found") {
		return errors.New("the daemon does not know this call: it is one of Orlop's own")
	}
	return fmt.Errorf("Error response from daemon: %s", said.Message)
}
