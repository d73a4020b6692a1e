package flagvalue

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// ParsePublished reads --publish values: [[IP:][HOST[-HOST]:]]CONTAINER[-CONTAINER][/PROTO], or comma separated
// fields published=, target= and protocol=. It returns the container ports and where each is to be published; an
// empty host port lets the daemon choose, a host range for a single container port is a range to choose from.
func ParsePublished(values []string) (network.PortSet, network.PortMap, error) {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, value := range values {
		spec, err := shortForm(value)
		if err != nil {
			return nil, nil, err
		}
		if err := parsePort(spec, exposed, bindings); err != nil {
			return nil, nil, err
		}
	}
	return exposed, bindings, nil
}

func shortForm(value string) (string, error) {
	if !strings.Contains(value, "=") {
		return value, nil
	}
	fields := map[string]string{"protocol": "tcp"}
	for field := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", field)
		}
		fields[k] = v
	}
	return fields["published"] + ":" + fields["target"] + "/" + fields["protocol"], nil
}

// ParseExposed reads one --expose value, PORT[-PORT][/PROTO].
func ParseExposed(text string) (network.PortRange, error) {
	ports, proto, _ := strings.Cut(text, "/")
	if ports == "" {
		return network.PortRange{}, errors.New("empty string specified for ports")
	}
	first, last, isRange := strings.Cut(ports, "-")
	from, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return network.PortRange{}, err
	}
	to := from
	if isRange {
		if to, err = strconv.ParseUint(last, 10, 16); err != nil {
			return network.PortRange{}, err
		}
	}
	if to < from {
		return network.PortRange{}, errors.New("invalid range specified for port: " + ports)
	}
	if proto == "" {
		proto = string(network.TCP)
	}
	r, _ := network.PortRangeFrom(uint16(from), uint16(to), network.IPProtocol(proto))
	return r, nil
}

func parsePort(spec string, exposed network.PortSet, bindings network.PortMap) error {
	hostIP, hostPorts, containerPorts := cutPortSpec(spec)
	containerPorts, proto, _ := strings.Cut(containerPorts, "/")
	if containerPorts == "" {
		return fmt.Errorf("no port specified: %s<empty>", spec)
	}
	if proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	switch proto {
	case "tcp", "udp", "sctp":
	default:
		return errors.New("invalid proto: " + proto)
	}
	addr, err := hostAddr(hostIP)
	if err != nil {
		return err
	}
	first, last, ok := portRange(containerPorts)
	if !ok {
		return errors.New("invalid containerPort: " + containerPorts)
	}
	var hostFirst, hostLast uint16
	if hostPorts != "" {
		if hostFirst, hostLast, ok = portRange(hostPorts); !ok {
			return errors.New("invalid hostPort: " + hostPorts)
		}
		if last-first != hostLast-hostFirst && last != first {
			return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", containerPorts, hostPorts)
		}
	}
	for i := range int(last-first) + 1 {
		port, _ := network.PortFrom(first+uint16(i), network.IPProtocol(proto))
		binding := network.PortBinding{HostIP: addr}
		switch {
		case hostPorts == "":
		case first == last && hostFirst != hostLast:
			binding.HostPort = fmt.Sprintf("%d-%d", hostFirst, hostLast)
		default:
			binding.HostPort = strconv.Itoa(int(hostFirst) + i)
		}
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], binding)
	}
	return nil
}

// cutPortSpec splits at the last two colons: an IPv6 address in front may have more.
func cutPortSpec(spec string) (hostIP, hostPorts, containerPorts string) {
	at := strings.LastIndexByte(spec, ':')
	if at < 0 {
		return "", "", spec
	}
	rest, containerPorts := spec[:at], spec[at+1:]
	if at = strings.LastIndexByte(rest, ':'); at < 0 {
		return "", rest, containerPorts
	}
	return rest[:at], rest[at+1:], containerPorts
}

func hostAddr(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	bare := text
	if text[0] == '[' {
		host, _, err := net.SplitHostPort(text + ":")
		if err != nil {
			return netip.Addr{}, fmt.Errorf("invalid IP address %v: %w", text, err)
		}
		bare = host
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, errors.New("invalid IP address: " + bare)
	}
	return addr, nil
}

func portRange(text string) (first, last uint16, ok bool) {
	from, to, isRange := strings.Cut(text, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	if !isRange {
		return uint16(a), uint16(a), true
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil || b < a {
		return 0, 0, false
	}
	return uint16(a), uint16(b), true
}
