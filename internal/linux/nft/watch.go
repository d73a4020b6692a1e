package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watchBuffer holds the messages of a burst; when it runs over, everything is
// looked at again.
const watchBuffer = 4 << 20

// Watch calls changed after somebody else than this connection changed the
// ruleset of the namespace that the calling thread is in, until ctx is done
// (nil) or the socket fails. own is true when the connection's table was among
// what was changed or when that is not known. Elements of other tables' sets
// are nobody's concern. ready is called once, when no change is missed any more.
func (c *Conn) Watch(ctx context.Context, table string, ready func(), changed func(own bool)) error {
	s, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // ends Receive
	defer func() {
		if stop() {
			_ = s.Close()
		}
	}()
	err = errors.Join(force(s, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, watchBuffer), s.SetBPF(withoutThoseOf(c.ports())), s.JoinGroup(unix.NFNLGRP_NFTABLES))
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	ready()
	for ctx.Err() == nil {
		msgs, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed(true)
			continue
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
		matters, own := false, false
		for _, m := range msgs {
			if slices.Contains(c.ports(), m.Header.PID) {
				continue
			}
			relevant, ours := concerns(m, table)
			matters, own = matters || relevant, own || ours
		}
		if matters {
			changed(own)
		}
	}
	return nil
}

// withoutThoseOf has the kernel keep notifications of what these sockets did to
// itself: a thousand published ports are a thousand messages, and all of a
// transaction are of one socket. Those of sockets that the connection gets later
// are left out when they were read.
func withoutThoseOf(ports []uint32) []bpf.RawInstruction {
	const pidOffset = 12 // of nlmsg_pid in struct nlmsghdr, in the machine's order
	filter := []bpf.RawInstruction{{Op: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: pidOffset}}
	for _, port := range ports {
		k := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port)) // as BPF loads it
		filter = append(filter, bpf.RawInstruction{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: k}, bpf.RawInstruction{Op: unix.BPF_RET | unix.BPF_K, K: 0})
	}
	return append(filter, bpf.RawInstruction{Op: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32})
}

// concerns reports whether a notification may change what happens to packets
// of ours, and whether it is about our table.
func concerns(m netlink.Message, table string) (relevant, own bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return false, false
	}
	a, err := attributes(m.Data[4:])
	if err != nil {
		return true, true
	}
	// The table's name is the first attribute of every kind of object.
	own = text(a[unix.NFTA_TABLE_NAME]) == table
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_NEWGEN:
		return false, false
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return true, own
	}
	return own, own
}
