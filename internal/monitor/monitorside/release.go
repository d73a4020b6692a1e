//go:build !monitor_older && !monitor_newer

package monitorside

import "github.com/orlop/orlop/internal/monitor/protocol"

// What a monitor says of itself, and what sets monitors of other releases apart
// from it. Tests build them by the tags above (release_older.go, release_newer.go)
// and run them under this release's daemon.

// hello is what a connection begins with.
func hello() protocol.Hello {
	return protocol.Hello{Version: protocol.Version, MinVersion: protocol.MinVersion, Capabilities: protocol.Capabilities()}
}

// knows reports whether this release has an operation.
func knows(protocol.Operation) bool { return true }

// tells reports whether this release has an event.
func tells(protocol.Event) bool { return true }

// chat is what a release says beside what was asked.
func chat(*protocol.Conn) error { return nil }
