// Package pty makes pseudo terminals in a given devpts instance, sets their
// window size and passes their masters over sockets. No locks.
package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open makes a pseudo terminal from the ptmx at the path below dirfd, so that it
// belongs to the devpts instance mounted there. The slave is opened through
// the master (TIOCGPTPEER, kernel 4.13), never by a path that a container could
// have replaced. Both are close-on-exec; number is the name below /dev/pts.
func Open(dirfd int, ptmx string) (master, slave int, number int, err error) {
	master, err = unix.Openat(dirfd, ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, -1, 0, fmt.Errorf("open pty: %s: %w", ptmx, err)
	}
	slave, number, err = peer(master)
	if err != nil {
		_ = unix.Close(master)
		return -1, -1, 0, fmt.Errorf("open pty: %w", err)
	}
	return master, slave, number, nil
}

func peer(master int) (slave, number int, err error) {
	// A ptmx that is another device would answer ENOTTY here.
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, 0, fmt.Errorf("unlock: %w", err)
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return -1, 0, fmt.Errorf("number: %w", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, 0, fmt.Errorf("slave: %w", errno)
	}
	return int(fd), int(n), nil
}

// Resize sets the window size and so sends SIGWINCH to the foreground group.
func Resize(master *os.File, rows, cols uint16) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return fmt.Errorf("resize pty: %w", err)
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = SetSize(int(fd), rows, cols) }); err != nil {
		return fmt.Errorf("resize pty: %w", err)
	}
	return failed
}

// SetSize is Resize of a bare descriptor.
func SetSize(fd int, rows, cols uint16) error {
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return fmt.Errorf("resize pty to %dx%d: %w", cols, rows, err)
	}
	return nil
}

// Pollable makes f of a master received as a descriptor: non-blocking, so that
// a pending Read ends when f is closed.
func Pollable(fd int, number int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("pty master: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/pts/"+strconv.Itoa(number)), nil
}

// Send passes f over the unix socket at path as `--console-socket` of the OCI
// runtimes does: one message with the terminal's name, the descriptor beside it.
func Send(path string, f *os.File) error {
	if err := SendFile(path, []byte(f.Name()), f); err != nil {
		return fmt.Errorf("send console to %s: %w", path, err)
	}
	return nil
}

// SendFile connects to the unix stream socket at path and sends one message with
// f beside it.
func SendFile(path string, msg []byte, f *os.File) error {
	conn, err := Dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	return SendOver(int(conn.Fd()), msg, int(f.Fd()))
}

// Dial connects to the unix stream socket at path. (Package net would add
// 0.3 ms to the start of every program that links this one.)
func Dial(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// SendOver sends one message over a connection, with the descriptor f beside it.
func SendOver(conn int, msg []byte, f int) error {
	rights := unix.UnixRights(f)
	for len(msg) > 0 {
		n, err := unix.SendmsgN(conn, msg, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		msg, rights = msg[n:], nil
	}
	return nil
}
