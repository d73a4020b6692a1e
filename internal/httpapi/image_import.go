package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"
)

// importSource opens the tar of an import: the request's body for "-", else
// what an HTTP server has under that address.
func (a *API) importSource(r *request, out *stream) (io.Reader, func(), error) {
	source := r.query("fromSrc")
	if source == "-" {
		return r.Body, func() {}, nil
	}
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	address, err := url.Parse(source)
	if err != nil {
		return nil, nil, invalid(err.Error())
	}
	get, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, nil, invalid(err.Error())
	}
	resp, err := http.DefaultClient.Do(get) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, nil, errdefs.ErrUnavailable.WithMessage(err.Error())
	}
	if resp.StatusCode >= http.StatusBadRequest {
		resp.Body.Close()
		text := fmt.Sprintf("failed to GET %s with status %s", address, resp.Status)
		switch resp.StatusCode {
		case http.StatusNotFound:
			return nil, nil, errdefs.ErrNotFound.WithMessage(text)
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, nil, errdefs.ErrPermissionDenied.WithMessage(text)
		}
		if resp.StatusCode < http.StatusInternalServerError {
			return nil, nil, invalid(text)
		}
		return nil, nil, errdefs.ErrUnavailable.WithMessage(text)
	}
	if err := out.progress(jsonstream.Message{Status: "Downloading from " + address.String()}); err != nil {
		resp.Body.Close()
		return nil, nil, err
	}
	body := &countingReader{Reader: resp.Body, out: out, total: resp.ContentLength}
	return body, func() { resp.Body.Close() }, nil
}

// reportEvery is how many bytes of a download pass between two messages.
const reportEvery = 512 << 10

// countingReader tells how much of a download has passed through it.
type countingReader struct {
	io.Reader
	out               *stream
	done, last, total int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.done += int64(n)
	if c.done-c.last >= reportEvery || err == io.EOF {
		c.last = c.done
		if perr := c.out.progress(jsonstream.Message{
			Status:   "Importing",
			Progress: &jsonstream.Progress{Current: c.done, Total: max(c.total, 0)},
		}); perr != nil {
			return n, perr
		}
	}
	return n, err
}
