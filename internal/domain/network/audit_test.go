package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"
)

func TestAuditNamesWhatIsReachable(t *testing.T) {
	ipam := networktypes.IPAM{Config: []networktypes.IPAMConfig{{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}}}
	records := []Record{
		{ID: "1", Name: "back", Driver: DriverBridge, Device: "br-1", IPAM: ipam, EnableIPv4: true, Internal: true, Options: map[string]string{OptICC: "false"}},
		{ID: "2", Name: "front", Driver: DriverBridge, Device: "br-2", IPAM: ipam, EnableIPv4: true, Options: map[string]string{
			OptEgressAllow: "10.0.0.0/8", OptGatewayMode4: "routed",
		}},
		{ID: "3", Name: "lan", Driver: Macvlan, Device: "eth0", IPAM: ipam, EnableIPv4: true},
		{ID: "4", Name: HostName, Driver: DriverHost},
	}
	attachments := []Attachment{
		{ContainerID: "c1", Name: "web", Mode: "front", Ports: []Binding{
			{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8080, ContainerPort: 80},
			{Proto: "udp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 53, ContainerPort: 53},
			{Proto: "tcp", HostIP: netip.IPv6Unspecified(), HostPort: 8443, ContainerPort: 443, ObeysInput: true},
		}},
		{ContainerID: "c2", Name: "agent", Mode: HostName},
	}
	rows, err := Audit(records, attachments)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&got, "%s > %s: %s by %q, %s\n", r.From, r.To, r.Ports, r.By, r.Why)
	}
	const want = `network back > network back: none by "the containers' own addresses", icc false
this host > network back: all by "the containers' own addresses", the host's output rules
network back > anywhere: none by "", internal
network front > network front: all by "the containers' own addresses", icc true
this host > network front: all by "the containers' own addresses", the host's output rules
network front > this host: all it listens on by "the host's addresses", the host's input rules
network front > anywhere: all but what the lists forbid by "", egress allow=10.0.0.0/8
anywhere > network front: published ports, ping by "the containers' own addresses", gateway mode routed, IPv4
the wire of eth0 > network lan: all by "the containers' own addresses", macvlan: the engine filters nothing
network lan > the wire of eth0: all by "", macvlan
anywhere > container agent: all it listens on by "the host's addresses", network host: the host's input rules
anywhere > container web: 80/tcp by "0.0.0.0:8080", published
this host > container web: 53/udp by "127.0.0.1:53", published
anywhere > container web: 443/tcp by "[::]:8443", published, obeys the host's input rules
`
	if got.String() != want {
		t.Errorf("audit:\n%swant:\n%s", &got, want)
	}
}

func TestEgressListsAreReadAndDecide(t *testing.T) {
	e, err := ParseEgress(map[string]string{OptEgressAllow: "10.0.0.0/8, 10.1.2.3,2001:db8::/32", OptEgressDeny: "10.9.0.0/16"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.String(), "allow=10.0.0.0/8,2001:db8::/32 deny=10.9.0.0/16"; got != want {
		t.Errorf("lists %q, want %q", got, want)
	}
	for addr, want := range map[string]bool{"10.1.1.1": true, "10.9.1.1": false, "192.0.2.1": false, "2001:db8::1": true, "2001:db9::1": false} {
		if got := e.Allows(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s allowed: %v", addr, got)
		}
	}
	if none, err := ParseEgress(nil); err != nil || !none.Allows(netip.MustParseAddr("192.0.2.1")) {
		t.Errorf("without lists: %v %v", none, err)
	}
	if nothing, err := ParseEgress(map[string]string{OptEgressAllow: ""}); err != nil || nothing.Allows(netip.MustParseAddr("192.0.2.1")) {
		t.Errorf("with an empty list: %v %v", nothing, err)
	}
	for _, bad := range []string{"x", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fe80::1%eth0"} {
		if _, err := ParseEgress(map[string]string{OptEgressDeny: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
