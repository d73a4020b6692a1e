package nameserver

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize questions are received, and answered, by one system call each.
	batchSize = 32
	// maxQuery is what a question by UDP may be long.
	maxQuery = 2048
	// keepAnswer bounds the buffers that stay.
	keepAnswer = 4096
)

// multiHeader is struct mmsghdr of recvmmsg(2).
type multiHeader struct {
	hdr unix.Msghdr
	n   uint32
}

// batch receives and answers datagrams. It belongs to the reactor.
type batch struct {
	in, to  [batchSize]multiHeader
	vec     [batchSize]unix.Iovec
	outVec  [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet4
	raw     [batchSize][maxQuery]byte
	out     [batchSize][]byte
	replies int
}

func newBatch() *batch {
	b := &batch{}
	for i := range batchSize {
		b.vec[i].Base = &b.raw[i][0]
		b.vec[i].SetLen(maxQuery)
		h := &b.in[i].hdr
		h.Iov, h.Name = &b.vec[i], (*byte)(unsafe.Pointer(&b.names[i]))
		h.SetIovlen(1)
	}
	return b
}

// receive takes what waits at a socket, up to batchSize datagrams.
func (b *batch) receive(fd int) int {
	for i := range b.in {
		b.in[i].hdr.Namelen = unix.SizeofSockaddrInet4
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// datagram is what was received as number i; false when it was too long.
func (b *batch) datagram(i int) ([]byte, bool) {
	if b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil, false
	}
	return b.raw[i][:b.in[i].n], true
}

// reply queues the answer to datagram i; nil is none. Its buffer is used for a
// later one.
func (b *batch) reply(i int, out []byte) {
	if len(out) == 0 {
		return
	}
	b.out[i] = out
	b.outVec[b.replies].Base = &out[0]
	b.outVec[b.replies].SetLen(len(out))
	h := &b.to[b.replies].hdr
	h.Iov, h.Name, h.Namelen = &b.outVec[b.replies], (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet4
	h.SetIovlen(1)
	b.replies++
}

// send sends what was queued. An answer that the kernel does not take is lost,
// as any datagram may be.
func (b *batch) send(fd int) {
	for at := 0; at < b.replies; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.to[at])), uintptr(b.replies-at), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 1 // this one cannot be sent; perhaps the others can
		}
		at += max(int(n), 1)
	}
	b.replies = 0
	for i := range b.out {
		if cap(b.out[i]) > keepAnswer {
			b.out[i] = nil
		}
	}
}

// sendTo sends one datagram.
func sendTo(fd int, out []byte, to *unix.RawSockaddrInet4) error {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&out[0])), uintptr(len(out)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
	if errno != 0 {
		return errno
	}
	return nil
}
