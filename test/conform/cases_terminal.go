package conform

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// terminal runs args with a console socket and returns what the terminal's
// master gave until every holder of the other end was gone.
func terminal(e *Env, args ...string) (string, error) {
	// Short, because a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	for i, a := range args {
		if a == "SOCKET" {
			args[i] = name
		}
	}
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		text, err := readMaster(l)
		got <- result{text, err}
	}()
	if _, err := e.Must(args...); err != nil {
		return "", err
	}
	if args[0] == "create" {
		if _, err := e.Must("start", e.ID); err != nil {
			return "", err
		}
	}
	select {
	case r := <-got:
		return r.text, r.err
	case <-time.After(limit):
		return "", errors.New("no end of the terminal")
	}
}

// receive takes one message with one descriptor from the next connection.
// whole says whether a message is; nil takes what comes first.
func receive(l *net.UnixListener, whole func([]byte) bool) (msg []byte, f *os.File, conn *net.UnixConn, err error) {
	if err := l.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, nil, nil, err
	}
	if conn, err = l.AcceptUnix(); err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, nil, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil, nil, nil, fmt.Errorf("no descriptor beside %q: %w", b[:n], err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, nil, nil, fmt.Errorf("descriptors %v: %w", fds, err)
	}
	msg = b[:n]
	// The rest of a message that was sent in parts.
	for whole != nil && !whole(msg) {
		n, err := conn.Read(b[len(msg):])
		if err != nil || n == 0 {
			break
		}
		msg = b[:len(msg)+n]
	}
	return msg, os.NewFile(uintptr(fds[0]), "received"), conn, nil
}

func readMaster(l *net.UnixListener) (string, error) {
	_, f, conn, err := receive(l, nil)
	if err != nil {
		return "", err
	}
	defer f.Close()
	defer conn.Close()
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		return "", err
	}
	var text strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := f.Read(b)
		text.Write(b[:n])
		if err != nil {
			return strings.ReplaceAll(text.String(), "\r\n", "\n"), nil // EIO: nobody has the other end
		}
	}
}

// terminalCases are what a process with a terminal finds.
func terminalCases() []Case {
	const section = "config.md#process"
	withTTY := func(_ *Env, s *specs.Spec) { s.Process.Terminal = true }
	show := func(name, section, script string, edit func(*Env, *specs.Spec), want ...string) Case {
		return Case{Section: section, Name: name, Script: script, Edit: func(e *Env, s *specs.Spec) {
			withTTY(e, s)
			if edit != nil {
				edit(e, s)
			}
		}, Do: func(e *Env) error {
			out, err := terminal(e, "create", "--console-socket", "SOCKET", e.ID)
			if err != nil {
				return err
			}
			for _, w := range want {
				if !strings.Contains(out, w) {
					return fmt.Errorf("no %q in %q", w, out)
				}
			}
			return nil
		}}
	}
	return []Case{
		show("terminal is on the standard streams", section, "for f in 0 1 2; do readlink /proc/self/fd/$f; test -t $f && echo yes$f; done", nil, "yes0", "yes1", "yes2"),
		show("terminal is the controlling one", section, "echo hello > /dev/tty", nil, "hello"),
		show("terminal belongs to the user", section, "stat -c %u $(tty)", user(33, 44), "33\n"),
		show("consoleSize", section, "stty size", func(_ *Env, s *specs.Spec) { s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99} }, "33 99\n"),
		show("dev/console", "config-linux.md#default-devices", "grep ' /dev/console ' /proc/self/mounts; stat -c %F /dev/console; echo there > /dev/console", nil, "devpts", "character special", "there"),
		{Section: section, Name: "consoleSize without terminal is ignored", Script: "test -t 0 || echo none", Edit: func(_ *Env, s *specs.Spec) {
			s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
		}, Want: []string{"none\n"}},
		{Section: "command line", Name: "create with a terminal and no console socket fails", Script: "sleep 100", Edit: withTTY, Do: func(e *Env) error {
			return first(func() error { return e.MustFail("create", e.ID) }, func() error { return e.MustFail("state", e.ID) })
		}},
		{Section: "command line", Name: "create with a console socket and no terminal fails", Script: "sleep 100", Do: func(e *Env) error {
			return e.MustFail("create", "--console-socket", "/nowhere", e.ID)
		}},
		{Section: "command line", Name: "create with a console socket that is not there fails", Script: "sleep 100", Edit: withTTY, Do: func(e *Env) error {
			return first(func() error { return e.MustFail("create", "--console-socket", "/nowhere/socket", e.ID) }, func() error { return e.MustFail("state", e.ID) })
		}},
		{Section: "command line", Name: "run --detach --console-socket", Script: "echo detached", Edit: withTTY, Do: func(e *Env) error {
			out, err := terminal(e, "run", "--detach", "--console-socket", "SOCKET", e.ID)
			if err == nil && out != "detached\n" {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
		{Section: "command line", Name: "exec --tty --console-socket", Script: "sleep 100", Do: func(e *Env) error {
			if err := e.Started(); err != nil {
				return err
			}
			out, err := terminal(e, "exec", "--tty", "--detach", "--console-socket", "SOCKET", e.ID, "sh", "-c", "test -t 1 && echo tty")
			if err == nil && out != "tty\n" {
				err = fmt.Errorf("output %q", out)
			}
			return err
		}},
	}
}
