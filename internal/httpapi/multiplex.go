package httpapi

import (
	"encoding/binary"
	"io"
	"sync"
)

// The first byte of a frame's header says which stream the frame belongs to.
const (
	frameStdout      byte = 1
	frameStderr      byte = 2
	frameSystemError byte = 3
)

// frameHeader is the length of a frame's header: the stream, three zero bytes
// and the payload's length, big endian (Engine API, ContainerAttach, "Stream
// format").
const frameHeader = 8

// multiplexer puts several streams onto one connection as frames. Its writers
// are safe for concurrent use; a frame is never torn.
type multiplexer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

func newMultiplexer(w io.Writer) *multiplexer { return &multiplexer{w: w} }

// stream is the writer of one of the streams.
func (m *multiplexer) stream(kind byte) io.Writer { return muxStream{m, kind} }

type muxStream struct {
	m    *multiplexer
	kind byte
}

// Write sends p as one frame in one write, so that a reader is woken once.
func (s muxStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	b := append(s.m.buf[:0], s.kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	b = append(b, p...)
	if cap(b) <= 64<<10 {
		s.m.buf = b
	}
	n, err := s.m.w.Write(b)
	return max(n-frameHeader, 0), err
}
