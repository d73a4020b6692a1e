package monitorside

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// consoleTimeout bounds waiting for a runtime that was told to send a terminal
// and has ended successfully.
const consoleTimeout = 10 * time.Second

// consoleSocket receives a terminal as OCI runtimes send it (--console-socket).
type consoleSocket struct {
	file *os.File
	path string
}

func listenConsole(dir, name string) (*consoleSocket, error) {
	path := filepath.Join(dir, name)
	_ = os.Remove(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "console socket")
	folder, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	defer folder.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)}); err != nil {
		file.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		file.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &consoleSocket{file: file, path: path}, nil
}

func (c *consoleSocket) close() {
	c.file.Close()
	_ = os.Remove(c.path)
}

// receive takes the terminal; the runtime has connected already.
func (c *consoleSocket) receive() (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, fmt.Errorf("receive console: %w", err) }
	deadline := time.Now().Add(consoleTimeout)
	if err := c.file.SetReadDeadline(deadline); err != nil {
		return fail(err)
	}
	raw, err := c.file.SyscallConn()
	if err != nil {
		return fail(err)
	}
	fd := -1
	var acceptErr error
	if err := raw.Read(func(s uintptr) bool {
		fd, _, acceptErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return acceptErr != unix.EAGAIN
	}); err != nil {
		return fail(err)
	}
	if acceptErr != nil {
		return fail(acceptErr)
	}
	conn := os.NewFile(uintptr(fd), "console")
	defer conn.Close()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return fail(err)
	}
	if raw, err = conn.SyscallConn(); err != nil {
		return fail(err)
	}
	name := make([]byte, 4096)
	oob := make([]byte, syscall.CmsgSpace(4*4))
	var oobn int
	var recvErr error
	if err := raw.Read(func(s uintptr) bool {
		_, oobn, _, _, recvErr = unix.Recvmsg(int(s), name, oob, unix.MSG_CMSG_CLOEXEC)
		return recvErr != unix.EAGAIN
	}); err != nil {
		return fail(err)
	}
	if recvErr != nil {
		return fail(recvErr)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return fail(err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil || len(fds) == 0 {
			continue
		}
		for _, extra := range fds[1:] {
			unix.Close(extra)
		}
		return os.NewFile(uintptr(fds[0]), "console"), nil
	}
	return fail(fmt.Errorf("the runtime sent no terminal"))
}
