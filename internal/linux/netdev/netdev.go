// Package netdev moves network devices between network namespaces with the
// addresses they have. Entry point: Move. It speaks rtnetlink(7) itself, because
// a netlink library would add to the start of every runtime process. No locks.
package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Move moves the device called name of the calling thread's network namespace
// to the namespace ns, calls it newName there, gives it its permanent global
// addresses back and sets it up (runtime-spec config-linux.md, "Network
// Devices"). A newName that ends with %d is a pattern the kernel completes.
// Errors are those of the kernel: ENODEV for an unknown device, EEXIST for a
// name that is taken in ns. It returns the name that the device has there.
func Move(name, newName string, ns *os.File) (string, error) {
	if newName == "" {
		newName = name
	}
	inside := newName
	err := move(name, newName, ns, &inside)
	return inside, err
}

// Return moves a device from the namespace from to the namespace to.
func Return(name, newName string, from, to *os.File) error {
	return within(from, func() error {
		_, err := Move(name, newName, to)
		return err
	})
}

func move(name, newName string, ns *os.File, inside *string) error {
	here, err := open()
	if err != nil {
		return err
	}
	defer here.close()
	index, err := here.index(name)
	if err != nil {
		return fmt.Errorf("find device: %w", err)
	}
	// The kernel would move it and then fail to rename it.
	if !strings.HasSuffix(newName, "%d") {
		err := within(ns, func() error {
			_, err := here.index(newName)
			return err
		})
		if err == nil {
			return fmt.Errorf("device %s: %w", newName, unix.EEXIST)
		}
		if !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	// Leaving a namespace takes a device's addresses away.
	addrs, err := here.addrs(index)
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	// The kernel may not rename a device that is up.
	if err := here.setUp(index, false); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	err = here.request(unix.RTM_NEWLINK, 0, link(index, 0, 0), attr(unix.IFLA_NET_NS_FD, u32(uint32(ns.Fd()))), attr(unix.IFLA_IFNAME, cstring(newName)))
	if err != nil {
		_ = here.setUp(index, true)
		return err
	}
	return within(ns, func() error { return settle(name, newName, addrs, inside) })
}

// settle finishes a device in its new namespace.
func settle(name, newName string, addrs []addr, inside *string) error {
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	index, err := c.arrived(newName, inside)
	if err != nil {
		return fmt.Errorf("find device %s in the container: %w", name, err)
	}
	if err := c.setUp(index, true); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	for _, a := range addrs {
		if err := c.add(index, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address: %w", err)
		}
	}
	return nil
}

// arrived finds a device by its name, or the newest one whose name fits the pattern.
func (c *conn) arrived(name string, inside *string) (int, error) {
	prefix, pattern := strings.CutSuffix(name, "%d")
	if !pattern {
		return c.index(name)
	}
	found := 0
	err := c.dump(unix.RTM_GETLINK, link(0, 0, 0), func(body []byte) {
		index := int(int32(binary.NativeEndian.Uint32(body[4:])))
		for kind, value := range attrs(body[unix.SizeofIfInfomsg:]) {
			n := strings.TrimRight(string(value), "\x00")
			if kind == unix.IFLA_IFNAME && strings.HasPrefix(n, prefix) && index > found {
				found, *inside = index, n
			}
		}
	})
	if err == nil && found == 0 {
		err = unix.ENODEV
	}
	return found, err
}

// within runs f on a thread in the network namespace ns.
func within(ns *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- onThread(ns, f) }()
	return <-done
}

// onThread leaves the thread locked, so that it ends with its goroutine, when it
// cannot go back: it may be the process's first one, which must.
func onThread(ns *os.File, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// addr is an address as the kernel told it: to be given back as it is.
type addr struct {
	family, prefix uint8
	body           []byte // attributes
}

// conn is a netlink socket of the thread's network namespace.
type conn struct {
	fd  int
	seq uint32
}

func open() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// index finds a device by its name.
func (c *conn) index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}

func (c *conn) setUp(index int, up bool) error {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	return c.request(unix.RTM_NEWLINK, 0, link(index, flags, unix.IFF_UP))
}

// addrs lists the permanent addresses of global scope.
func (c *conn) addrs(index int) (list []addr, err error) {
	err = c.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(body []byte) {
		// struct ifaddrmsg: family, prefixlen, flags, scope, index
		if int(binary.NativeEndian.Uint32(body[4:])) != index || body[2]&unix.IFA_F_PERMANENT == 0 || body[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		a := addr{family: body[0], prefix: body[1]}
		for kind, value := range attrs(body[unix.SizeofIfAddrmsg:]) {
			switch kind {
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST:
				a.body = append(a.body, attr(kind, value)...)
			}
		}
		list = append(list, a)
	})
	return list, err
}

func (c *conn) add(index int, a addr) error {
	const noDAD = 2 // IFA_F_NODAD: it was checked where it came from
	m := make([]byte, unix.SizeofIfAddrmsg)
	m[0], m[1] = a.family, a.prefix
	if a.family == unix.AF_INET6 {
		m[2] = noDAD
	}
	binary.NativeEndian.PutUint32(m[4:], uint32(index))
	return c.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, a.body)
}

// link is a struct ifinfomsg.
func link(index int, flags, change uint32) []byte {
	m := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(m[4:], uint32(index))
	binary.NativeEndian.PutUint32(m[8:], flags)
	binary.NativeEndian.PutUint32(m[12:], change)
	return m
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func cstring(s string) []byte { return append([]byte(s), 0) }

// attr is a struct rtattr with its value, padded.
func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// attrs goes through a list of attributes.
func attrs(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
			if !yield(binary.NativeEndian.Uint16(b[2:])&^flags, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// send sends a request.
func (c *conn) send(kind uint16, flags int, parts ...[]byte) error {
	c.seq++
	m := make([]byte, unix.SizeofNlMsghdr)
	for _, p := range parts {
		m = append(m, p...)
	}
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], uint16(unix.NLM_F_REQUEST|flags))
	binary.NativeEndian.PutUint32(m[8:], c.seq)
	return unix.Sendto(c.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// request sends a request and waits for its acknowledgment.
func (c *conn) request(kind uint16, flags int, parts ...[]byte) error {
	if err := c.send(kind, unix.NLM_F_ACK|flags, parts...); err != nil {
		return err
	}
	_, err := c.receive(func([]byte) {})
	return err
}

// dump asks for a list and calls f with the body of each item. A list that
// changed while the kernel wrote it (netlink(7), NLM_F_DUMP_INTR) may lack what
// was there all the time and is asked for again, a hundred times at most.
func (c *conn) dump(kind uint16, head []byte, f func(body []byte)) error {
	const again = 100
	for range again {
		if err := c.send(kind, unix.NLM_F_DUMP, head); err != nil {
			return err
		}
		var items [][]byte
		whole, err := c.receive(func(body []byte) { items = append(items, bytes.Clone(body)) })
		if err != nil {
			return err
		}
		if whole {
			for _, body := range items {
				f(body)
			}
			return nil
		}
	}
	return unix.EINTR
}

// receive reads answers up to the last one; whole is false when the kernel
// says that what it listed changed meanwhile.
func (c *conn) receive(f func(body []byte)) (whole bool, err error) {
	const room = 64 << 10 // more than the kernel puts into one message
	buf := make([]byte, room)
	whole = true
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return whole, err
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return whole, unix.EBADMSG
			}
			kind, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]
			flags := binary.NativeEndian.Uint16(b[6:])
			b = b[min(len(b), (size+3)&^3):]
			if seq == c.seq && flags&unix.NLM_F_DUMP_INTR != 0 {
				whole = false
			}
			switch {
			case seq != c.seq:
			case kind == unix.NLMSG_DONE:
				return whole, nil
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
					return whole, unix.Errno(-e)
				}
				return whole, nil
			default:
				f(body)
			}
		}
	}
}
