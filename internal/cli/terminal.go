package cli

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/moby/term"
)

// input is the user's side of the terminal: stdin with the state that raw mode replaced.
type input struct {
	io.ReadCloser
	fd       uintptr
	terminal bool

	mu    sync.Mutex // guards saved: restored by the stream's goroutine or by the command, whoever ends first
	saved *term.State
}

// output is stdout or stderr.
type output struct {
	io.Writer
	fd       uintptr
	terminal bool

	mu    sync.Mutex // guards saved, as in input
	saved *term.State
}

func newInput(f *os.File) *input {
	fd, terminal := term.GetFdInfo(f)
	return &input{ReadCloser: f, fd: fd, terminal: terminal}
}

func newOutput(f *os.File) *output {
	fd, terminal := term.GetFdInfo(f)
	return &output{Writer: f, fd: fd, terminal: terminal}
}

// size is the terminal's height and width, zero when it is none or says nothing.
func (o *output) size() (height, width uint) {
	if !o.terminal {
		return 0, 0
	}
	ws, err := term.GetWinsize(o.fd)
	if err != nil || ws == nil {
		return 0, 0
	}
	return uint(ws.Height), uint(ws.Width)
}

// checkTTY refuses to feed a container's terminal from something that is no terminal.
func (i *input) checkTTY(attachStdin, tty bool) error {
	if !attachStdin || !tty || i.terminal {
		return nil
	}
	const text = "the input device is not a TTY"
	if runtime.GOOS == "windows" {
		return errors.New(text + ".  If you are using mintty, try prefixing the command with 'winpty'")
	}
	return errors.New(text)
}

// raw switches the terminal to pass every key through; NORAW in the environment prevents it, as for Docker.
func (i *input) raw() (err error) {
	if !i.terminal || os.Getenv("NORAW") != "" {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.saved, err = term.SetRawTerminal(i.fd)
	return err
}

// restore undoes raw; it may be called any number of times.
func (i *input) restore() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.saved != nil {
		_ = term.RestoreTerminal(i.fd, i.saved)
		i.saved = nil
	}
}

func (o *output) raw() (err error) {
	if !o.terminal || os.Getenv("NORAW") != "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saved, err = term.SetRawTerminalOutput(o.fd)
	return err
}

func (o *output) restore() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.saved != nil {
		_ = term.RestoreTerminal(o.fd, o.saved)
		o.saved = nil
	}
}
