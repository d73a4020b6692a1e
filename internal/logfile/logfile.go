// Package logfile writes and reads the output of containers in files: Docker's
// json-file format, line for line, and "local", a compact one of ours. The
// entry points are Open for the one process that writes (a monitor) and
// NewReader for any that read.
//
// # Files
//
// The current file is Config.Path; rotated ones have ".1" (the newest), ".2",
// … behind it and ".gz" when compressed. A file is rotated before it would
// outgrow Config.MaxSize, always between two entries. A rotated file keeps its
// inode, by which a reader that follows finds what comes next; a compressed one
// notes the inode it had in its gzip header.
//
// # json-file
//
// One JSON object a line, byte for byte what Docker writes:
//
//	{"log":"hello\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-02T03:04:05.6Z"}
//
// Lines longer than 16 KiB become several entries, all with the time of the
// first and only the last with its newline. Bytes that are not UTF-8 become
// U+FFFD.
//
// # local
//
// A header, "orlop-log 1\n", uint32 length and a JSON object of attributes,
// then records: uint32 n, n bytes, uint32 n again (so that a file can be read
// from its end), big endian. The n bytes are one of flags (1 stdout, 2 stderr,
// 0x80: partial), int64 nanoseconds since 1970, and the line without newline.
//
// # Damage
//
// After a kill -9 or a crash the last entry may be incomplete. A writer cuts it
// off when it opens the file; readers leave out what cannot be decoded. A full
// disk drops entries and counts them; it never blocks the writer's caller.
//
// Lock order: Writer.mu, then Writer.names; ring.mu and Reader.mu stand alone.
package logfile

import (
	"time"

	"github.com/containerd/errdefs"
)

// The drivers of this package.
const (
	DriverJSON  = "json-file"
	DriverLocal = "local"
	DriverNone  = "none"
)

const (
	// DefaultMaxSize and DefaultMaxFiles apply when a container's log options
	// say nothing: a log never fills the disk by default (Docker's does).
	DefaultMaxSize  = 20 << 20
	DefaultMaxFiles = 5

	// maxLine is where Docker splits lines.
	maxLine = 16 << 10
	// flushAt is how much encoded output is collected at most.
	flushAt = 64 << 10
)

// Streams of an entry.
const (
	Stdout byte = 1
	Stderr byte = 2
)

// Config says what to write where.
type Config struct {
	// Driver is DriverJSON, DriverLocal or DriverNone.
	Driver string
	// Path of the current file.
	Path string
	// MaxSize of one file in bytes; 0 is unlimited.
	MaxSize int64
	// MaxFiles counts the current file; less than 1 is 1.
	MaxFiles int
	// Compress rotated files with gzip.
	Compress bool
	// Attrs go with every entry.
	Attrs map[string]string
	// Buffer in bytes makes a Writer whose callers never wait for the disk: so
	// much output waits in memory, and when more comes the oldest is dropped
	// and counted. 0: callers wait.
	Buffer int64
}

// Entry is one piece of output.
type Entry struct {
	Time time.Time
	// Stream is Stdout or Stderr.
	Stream byte
	// Line ends with its newline unless Partial. It is valid until the next
	// entry is asked for.
	Line []byte
	// Partial: the line goes on in the next entry of its stream, or was never
	// finished.
	Partial bool
	// Attrs are shared by entries and not to be changed.
	Attrs map[string]string
}

// codec is a file format.
type codec interface {
	// header is what every file starts with.
	header(attrs map[string]string) ([]byte, error)
	// append encodes one entry; line has no newline.
	append(b []byte, stream byte, line []byte, partial bool, stamp stamp) []byte
	// sound returns how much of the file is complete entries.
	sound(f readerAt, size int64) (int64, error)
	// tail returns the offset from which on at most n entries follow, and how
	// many those are.
	tail(f readerAt, size int64, n int) (offset int64, found int, err error)
	// start returns the offset of the first entry and the file's attributes.
	start(f readerAt) (int64, map[string]string, error)
	// next decodes the first entry of b: how many bytes it took, or 0 when it
	// is not complete. skip: those bytes are no entry.
	next(b []byte, e *Entry, s *scratch) (used int, skip bool)
}

// stamp is a time in both forms.
type stamp struct {
	nanos int64
	text  []byte // with quotes
}

// scratch is what a decoder keeps between entries.
type scratch struct {
	line     []byte
	rawAttrs []byte
	attrs    map[string]string
}

type readerAt interface {
	ReadAt(p []byte, off int64) (int, error)
}

// codecOf finds the format of a driver. ErrInvalidArgument.
func codecOf(driver string, attrs map[string]string) (codec, error) {
	switch driver {
	case DriverJSON, "":
		return newJSONCodec(attrs)
	case DriverLocal:
		return localCodec{}, nil
	}
	return nil, errdefs.ErrInvalidArgument.WithMessage("logger: no log driver named '" + driver + "' is registered")
}
