package httpapi

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/orlop/orlop/internal/engine/system"
)

// System is what this API calls of engine/system.
type System interface {
	Info(ctx context.Context) (systemtypes.Info, error)
	Version(ctx context.Context) (systemtypes.VersionResponse, error)
	DiskUsage(ctx context.Context, opts system.DiskUsageOptions) (systemtypes.DiskUsage, error)
	// Auth checks credentials with their registry; the token may be empty.
	Auth(ctx context.Context, credentials registry.AuthConfig) (token string, err error)
}

func (a *API) systemPing(w *answer, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if a.cfg.BuilderVersion != "" {
		h.Set("Builder-Version", a.cfg.BuilderVersion)
	}
	h.Set("Swarm", "inactive")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (a *API) options(w *answer, _ *request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

func (a *API) systemVersion(w *answer, r *request) error {
	version, err := a.cfg.System.Version(r.Context())
	if err != nil {
		return err
	}
	version.APIVersion, version.MinAPIVersion = NewestVersion.String(), a.min.String()
	for i := range version.Components {
		if details := version.Components[i].Details; details["ApiVersion"] != "" {
			details["ApiVersion"], details["MinAPIVersion"] = version.APIVersion, version.MinAPIVersion
		}
	}
	a.writeJSON(w, http.StatusOK, version)
	return nil
}

func (a *API) systemInfo(w *answer, r *request) error {
	info, err := a.cfg.System.Info(r.Context())
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, compatInfo(r, info))
	return nil
}

func (a *API) systemAuth(w *answer, r *request) error {
	credentials, err := authconfig.DecodeRequestBody(r.Body)
	if err != nil {
		return err
	}
	token, err := a.cfg.System.Auth(r.Context(), *credentials)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
	return nil
}

func (a *API) systemDataUsage(w *answer, r *request) error {
	opts := system.DiskUsageOptions{Containers: true, Images: true, Volumes: true, BuildCache: true}
	if kinds, ok := r.Form["type"]; ok && !r.before(42) {
		opts = system.DiskUsageOptions{}
		for _, kind := range kinds {
			switch systemtypes.DiskUsageObject(kind) {
			case systemtypes.ContainerObject:
				opts.Containers = true
			case systemtypes.ImageObject:
				opts.Images = true
			case systemtypes.VolumeObject:
				opts.Volumes = true
			case systemtypes.BuildCacheObject:
				opts.BuildCache = true
			default:
				return invalid("unknown object type: " + kind)
			}
		}
	}
	verbose := !r.before(52) && r.flag("verbose")
	// The old fields are lists of everything; only a client that knows
	// "verbose" is sure not to look for them.
	opts.Verbose = verbose || r.before(52) || !r.Form.Has("verbose")
	usage, err := a.cfg.System.DiskUsage(r.Context(), opts)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, compatDiskUsage(r, usage, !verbose))
	return nil
}
