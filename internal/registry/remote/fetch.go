package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Fetch brings a blob or manifest into dst and verifies it. What has arrived
// before a failure (also of a daemon that was killed) stays in dst's ingest,
// and a later call goes on from there with a Range request. A blob that is
// there is no error. Transient failures are retried until Config.Attempts
// tries in a row brought nothing.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, dst content.Store, opts image.FetchOptions) error {
	if desc.Size < 0 {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("blob %s has no size", desc.Digest))
	}
	progress := opts.Progress
	if progress == nil {
		progress = func(int64) {}
	}
	ref := remotes.MakeRefKey(ctx, desc)
	w, err := content.OpenWriter(ctx, dst, content.WithRef(ref), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		progress(desc.Size)
		return nil
	}
	if err != nil {
		return fmt.Errorf("store blob %s: %w", desc.Digest, err)
	}
	defer w.Close()
	status, err := w.Status()
	if err != nil {
		return fmt.Errorf("store blob %s: %w", desc.Digest, err)
	}
	done := status.Offset
	if done > desc.Size {
		if err := w.Truncate(0); err != nil {
			return fmt.Errorf("store blob %s: %w", desc.Digest, err)
		}
		done = 0
	}
	progress(done)
	wait := opts.Retry
	if wait == nil {
		wait = func(int, error) {}
	}
	resumed := done > 0
	err = r.retry(ctx, wait, func() (bool, error) {
		before := done
		err := r.each(ctx, false, func(ep *endpoint) error {
			return r.download(ctx, ep, desc, w, &done, progress)
		})
		return done > before, err
	})
	if err != nil {
		return r.blobError(desc, err)
	}
	if opts.Verifying != nil {
		opts.Verifying()
	}
	err = w.Commit(ctx, desc.Size, desc.Digest)
	if errdefs.IsFailedPrecondition(err) {
		// What has arrived is not what was asked for: nothing of it may be the
		// beginning of the next try.
		abort := dst.Abort(context.WithoutCancel(ctx), ref)
		if errdefs.IsNotFound(abort) {
			abort = nil
		}
		if resumed && abort == nil {
			// The part of an earlier try may have been damaged (a machine that
			// lost power): once more from the beginning.
			return r.Fetch(ctx, desc, dst, opts)
		}
		return errors.Join(errdefs.ErrDataLoss.WithMessage("filesystem layer verification failed for digest "+desc.Digest.String()), abort)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("store blob %s: %w", desc.Digest, err)
	}
	return nil
}

// blobError names the blob in errors that do not.
func (r *Repository) blobError(desc ocispec.Descriptor, err error) error {
	var status *statusError
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &status) && status.status == http.StatusNotFound:
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("blob %s of %s not found in the registry: %s", desc.Digest, r.name.Name(), status.Error()))
	case errors.As(err, &status) && (status.code == codeDenied || status.code == codeUnauthorized):
		return r.pullError(r.name, err)
	}
	return fmt.Errorf("download blob %s of %s: %w", desc.Digest, r.name.Name(), err)
}

// download appends what follows *done to w.
func (r *Repository) download(ctx context.Context, ep *endpoint, desc ocispec.Descriptor, w content.Writer, done *int64, progress func(int64)) error {
	if *done == desc.Size {
		return nil
	}
	body, err := r.open(ctx, ep, desc, *done)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, 128<<10)
	for *done < desc.Size {
		n, err := body.Read(buf[:min(int64(len(buf)), desc.Size-*done)])
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return fmt.Errorf("write: %w", werr)
			}
			*done += int64(n)
			progress(*done)
		}
		if *done == desc.Size {
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return &transportError{err}
		}
	}
	return nil
}

// open returns the bytes of a blob from offset on.
func (r *Repository) open(ctx context.Context, ep *endpoint, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	q := request{method: http.MethodGet, path: "blobs/" + desc.Digest.String(), header: http.Header{"Accept": {"*/*"}}}
	if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
		q.path = "manifests/" + desc.Digest.String()
		q.header = http.Header{"Accept": {desc.MediaType + ", */*;q=0.1"}}
	}
	if offset > 0 {
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.do(ctx, ep, q)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
		return resp.Body, nil
	case resp.StatusCode == http.StatusOK:
		// A registry without ranges sends everything again.
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			resp.Body.Close()
			return nil, &transportError{fmt.Errorf("skip %d bytes: %w", offset, err)}
		}
		return resp.Body, nil
	}
	defer drain(resp)
	return nil, r.statusError(resp)
}

// retry calls try until it succeeds, fails for good, or has failed
// Config.Attempts times without progress. wait is told the seconds that are
// left before the next try.
func (r *Repository) retry(ctx context.Context, wait func(seconds int, cause error), try func() (progress bool, err error)) error {
	failures := 0
	for {
		progress, err := try()
		if err == nil || ctx.Err() != nil {
			if ctx.Err() != nil && err != nil {
				return ctx.Err()
			}
			return err
		}
		if !retryable(err) {
			return err
		}
		if progress {
			failures = 0
		}
		if failures++; failures >= r.client.cfg.Attempts {
			return err
		}
		for left := failures; left > 0; left-- {
			wait(left, err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.client.cfg.After(time.Second):
			}
		}
	}
}
