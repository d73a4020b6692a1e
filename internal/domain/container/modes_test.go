package container_test

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
)

func TestModesThatLeaveNoRoomAreRefusedInDockersWords(t *testing.T) {
	port := networktypes.MustParsePort("80/tcp")
	for _, c := range []struct {
		name   string
		mode   containertypes.NetworkMode
		config containertypes.Config
		host   containertypes.HostConfig
		want   string
	}{
		{"nothing asked", "container:web", containertypes.Config{}, containertypes.HostConfig{}, ""},
		{"own network", "bridge", containertypes.Config{Hostname: "h"}, containertypes.HostConfig{PublishAllPorts: true}, ""},
		{"no name", "container:", containertypes.Config{}, containertypes.HostConfig{}, "invalid network mode: invalid container format container:<name|id>"},
		{"no colon", "container", containertypes.Config{}, containertypes.HostConfig{}, "invalid network mode: invalid container format container:<name|id>"},
		{"hostname", "container:web", containertypes.Config{Hostname: "h"}, containertypes.HostConfig{}, "conflicting options: hostname and the network mode"},
		{"links", "container:web", containertypes.Config{}, containertypes.HostConfig{Links: []string{"a:b"}}, "conflicting options: container type network can't be used with links. This would result in undefined behavior"},
		{"dns", "container:web", containertypes.Config{}, containertypes.HostConfig{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, "conflicting options: dns and the network mode"},
		{"hosts", "container:web", containertypes.Config{}, containertypes.HostConfig{ExtraHosts: []string{"a:192.0.2.1"}}, "conflicting options: custom host-to-IP mapping and the network mode"},
		{"ports", "container:web", containertypes.Config{}, containertypes.HostConfig{PortBindings: networktypes.PortMap{port: nil}}, "conflicting options: port publishing and the container type network mode"},
		{"all ports", "container:web", containertypes.Config{}, containertypes.HostConfig{PublishAllPorts: true}, "conflicting options: port publishing and the container type network mode"},
		{"exposed", "container:web", containertypes.Config{ExposedPorts: networktypes.PortSet{port: {}}}, containertypes.HostConfig{}, "conflicting options: port exposing and the container type network mode"},
		{"UTS of the host", "bridge", containertypes.Config{Hostname: "h"}, containertypes.HostConfig{UTSMode: "host"}, "conflicting options: hostname and the UTS mode"},
		{"links of the host", "host", containertypes.Config{}, containertypes.HostConfig{Links: []string{"a:b"}}, "conflicting options: host type networking can't be used with links. This would result in undefined behavior"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.host.NetworkMode = c.mode
			err := container.ValidateModes(&c.config, &c.host)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || err.Error() != c.want || !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
