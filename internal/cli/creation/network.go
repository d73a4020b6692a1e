package creation

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/orlop/orlop/internal/cli/flagvalue"
)

// endpoints joins --network with the single flags (--ip, --network-alias, --link, …), which speak of the first
// network. A network named without any option has no entry when it is the only one: the daemon knows it from the
// network mode.
func (o *Options) endpoints() (map[string]*network.EndpointSettings, error) {
	attachments := o.networks.Value()
	if len(attachments) == 0 {
		attachments = []flagvalue.Attachment{{Target: "default"}}
	}
	endpoints := make(map[string]*network.EndpointSettings, len(attachments))
	var userDefined, builtin bool
	for i, a := range attachments {
		if len(o.networks.Value()) > 0 {
			if container.NetworkMode(a.Target).IsUserDefined() {
				userDefined = true
			} else {
				builtin = true
			}
		}
		if i == 0 {
			if err := o.addSingleFlags(&a); err != nil {
				return nil, err
			}
		}
		settings, err := endpoint(a)
		if err != nil {
			return nil, err
		}
		if _, twice := endpoints[a.Target]; twice {
			return nil, fmt.Errorf("network %q is specified multiple times", a.Target)
		}
		if len(o.networks.Value()) == 1 && reflect.ValueOf(*settings).IsZero() {
			continue
		}
		endpoints[a.Target] = settings
	}
	if userDefined && builtin {
		return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return endpoints, nil
}

func (o *Options) addSingleFlags(a *flagvalue.Attachment) error {
	for _, c := range []struct {
		both bool
		text string
	}{
		{len(a.Aliases) > 0 && len(o.aliases.Values()) > 0, "--network-alias and per-network alias"},
		{len(a.Links) > 0 && len(o.links.Values()) > 0, "--link and per-network links"},
		{a.IPv4.IsValid() && o.ip != "", "--ip and per-network IPv4 address"},
		{a.IPv6.IsValid() && o.ip6 != "", "--ip6 and per-network IPv6 address"},
		{a.MAC != "" && o.mac != "", "--mac-address and per-network MAC address"},
		{len(a.LinkLocalIPs) > 0 && len(o.linkLocal.Values()) > 0, "--link-local-ip and per-network link-local IP addresses"},
	} {
		if c.both {
			return errors.New("conflicting options: cannot specify both " + c.text)
		}
	}
	if aliases := o.aliases.Values(); len(aliases) > 0 {
		a.Aliases = aliases
	}
	// On a user-defined network a link is an alias of the endpoint; on the default bridge it belongs to HostConfig.
	if links := o.links.Values(); len(links) > 0 && container.NetworkMode(a.Target).IsUserDefined() {
		a.Links = links
	}
	if o.mac != "" {
		a.MAC = o.mac
	}
	var err error
	if o.ip != "" {
		if a.IPv4, err = flagvalue.ParseAddr("IPv4", o.ip); err != nil {
			return err
		}
	}
	if o.ip6 != "" {
		if a.IPv6, err = flagvalue.ParseAddr("IPv6", o.ip6); err != nil {
			return err
		}
	}
	for _, text := range o.linkLocal.Values() {
		addr, err := flagvalue.ParseAddr("link-local IP", text)
		if err != nil {
			return err
		}
		a.LinkLocalIPs = append(a.LinkLocalIPs, addr)
	}
	return nil
}

func endpoint(a flagvalue.Attachment) (*network.EndpointSettings, error) {
	if strings.TrimSpace(a.Target) == "" {
		return nil, errors.New("no name set for network")
	}
	if !container.NetworkMode(a.Target).IsUserDefined() {
		if len(a.Aliases) > 0 {
			return nil, errors.New("network-scoped aliases are only supported for user-defined networks")
		}
		if len(a.Links) > 0 {
			return nil, errors.New("links are only supported for user-defined networks")
		}
	}
	settings := &network.EndpointSettings{GwPriority: a.GwPriority}
	if len(a.Aliases) > 0 {
		settings.Aliases = a.Aliases
	}
	if len(a.DriverOpts) > 0 {
		settings.DriverOpts = a.DriverOpts
	}
	if len(a.Links) > 0 {
		settings.Links = a.Links
	}
	if a.IPv4.IsValid() || a.IPv6.IsValid() || len(a.LinkLocalIPs) > 0 {
		settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a.IPv4, IPv6Address: a.IPv6, LinkLocalIPs: a.LinkLocalIPs}
	}
	if a.MAC != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(a.MAC))
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", a.MAC)
		}
		settings.MacAddress = network.HardwareAddr(mac)
	}
	return settings, nil
}
