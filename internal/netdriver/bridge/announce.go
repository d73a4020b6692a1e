package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// announce tells the network which MAC address the addresses have now
// (gratuitous ARP, RFC 5944 §4.6): a neighbour that knew the address's previous
// owner would otherwise send to nobody until its cache is out of date. The
// calling thread is inside the sandbox. IPv6 needs none: the MAC address
// follows from the address unless the user chose one, and neighbours ask again
// after five seconds.
func announce(index int, mac net.HardwareAddr, addrs []netip.Prefix) (err error) {
	var four []netip.Addr
	for _, p := range addrs {
		if p.Addr().Is4() {
			four = append(four, p.Addr())
		}
	}
	if len(four) == 0 {
		return nil
	}
	// Protocol 0: the socket only sends.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("announce addresses: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	to := &unix.SockaddrLinklayer{
		Protocol: binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff}), Ifindex: index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	for _, a := range four {
		ip := a.AsSlice()
		pkt := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, request
		pkt = append(pkt, mac...)
		pkt = append(pkt, ip...)
		pkt = append(pkt, 0, 0, 0, 0, 0, 0)
		pkt = append(pkt, ip...)
		if err := unix.Sendto(fd, pkt, 0, to); err != nil {
			return fmt.Errorf("announce address %s: %w", a, err)
		}
	}
	return nil
}
