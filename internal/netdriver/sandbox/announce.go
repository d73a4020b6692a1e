package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// announcer tells the machines on a bridge which MAC address an address has
// now. It is one socket for the life of the driver: closing a packet socket
// makes the kernel wait for all its processors, 10 to 15 ms.
type announcer struct {
	fd int
}

func newAnnouncer() (*announcer, error) {
	// Protocol 0: the socket only sends.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return &announcer{fd: fd}, nil
}

func (a *announcer) close() error { return unix.Close(a.fd) }

// announce sends gratuitous ARP (RFC 5944 section 4.6) to everybody on the bridge
// in the container's name. A neighbor that knew the address's previous owner would otherwise send to
// nobody until its cache is out of date. IPv6 neighbors find out by
// themselves within five seconds.
func (a *announcer) announce(bridge int, mac net.HardwareAddr, addrs []netip.Prefix) error {
	var errs []error
	for _, p := range addrs {
		if !p.Addr().Is4() {
			continue
		}
		everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		ip := p.Addr().AsSlice()
		frame := append(append([]byte{}, everybody...), mac...)
		frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
		frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
		frame = append(append(frame, mac...), ip...)
		frame = append(append(frame, 0, 0, 0, 0, 0, 0), ip...)
		to := &unix.SockaddrLinklayer{Ifindex: bridge, Halen: 6, Addr: [8]byte(append(everybody, 0, 0))}
		if err := unix.Sendto(a.fd, frame, 0, to); err != nil {
			errs = append(errs, fmt.Errorf("announce address %s: %w", p.Addr(), err))
		}
	}
	return errors.Join(errs...)
}
