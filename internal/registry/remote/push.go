package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mountAnnotation lists, on a descriptor, the repositories of a registry that
// have the blob (containerd's label; the value is a comma-separated list).
const mountAnnotation = "containerd.io/distribution.source."

// Push uploads one blob or manifest and returns true when the registry had it
// already or could take it from another of its repositories. A manifest is
// stored under tag when that is not empty. Repeating it does no harm.
func (r *Repository) Push(ctx context.Context, desc ocispec.Descriptor, tag string, src content.Provider, progress func(done int64)) (existed bool, err error) {
	if progress == nil {
		progress = func(int64) {}
	}
	err = r.each(ctx, true, func(ep *endpoint) error {
		if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
			return r.pushManifest(ctx, ep, desc, tag, src)
		}
		existed, err = r.pushBlob(ctx, ep, desc, src, progress)
		return err
	})
	return existed, r.pushError(err)
}

func (r *Repository) pushManifest(ctx context.Context, ep *endpoint, desc ocispec.Descriptor, tag string, src content.Provider) error {
	data, err := content.ReadBlob(ctx, src, desc)
	if err != nil {
		return fmt.Errorf("push manifest %s: %w", desc.Digest, err)
	}
	object := tag
	if object == "" {
		object = desc.Digest.String()
	}
	resp, err := r.do(ctx, ep, request{
		method: http.MethodPut, path: "manifests/" + object, push: true,
		header: http.Header{"Content-Type": {desc.MediaType}},
		body:   func() io.ReadCloser { return io.NopCloser(strings.NewReader(string(data))) }, size: int64(len(data)),
	})
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode/100 != 2 {
		return r.statusError(resp)
	}
	return nil
}

func (r *Repository) pushBlob(ctx context.Context, ep *endpoint, desc ocispec.Descriptor, src content.Provider, progress func(int64)) (bool, error) {
	head, err := r.do(ctx, ep, request{method: http.MethodHead, path: "blobs/" + desc.Digest.String(), push: true})
	if err != nil {
		return false, err
	}
	drain(head)
	if head.StatusCode == http.StatusOK {
		progress(desc.Size)
		return true, nil
	}
	query := url.Values{}
	if from := r.mountSource(desc); from != "" {
		query.Set("mount", desc.Digest.String())
		query.Set("from", from)
	}
	begin, err := r.do(ctx, ep, request{method: http.MethodPost, path: "blobs/uploads/", query: query, push: true})
	if err != nil {
		return false, err
	}
	switch begin.StatusCode {
	case http.StatusCreated:
		drain(begin)
		progress(desc.Size)
		return true, nil
	case http.StatusAccepted:
		drain(begin)
	default:
		defer drain(begin)
		return false, r.statusError(begin)
	}
	location, err := begin.Location()
	if err != nil {
		return false, errdefs.ErrUnknown.WithMessage(fmt.Sprintf("push blob %s: registry gave no place to upload to: %v", desc.Digest, err))
	}
	values := location.Query()
	values.Set("digest", desc.Digest.String())
	location.RawQuery = values.Encode()
	blob, err := src.ReaderAt(ctx, desc)
	if err != nil {
		return false, fmt.Errorf("push blob %s: %w", desc.Digest, err)
	}
	defer blob.Close()
	resp, err := r.do(ctx, ep, request{
		method: http.MethodPut, location: location, push: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body: func() io.ReadCloser {
			return io.NopCloser(&counted{r: io.NewSectionReader(blob, 0, desc.Size), tell: progress})
		},
		size: desc.Size,
	})
	if err != nil {
		return false, err
	}
	defer drain(resp)
	if resp.StatusCode/100 != 2 {
		return false, r.statusError(resp)
	}
	progress(desc.Size)
	return false, nil
}

// mountSource is a repository of the same registry that has the blob.
func (r *Repository) mountSource(desc ocispec.Descriptor) string {
	for _, repo := range strings.Split(desc.Annotations[mountAnnotation+r.domain], ",") {
		if repo != "" && repo != r.path {
			return repo
		}
	}
	return ""
}

type counted struct {
	r    io.Reader
	done int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	if n > 0 {
		c.tell(c.done)
	}
	return n, err
}
