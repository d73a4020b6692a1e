package initproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Kind says what a frame between the parent and a stage means:
//
//	parent                      stage
//	  ── Configure (fds: join, and a connection to the seccomp agent) ──▶
//	  ◀── Warn text ──            any time
//	  ◀── HooksDue ──             root is mounted, not yet entered
//	  ── HooksDone ──▶            only after HooksDue
//	  ◀── Console number (fd) ──  only with a terminal
//	  ◀── Waiting ──              only with a gate: ready to be started
//	  ◀── Ready ──                nothing but execve is left
//	  ◀── end of file ──          execve succeeded, if Ready was seen
//	  ◀── Failed code text ──     the end, instead of the rest
type Kind uint8

// The kinds of frames.
const (
	Configure Kind = iota + 1
	Warn
	HooksDue
	HooksDone
	Console
	Waiting
	Ready
	Failed
)

// Failure is the payload of Failed.
type Failure struct {
	Code int
	Text string
}

// encode is the code in one byte, then the text.
func (f Failure) encode() []byte { return append([]byte{byte(f.Code)}, f.Text...) }

// DecodeFailure reads the payload of Failed.
func DecodeFailure(b []byte) Failure {
	if len(b) == 0 {
		return Failure{Code: codeOther, Text: "the stage failed without a reason"}
	}
	return Failure{Code: int(b[0]), Text: string(b[1:])}
}

// maxFrame bounds a frame's payload: a configuration of 32 MiB is refused
// before, so nothing longer is real.
const maxFrame = 64 << 20

// Conn is one end of the socket between parent and stage. Not for concurrent use.
type Conn struct{ fd int }

// NewConn wraps a connected SOCK_STREAM unix socket; it stays the caller's.
func NewConn(fd int) *Conn { return &Conn{fd: fd} }

// Send writes a frame with descriptors beside it.
func (c *Conn) Send(k Kind, payload []byte, fds ...int) error {
	head := make([]byte, 5, 5+len(payload))
	head[0] = byte(k)
	binary.LittleEndian.PutUint32(head[1:], uint32(len(payload)))
	b := append(head, payload...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// maxFDs bounds descriptors beside a frame (the kernel's SCM_MAX_FD is 253).
const maxFDs = 64

// Receive reads a frame; its descriptors are close-on-exec and the caller's.
// io.EOF: the other end is closed.
func (c *Conn) Receive() (k Kind, payload []byte, fds []int, err error) {
	var head [5]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	for got := 0; got < len(head); {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, head[got:], oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, nil, fds, err
		}
		if n == 0 {
			if got > 0 {
				return 0, nil, fds, io.ErrUnexpectedEOF
			}
			return 0, nil, nil, io.EOF
		}
		if oobn > 0 {
			more, err := rights(oob[:oobn])
			if err != nil {
				return 0, nil, fds, err
			}
			fds = append(fds, more...)
		}
		got += n
	}
	size := binary.LittleEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, fds, fmt.Errorf("frame of %d bytes", size)
	}
	payload = make([]byte, size)
	for got := 0; got < len(payload); {
		n, err := unix.Read(c.fd, payload[got:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, nil, fds, err
		}
		if n == 0 {
			return 0, nil, fds, io.ErrUnexpectedEOF
		}
		got += n
	}
	return Kind(head[0]), payload, fds, nil
}

func rights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// expect receives a frame that must be of kind k.
func (c *Conn) expect(k Kind) ([]byte, []int, error) {
	got, payload, fds, err := c.Receive()
	if err != nil {
		return nil, nil, err
	}
	if got != k {
		return nil, nil, fmt.Errorf("frame %d where %d is due", got, k)
	}
	return payload, fds, nil
}
