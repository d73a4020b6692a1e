package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// sshHostName stands in requests for a daemon that is reached through ssh; it is never looked up.
const sshHostName = "api.orlop.localhost"

// sshDialer reaches a daemon by running `PROGRAM system dial-stdio` on the other host, so that the user's own ssh
// configuration, agent and known hosts apply.
func sshDialer(host, program string) (dialFunc, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("ssh host connection is not valid: %w", err)
	}
	args, err := sshArgs(u, program)
	if err != nil {
		return nil, fmt.Errorf("ssh host connection is not valid: %w", err)
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return startCommand(ctx, "ssh", args...) }, nil
}

func sshArgs(u *url.URL, program string) ([]string, error) {
	switch {
	case u.Hostname() == "":
		return nil, errors.New("hostname is empty")
	case u.RawQuery != "":
		return nil, fmt.Errorf("query parameters are not allowed: %q", u.RawQuery)
	case u.Fragment != "":
		return nil, fmt.Errorf("fragments are not allowed: %q", u.Fragment)
	}
	args := []string{"-o", "ConnectTimeout=30", "-T"}
	if u.User != nil {
		if _, given := u.User.Password(); given {
			return nil, errors.New("plain-text password is not supported")
		}
		args = append(args, "-l", u.User.Username())
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	args = append(args, "--", u.Hostname(), program)
	if strings.Trim(u.Path, "/") != "" {
		// The far side's shell reads this; a quoted path cannot leave its word.
		args = append(args, "--host='unix://"+strings.ReplaceAll(u.Path, "'", `'\''`)+"'")
	}
	return append(args, "system", "dial-stdio"), nil
}

// commandConn is a child process's stdin and stdout as a connection.
type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr bytes.Buffer
	once   sync.Once
	err    error
}

func startCommand(ctx context.Context, name string, args ...string) (net.Conn, error) {
	// The transport keeps the connection beyond the request that opened it, and closes it.
	c := &commandConn{cmd: exec.CommandContext(context.WithoutCancel(ctx), name, args...)}
	c.cmd.Stderr = &c.stderr
	detach(c.cmd)
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// wait collects the child once its output has ended, so that a failure to connect carries what ssh said about it.
func (c *commandConn) wait() error {
	c.once.Do(func() {
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("command %v has exited with %w, make sure the URL is valid and the daemon runs on the remote host: stderr=%s",
				c.cmd.Args, err, strings.TrimSpace(c.stderr.String()))
		}
	})
	return c.err
}

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err == io.EOF {
		if failed := c.wait(); failed != nil {
			return n, failed
		}
	}
	return n, err
}

func (c *commandConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite ends the request side; the answer can still be read.
func (c *commandConn) CloseWrite() error { return c.in.Close() }

func (c *commandConn) Close() error {
	err := c.in.Close()
	_ = c.cmd.Process.Kill()
	_ = c.wait()
	return err
}

// commandAddr is the address of both ends: there is no network address to tell.
type commandAddr struct{}

func (commandAddr) Network() string { return "command" }
func (commandAddr) String() string  { return "stdio" }

func (*commandConn) LocalAddr() net.Addr              { return commandAddr{} }
func (*commandConn) RemoteAddr() net.Addr             { return commandAddr{} }
func (*commandConn) SetDeadline(time.Time) error      { return nil }
func (*commandConn) SetReadDeadline(time.Time) error  { return nil }
func (*commandConn) SetWriteDeadline(time.Time) error { return nil }
