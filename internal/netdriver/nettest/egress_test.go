package nettest_test

import (
	"net/netip"
	"testing"

	"github.com/orlop/orlop/internal/linux/rtnl"
	"github.com/orlop/orlop/internal/netdriver/nettest"
)

func TestEgressListsBoundWhatContainersReach(t *testing.T) {
	w := nettest.NewWorld(t)
	e := start(t, nil, nil)
	defer e.finish()
	// A second address of the machine outside.
	must(t, w.Outside.Do(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.Link("eth0")
		if err != nil {
			return err
		}
		return c.AddAddr(l.Index, netip.MustParsePrefix("192.0.2.66/24"))
	}))
	nettest.Serve(t, w.Outside, "world", 7000)
	for name, options := range map[string][]string{
		"free":   nil,
		"listed": {"orlop.egress.allow=192.0.2.66,198.51.100.0/24"},
		"denied": {"orlop.egress.deny=192.0.2.64/26"},
		"both":   {"orlop.egress.allow=192.0.2.0/24", "orlop.egress.deny=192.0.2.66"},
		"shut":   {"orlop.egress.allow="},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.make(name, "bridge", options...)
			must(t, err)
			c, other := e.on("c-"+name, name), e.on("o-"+name, name)
			nettest.Serve(t, other.ns, "other", 80)
			for addr, open := range map[string]bool{
				"192.0.2.9:7000":  name == "free" || name == "denied" || name == "both",
				"192.0.2.66:7000": name == "free" || name == "listed",
			} {
				if open {
					// By TCP: a server on several addresses answers UDP with its first.
					if got, err := nettest.Ask(c.ns, "tcp", addr); err != nil || got.Client != w.Host.String() {
						t.Errorf("%s answered %v: %v", addr, got, err)
					}
				} else {
					refuse(t, "to "+addr, c.ns, addr)
				}
			}
			// The lists are about what is outside.
			check(t, "other", []path{{"within the network", c.ns, other.ip.String() + ":80", c.ip.String()}})
			e.close(c)
			e.close(other)
			must(t, e.svc.Remove(t.Context(), name))
		})
	}
	if _, err := e.make("bad", "bridge", "orlop.egress.deny=nowhere"); err == nil {
		t.Error("a list of nonsense was taken")
	}
}
