package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/moby/moby/client"
)

// maxOwnAnswer bounds an answer in bytes.
const maxOwnAnswer = 64 << 20

// ownCall is a call of the API that only this engine has. An answer that tells
// of an error is that error; any other is read into answer, if that is not nil.
func ownCall(ctx context.Context, api *client.Client, method, path string, answer any) error {
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
		// Where nobody listens, the library has the words of every other command.
		if _, perr := api.Ping(ctx, client.PingOptions{}); perr != nil {
			return perr
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOwnAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode < http.StatusBadRequest {
		if answer == nil {
			return nil
		}
		return json.Unmarshal(body, answer)
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
