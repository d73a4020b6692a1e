package network

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"time"

	networktypes "github.com/moby/moby/api/types/network"
)

// RecordSchema is the number of the newest migration of Record.
const RecordSchema = 1

// Names and drivers of the three networks that always exist.
const (
	BridgeName = "bridge"
	HostName   = "host"
	NoneName   = "none"

	DriverBridge = "bridge"
	DriverHost   = "host"
	DriverNull   = "null"
)

// Built-in drivers of addresses: the engine's own, and none.
const (
	IPAMDefault = "default"
	IPAMNull    = "null"
)

// Record is the stored truth about a network. Endpoints are not part of it:
// which containers are on a network follows from their own records and, while
// they run, from their Attachment; a container has any number of them.
type Record struct {
	Schema  int       `json:"schema"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Driver  string    `json:"driver"`
	Created time.Time `json:"created"`
	// Device is the bridge's name on the host; empty for host and null.
	Device string `json:"device,omitempty"`
	// IPAM as it was resolved: every config has subnet and gateway.
	IPAM       networktypes.IPAM `json:"ipam"`
	EnableIPv4 bool              `json:"enableIPv4"`
	EnableIPv6 bool              `json:"enableIPv6"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`

	// Scope is "local" (also when empty) or "swarm".
	Scope string `json:"scope,omitempty"`
	// ConfigOnly: the network only lends its settings to others; ConfigFrom
	// names the one that lent them.
	ConfigOnly bool   `json:"configOnly,omitempty"`
	ConfigFrom string `json:"configFrom,omitempty"`
	// Foreign: the device was there before the network and stays when the
	// network goes.
	Foreign bool `json:"foreign,omitempty"`
	// BridgeAddr4 and BridgeAddr6 are the addresses of the bridge where they are
	// not those of the gateway (--default-gateway).
	BridgeAddr4 netip.Addr `json:"bridgeAddr4"`
	BridgeAddr6 netip.Addr `json:"bridgeAddr6"`
	// Pools are the ids that a foreign IPAM driver gave the subnets of
	// IPAM.Config, in their order; empty for the built-in one.
	Pools []string `json:"pools,omitempty"`
	// Made is what the driver remembers of what it has made, e.g. that a VLAN
	// interface is its own.
	Made map[string]string `json:"made,omitempty"`
	// Request is the create request as it came; nil for the predefined ones.
	Request json.RawMessage `json:"request,omitempty"`
}

// Predefined reports whether the network is one of bridge, host and none.
func (r Record) Predefined() bool { return Predefined(r.Name) }

// Predefined reports whether name is one of bridge, host and none.
func Predefined(name string) bool {
	return name == BridgeName || name == HostName || name == NoneName
}

// Network is the record as the API shows it.
func (r Record) Network() networktypes.Network {
	ipam := r.IPAM
	if ipam.Driver == "" {
		ipam.Driver = "default"
	}
	if ipam.Config == nil {
		ipam.Config = []networktypes.IPAMConfig{}
	}
	n := networktypes.Network{
		Name: r.Name, ID: r.ID, Created: r.Created, Scope: cmp.Or(r.Scope, "local"), Driver: r.Driver,
		EnableIPv4: r.EnableIPv4, EnableIPv6: r.EnableIPv6, IPAM: ipam,
		Internal: r.Internal, Attachable: r.Attachable,
		Options: r.Options, Labels: r.Labels, ConfigOnly: r.ConfigOnly,
		ConfigFrom: networktypes.ConfigReference{Network: r.ConfigFrom},
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	return n
}

// DefaultBridge configures the network "bridge" (the flags of dockerd).
type DefaultBridge struct {
	// Disabled: there is no such network (--bridge=none).
	Disabled bool
	// Device is the bridge's name. Foreign: it is the administrator's
	// (--bridge=NAME); it is used as it is and never created or removed.
	Device  string
	Foreign bool
	// Address of the bridge with its subnet (--bip); invalid: that of the
	// device when it exists, else the first free subnet of the pools.
	Address netip.Prefix
	// Address6 likewise (--bip6, --fixed-cidr-v6 with --ipv6).
	Address6 netip.Prefix
	// Range is what containers' addresses are drawn from (--fixed-cidr).
	Range, Range6 netip.Prefix
	// Gateway replaces the bridge as the containers' router
	// (--default-gateway).
	Gateway, Gateway6 netip.Addr
	// MTU of the bridge and the containers' interfaces; 0 is 1500.
	MTU int
	// ICC lets containers of the network reach each other (--icc, true in
	// Docker); Masquerade hides them behind the host's address (--ip-masq,
	// true); IPv6 gives them such addresses (--ipv6, false).
	ICC, Masquerade, IPv6 bool
	// HostIP is where ports are published that name no address (--ip,
	// 0.0.0.0); invalid is 0.0.0.0.
	HostIP netip.Addr
}
