package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

// clientID is what registries' token servers know Docker's engines by.
const clientID = "docker"

// hubServer is how clients name Docker Hub when they log in.
const hubServer = "https://index.docker.io/v1/"

// Login checks credentials with the registry they are for. It returns a token
// that takes the place of the password in later requests, when the registry
// gives one. ErrUnauthenticated when it does not accept them.
func (c *Client) Login(ctx context.Context, credentials registry.AuthConfig) (string, error) {
	host := credentials.ServerAddress
	if host == "" || host == hubServer {
		host = "registry-1.docker.io"
	}
	plain := strings.HasPrefix(host, "http://")
	host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")

	insecure := c.insecure(ctx, host)
	client, err := c.httpClient(host, insecure)
	if err != nil {
		return "", err
	}
	schemes := []string{"https"}
	if insecure {
		schemes = append(schemes, "http")
		if plain {
			schemes = []string{"http"}
		}
	}
	var last error
	for _, scheme := range schemes {
		base := scheme + "://" + host + "/v2/"
		resp, err := c.ask(ctx, client, base, nil)
		if err != nil {
			last = errdefs.ErrUnavailable.WithMessage(err.Error())
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			continue
		}
		return c.answerChallenge(ctx, client, base, resp, credentials)
	}
	return "", last
}

// reply is what a registry answered, without the body.
type reply struct {
	status int
	header http.Header
}

// ask sends one GET and drops the body.
func (c *Client) ask(ctx context.Context, client *http.Client, url string, credentials *registry.AuthConfig) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if credentials != nil {
		req.SetBasicAuth(credentials.Username, credentials.Password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	return reply{status: resp.StatusCode, header: resp.Header}, nil
}

func (c *Client) answerChallenge(ctx context.Context, client *http.Client, base string, resp reply, credentials registry.AuthConfig) (string, error) {
	if resp.status == http.StatusOK {
		return "", nil // a registry that lets everybody in
	}
	for _, challenge := range auth.ParseAuthHeader(resp.header) {
		switch challenge.Scheme {
		case auth.BasicAuth:
			resp, err := c.ask(ctx, client, base, &credentials)
			if err != nil {
				return "", errdefs.ErrUnavailable.WithMessage(err.Error())
			}
			if resp.status != http.StatusOK {
				return "", refused(base, resp.status)
			}
			return "", nil
		case auth.BearerAuth:
			return c.fetchToken(ctx, client, base, challenge, credentials)
		}
	}
	return "", refused(base, resp.status)
}

// fetchToken asks the registry's token server. A refresh token (IdentityToken)
// stands for a password; one that comes back is what the client keeps.
func (c *Client) fetchToken(ctx context.Context, client *http.Client, base string, challenge auth.Challenge, credentials registry.AuthConfig) (string, error) {
	user, secret := credentials.Username, credentials.Password
	if credentials.IdentityToken != "" {
		user, secret = "", credentials.IdentityToken
	}
	options, err := auth.GenerateTokenOptions(ctx, "", user, secret, challenge)
	if err != nil {
		return "", errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	options.FetchRefreshToken = true
	headers := http.Header{"User-Agent": {c.cfg.UserAgent}}
	var refresh string
	if user != "" {
		token, terr := auth.FetchToken(ctx, client, headers, options)
		if err = terr; err == nil {
			refresh = token.RefreshToken
		}
	} else {
		token, terr := auth.FetchTokenWithOAuth(ctx, client, headers, clientID, options)
		if err = terr; err == nil {
			refresh = token.RefreshToken
		}
	}
	var unexpected remoteerrors.ErrUnexpectedStatus
	switch {
	case err == nil:
		return refresh, nil
	case errors.As(err, &unexpected):
		return "", refused(base, unexpected.StatusCode)
	}
	return "", errdefs.ErrUnavailable.WithMessage(err.Error())
}

func refused(base string, status int) error {
	text := fmt.Sprintf("login attempt to %s failed with status: %d %s", base, status, http.StatusText(status))
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return errdefs.ErrUnauthenticated.WithMessage("Get \"" + base + "\": unauthorized: incorrect username or password")
	case http.StatusBadRequest:
		return errdefs.ErrInvalidArgument.WithMessage(text)
	}
	return errdefs.ErrUnavailable.WithMessage(text)
}
