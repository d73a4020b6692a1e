package nettest_test

import (
	"fmt"
	"testing"

	"github.com/orlop/orlop/internal/linux/netns"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

func TestPublishedPortIsReachedFromEverywhere(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	web := e.run("web", ":8080:80/tcp", ":8080:80/udp")
	defer e.close(web)
	other := e.run("other")
	defer e.close(other)
	nettest.Serve(t, web.ns, "web", 80)

	gateway := web.Attachment.Endpoints[0].Gateway4.String()
	for _, c := range []struct {
		from   string
		ns     *netns.NS
		to     string
		client string // the address the container sees
	}{
		{"outside", w.Outside, w.Host.String() + ":8080", w.Peer.String()},
		{"outside by IPv6", w.Outside, "[" + w.Host6.String() + "]:8080", gateway},
		{"host's address", nil, w.Host.String() + ":8080", w.Host.String()},
		{"host's IPv6 address", nil, "[" + w.Host6.String() + "]:8080", gateway},
		{"127.0.0.1", nil, "127.0.0.1:8080", gateway},
		{"another address of loopback", nil, "127.0.0.2:8080", gateway},
		{"[::1]", nil, "[::1]:8080", gateway},
		{"the bridge's address", nil, gateway + ":8080", gateway},
		{"the container's own address, from the host", nil, web.ip.String() + ":80", gateway},
		{"another container, by the host's address", other.ns, w.Host.String() + ":8080", gateway},
		{"another container, by the bridge's address", other.ns, gateway + ":8080", gateway},
		{"another container, directly", other.ns, web.ip.String() + ":80", other.ip.String()},
		{"itself, by the host's address", web.ns, w.Host.String() + ":8080", gateway},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(fmt.Sprintf("%s %s", c.from, proto), func(t *testing.T) {
				got, err := nettest.Ask(c.ns, proto, c.to)
				if err != nil {
					t.Fatalf("ask %s: %v", c.to, err)
				}
				if got.Server != "web" || got.Client != c.client {
					t.Errorf("answered by %s for client %s, want web for %s", got.Server, got.Client, c.client)
				}
			})
		}
	}
}
