package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/moby/term"
)

// session copies between the user's streams and the hijacked connection of an attach or exec.
type session struct {
	app        *app
	conn       client.HijackedResponse
	in         io.ReadCloser // nil: no input
	out, err   io.Writer     // both nil: no output
	tty        bool
	detachKeys string
}

// checkDetachKeys refuses a key sequence that cannot be read, such as ctrl-€.
func checkDetachKeys(keys string) error {
	if keys == "" {
		return nil
	}
	if _, err := term.ToBytes(keys); err != nil {
		return fmt.Errorf("invalid detach keys (%s): %w", keys, err)
	}
	return nil
}

// detachKeys is the flag's value or the configured one; empty means Docker's ctrl-p,ctrl-q.
func (a *app) detachKeys(flag string) (string, error) {
	if flag != "" {
		return flag, checkDetachKeys(flag)
	}
	keys := a.configFile().DetachKeys
	return keys, checkDetachKeys(keys)
}

// run copies until the output has ended, the user typed the detach keys (term.EscapeError) or ctx ended. Without
// output it ends with the input. The terminal is as before when it returns.
func (s *session) run(ctx context.Context) error {
	restore, err := s.prepareInput()
	if err != nil {
		return fmt.Errorf("unable to setup input stream: %w", err)
	}
	defer restore()
	outputDone := s.copyOutput(restore)
	inputDone, detached := s.copyInput(restore)
	select {
	case err := <-outputDone:
		return err
	case err := <-detached:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-inputDone:
	}
	if s.out == nil && s.err == nil {
		return nil
	}
	select {
	case err := <-outputDone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepareInput makes the terminal raw and watches for the detach keys, when there is a terminal on both sides.
func (s *session) prepareInput() (restore func(), _ error) {
	if s.in == nil || !s.tty {
		return func() {}, nil
	}
	keys := []byte{16, 17} // ctrl-p, ctrl-q
	if s.detachKeys != "" {
		var err error
		if keys, err = term.ToBytes(s.detachKeys); err != nil {
			return nil, fmt.Errorf("invalid detach keys (%s): %w", s.detachKeys, err)
		}
	}
	for _, raw := range []func() error{s.app.stdin.raw, s.app.stdout.raw} {
		if err := raw(); err != nil {
			return nil, fmt.Errorf("unable to set IO streams as raw terminal: %w", err)
		}
	}
	stdin := s.in
	restore = sync.OnceFunc(func() {
		s.app.stdin.restore()
		s.app.stdout.restore()
		// Closing ends a pending read. On these two systems closing a terminal can block; the process ends anyway.
		if runtime.GOOS != "darwin" && runtime.GOOS != "windows" {
			_ = stdin.Close()
		}
	})
	s.in = struct {
		io.Reader
		io.Closer
	}{term.NewEscapeProxy(stdin, keys), stdin}
	return restore, nil
}

// copyOutput starts the copy to the user; its channel never yields when there is nothing to copy to. The terminal is
// restored as soon as the output ends, so that what is printed next looks right.
func (s *session) copyOutput(restore func()) <-chan error {
	if s.out == nil && s.err == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var err error
		if s.out != nil && s.tty {
			_, err = io.Copy(s.out, s.conn.Reader)
			restore()
		} else {
			_, err = stdcopy.StdCopy(orDiscard(s.out), orDiscard(s.err), s.conn.Reader)
		}
		if err != nil {
			slog.Debug("receive stdout", "error", err)
		}
		done <- err
	}()
	return done
}

// orDiscard stands in for the stream that was not asked for, should the daemon send it all the same.
func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// copyInput starts the copy from the user and half-closes the connection at its end. A failed copy is not reported:
// the output side sees the broken connection too.
func (s *session) copyInput(restore func()) (done <-chan struct{}, detached <-chan error) {
	ended, escape := make(chan struct{}), make(chan error, 1)
	go func() {
		if s.in != nil {
			_, err := io.Copy(s.conn.Conn, s.in)
			restore()
			if isEscape(err) {
				escape <- err
				return
			}
			if err != nil {
				slog.Debug("send stdin", "error", err)
			}
		}
		if err := s.conn.CloseWrite(); err != nil {
			slog.Debug("send end of stdin", "error", err)
		}
		close(ended)
	}()
	return ended, escape
}

// isEscape reports whether the user typed the detach keys.
func isEscape(err error) bool {
	var escape term.EscapeError
	return errors.As(err, &escape)
}
