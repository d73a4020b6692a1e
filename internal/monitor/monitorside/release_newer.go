//go:build monitor_newer

package monitorside

import (
	"errors"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// A monitor as a newer release might have it: a higher version of the protocol
// that still speaks this one, more capabilities, and kinds, events and keys that
// this release does not know.

func hello() protocol.Hello {
	return protocol.Hello{Version: protocol.Version + 1, MinVersion: protocol.MinVersion,
		Capabilities: append(protocol.Capabilities(), "checkpoint", "levitate"), Release: "newer"}
}

func knows(protocol.Operation) bool { return true }

func tells(protocol.Event) bool { return true }

func chat(c *protocol.Conn) error {
	later := map[string]any{"later": []int{1, 2}}
	return errors.Join(
		c.Send(protocol.Kind(9), 1, 1, later),
		c.Send(protocol.KindEvent, 900, 0, later),
		c.Send(protocol.KindEvent, uint16(protocol.EventOOM), 0, map[string]any{"kills": 0, "later": "x"}),
	)
}
