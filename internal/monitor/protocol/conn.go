package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// readStep is how much room is made for a payload at a time, so that a length
// alone never makes this side allocate much.
const readStep = 64 << 10

// maxQueued bounds descriptors that arrived before the frame they belong to.
const maxQueued = 4 * MaxFiles

// Conn is one connection. One goroutine may read while others write.
type Conn struct {
	file *os.File
	raw  syscall.RawConn

	// buf[:have] is what was received and not yet returned.
	buf   []byte
	have  int
	used  int
	files []*os.File
	oob   []byte

	// timeout of a write; 0 is none. Set before the first Write.
	timeout time.Duration
	// gate is held while there is anything received that was not dealt with;
	// inside says that it is. Both belong to the reader.
	gate   sync.Locker
	inside bool

	wmu  sync.Mutex
	wbuf []byte // guarded by wmu
}

// NewConn takes over a connected unix stream socket; it is made non-blocking.
// On failure the file is closed.
func NewConn(fd int, name string) (*Conn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("use connection %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	if file == nil {
		return nil, fmt.Errorf("use connection %s: %w", name, os.ErrInvalid)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("use connection %s: %w", name, err)
	}
	return &Conn{file: file, raw: raw}, nil
}

// Close ends the connection and unblocks Read.
func (c *Conn) Close() error { return c.file.Close() }

// Discard is Close for the reader: descriptors that came ahead of frames which
// nobody will read are closed too.
func (c *Conn) Discard() error { return c.fail(c.file.Close()) }

// SetWriteTimeout bounds every Write; call it before the first. A Write that
// took longer fails with os.ErrDeadlineExceeded.
func (c *Conn) SetWriteTimeout(d time.Duration) { c.timeout = d }

// SetGate has Read hold l from the moment something arrives until it waits for
// more with nothing half received: who gets hold of the gate otherwise (the
// Locker of a sync.RWMutex's read side) finds every byte either in the socket or
// dealt with. Call it before Read, or from within the reader.
func (c *Conn) SetGate(l sync.Locker) { c.gate = l }

// Control gives access to the socket, e.g. for its options.
func (c *Conn) Control(f func(fd uintptr)) error { return c.raw.Control(f) }

// Read returns the next frame and the descriptors that came with it, which
// belong to the caller. io.EOF when the other side closed between two frames;
// ErrMalformed when it broke the protocol.
func (c *Conn) Read() (Frame, []*os.File, error) {
	c.shift()
	if err := c.fill(HeaderSize); err != nil {
		if errors.Is(err, io.EOF) && c.have > 0 {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, nil, c.fail(err)
	}
	h, err := ParseHeader(c.buf[:HeaderSize])
	if err != nil {
		return Frame{}, nil, c.fail(err)
	}
	if err := c.fill(HeaderSize + h.Length); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, nil, c.fail(err)
	}
	if h.Files > len(c.files) {
		return Frame{}, nil, c.fail(fmt.Errorf("frame says %d descriptors, %d came: %w", h.Files, len(c.files), ErrMalformed))
	}
	files := c.files[:h.Files:h.Files]
	c.files = c.files[h.Files:]
	if len(c.files) == 0 {
		c.files = nil
	}
	c.used = HeaderSize + h.Length
	return Frame{Kind: h.Kind, Op: h.Op, ID: h.ID, Payload: c.buf[HeaderSize:c.used]}, files, nil
}

// shift forgets the frame returned last. A large buffer is given back.
func (c *Conn) shift() {
	rest := c.buf[c.used:c.have]
	if cap(c.buf) > readStep && len(rest) <= readStep {
		c.buf = append(make([]byte, 0, max(len(rest), 512)), rest...)
		c.buf = c.buf[:cap(c.buf)]
	} else {
		copy(c.buf, rest)
	}
	c.have, c.used = len(rest), 0
}

// fill receives until n bytes are there.
func (c *Conn) fill(n int) error {
	for c.have < n {
		if c.have == len(c.buf) {
			grow := min(max(len(c.buf), 512), readStep)
			if missing := n - c.have; missing > grow {
				grow = min(missing, readStep)
			}
			c.buf = append(c.buf, make([]byte, grow)...)
			c.buf = c.buf[:cap(c.buf)]
		}
		if err := c.receive(); err != nil {
			return err
		}
	}
	return nil
}

// receive takes what is there, at least one byte.
func (c *Conn) receive() error {
	if c.oob == nil {
		c.oob = make([]byte, syscall.CmsgSpace(4*MaxFiles))
	}
	var n, oobn, flags int
	var err error
	readErr := c.raw.Read(func(fd uintptr) bool {
		c.enter()
		for {
			n, oobn, flags, _, err = syscall.Recvmsg(int(fd), c.buf[c.have:], c.oob, syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
			if err == syscall.EAGAIN {
				if c.have == 0 && len(c.files) == 0 {
					c.leave()
				}
				return false
			}
			if err != syscall.EINTR {
				return true
			}
		}
	})
	if readErr != nil {
		return readErr
	}
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		if err := c.accept(c.oob[:oobn]); err != nil {
			return err
		}
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return fmt.Errorf("descriptors were lost: %w", ErrMalformed)
	}
	if n == 0 {
		return io.EOF
	}
	c.have += n
	return nil
}

func (c *Conn) enter() {
	if c.gate != nil && !c.inside {
		c.gate.Lock()
		c.inside = true
	}
}

func (c *Conn) leave() {
	if c.inside {
		c.inside = false
		c.gate.Unlock()
	}
}

// accept queues received descriptors.
func (c *Conn) accept(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	for i := range messages {
		if messages[i].Header.Level != syscall.SOL_SOCKET || messages[i].Header.Type != syscall.SCM_RIGHTS {
			continue
		}
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return os.NewSyscallError("recvmsg", err)
		}
		for _, fd := range fds {
			c.files = append(c.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if len(c.files) > maxQueued {
		return fmt.Errorf("%d descriptors without a frame: %w", len(c.files), ErrMalformed)
	}
	return nil
}

// fail closes descriptors that nobody will get.
func (c *Conn) fail(err error) error {
	c.leave()
	for _, f := range c.files {
		f.Close()
	}
	c.files = nil
	return err
}

// Write sends one frame. The descriptors are duplicated by the kernel; they
// stay the caller's. A failed write leaves the connection of no use.
func (c *Conn) Write(f Frame, files ...int) error {
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes, more than %d: %w", len(f.Payload), MaxPayload, ErrMalformed)
	}
	if len(files) > MaxFiles {
		return fmt.Errorf("frame with %d descriptors, more than %d: %w", len(files), MaxFiles, ErrMalformed)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.wbuf = AppendHeader(c.wbuf[:0], Header{Length: len(f.Payload), Kind: f.Kind, Files: len(files), Op: f.Op, ID: f.ID})
	c.wbuf = append(c.wbuf, f.Payload...)
	data := c.wbuf
	if cap(c.wbuf) > readStep {
		c.wbuf = nil
	}
	var oob []byte
	if len(files) > 0 {
		oob = syscall.UnixRights(files...)
	}
	for wait := false; len(data) > 0; {
		if wait && c.timeout > 0 {
			if err := c.file.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
				return err
			}
			defer func() { _ = c.file.SetWriteDeadline(time.Time{}) }()
		}
		var n int
		var err error
		writeErr := c.raw.Write(func(fd uintptr) bool {
			for {
				n, err = syscall.SendmsgN(int(fd), data, oob, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
				if err != syscall.EINTR {
					// The first attempt never waits, so that the usual write
					// needs no timer.
					return err != syscall.EAGAIN || (!wait && c.timeout > 0)
				}
			}
		})
		if writeErr != nil {
			return writeErr
		}
		if err == syscall.EAGAIN {
			wait = true
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		data, oob = data[n:], nil
	}
	return nil
}

// Send writes v as JSON.
func (c *Conn) Send(kind Kind, op uint16, id uint32, v any, files ...int) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return c.Write(Frame{Kind: kind, Op: op, ID: id, Payload: payload}, files...)
}

// Request asks for op.
func (c *Conn) Request(op Operation, id uint32, args any, files ...int) error {
	return c.Send(KindRequest, uint16(op), id, args, files...)
}

// Answer replies to the request f.
func (c *Conn) Answer(f Frame, result any, failure *Failure) error {
	if failure != nil {
		return c.Send(KindReply, f.Op, f.ID, Reply{Failure: failure})
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode reply to %s: %w", Operation(f.Op), err)
	}
	return c.Send(KindReply, f.Op, f.ID, Reply{Result: raw})
}

// Tell sends an event.
func (c *Conn) Tell(e Event, v any) error { return c.Send(KindEvent, uint16(e), 0, v) }
