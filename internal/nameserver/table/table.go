// Package table holds the types of the table that the daemon writes and netd
// serves, and of the messages on netd's socket. It uses only the standard
// library, so that both sides can link it.
//
// The table is a folder: one file per sandbox, replaced by rename, so a start
// costs the same with one container as with a thousand, and a netd that is
// started while the daemon is away finds all of it. A message on the socket
// names what changed and is answered when the change is in force.
package table

import "net/netip"

// Schema is the newest form of Sandbox that this code writes. Readers accept
// every number down to OldestSchema and keep unknown keys out of their way.
const (
	Schema       = 1
	OldestSchema = 1
)

// Sandbox is everything netd does for one container.
type Sandbox struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	// Pid is the container's init process in the host's pid namespace, and
	// PidStart field 22 of its /proc/<pid>/stat; 0 before it was started.
	Pid      int    `json:"pid,omitempty"`
	PidStart uint64 `json:"pidStart,omitempty"`
	// DNS is nil when the sandbox has no server on 127.0.0.11.
	DNS   *DNS   `json:"dns,omitempty"`
	Names []Name `json:"names,omitempty"`
	Ports []Port `json:"ports,omitempty"`
}

// DNS configures the server of one sandbox.
type DNS struct {
	// Networks lists the ids of networks whose names the sandbox can ask for.
	Networks []string `json:"networks,omitempty"`
	// Upstream servers, asked in order.
	Upstream []Upstream `json:"upstream,omitempty"`
	// Forward is false for sandboxes on internal networks only: names that are
	// not ours are answered with REFUSED.
	Forward bool `json:"forward"`
}

// Upstream is a server that answers what the table does not know.
type Upstream struct {
	Addr netip.AddrPort `json:"addr"`
	// Host: ask from the host's network namespace (a loopback address there).
	Host bool `json:"host,omitempty"`
}

// Name is a name of the sandbox on one network.
type Name struct {
	Network string `json:"network"`
	// Names without trailing dot, lower case.
	Names []string `json:"names"`
	// Reverse is what a look-up of an address answers.
	Reverse string       `json:"reverse,omitempty"`
	Addrs   []netip.Addr `json:"addrs"`
}

// Port is a published port: a reservation, and a relay where the kernel
// cannot translate.
type Port struct {
	// Proto is "tcp", "udp" or "sctp".
	Proto    string     `json:"proto"`
	HostIP   netip.Addr `json:"hostIp"`
	HostPort uint16     `json:"hostPort"`
	// Target is where a relay connects to.
	Target netip.AddrPort `json:"target"`
	// Relay: connections to the host address are carried by netd (IPv6 host
	// address, IPv4 container); otherwise the socket only reserves.
	Relay bool `json:"relay,omitempty"`
}
