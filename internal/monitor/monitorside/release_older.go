//go:build monitor_older

package monitorside

import (
	"slices"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// A monitor as an older release might have had it: it can start, stop and show its
// container, and nothing else.

func hello() protocol.Hello {
	return protocol.Hello{Version: 1, MinVersion: 1, Capabilities: []string{"launch", "state", "attach", "signal"}, Release: "older"}
}

func knows(op protocol.Operation) bool { return slices.Contains(hello().Capabilities, op.Capability()) }

func tells(e protocol.Event) bool { return e == protocol.EventExit }

func chat(*protocol.Conn) error { return nil }
