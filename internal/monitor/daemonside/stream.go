package daemonside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// AttachOptions say what an attached client takes part in.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
}

// AttachFile is the monitor's end of a stream that is attached while the
// container starts, before its first byte. NewAttach makes it; Start closes
// it.
type AttachFile struct {
	opts AttachOptions
	file *os.File
}

// Close gives the file up when it is not used for a start.
func (f AttachFile) Close() error { return f.file.Close() }

// Stream is one attached client of a container or an exec.
type Stream struct {
	// Stdin is the standard input; nil when it was not asked for. Its Close
	// is a half close: the output goes on. A write blocks while the
	// application does not read.
	Stdin io.WriteCloser

	sock *os.File
	once sync.Once
	buf  []byte
	// from:have of buf is received and not yet returned.
	from, have int
	// left of the current chunk, of stream kind.
	left int
	kind byte
}

// NewAttach makes a stream for Files.Attach. The stream delivers from the
// start on, and ends at once when the start fails.
func NewAttach(opts AttachOptions) (*Stream, AttachFile, error) {
	stream, file, err := newStream(opts)
	if err != nil {
		return nil, AttachFile{}, err
	}
	return stream, AttachFile{opts: opts, file: file}, nil
}

func newStream(opts AttachOptions) (*Stream, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("attach: socketpair: %w", err)
	}
	s := &Stream{sock: os.NewFile(uintptr(fds[0]), "attached stream")}
	if opts.Stdin {
		s.Stdin = halfCloser{s}
	}
	return s, os.NewFile(uintptr(fds[1]), "monitor's end of a stream"), nil
}

// Next returns the next piece of output: kind is 1 (stdout, or a terminal) or
// 2 (stderr); data is valid until the next call. io.EOF when the output ended.
func (s *Stream) Next() (kind byte, data []byte, err error) {
	if s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	for s.left == 0 {
		for s.have-s.from < protocol.StreamHeaderSize {
			if err := s.receive(); err != nil {
				if errors.Is(err, io.EOF) && s.have > s.from {
					err = io.ErrUnexpectedEOF
				}
				return 0, nil, err
			}
		}
		s.kind, s.left, err = protocol.ParseStreamHeader(s.buf[s.from:s.have])
		if err != nil {
			return 0, nil, fmt.Errorf("read attached stream: %w", err)
		}
		s.from += protocol.StreamHeaderSize
	}
	if s.have == s.from {
		if err := s.receive(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
	}
	n := min(s.left, s.have-s.from)
	data = s.buf[s.from : s.from+n : s.from+n]
	s.from += n
	s.left -= n
	return s.kind, data, nil
}

// receive takes at least one byte.
func (s *Stream) receive() error {
	if s.from > 0 {
		copy(s.buf, s.buf[s.from:s.have])
		s.have -= s.from
		s.from = 0
	}
	n, err := s.sock.Read(s.buf[s.have:])
	s.have += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
		return io.EOF
	}
	return err
}

// Close detaches and unblocks Next and writes. It may be repeated.
func (s *Stream) Close() error {
	var err error
	s.once.Do(func() { err = s.sock.Close() })
	return err
}

// halfCloser is the standard input of a stream.
type halfCloser struct{ s *Stream }

func (h halfCloser) Write(p []byte) (int, error) { return h.s.sock.Write(p) }

func (h halfCloser) Close() error {
	raw, err := h.s.sock.SyscallConn()
	if err != nil {
		return nil // closed already
	}
	var shutErr error
	if err := raw.Control(func(fd uintptr) { shutErr = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return nil
	}
	if shutErr != nil && shutErr != unix.ENOTCONN {
		return fmt.Errorf("close standard input: %w", shutErr)
	}
	return nil
}
