package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestLabelsSayWhichPortsObeyTheHostsInputRules(t *testing.T) {
	rules, err := ParsePublish(map[string]string{
		"orlop.publish.input":                  "obey",
		"orlop.publish.80.input":               "bypass",
		"orlop.publish.53/udp.input":           "bypass",
		"orlop.publish.8000-8100/tcp.input":    "bypass",
		"orlop.publish.8050-8060.input":        "obey",
		"orlop.publish.8055/tcp.input":         "bypass",
		"orlop.publishers.are.somebody.else's": "x",
		"tier":                                 "front",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		proto string
		port  uint16
		want  Input
	}{
		{"tcp", 80, InputBypass},
		{"udp", 80, InputObey},
		{"udp", 53, InputBypass},
		{"tcp", 53, InputObey},
		{"tcp", 7999, InputObey},
		{"tcp", 8000, InputBypass},
		{"tcp", 8050, InputObey},
		{"tcp", 8055, InputBypass},
		{"tcp", 8060, InputObey},
		{"tcp", 8100, InputBypass},
		{"tcp", 8101, InputObey},
	} {
		if got := rules.Of(c.proto, c.port); got != c.want {
			t.Errorf("%d/%s: %q, want %q", c.port, c.proto, got, c.want)
		}
	}
	var none PublishRules
	if got := none.Of("tcp", 80); got != "" {
		t.Errorf("without labels: %q", got)
	}
	if none, err = ParsePublish(map[string]string{"orlop.publish.80/tcp.input": "obey"}); err != nil || none.Of("tcp", 81) != "" {
		t.Errorf("a port without a label: %q %v", none.Of("tcp", 81), err)
	}
}

func TestLabelsThatAreNotUnderstoodAreRefused(t *testing.T) {
	for label, value := range map[string]string{
		"orlop.publish.input":              "yes",
		"orlop.publish.80/tcp.input":       "",
		"orlop.publish.80/tcp":             "obey",
		"orlop.publish.80/tcp.inptu":       "obey",
		"orlop.publish.0/tcp.input":        "obey",
		"orlop.publish.70000/tcp.input":    "obey",
		"orlop.publish.90-80/tcp.input":    "obey",
		"orlop.publish.http.input":         "obey",
		"orlop.publish..input":             "obey",
		"orlop.publish.127.0.0.1:80.input": "obey",
	} {
		if _, err := ParsePublish(map[string]string{label: value}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), label) {
			t.Errorf("%s=%s: %v", label, value, err)
		}
	}
	_, err := ParsePublish(map[string]string{"orlop.publish.80.input": "obey", "orlop.publish.80/tcp.input": "bypass"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("two labels about one port: %v", err)
	}
}

func TestALabelAboutAPortThatIsNotPublishedIsRefused(t *testing.T) {
	rules, err := ParsePublish(map[string]string{"orlop.publish.8080/tcp.input": "obey"})
	if err != nil {
		t.Fatal(err)
	}
	// 8080 is the port of the host here, and a label names the container's.
	err = rules.Check([]WantedPort{{Proto: "tcp", ContainerPort: 80, First: 8080, Last: 8080}, {Proto: "udp", ContainerPort: 8080}})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "orlop.publish.8080/tcp.input") {
		t.Errorf("another port: %v", err)
	}
	if err := rules.Check([]WantedPort{{Proto: "tcp", ContainerPort: 8080}}); err != nil {
		t.Error(err)
	}
}

func TestThePortItselfThenItsNetworkThenTheDaemonDecide(t *testing.T) {
	for _, c := range []struct {
		label, option, daemon Input
		proto                 string
		routed                bool
		obeys, refused        bool
	}{
		{proto: "tcp"},
		{daemon: InputObey, proto: "udp", obeys: true},
		{option: InputBypass, daemon: InputObey, proto: "tcp"},
		{option: InputObey, daemon: InputBypass, proto: "tcp", obeys: true},
		{label: InputBypass, option: InputObey, daemon: InputObey, proto: "tcp"},
		{label: InputObey, option: InputBypass, daemon: InputBypass, proto: "tcp", obeys: true},
		{proto: "sctp"},
		{label: InputObey, proto: "sctp", refused: true},
		{daemon: InputObey, proto: "sctp", refused: true},
		{label: InputBypass, daemon: InputObey, proto: "sctp"},
		{daemon: InputObey, proto: "tcp", routed: true},
		{label: InputObey, proto: "tcp", routed: true, refused: true},
		{label: InputBypass, proto: "tcp", routed: true},
	} {
		w := WantedPort{Proto: c.proto, ContainerPort: 80, Input: c.label}
		obeys, err := DecideInput(w, c.option, c.daemon, !c.routed)
		if obeys != c.obeys || errdefs.IsInvalidArgument(err) != c.refused || (err != nil) != c.refused {
			t.Errorf("%+v: %v %v", c, obeys, err)
		}
	}
}

func TestAPortThatObeysIsCarriedAndNotTranslated(t *testing.T) {
	to := netip.MustParseAddr("172.17.0.2")
	for _, host := range []string{"0.0.0.0", "192.0.2.1", "127.0.0.1", "::", "::1"} {
		b := Binding{Proto: "tcp", HostIP: netip.MustParseAddr(host), HostPort: 8080, ContainerIP: to, ContainerPort: 80, ObeysInput: true}
		if b.Translated() || !b.Relayed() {
			t.Errorf("on %s: translated %v, relayed %v", host, b.Translated(), b.Relayed())
		}
		b.ObeysInput = false
		if b.Translated() == b.Relayed() {
			t.Errorf("on %s, otherwise: translated %v, relayed %v", host, b.Translated(), b.Relayed())
		}
	}
}
