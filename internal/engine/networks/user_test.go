package networks

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/network"
)

// made creates networks by their names.
func made(t *testing.T, s *Service, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Create(t.Context(), networktypes.CreateRequest{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	for _, act := range []string{"prepare", "bridge", "rule"} {
		t.Run(act, func(t *testing.T) {
			w := newWorld()
			s := w.service(t)
			records := len(w.recs)
			w.fail[act] = errors.New("broken")
			if _, err := s.Create(t.Context(), networktypes.CreateRequest{Name: "front"}, nil); err == nil {
				t.Fatal("made")
			}
			if len(w.recs) != records {
				t.Error("its record is left")
			}
			if slices.Contains(w.acts, "bridge br-"+strings.Repeat("0", 12)) && !strings.Contains(strings.Join(w.acts, ","), "nobridge") {
				t.Errorf("the device is left: %v", w.acts)
			}
			delete(w.fail, act)
			made(t, s, "front") // name and subnet are free again
			in, err := s.Inspect(t.Context(), "front")
			if err != nil || in.IPAM.Config[0].Subnet.String() != "172.18.0.0/24" {
				t.Errorf("%v %v", in.IPAM.Config, err)
			}
		})
	}
}

func TestNetworksMadeAtOnceHaveDifferentSubnets(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	made(t, s, "a1", "a2", "a3")
	seen := map[string]bool{}
	for _, name := range []string{"a1", "a2", "a3"} {
		in, err := s.Inspect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		seen[in.IPAM.Config[0].Subnet.String()] = true
	}
	if len(seen) != 3 {
		t.Errorf("subnets %v", seen)
	}
	if _, err := s.Create(t.Context(), networktypes.CreateRequest{Name: "a1"}, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a second network of a name: %v", err)
	}
}

func TestConnectMovesDefaultRouteAndPublishedPorts(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	made(t, s, "front", "alpha")
	req := request(one, "8080:80/tcp")
	req.Mode = "front"
	if _, err := s.Open(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if err := s.Started(t.Context(), one, 77); err != nil {
		t.Fatal(err)
	}
	w.acts = nil
	// "alpha" comes before "front", so it has the default route now.
	change, err := s.Connect(t.Context(), req, "alpha", &networktypes.EndpointSettings{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"enter 77", "attach eth1=[172.18.1.2/24]", "default eth1 ", "unpublish [0.0.0.0:8080/tcp]", "publish [0.0.0.0:8080/tcp]",
		"put dns=true ns=false [0.0.0.0:8080/tcp]",
	}
	if diff := cmp.Diff(want, w.acts); diff != "" {
		t.Error(diff)
	}
	if got := change.Attachment.Ports[0].ContainerIP.String(); got != "172.18.1.2" {
		t.Errorf("the port leads to %s", got)
	}
	if _, err := s.Connect(t.Context(), req, "alpha", nil); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("a second time: %v", err)
	}
	if err := s.Remove(t.Context(), "alpha"); err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("removing a network in use: %v", err)
	}
	w.acts = nil
	if change, err = s.Disconnect(t.Context(), req, "alpha"); err != nil {
		t.Fatal(err)
	}
	if got := change.Attachment.Ports[0].ContainerIP.String(); got != "172.18.0.2" {
		t.Errorf("the port leads to %s", got)
	}
	if !slices.Contains(w.acts, "detach eth1") || !slices.Contains(w.acts, "default eth0 ") {
		t.Errorf("%v", w.acts)
	}
	if err := s.Remove(t.Context(), "alpha"); err != nil {
		t.Error(err)
	}
}

func TestFailedConnectLeavesEverythingAsItWas(t *testing.T) {
	for _, act := range []string{"join", "attach", "default", "unpublish", "publish", "put"} {
		t.Run(act, func(t *testing.T) {
			w := newWorld()
			s := w.service(t)
			made(t, s, "front", "alpha")
			req := request(one, "8080:80/tcp")
			req.Mode = "front"
			if _, err := s.Open(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if err := s.Started(t.Context(), one, 77); err != nil {
				t.Fatal(err)
			}
			before, _, _ := s.current(s.sandboxes[one])
			w.fail[act] = errors.New("broken")
			if _, err := s.Connect(t.Context(), req, "alpha", nil); err == nil {
				t.Fatal("connected")
			}
			delete(w.fail, act)
			after, _, _ := s.current(s.sandboxes[one])
			if len(after.Endpoints) != 1 || after.Ports[0] != before.Ports[0] {
				t.Errorf("%+v", after)
			}
			change, err := s.Connect(context.Background(), req, "alpha", nil)
			if err != nil {
				t.Fatalf("name, address or port was kept: %v", err)
			}
			if got := change.Attachment.Endpoints[1].IPv4.String(); got != "172.18.1.2/24" {
				t.Errorf("address %s", got)
			}
		})
	}
}

func TestDefaultRouteFollowsPriority(t *testing.T) {
	ep := func(name string, priority int, internal bool) network.Endpoint {
		return network.Endpoint{
			NetworkName: name, Priority: priority, NoGateway: internal, InnerLink: name,
			IPv4: prefix("10.0.0.2/24"), Gateway4: prefix("10.0.0.1/24").Addr(),
		}
	}
	for _, c := range []struct {
		eps  []network.Endpoint
		want string
	}{
		{[]network.Endpoint{ep("b", 0, false), ep("a", 0, false)}, "a"},
		{[]network.Endpoint{ep("b", 1, false), ep("a", 0, false)}, "b"},
		{[]network.Endpoint{ep("b", 0, false), ep("a", -1, false)}, "b"},
		{[]network.Endpoint{ep("a", 5, true), ep("b", 0, false)}, "b"},
		{[]network.Endpoint{ep("a", 0, true)}, ""},
	} {
		if got := network.Defaults(network.ChooseDefaults(c.eps)).Link4; got != c.want {
			t.Errorf("%v: %q, want %q", c.eps, got, c.want)
		}
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
