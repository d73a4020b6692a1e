package main

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// takenBound is how long a client may leave the head of an answer unread
	// before output is sent behind it all the same.
	takenBound = 10 * time.Second
	// takenFirst and takenMost: the pause between two looks doubles. Nearly
	// every client has read the head long before there is output.
	takenFirst = 50 * time.Microsecond
	takenMost  = 5 * time.Millisecond
)

// awaitTaken is httpapi.Config.Taken. The kernel counts unread bytes for local
// sockets only (SIOCOUTQ of TCP is what was not acknowledged), so for others it
// returns at once. Nothing tells when the count changes: it is looked at again.
func awaitTaken(conn net.Conn) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for waited, pause := time.Duration(0), takenFirst; waited < takenBound; waited, pause = waited+pause, min(2*pause, takenMost) {
		if !untaken(raw) {
			return
		}
		time.Sleep(pause)
	}
}

// untaken reports whether the peer has not read everything yet; one that is
// gone has nothing to read.
func untaken(raw syscall.RawConn) bool {
	left := 0
	if raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			left = n
		}
	}) != nil {
		return false
	}
	return left > 0
}
