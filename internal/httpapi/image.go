package httpapi

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/pkg/authconfig"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/engine/images"
)

// Images is what this API calls of engine/images.
type Images interface {
	Pull(ctx context.Context, opts images.PullOptions) error
	Push(ctx context.Context, opts images.PushOptions) error
	Load(ctx context.Context, r io.Reader, opts images.LoadOptions) error
	Save(ctx context.Context, refs []string, w io.Writer, opts images.SaveOptions) error
	Import(ctx context.Context, opts images.ImportOptions) (digest.Digest, error)
	Tag(ctx context.Context, source, repo, tag string) error
	List(ctx context.Context, opts images.ListOptions) ([]imagetypes.Summary, error)
	Inspect(ctx context.Context, ref string, opts images.InspectOptions) (imagetypes.InspectResponse, error)
	Remove(ctx context.Context, ref string, opts images.RemoveOptions) ([]imagetypes.DeleteResponse, error)
	History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error)
	Prune(ctx context.Context, filters image.Filters) (imagetypes.PruneReport, error)
}

// auth reads the credentials of a request. Docker ignores what it cannot read:
// pulling without credentials is no error, and old clients send "null".
func (r *request) auth() *registry.AuthConfig {
	cfg, err := authconfig.Decode(r.Header.Get(registry.AuthHeader))
	if err != nil {
		return nil
	}
	return cfg
}

// metaHeaders are passed on to registries.
func (r *request) metaHeaders() map[string][]string {
	out := map[string][]string{}
	for key, values := range r.Header {
		if strings.HasPrefix(key, "X-Meta-") {
			out[key] = values
		}
	}
	return out
}

func (a *API) imageCreate(w *answer, r *request) error {
	var platform *ocispec.Platform
	if !r.before(32) {
		var err error
		if platform, err = r.platform(); err != nil {
			return err
		}
	}
	out := newStream(w)
	w.Header().Set("Content-Type", "application/json")
	if from := r.query("fromImage"); from != "" {
		// "pull -a" of old clients sends a name with a trailing colon.
		name := strings.TrimSuffix(from, ":")
		return out.finish(a.cfg.Images.Pull(r.Context(), images.PullOptions{
			Ref:      name,
			Tag:      r.query("tag"),
			All:      r.query("tag") == "",
			Platform: platform,
			Auth:     r.auth(),
			Headers:  r.metaHeaders(),
			Progress: out.progress,
		}))
	}
	source, done, err := a.importSource(r, out)
	if err != nil {
		return out.finish(err)
	}
	defer done()
	message := r.query("message")
	if message == "" {
		message = "Imported from " + r.query("fromSrc")
	}
	_, err = a.cfg.Images.Import(r.Context(), images.ImportOptions{
		Source:   source,
		Repo:     r.query("repo"),
		Tag:      r.query("tag"),
		Message:  message,
		Changes:  r.Form["changes"],
		Platform: platform,
		Progress: out.progress,
	})
	return out.finish(err)
}

func (a *API) imagePush(w *answer, r *request) error {
	opts := images.PushOptions{Ref: r.name(), Tag: r.query("tag"), Auth: r.auth(), Headers: r.metaHeaders()}
	// Older clients send a platform that never meant anything.
	if !r.before(46) {
		var err error
		if opts.Platform, err = r.imagePlatform(); err != nil {
			return err
		}
	}
	out := newStream(w)
	w.Header().Set("Content-Type", "application/json")
	opts.Progress = out.progress
	return out.finish(a.cfg.Images.Push(r.Context(), opts))
}

// platforms reads the platforms of save and load: none before API 1.48, at most
// one before 1.52.
func (r *request) platforms() ([]ocispec.Platform, error) {
	if r.before(48) {
		return nil, nil
	}
	values := r.Form["platform"]
	if r.before(52) && len(values) > 1 {
		return nil, invalid("multiple platform parameters are not supported in this API version; use API version 1.52 or later")
	}
	return platformJSON(values)
}

func (a *API) imageLoad(w *answer, r *request) error {
	wanted, err := r.platforms()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := newStream(w)
	err = a.cfg.Images.Load(r.Context(), r.Body, images.LoadOptions{
		Quiet:     r.flagOr("quiet", true),
		Platforms: wanted,
		Progress:  out.progress,
	})
	return out.finish(err)
}

func (a *API) imageSave(w *answer, r *request) error {
	wanted, err := r.platforms()
	if err != nil {
		return err
	}
	refs := r.Form["names"]
	if len(r.vars) > 0 {
		refs = r.vars
	}
	if len(refs) == 0 {
		return invalid("no images were named to save")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := a.cfg.Images.Save(r.Context(), refs, w, images.SaveOptions{Platforms: wanted}); err != nil {
		if w.wrote {
			// There is no place for an error inside a tar: the client has to
			// see that it was cut off.
			a.cfg.Logger.Error("image save failed after it began", "images", refs, "error", err)
			panic(http.ErrAbortHandler)
		}
		return err
	}
	return nil
}

func (a *API) imageTag(w *answer, r *request) error {
	if err := a.cfg.Images.Tag(r.Context(), r.name(), r.query("repo"), r.query("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (a *API) imageList(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if pattern := r.query("filter"); r.before(25) && pattern != "" && len(filters["reference"]) == 0 {
		filters["reference"] = []string{pattern}
	}
	opts := images.ListOptions{
		All:        r.flag("all"),
		Filters:    filters,
		SharedSize: !r.before(42) && r.flag("shared-size"),
		Manifests:  !r.before(47) && r.flag("manifests"),
	}
	if !r.before(54) && r.flag("identity") && !opts.Manifests {
		return invalid("conflicting options: identity requires manifests=1")
	}
	list, err := a.cfg.Images.List(r.Context(), opts)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, compatImageList(r, list))
	return nil
}

func (a *API) imageInspect(w *answer, r *request) error {
	var opts images.InspectOptions
	var err error
	opts.Manifests = !r.before(48) && r.flag("manifests")
	if !r.before(49) {
		if opts.Platform, err = r.imagePlatform(); err != nil {
			return err
		}
	}
	if opts.Manifests && opts.Platform != nil {
		return invalid("conflicting options: manifests and platform options cannot both be set")
	}
	inspect, err := a.cfg.Images.Inspect(r.Context(), r.name(), opts)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, compatImageInspect(r, inspect))
	return nil
}

func (a *API) imageHistory(w *answer, r *request) error {
	var platform *ocispec.Platform
	if !r.before(48) {
		var err error
		if platform, err = r.imagePlatform(); err != nil {
			return err
		}
	}
	history, err := a.cfg.Images.History(r.Context(), r.name(), platform)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, emptyNotNull(history))
	return nil
}

func (a *API) imageDelete(w *answer, r *request) error {
	name := r.name()
	if strings.TrimSpace(name) == "" {
		return invalid("image name cannot be blank")
	}
	opts := images.RemoveOptions{Force: r.flag("force"), PruneChildren: !r.flag("noprune")}
	if !r.before(50) {
		var err error
		if opts.Platforms, err = platformJSON(r.Form["platforms"]); err != nil {
			return err
		}
	}
	gone, err := a.cfg.Images.Remove(r.Context(), name, opts)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, emptyNotNull(gone))
	return nil
}

func (a *API) imagePrune(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := a.cfg.Images.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, report)
	return nil
}

// emptyNotNull keeps lists that are empty from being written as null, which
// clients in other languages do not iterate over.
func emptyNotNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
