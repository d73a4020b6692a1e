package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Host is a line of /etc/hosts.
type Host struct {
	Addr  netip.Addr
	Names string
}

// HostsFile is what /etc/hosts of a container is made from.
type HostsFile struct {
	// IPv6 tells whether the sandbox has IPv6; without, no such line appears.
	IPv6 bool
	// Extra comes first, as --add-host does.
	Extra []Host
	// Addrs are the container's own, Hostname and Domainname what they are
	// called.
	Addrs                []netip.Addr
	Hostname, Domainname string
}

// Bytes renders the file as Docker does.
func (f HostsFile) Bytes() []byte {
	var b bytes.Buffer
	line := func(addr, names string) { fmt.Fprintf(&b, "%s\t%s\n", addr, names) }
	line("127.0.0.1", "localhost")
	if f.IPv6 {
		line("::1", "localhost ip6-localhost ip6-loopback")
		line("fe00::", "ip6-localnet")
		line("ff00::", "ip6-mcastprefix")
		line("ff02::1", "ip6-allnodes")
		line("ff02::2", "ip6-allrouters")
	}
	for _, h := range f.Extra {
		if f.IPv6 || h.Addr.Is4() {
			line(h.Addr.String(), h.Names)
		}
	}
	name := HostNames(f.Hostname, f.Domainname)
	for _, a := range f.Addrs {
		if f.IPv6 || a.Is4() {
			line(a.String(), name)
		}
	}
	return b.Bytes()
}

// HostNames is what a container is called in its own file. A hostname may
// itself be a full name: the bare name follows it.
func HostNames(hostname, domainname string) string {
	name := hostname
	if domainname != "" {
		name += "." + domainname
	}
	if bare, _, ok := strings.Cut(name, "."); ok {
		name += " " + bare
	}
	return name
}

// EditHosts takes addresses out of a container's /etc/hosts and puts others in,
// at its end; every other line stays, whoever wrote it.
func EditHosts(data []byte, removed, added []netip.Addr, names string) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(string(data)) {
		field := strings.Fields(line)
		if len(field) > 0 {
			addr, err := netip.ParseAddr(field[0])
			if err == nil && slices.Contains(removed, addr) {
				continue
			}
		}
		b.WriteString(line)
	}
	if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
		b.WriteByte('\n')
	}
	for _, a := range added {
		fmt.Fprintf(&b, "%s\t%s\n", a, names)
	}
	return b.Bytes()
}

// HostGateway is the word that --add-host replaces by the host's address.
const HostGateway = "host-gateway"

// ParseExtraHosts reads "name:address" (or "name=address") lines of --add-host.
// Several addresses separated by commas give several lines. gateways replaces
// "host-gateway". ErrInvalidArgument with Docker's text.
func ParseExtraHosts(lines []string, gateways []netip.Addr) ([]Host, error) {
	var out []Host
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if eqName, eqValue, eq := strings.Cut(l, "="); eq && (!ok || len(eqName) < len(name)) {
			name, value, ok = eqName, eqValue, true
		}
		if !ok || name == "" {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("bad format for add-host: %q", l))
		}
		for _, v := range strings.Split(value, ",") {
			if v == HostGateway {
				if len(gateways) == 0 {
					return nil, errdefs.ErrInvalidArgument.WithMessage("unable to derive the IP value for host-gateway")
				}
				for _, g := range gateways {
					out = append(out, Host{Addr: g, Names: name})
				}
				continue
			}
			if len(v) > 2 && v[0] == '[' && v[len(v)-1] == ']' {
				v = v[1 : len(v)-1]
			}
			addr, err := netip.ParseAddr(v)
			if err != nil {
				return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid IP address in add-host: %q", v))
			}
			out = append(out, Host{Addr: addr, Names: name})
		}
	}
	return out, nil
}

// ParseLinks reads "container:alias" lines of --link; without an alias the
// container's name is one. Keys are lower case. ErrInvalidArgument with
// Docker's text.
func ParseLinks(lines []string) (map[string]string, error) {
	var links map[string]string
	for _, l := range lines {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		if name == "" || alias == "" || strings.Contains(alias, ":") {
			return nil, errdefs.ErrInvalidArgument.WithMessage("bad format for links: " + l)
		}
		if links == nil {
			links = map[string]string{}
		}
		// A link that was saved with paths: /name:/container/alias.
		alias = alias[strings.LastIndexByte(alias, '/')+1:]
		links[strings.ToLower(alias)] = strings.ToLower(strings.TrimPrefix(name, "/"))
	}
	return links, nil
}
