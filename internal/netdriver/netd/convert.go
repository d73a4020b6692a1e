package netd

import (
	"bytes"
	"net/netip"
	"os"
	"strconv"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/nameserver/table"
)

func port(b network.Binding) table.Port {
	return table.Port{
		Proto: b.Proto, HostIP: b.HostIP, HostPort: b.HostPort,
		Target: netip.AddrPortFrom(b.ContainerIP, b.ContainerPort), Relay: b.Relayed(),
	}
}

func binding(p table.Port) network.Binding {
	return network.Binding{
		Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort,
		ContainerIP: p.Target.Addr(), ContainerPort: p.Target.Port(),
	}
}

// addr53 is the address of a name server.
func addr53(up network.Upstream) netip.AddrPort { return netip.AddrPortFrom(up.Addr, 53) }

// startTime is field 22 of /proc/<pid>/stat; 0 when the process is gone, which
// netd finds out by itself.
func startTime(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return start
}
