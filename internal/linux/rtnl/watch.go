package rtnl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls removed with the name of every interface that the kernel removes
// in the namespace of the calling thread, and with "" when the kernel had to
// drop messages. It returns when ctx is done (nil) or the socket fails.
func Watch(ctx context.Context, removed func(name string)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer s.Close()
	// A burst of a thousand containers ending is 1.5 MB of messages.
	if err := s.SetReceiveBufferSize(4<<20, true); err != nil {
		if err := s.SetReceiveBufferSize(4<<20, false); err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
	}
	// The library's receive call knows no context; closing the socket ends it.
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for ctx.Err() == nil {
		msgs, _, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			removed("")
			continue
		case err != nil:
			return fmt.Errorf("watch links: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type != unix.RTM_DELLINK {
				continue
			}
			l, err := parseLink(m.Data)
			if err == nil && l.Name != "" {
				removed(l.Name)
			}
		}
	}
	return nil
}
