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
	// Forward is false for sandboxes on internal networks only: the servers
	// that are asked from the host are left out.
	Forward bool `json:"forward"`
	// OwnRoot: a name without a dot that is not ours is answered with an empty
	// answer and never passed on (the option ndots was set).
	OwnRoot bool `json:"ownRoot,omitempty"`
	// Links are names of others that only this sandbox uses.
	Links []Link `json:"links,omitempty"`
}

// Link is another name for a name on a network; both in lower case.
type Link struct {
	Network string `json:"network"`
	Alias   string `json:"alias"`
	Name    string `json:"name"`
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
	// Count, when more than 1, stands for that many ports: host port and target
	// port both count up. A thousand ports in a row are one line of the table.
	Count int `json:"count,omitempty"`
	// Relay: connections to the host address are carried by netd, because the
	// kernel cannot translate them (IPv6 host address, IPv4 container) or must
	// not; otherwise the socket only reserves.
	Relay bool `json:"relay,omitempty"`
}

// Pack joins ports that follow each other into one. Runs may be interleaved, as
// those of two protocols and two families are.
func Pack(ports []Port) []Port {
	const interleaved = 8
	var out []Port
next:
	for _, p := range ports {
		for i := len(out) - 1; i >= max(0, len(out)-interleaved); i-- {
			run := &out[i]
			n := max(run.Count, 1)
			if int(p.HostPort) == int(run.HostPort)+n && int(p.Target.Port()) == int(run.Target.Port())+n &&
				p.Proto == run.Proto && p.HostIP == run.HostIP && p.Target.Addr() == run.Target.Addr() && p.Relay == run.Relay {
				run.Count = n + 1
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// Unpack is the reverse: every port by itself.
func Unpack(ports []Port) []Port {
	out := make([]Port, 0, len(ports))
	for _, p := range ports {
		n := max(p.Count, 1)
		p.Count = 0
		for i := range n {
			one := p
			one.HostPort += uint16(i)
			one.Target = netip.AddrPortFrom(p.Target.Addr(), p.Target.Port()+uint16(i))
			out = append(out, one)
		}
	}
	return out
}
