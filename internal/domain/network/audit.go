package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Reach is one line of an audit: somebody may open connections to something.
type Reach struct {
	// From and To are people's words for a place: "anywhere", "this host",
	// "network front", "container web".
	From string
	To   string
	// Ports are "80/tcp", "all" or "none".
	Ports string
	// By is the address that is used: that of the host for a published port.
	By string
	// Why names the setting that decides.
	Why string
}

// Audit tells what is reachable from where: what the rules of the engine let
// through. Rules of others may forbid more (see the warnings), never less.
func Audit(records []Record, attachments []Attachment) ([]Reach, error) {
	var out []Reach
	add := func(from, to, ports, by, why string) {
		out = append(out, Reach{from, to, ports, by, why})
	}
	records = slices.SortedFunc(slices.Values(records), func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	attachments = slices.SortedFunc(slices.Values(attachments), func(a, b Attachment) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ContainerID, b.ContainerID))
	})
	drivers := map[string]string{}
	for _, r := range records {
		drivers[r.ID] = r.Driver
		name := "network " + r.Name
		switch {
		case r.ConfigOnly || r.Driver == DriverNull:
		case r.Driver == DriverHost:
		case r.Driver == Macvlan || r.Driver == Ipvlan:
			by := "the wire of " + r.Device
			add(by, name, "all", "the containers' own addresses", r.Driver+": the engine filters nothing")
			add(name, by, "all", "", r.Driver)
		case r.Driver == DriverBridge:
			if err := auditBridge(r, name, add); err != nil {
				return nil, err
			}
		default:
			add("what the plugin decides", name, "all", "", "driver "+r.Driver)
		}
	}
	for _, a := range attachments {
		who := "container " + cmp.Or(a.Name, a.ContainerID[:min(12, len(a.ContainerID))])
		if a.Mode == HostName {
			add("anywhere", who, "all it listens on", "the host's addresses", "network host: the host's input rules")
			continue
		}
		for _, b := range a.Ports {
			from, why := "anywhere", "published"
			switch {
			case b.HostIP.IsLoopback():
				from = "this host"
			case !b.HostIP.IsUnspecified():
				from = "who reaches " + b.HostIP.String()
			}
			if b.HostPort == 0 {
				continue // routed: by the container's own address, below
			}
			if b.ObeysInput {
				why = "published, obeys the host's input rules"
			}
			add(from, who, fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto), netip.AddrPortFrom(b.HostIP, b.HostPort).String(), why)
		}
	}
	return out, nil
}

// auditBridge adds the lines of a bridge network.
func auditBridge(r Record, name string, add func(from, to, ports, by, why string)) error {
	b, err := BridgeRulesOf(r)
	if err != nil {
		return err
	}
	within := "all"
	if !b.ICC {
		within = "none"
	}
	add(name, name, within, "the containers' own addresses", fmt.Sprintf("icc %v", b.ICC))
	add("this host", name, "all", "the containers' own addresses", "the host's output rules")
	if b.Internal {
		add(name, "anywhere", "none", "", "internal")
		return nil
	}
	add(name, "this host", "all it listens on", "the host's addresses", "the host's input rules")
	world := "all"
	why := "no egress list"
	if text := b.Egress.String(); text != "" {
		world, why = "all but what the lists forbid", "egress "+text
	}
	add(name, "anywhere", world, "", why)
	for _, m := range []struct {
		on     bool
		family string
		mode   GatewayMode
	}{{r.EnableIPv4, "IPv4", b.Mode4}, {r.EnableIPv6, "IPv6", b.Mode6}} {
		if !m.on {
			continue
		}
		switch m.mode {
		case GatewayRouted:
			add("anywhere", name, "published ports, ping", "the containers' own addresses", "gateway mode routed, "+m.family)
		case GatewayNATUnprotected:
			add("anywhere", name, "all", "the containers' own addresses", "gateway mode nat-unprotected, "+m.family)
		}
	}
	for _, t := range b.Trusted {
		add("interface "+t, name, "published ports", "the containers' own addresses", "trusted_host_interfaces")
	}
	return nil
}
