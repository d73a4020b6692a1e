package httpapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/jsonstream"
)

// answerTimeout bounds how long a client may take to accept a whole answer that
// is in memory. Streams have no such bound: reading slowly is how a client
// slows down what it follows.
const answerTimeout = 2 * time.Minute

// answer is a ResponseWriter that knows whether its answer has begun.
type answer struct {
	http.ResponseWriter
	wrote    bool
	hijacked bool
}

func (w *answer) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *answer) Flush() {
	w.wrote = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
	}
	return conn, buf, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeJSON writes a whole answer. What cannot be encoded is a fault of ours
// and panics before anything is written.
func (a *API) writeJSON(w *answer, status int, v any) {
	body, err := marshal(v)
	if err != nil {
		panic(err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(a.cfg.Now().Add(answerTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// marshal is json.Marshal with a line feed behind it and without HTML escapes,
// which is how Docker writes JSON.
func marshal(v any) ([]byte, error) {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return []byte(out.String()), nil
}

// stream is a body that is sent piece by piece: every write is flushed, so that
// the client sees it at once. Safe for concurrent writers.
type stream struct {
	mu sync.Mutex
	w  *answer
	// started: something was written, so an error can only be told inside the
	// stream.
	started bool
}

func newStream(w *answer) *stream { return &stream{w: w} }

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	n, err := s.w.Write(p)
	if err == nil {
		s.w.Flush()
	}
	return n, err
}

// begin sends status and headers before there is a body.
func (s *stream) begin(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	s.w.WriteHeader(status)
	s.w.Flush()
}

func (s *stream) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// progress writes one message of a pull, push, load or import.
func (s *stream) progress(m jsonstream.Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.Write(append(line, "\r\n"...))
	return err
}

// finish tells err inside the stream when it has begun, else it hands the error
// back to be answered with a status.
func (s *stream) finish(err error) error {
	if err == nil || !s.begun() {
		return err
	}
	var detail *jsonstream.Error
	if !errors.As(err, &detail) {
		detail = &jsonstream.Error{Message: err.Error()}
	}
	// "error" is what clients before API 1.9 read; all read "errorDetail".
	line, merr := json.Marshal(struct {
		Error  string            `json:"error"`
		Detail *jsonstream.Error `json:"errorDetail"`
	}{detail.Error(), detail})
	if merr != nil {
		return merr
	}
	_, _ = s.Write(append(line, "\r\n"...))
	return nil
}

// acceptedStream is the best of the JSON stream types that the client lists by
// name in its Accept header; wildcards do not count. "" when there is none.
func acceptedStream(h http.Header) types.MediaType {
	best, bestQ := "", 0.0
	offers := []types.MediaType{types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSONSequence}
	ranges := parseAccept(h)
	for _, offer := range offers {
		for _, r := range ranges {
			if r.kind == offer && r.q > bestQ {
				best, bestQ = offer, r.q
			}
		}
	}
	return best
}

// jsonLines gives the function that writes one record of a JSON stream.
func jsonLines(w io.Writer, kind types.MediaType) func(any) error {
	return func(v any) error {
		line, err := marshal(v)
		if err != nil {
			return err
		}
		if kind == types.MediaTypeJSONSequence {
			// RFC 7464: a record separator in front, a line feed behind.
			line = append([]byte{0x1e}, line...)
		}
		_, err = w.Write(line)
		return err
	}
}
