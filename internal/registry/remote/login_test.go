package remote_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"github.com/orlop/orlop/internal/registry/registrytest"
	"github.com/orlop/orlop/internal/registry/remote"
)

func login(t *testing.T, server *httptest.Server, c registry.AuthConfig) (string, error) {
	t.Helper()
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.ServerAddress = server.URL
	return client.Login(context.Background(), c)
}

func TestLoginWithAPassword(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/v2/" || user != "me" || password != "right" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	if token, err := login(t, server, registry.AuthConfig{Username: "me", Password: "right"}); err != nil || token != "" {
		t.Errorf("%q %v", token, err)
	}
	if _, err := login(t, server, registry.AuthConfig{Username: "me", Password: "wrong"}); !errdefs.IsUnauthorized(err) {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestLoginAtATokenServer(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		user, password, _ := r.BasicAuth()
		if (user != "me" || password != "right") && r.PostFormValue("refresh_token") != "kept" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": "t", "access_token": "t", "refresh_token": "kept"})
	}))
	defer server.Close()
	if token, err := login(t, server, registry.AuthConfig{Username: "me", Password: "right"}); err != nil || token != "kept" {
		t.Errorf("%q %v", token, err)
	}
	if _, err := login(t, server, registry.AuthConfig{IdentityToken: "kept"}); err != nil {
		t.Errorf("with the token of an earlier login: %v", err)
	}
	if _, err := login(t, server, registry.AuthConfig{Username: "me", Password: "wrong"}); !errdefs.IsUnauthorized(err) {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestLoginWhereNobodyIs(t *testing.T) {
	server := &httptest.Server{URL: "http://" + registrytest.Nobody(t)}
	if _, err := login(t, server, registry.AuthConfig{Username: "me", Password: "x"}); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}
