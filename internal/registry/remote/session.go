package remote

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/orlop/orlop/internal/domain/image"
)

// Repository is a session with one repository. It is safe for concurrent use.
type Repository struct {
	client     *Client
	name       reference.Named
	path       string
	domain     string
	access     image.Access
	candidates []candidate

	mu sync.Mutex
	// live are the endpoints that have answered a ping, by index of candidates.
	live map[int]*endpoint
}

// candidate is a host that may have the repository.
type candidate struct {
	host     string
	prefix   string
	schemes  []string
	insecure bool
	// mirror: pulls only, no credentials.
	mirror bool
	creds  creds
}

type creds struct {
	user, secret string
	// bearer is a token that is sent as it is.
	bearer string
}

// credentials reads what clients send in X-Registry-Auth.
func credentials(auth *registry.AuthConfig) (creds, error) {
	if auth == nil {
		return creds{}, nil
	}
	c := creds{user: auth.Username, secret: auth.Password, bearer: auth.RegistryToken}
	if auth.IdentityToken != "" {
		// A refresh token is a secret without a user (containerd's authorizer).
		c.user, c.secret = "", auth.IdentityToken
	}
	if c.user == "" && c.secret == "" && auth.Auth != "" {
		pair, err := base64.StdEncoding.DecodeString(auth.Auth)
		if err != nil {
			return creds{}, errdefs.ErrInvalidArgument.WithMessage("bad parameters and missing X-Registry-Auth: invalid auth field")
		}
		c.user, c.secret, _ = strings.Cut(strings.TrimRight(string(pair), "\x00"), ":")
	}
	return c, nil
}

// endpoint is a host that speaks the registry's protocol.
type endpoint struct {
	candidate
	base       string
	client     *http.Client
	authorizer docker.Authorizer
}

// endpoints are the candidates in order; each is pinged when it is first
// needed. It fails with the error of the last one when none answers.
func (r *Repository) each(ctx context.Context, push bool, try func(*endpoint) error) error {
	var last error
	for i, cand := range r.candidates {
		if push && cand.mirror {
			continue
		}
		ep, err := r.endpoint(ctx, i)
		if err == nil {
			err = try(ep)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cand.mirror {
			r.client.cfg.Logger.InfoContext(ctx, "registry mirror failed, trying the next", "mirror", cand.host, "error", err)
		}
		last = err
	}
	return last
}

func (r *Repository) endpoint(ctx context.Context, index int) (*endpoint, error) {
	r.mu.Lock()
	ep := r.live[index]
	r.mu.Unlock()
	if ep != nil {
		return ep, nil
	}
	ep, err := r.ping(ctx, r.candidates[index])
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		r.live = map[int]*endpoint{}
	}
	if r.live[index] == nil {
		r.live[index] = ep
	}
	return r.live[index], nil
}

// ping finds the scheme and the challenge of a host, as Docker does: /v2/ first
// with TLS, and without only where that is allowed.
func (r *Repository) ping(ctx context.Context, cand candidate) (*endpoint, error) {
	client, err := r.client.httpClient(cand.host, cand.insecure)
	if err != nil {
		return nil, err
	}
	var last error
	for _, scheme := range cand.schemes {
		ep := &endpoint{candidate: cand, base: scheme + "://" + cand.host + cand.prefix + "/v2/", client: client}
		ep.authorizer = docker.NewDockerAuthorizer(
			docker.WithAuthClient(client),
			docker.WithAuthHeader(http.Header{"User-Agent": {r.client.cfg.UserAgent}}),
			docker.WithAuthCreds(func(string) (string, string, error) { return cand.creds.user, cand.creds.secret, nil }),
		)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, ep.base, nil)
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
		r.headers(req)
		resp, err := client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			last = errdefs.ErrUnknown.WithMessage(err.Error())
			continue
		}
		drain(resp)
		if resp.StatusCode == http.StatusUnauthorized && cand.creds.bearer == "" {
			if err := ep.authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
				// The request itself gets the challenge again and fails with a
				// text that names what was asked for.
				r.client.cfg.Logger.DebugContext(ctx, "registry challenge not answered", "url", ep.base, "error", err)
			}
		}
		return ep, nil
	}
	return nil, last
}

func (r *Repository) headers(req *http.Request) {
	for key, values := range r.access.Headers {
		req.Header[http.CanonicalHeaderKey(key)] = values
	}
	req.Header.Set("User-Agent", r.client.cfg.UserAgent)
}

// request of an endpoint; path is relative to /v2/<repository>/.
type request struct {
	method string
	path   string
	query  url.Values
	// location, when not nil, replaces path and query.
	location *url.URL
	header   http.Header
	push     bool
	// body makes the body anew for every try.
	body func() io.ReadCloser
	size int64
}

// do sends the request with a token, answering challenges. The response of any
// other status than 401 is the caller's to check and close.
func (r *Repository) do(ctx context.Context, ep *endpoint, q request) (*http.Response, error) {
	target := ep.base + r.path + "/" + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	if q.location != nil {
		target = q.location.String()
	}
	scope := "repository:" + r.path + ":pull"
	if q.push {
		scope += ",push"
	}
	ctx = docker.WithScope(ctx, scope)
	var responses []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, q.method, target, nil)
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
		for key, values := range q.header {
			req.Header[key] = values
		}
		r.headers(req)
		if q.body != nil {
			req.Body, req.ContentLength = q.body(), q.size
		}
		// An upload that was sent elsewhere must not take our token with it.
		own := q.location == nil || strings.HasPrefix(target, strings.TrimSuffix(ep.base, "v2/"))
		if own {
			if err := ep.authorize(ctx, req); err != nil {
				if req.Body != nil {
					req.Body.Close()
				}
				return nil, r.authError(req, err)
			}
		}
		resp, err := ep.client.Do(req)
		if err != nil {
			return nil, &transportError{err}
		}
		if resp.StatusCode != http.StatusUnauthorized || !own || ep.creds.bearer != "" {
			return resp, nil
		}
		failure := r.statusError(resp)
		drain(resp)
		responses = append(responses, resp)
		if err := ep.authorizer.AddResponses(ctx, responses); err != nil {
			if errors.Is(err, docker.ErrInvalidAuthorization) && !noCredentials(ep, resp) {
				return nil, failure
			}
			return nil, r.authError(req, err)
		}
		// The first answer of a session brings the challenge; after a second
		// one the token is good and what it allows is not enough.
		if len(responses) > 2 {
			return nil, failure
		}
	}
}

func (ep *endpoint) authorize(ctx context.Context, req *http.Request) error {
	if ep.creds.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+ep.creds.bearer)
		return nil
	}
	return ep.authorizer.Authorize(ctx, req)
}

// noCredentials: the registry wants a password and none was given.
func noCredentials(ep *endpoint, resp *http.Response) bool {
	return ep.creds.user == "" && strings.HasPrefix(strings.ToLower(resp.Header.Get("WWW-Authenticate")), "basic")
}

func drain(resp *http.Response) {
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // only so that the connection can be used again
	resp.Body.Close()
}

// transportError is a failure below HTTP, worth another try.
type transportError struct{ err error }

func (e *transportError) Error() string { return e.err.Error() }
func (e *transportError) Unwrap() []error {
	return []error{e.err, errdefs.ErrUnknown}
}
