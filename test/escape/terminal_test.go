package escape

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// terminal runs a bundle with a terminal and returns what it said there, or why
// it did not start.
func (s *side) terminal(bundle string) string {
	s.t.Helper()
	id := filepath.Base(bundle)
	socket := filepath.Join(bundle, "console")
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	master := make(chan *os.File, 1)
	go func() { master <- receive(l) }()
	failed, code := s.run("run", "--detach", "--bundle", bundle, "--console-socket", socket, id)
	defer s.run("delete", "--force", id)
	if code != 0 {
		_ = l.Close() // receive ends, although nobody may have come
	}
	tty := <-master
	if tty == nil {
		return failed
	}
	defer tty.Close()
	if code != 0 {
		return failed
	}
	// The other end closes with the container: EIO.
	said, _ := io.ReadAll(tty)
	return string(said)
}

// receive takes the one descriptor that is sent to the socket, or nil.
func receive(l net.Listener) *os.File {
	c, err := l.Accept()
	if err != nil {
		return nil
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 256), oob)
	if err != nil {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "tty")
}
