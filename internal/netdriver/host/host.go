// Package host answers what the engine has to know about the machine's own
// network, and switches packet forwarding on. Answers are read when asked,
// because they change.
//
// Entry point: New. No state, no locks.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/orlop/orlop/internal/linux/rtnl"
)

// Files of the machine.
const (
	resolvConf = "/etc/resolv.conf"
	// resolvedConf lists the servers behind systemd-resolved's stub, which
	// containers can reach and the stub's 127.0.0.53 they cannot.
	resolvedConf = "/run/systemd/resolve/resolv.conf"
	hosts        = "/etc/hosts"
)

// Fallback of Docker when the kernel does not tell (IANA's dynamic ports).
const (
	defaultFirst = 49153
	defaultLast  = 65535
)

// Host is the machine that the calling process runs on.
type Host struct{ log *slog.Logger }

// New makes no connection; log takes warnings, nil none.
func New(log *slog.Logger) *Host {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Host{log}
}

// ResolvConf is the machine's resolver configuration and where it was read;
// empty without one. Where systemd-resolved's stub is the only server, the
// servers behind it.
func (*Host) ResolvConf() (data []byte, source string, err error) {
	data, err = readOptional(resolvConf)
	if err != nil || !onlyStub(data) {
		return data, resolvConf, err
	}
	behind, err := readOptional(resolvedConf)
	if err != nil || len(behind) == 0 {
		return data, resolvConf, err
	}
	return behind, resolvedConf, nil
}

func onlyStub(data []byte) bool {
	found := false
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			if f[1] != "127.0.0.53" || found {
				return false
			}
			found = true
		}
	}
	return found
}

// Hosts is the machine's /etc/hosts; empty without one.
func (*Host) Hosts() ([]byte, error) { return readOptional(hosts) }

func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Hostname of the machine; "" when it has none.
func (*Host) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// Prefixes lists the subnets of interfaces and the destinations of routes in
// the network namespace of the calling thread.
func (*Host) Prefixes(context.Context) ([]netip.Prefix, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out, err := c.Routes()
	if err != nil {
		return nil, err
	}
	addrs, err := c.Addrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		out = append(out, a.Prefix.Masked())
	}
	return out, nil
}

// Addrs lists the addresses of a device; none when it does not exist.
func (*Host) Addrs(_ context.Context, device string) ([]netip.Prefix, error) {
	c, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	link, err := c.Link(device)
	if rtnl.IsGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := c.AddrsOf(link.Index)
	var addrs []netip.Prefix
	for _, a := range all {
		addrs = append(addrs, a.Prefix)
	}
	return addrs, err
}

// IPv6 reports whether sockets of the family can be bound.
func (*Host) IPv6() bool {
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp6", "[::1]:0")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// PortRange is net.ipv4.ip_local_port_range and ip_local_reserved_ports
// (Documentation/networking/ip-sysctl.rst).
func (*Host) PortRange() (first, last uint16, excluded []uint16) {
	first, last = defaultFirst, defaultLast
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if f := strings.Fields(string(data)); len(f) == 2 {
			a, err1 := strconv.ParseUint(f[0], 10, 16)
			b, err2 := strconv.ParseUint(f[1], 10, 16)
			if err1 == nil && err2 == nil && a > 0 && a <= b {
				first, last = uint16(a), uint16(b)
			}
		}
	}
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return first, last, nil
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(data)), ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for p := max(a, uint64(first)); p <= min(b, uint64(last)); p++ {
			excluded = append(excluded, uint16(p))
		}
	}
	return first, last, excluded
}

// EnableForwarding switches packet forwarding on in the network namespace of
// the calling thread; changed when it was off.
func (h *Host) EnableForwarding(_ context.Context, ipv6 bool) (changed bool, err error) {
	files := []string{"/proc/sys/net/ipv4/ip_forward"}
	if ipv6 {
		files = append(files, "/proc/sys/net/ipv6/conf/default/forwarding", forwardAll6)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return changed, fmt.Errorf("enable forwarding: %w", err)
		}
		if strings.TrimSpace(string(data)) != "0" {
			continue
		}
		if f == forwardAll6 {
			for _, name := range listeners() {
				h.log.Warn("a router takes no router advertisements: this interface's default route for IPv6 will be lost when it runs out",
					"interface", name, "remedy", "set net.ipv6.conf."+name+".accept_ra=2")
			}
		}
		if err := os.WriteFile(f, []byte("1\n"), 0); err != nil {
			return changed, fmt.Errorf("enable forwarding: %w", err)
		}
		changed = true
	}
	return changed, nil
}

const forwardAll6 = "/proc/sys/net/ipv6/conf/all/forwarding"

// listeners are the interfaces that have a default route from a router
// advertisement and would stop to listen to them when the machine becomes a
// router (accept_ra is 1; Documentation/networking/ip-sysctl.rst).
func listeners() []string {
	routes, err := os.ReadFile("/proc/net/ipv6_route")
	if err != nil {
		return nil
	}
	const fromRA = 0x00040000 | 0x00010000 // RTF_ADDRCONF | RTF_DEFAULT (linux/ipv6_route.h)
	var out []string
	for line := range strings.Lines(string(routes)) {
		f := strings.Fields(line)
		if len(f) != 10 || f[1] != "00" || strings.Trim(f[0], "0") != "" || slices.Contains(out, f[9]) {
			continue
		}
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil || flags&fromRA != fromRA {
			continue
		}
		accept, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + f[9] + "/accept_ra")
		if err == nil && strings.TrimSpace(string(accept)) == "1" {
			out = append(out, f[9])
		}
	}
	return out
}
