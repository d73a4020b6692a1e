package network

import "net/netip"

// Capabilities say what a kind of network can do.
type Capabilities struct {
	// Scope of its networks: "local", or "swarm" for those of a cluster.
	Scope string
	// Ports: published ports lead to its endpoints.
	Ports bool
	// Single: there is one such network, made by the engine (host, null).
	Single bool
}

// Wants is what a driver wants decided for a network before it is made.
type Wants struct {
	// Gateway4 and Gateway6: an address of each subnet of the family is set
	// aside for the gateway even when the request names none.
	Gateway4, Gateway6 bool
}

// Join is an endpoint that a driver gives its place.
type Join struct {
	Network Record
	// ContainerID and SandboxKey (names the sandbox) tell whose endpoint it is.
	ContainerID, SandboxKey string
	// Endpoint has id, addresses, gateways, MAC address and the names of its
	// links; the driver may change what it knows better.
	Endpoint *Endpoint
	// Ports that are published, for drivers that publish by themselves.
	Ports   []Binding
	Exposed []string
}

// Allocation is an answer of an IPAM driver: an address with the prefix of its
// subnet.
type Allocation struct {
	Prefix netip.Prefix
	// Gateway and DNS of the subnet, if the driver named any.
	Gateway netip.Addr
	Data    map[string]string
}
