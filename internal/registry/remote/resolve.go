package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds a manifest or index, as the distribution spec advises
// registries to (4 MiB); it is read into memory.
const maxManifest = 4 << 20

const (
	schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

var manifestTypes = strings.Join([]string{
	images.MediaTypeDockerSchema2Manifest,
	images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest,
	ocispec.MediaTypeImageIndex,
	"*/*;q=0.1",
}, ", ")

// Resolve returns the descriptor of the manifest or index that ref (a tag or a
// digest, else the tag latest) names, and its bytes, whose digest was
// verified. Errors have Docker's words: ErrNotFound for what does not exist or
// may not be seen, ErrInvalidArgument for schema 1.
func (r *Repository) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	object, want := "latest", digest.Digest("")
	switch named := ref.(type) {
	case reference.Digested:
		object, want = named.Digest().String(), named.Digest()
	case reference.Tagged:
		object = named.Tag()
	}
	var desc ocispec.Descriptor
	var body []byte
	// Not retried: a registry that does not answer is reported at once, as
	// Docker does; the transfers behind it are what is worth waiting for.
	err := r.each(ctx, false, func(ep *endpoint) (err error) {
		desc, body, err = r.manifest(ctx, ep, object, want)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, r.pullError(ref, err)
	}
	if desc.MediaType == schema1 || desc.MediaType == schema1Signed {
		return ocispec.Descriptor{}, nil, errdefs.ErrInvalidArgument.WithMessage(
			"Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of " +
				ref.String() + " to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/")
	}
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return ocispec.Descriptor{}, nil, errdefs.ErrInvalidArgument.WithMessage("unsupported media type " + desc.MediaType)
	}
	return desc, body, nil
}

func (r *Repository) manifest(ctx context.Context, ep *endpoint, object string, want digest.Digest) (ocispec.Descriptor, []byte, error) {
	resp, err := r.do(ctx, ep, request{method: http.MethodGet, path: "manifests/" + object, header: http.Header{"Accept": {manifestTypes}}})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, nil, r.statusError(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, nil, &transportError{fmt.Errorf("read manifest %s: %w", object, err)}
	}
	if len(body) > maxManifest {
		return ocispec.Descriptor{}, nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("manifest %s is larger than %d bytes", object, maxManifest))
	}
	algorithm := digest.Canonical
	if want != "" {
		algorithm = want.Algorithm()
	}
	got := algorithm.FromBytes(body)
	if want != "" && got != want {
		return ocispec.Descriptor{}, nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("manifest verification failed for digest %s", want))
	}
	desc := ocispec.Descriptor{MediaType: mediaType(resp.Header.Get("Content-Type"), body), Digest: got, Size: int64(len(body))}
	return desc, body, nil
}

// mediaType believes the registry when it names a type of manifest, else the
// document itself.
func mediaType(header string, body []byte) string {
	named, _, err := mime.ParseMediaType(header)
	if err != nil {
		named = ""
	}
	if images.IsManifestType(named) || images.IsIndexType(named) || named == schema1 || named == schema1Signed {
		return named
	}
	var doc struct {
		MediaType     string            `json:"mediaType"`
		SchemaVersion int               `json:"schemaVersion"`
		Manifests     []json.RawMessage `json:"manifests"`
		Config        json.RawMessage   `json:"config"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return named
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.SchemaVersion == 1:
		return schema1
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case doc.Config != nil:
		return ocispec.MediaTypeImageManifest
	}
	return named
}

// Tags lists every tag of the repository in the registry's order.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.each(ctx, false, func(ep *endpoint) (err error) {
		tags, err = r.tags(ctx, ep)
		return err
	})
	if err != nil {
		return nil, r.pullError(r.name, err)
	}
	return tags, nil
}

func (r *Repository) tags(ctx context.Context, ep *endpoint) ([]string, error) {
	const pageSize, maxTags = "1000", 1 << 20
	var all []string
	query := url.Values{"n": {pageSize}}
	for {
		resp, err := r.do(ctx, ep, request{method: http.MethodGet, path: "tags/list", query: query})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			defer drain(resp)
			return nil, r.statusError(resp)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		err = json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(&page)
		drain(resp)
		if err != nil {
			return nil, &transportError{fmt.Errorf("read tags of %s: %w", reference.FamiliarName(r.name), err)}
		}
		all = append(all, page.Tags...)
		next := nextPage(resp.Header.Get("Link"))
		if next == nil || len(page.Tags) == 0 {
			return all, nil
		}
		if len(all) > maxTags {
			return nil, errors.New("registry returned more tags than any repository has")
		}
		query = next
	}
}

// nextPage reads RFC 8288's rel="next" of a Link header.
func nextPage(link string) url.Values {
	target, params, ok := strings.Cut(link, ">")
	target, found := strings.CutPrefix(strings.TrimSpace(target), "<")
	if !ok || !found || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return nil
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil
	}
	return u.Query()
}
