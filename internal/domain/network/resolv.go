package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ResolverAddr is where netd answers inside a sandbox.
var ResolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// ResolvConf is a parsed resolv.conf(5).
type ResolvConf struct {
	Servers []netip.Addr
	Search  []string
	Options []string
	// Other keeps directives that are not understood, line by line.
	Other []string

	// The rest is shown in comments, as Docker shows it.

	// Source is the file that was read; Invalid are its servers that are no
	// addresses.
	Source  string
	Invalid []string
	// overridden names what the configuration replaced.
	overridden []string
	// kind of network that the file was made for; warnings about that.
	kind     string
	warnings []string
	upstream []Upstream
	// ndotsFrom: who set the option ndots.
	ndotsFrom string
}

// ParseResolvConf reads the host's file, which is at source. What cannot be
// read is left out, as the resolver of the C library does.
func ParseResolvConf(data []byte, source string) ResolvConf {
	rc := ResolvConf{Source: source}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		fields := strings.Fields(line)
		if len(fields) == 0 || line[0] == '#' || line[0] == ';' {
			continue
		}
		args := fields[1:]
		switch fields[0] {
		case "nameserver":
			if len(args) > 0 {
				if a, err := netip.ParseAddr(args[0]); err == nil {
					rc.Servers = append(rc.Servers, a)
				} else {
					rc.Invalid = append(rc.Invalid, args[0])
				}
			}
		case "domain", "search":
			if len(args) > 0 {
				rc.Search = args
			}
		case "options":
			rc.Options = append(rc.Options, args...)
		default:
			rc.Other = append(rc.Other, line)
		}
	}
	if rc.hasNdots() {
		rc.ndotsFrom = "host"
	}
	return rc
}

func (rc ResolvConf) hasNdots() bool {
	return slices.ContainsFunc(rc.Options, func(o string) bool { return o == "ndots" || strings.HasPrefix(o, "ndots:") })
}

// Override replaces what the container's or the daemon's configuration sets.
// A search list of "." is an empty one.
func (rc ResolvConf) Override(servers []netip.Addr, search, options []string) ResolvConf {
	rc.overridden = nil
	if len(servers) > 0 {
		rc.Servers = slices.Clone(servers)
		rc.overridden = append(rc.overridden, "nameservers")
	}
	if len(search) > 0 {
		rc.Search = slices.DeleteFunc(slices.Clone(search), func(s string) bool { return s == "." })
		rc.overridden = append(rc.overridden, "search")
	}
	if len(options) > 0 {
		rc.Options = slices.Clone(options)
		rc.overridden = append(rc.overridden, "options")
		rc.ndotsFrom = ""
		if rc.hasNdots() {
			rc.ndotsFrom = "override"
		}
	}
	return rc
}

// Resolver is how a sandbox asks: the file it sees and, when Embedded, the
// servers that netd asks for it.
type Resolver struct {
	File     ResolvConf
	Embedded bool
	Upstream []Upstream
	// OwnRoot: somebody set ndots, so a name without a dot belongs to a search
	// domain or to us, and is not passed on.
	OwnRoot bool
}

// Upstream is a name server that netd asks for a sandbox.
type Upstream struct {
	Addr netip.Addr
	// Host: from the host's network namespace, because the address means
	// something else (or nothing) in the container's.
	Host bool
}

// String is the server as the comments of resolv.conf show it.
func (u Upstream) String() string {
	if u.Host {
		return "host(" + u.Addr.String() + ")"
	}
	return u.Addr.String()
}

// DefaultServers are Docker's, used when the host has none at all; those of
// the second list for sandboxes with IPv6 as well.
var (
	DefaultServers  = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")}
	DefaultServers6 = []netip.Addr{netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2001:4860:4860::8844")}
)

// LegacyResolver is the resolver of a container that is on the default bridge
// only. Docker strips the host's loopback servers there, because inside the
// container they lead nowhere, and falls back on a public resolver. We do the
// same with one difference: where the host has nothing but loopback servers
// (systemd-resolved, dnsmasq), netd asks them from the host's namespace, so
// that a container sees the same names as its host. overridden says that the
// servers were set by --dns: those are never stripped.
func LegacyResolver(rc ResolvConf, overridden, ipv6 bool) Resolver {
	rc.kind = "legacy"
	if overridden {
		return Resolver{File: rc}
	}
	var direct []netip.Addr
	var loop []Upstream
	for _, a := range rc.Servers {
		switch {
		case a.IsLoopback():
			loop = append(loop, Upstream{Addr: a, Host: true})
		case a.Is4() || ipv6:
			direct = append(direct, a)
		}
	}
	switch {
	case len(direct) > 0:
		rc.Servers = direct
	case len(loop) > 0:
		return embedded(rc, loop)
	default:
		rc.Servers = slices.Clone(DefaultServers)
		if ipv6 {
			rc.Servers = append(rc.Servers, DefaultServers6...)
		}
		rc.warnings = append(rc.warnings, "Used default nameservers.")
	}
	return Resolver{File: rc}
}

// EmbeddedResolver is the resolver of a container on a user-defined network:
// netd answers, and asks the servers of rc for what it does not know. The
// host's servers are asked from the host's namespace (overridden false), those
// of --dns from the container's.
func EmbeddedResolver(rc ResolvConf, overridden bool) Resolver {
	var up []Upstream
	for _, a := range rc.Servers {
		up = append(up, Upstream{Addr: a, Host: !overridden})
	}
	ndots := rc.hasNdots()
	rc.Options = slices.DeleteFunc(slices.Clone(rc.Options), func(o string) bool {
		name, value, _ := strings.Cut(o, ":")
		n, err := strconv.Atoi(value)
		return name == "ndots" && (err != nil || n < 0)
	})
	if !rc.hasNdots() {
		rc.Options, rc.ndotsFrom = append(rc.Options, "ndots:0"), "internal"
	}
	r := embedded(rc, up)
	r.OwnRoot = ndots
	return r
}

func embedded(rc ResolvConf, up []Upstream) Resolver {
	rc.Servers, rc.kind, rc.upstream = []netip.Addr{ResolverAddr}, "internal resolver", up
	if len(up) == 0 {
		rc.warnings = append(rc.warnings, "NO EXTERNAL NAMESERVERS DEFINED")
	}
	return Resolver{File: rc, Embedded: true, Upstream: up}
}

// Bytes renders the file with Docker's comments: who wrote it, from what, and
// whom netd asks.
func (rc ResolvConf) Bytes() []byte {
	var b bytes.Buffer
	b.WriteString("# Generated by Orlop.\n# This file can be edited; Orlop will not make further changes once it\n# has been modified.\n\n")
	for _, a := range rc.Servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(rc.Search) > 0 {
		b.WriteString("search " + strings.Join(rc.Search, " ") + "\n")
	}
	if len(rc.Options) > 0 {
		b.WriteString("options " + strings.Join(rc.Options, " ") + "\n")
	}
	for _, o := range rc.Other {
		b.WriteString(o + "\n")
	}
	b.WriteString("\n# Based on host file: '" + rc.Source + "'")
	if rc.kind != "" {
		b.WriteString(" (" + rc.kind + ")")
	}
	b.WriteByte('\n')
	for _, w := range rc.warnings {
		b.WriteString("# " + w + "\n")
	}
	if len(rc.upstream) > 0 {
		fmt.Fprintf(&b, "# ExtServers: %v\n", rc.upstream)
	}
	if len(rc.Invalid) > 0 {
		fmt.Fprintf(&b, "# Invalid nameservers: %v\n", rc.Invalid)
	}
	fmt.Fprintf(&b, "# Overrides: %v\n", rc.overridden)
	if rc.ndotsFrom != "" {
		b.WriteString("# Option ndots from: " + rc.ndotsFrom + "\n")
	}
	return b.Bytes()
}
