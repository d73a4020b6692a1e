// Package protocol is the language between the daemon and the monitors of its
// containers: frames on a unix stream socket, some with descriptors beside
// them. The entry points are NewConn and the message types; both sides use
// this package and nothing else of each other.
//
// # Connections
//
// A monitor is born with one connection (descriptor 3, a socket pair, the
// "control connection") and listens on <run folder>/monitor.sock for more.
// Every connection speaks the same protocol and stands for itself: any number
// may be open, each may send any request. Each side sends a Hello first,
// without waiting for the other's.
//
// # Frames
//
// A frame is a header of 12 bytes, big endian, and a payload:
//
//	0  uint32  length of the payload, at most MaxPayload
//	4  uint8   kind: 1 hello, 2 request, 3 reply, 4 event
//	5  uint8   number of descriptors that belong to the frame, at most MaxFiles
//	6  uint16  operation (requests and replies) or event number; 0 in a hello
//	8  uint32  request number, chosen by the asking side, repeated in the reply
//
// Payloads are JSON objects. Descriptors are passed with the first byte of
// their frame; what they are for stands in the payload.
//
// # Versions
//
// The header, the hello and the rule below never change; everything else may.
//
//   - The version of a connection is the lower of both sides' versions. A side
//     that cannot go as low as the other one's version closes the connection.
//   - A request is sent only when the other side listed the capability that it
//     belongs to (Operation.Capability), so an operation is never sent to a
//     monitor that does not know it. One that comes nevertheless is answered
//     with the error class "unimplemented"; unknown events and unknown keys of
//     an object are ignored; unknown kinds are skipped by their length.
//   - A key is never given another meaning. A changed operation gets a new
//     number and a new capability.
//
// A daemon therefore works with monitors that older and newer releases
// started: they run as long as their containers do.
//
// # Attached streams
//
// An attached client is a socket pair of its own, one end of which is passed
// with the request. Towards the client it carries chunks with a header of 8
// bytes, [stream 0 0 0 uint32 length] (1 stdout, 2 stderr: the form Docker's
// API sends to clients), and ends with end-of-file once the output ended.
// Towards the monitor it carries plain standard input; shutting down that
// direction is a half close.
//
// Lock order: none is held while another one is taken.
package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// Version is the newest version of the protocol this package speaks.
	Version = 1
	// MinVersion is the oldest one.
	MinVersion = 1
	// HeaderSize is the length of a frame's header in bytes.
	HeaderSize = 12
	// MaxPayload is the longest payload in bytes. It has room for the largest
	// command line and environment that execve takes, as JSON.
	MaxPayload = 16 << 20
	// MaxFiles is the largest number of descriptors beside one frame.
	MaxFiles = 32
	// StreamHeaderSize is the length of the header of a chunk of output.
	StreamHeaderSize = 8
	// MaxChunk is the longest chunk of output in bytes.
	MaxChunk = 64 << 10
)

// ErrMalformed is in the chain of every error that says the other side does
// not keep to the protocol; the connection is of no use afterwards.
var ErrMalformed = errors.New("malformed frame")

// Kind says what a frame is.
type Kind uint8

// The kinds of frames.
const (
	KindHello   Kind = 1
	KindRequest Kind = 2
	KindReply   Kind = 3
	KindEvent   Kind = 4
)

// Frame is one message.
type Frame struct {
	Kind Kind
	// Op is the Operation of a request and its reply, or the Event.
	Op uint16
	// ID numbers requests of one side; a reply repeats it.
	ID uint32
	// Payload is only valid until the next frame is read.
	Payload []byte
}

// Header is the fixed part of a frame.
type Header struct {
	Length int
	Kind   Kind
	Files  int
	Op     uint16
	ID     uint32
}

// AppendHeader appends the wire form of h.
func AppendHeader(b []byte, h Header) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(h.Length))
	b = append(b, byte(h.Kind), byte(h.Files))
	b = binary.BigEndian.AppendUint16(b, h.Op)
	return binary.BigEndian.AppendUint32(b, h.ID)
}

// ParseHeader reads a header of HeaderSize bytes and checks its bounds.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("frame header of %d bytes: %w", len(b), ErrMalformed)
	}
	length := binary.BigEndian.Uint32(b)
	h := Header{Kind: Kind(b[4]), Files: int(b[5]), Op: binary.BigEndian.Uint16(b[6:]), ID: binary.BigEndian.Uint32(b[8:])}
	if length > MaxPayload {
		return Header{}, fmt.Errorf("frame of %d bytes, more than %d: %w", length, MaxPayload, ErrMalformed)
	}
	if h.Files > MaxFiles {
		return Header{}, fmt.Errorf("frame with %d descriptors, more than %d: %w", h.Files, MaxFiles, ErrMalformed)
	}
	h.Length = int(length)
	return h, nil
}

// AppendStreamHeader appends the header of a chunk of output: stream is 1 or
// 2, length at most MaxChunk.
func AppendStreamHeader(b []byte, stream byte, length int) []byte {
	b = append(b, stream, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// ParseStreamHeader reads a header of StreamHeaderSize bytes.
func ParseStreamHeader(b []byte) (stream byte, length int, err error) {
	if len(b) < StreamHeaderSize {
		return 0, 0, fmt.Errorf("chunk header of %d bytes: %w", len(b), ErrMalformed)
	}
	n := binary.BigEndian.Uint32(b[4:])
	if (b[0] != 1 && b[0] != 2) || n > MaxChunk {
		return 0, 0, fmt.Errorf("chunk of %d bytes for stream %d: %w", n, b[0], ErrMalformed)
	}
	return b[0], int(n), nil
}
