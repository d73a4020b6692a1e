package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

// errGone: the stage ended without saying why.
var errGone = errors.New("the stage ended without a word")

// socketPair returns our end of a new conversation and the stage's.
func socketPair() (*conversation, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket to init: %w", err)
	}
	return &conversation{conn: initproc.NewConn(fds[0]), fd: fds[0]}, os.NewFile(uintptr(fds[1]), "init socket"), nil
}

func (c *conversation) close() { _ = unix.Close(c.fd) }

// answers are the parent's reactions to frames.
type answers struct {
	log     *slog.Logger
	console string // path of a console socket, or ""
	gotTerm func(*os.File)
	hooks   func() error
}

// listen answers frames until the stage says until; with Ready it goes on to
// the end of the conversation, which execve brings. errGone, *StartError, or
// what a reaction failed with.
func (c *conversation) listen(until initproc.Kind, a answers) error {
	ready := false
	for {
		kind, payload, fds, err := c.conn.Receive()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			if ready && until == initproc.Ready {
				return nil
			}
			return errGone
		}
		if err != nil {
			return fmt.Errorf("talk to init: %w", err)
		}
		files := make([]*os.File, len(fds))
		for i, fd := range fds {
			files[i] = os.NewFile(uintptr(fd), "from init")
		}
		err = c.react(kind, payload, files, a)
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
		if err != nil {
			return err
		}
		if kind == until && kind != initproc.Ready {
			return nil
		}
		ready = ready || kind == initproc.Ready
	}
}

func (c *conversation) react(kind initproc.Kind, payload []byte, files []*os.File, a answers) error {
	switch kind {
	case initproc.Warn:
		a.log.Warn(string(payload))
	case initproc.HooksDue:
		if err := a.hooks(); err != nil {
			return err
		}
		return c.conn.Send(initproc.HooksDone, nil)
	case initproc.Console:
		return takeConsole(payload, files, a)
	case initproc.Failed:
		f := initproc.DecodeFailure(payload)
		return &StartError{Code: f.Code, Err: errors.New(f.Text)}
	case initproc.Waiting, initproc.Ready:
	default:
		return fmt.Errorf("talk to init: unknown frame %d", kind)
	}
	return nil
}

// takeConsole keeps the pty's master or passes it to the console socket.
func takeConsole(payload []byte, files []*os.File, a answers) error {
	if len(files) != 1 || len(payload) != 3 {
		return errors.New("talk to init: no terminal beside its frame")
	}
	number := int(payload[0]) | int(payload[1])<<8 | int(payload[2])<<16
	// A descriptor of its own: files are closed by the caller.
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("take console: %w", err)
	}
	if a.console != "" {
		master := os.NewFile(uintptr(fd), fmt.Sprintf("/dev/pts/%d", number))
		defer master.Close()
		return pty.Send(a.console, master)
	}
	master, err := pty.Pollable(fd, number)
	if err != nil {
		return err
	}
	a.gotTerm(master)
	return nil
}

// stdio are the first three descriptors of a stage.
func stdio(terminal bool, in, out, errs *os.File, closeLater func(*os.File)) ([]*os.File, error) {
	files := []*os.File{in, out, errs}
	if terminal {
		files = []*os.File{nil, nil, nil}
	}
	var null *os.File
	for i, f := range files {
		if f != nil {
			continue
		}
		if null == nil {
			var err error
			if null, err = process.Null(); err != nil {
				return nil, err
			}
			closeLater(null)
		}
		files[i] = null
	}
	return files, nil
}

// makeGate makes the fifo at which an init waits, and opens its reading end:
// as long as init lives a writer finds a reader, afterwards ENXIO.
func makeGate(name string) (*os.File, error) {
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, fmt.Errorf("make start fifo: %w", err)
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open start fifo: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
