package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
)

// ConnectNetwork puts a container on one more network: at once when it runs,
// else when it is started the next time. ErrNotFound for the container, and for
// the network when the container runs.
func (s *Service) ConnectNetwork(ctx context.Context, ref, networkRef string, ask *networktypes.EndpointSettings) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	if ask == nil {
		ask = &networktypes.EndpointSettings{}
	}
	ask = asked(ask)
	snap := o.snapshot()
	if err := removing(snap); err != nil {
		return err
	}
	if !snap.state.Alive() {
		return s.connectLater(ctx, o, networkRef, ask)
	}
	change, err := s.cfg.Networks.Connect(ctx, s.changeRequest(o, snap), networkRef, ask)
	if err != nil {
		return err
	}
	name := ""
	for _, ep := range change.Attachment.Endpoints {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(snap.saved.Endpoints)), func(known string) bool { return known == ep.NetworkName }) {
			name = ep.NetworkName
		}
	}
	return s.networkChanged(ctx, o, change, func(eps map[string]*networktypes.EndpointSettings) {
		if name != "" {
			eps[name] = ask
		}
	})
}

// connectLater records the endpoint of a container that does not run.
func (s *Service) connectLater(ctx context.Context, o *object, networkRef string, ask *networktypes.EndpointSettings) error {
	snap := o.snapshot()
	name, err := s.cfg.Networks.Resolve(ctx, networkRef, snap.saved.HostConfig.NetworkMode, slices.Sorted(maps.Keys(snap.saved.Endpoints)), ask)
	switch {
	case errdefs.IsNotFound(err):
		name = networkRef // it may be made before the start
	case err != nil:
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state.Alive() {
		return conflict("container %s was started while it was being connected to network %s", o.id, name)
	}
	if o.saved.Endpoints[name] != nil {
		return nil // as Docker: the first settings stay
	}
	s.setEndpoints(ctx, o, func(eps map[string]*networktypes.EndpointSettings) { eps[name] = ask })
	return nil
}

// DisconnectNetwork takes a container off a network. With force the container
// need not exist any more.
func (s *Service) DisconnectNetwork(ctx context.Context, ref, networkRef string, force bool) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	snap := o.snapshot()
	if err := removing(snap); err != nil {
		return err
	}
	if !snap.state.Alive() {
		return s.disconnectLater(ctx, o, networkRef)
	}
	change, err := s.cfg.Networks.Disconnect(ctx, s.changeRequest(o, snap), networkRef)
	if force && errdefs.IsNotFound(err) {
		return s.disconnectLater(ctx, o, networkRef)
	}
	if err != nil {
		return err
	}
	return s.networkChanged(ctx, o, change, func(eps map[string]*networktypes.EndpointSettings) {
		maps.DeleteFunc(eps, func(name string, _ *networktypes.EndpointSettings) bool {
			return !slices.ContainsFunc(change.Attachment.Endpoints, func(ep network.Endpoint) bool { return ep.NetworkName == name })
		})
	})
}

func (s *Service) disconnectLater(ctx context.Context, o *object, networkRef string) error {
	name, err := s.cfg.Networks.Resolve(ctx, networkRef, "", nil, nil)
	if err != nil {
		name = networkRef
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.saved.Endpoints[name]; !ok {
		return fmt.Errorf("container %s is not connected to the network %s", o.id, name)
	}
	s.setEndpoints(ctx, o, func(eps map[string]*networktypes.EndpointSettings) { delete(eps, name) })
	return nil
}

func removing(snap *snapshot) error {
	if snap.state == container.StateRemoving || snap.state == container.StateDead {
		return fmt.Errorf("Container %s is marked for removal and cannot be connected or disconnected to the network", snap.id)
	}
	return nil
}

// setEndpoints replaces the recorded endpoints; o.mu is held.
func (s *Service) setEndpoints(ctx context.Context, o *object, change func(map[string]*networktypes.EndpointSettings)) {
	eps := maps.Clone(o.saved.Endpoints)
	if eps == nil {
		eps = map[string]*networktypes.EndpointSettings{}
	}
	change(eps)
	o.saved.Endpoints = eps
	s.save(ctx, o)
	o.publish()
}

// networkChanged records for the next start what connecting or disconnecting
// has done, and brings the container's own files to it.
func (s *Service) networkChanged(ctx context.Context, o *object, change network.Change, endpoints func(map[string]*networktypes.EndpointSettings)) error {
	ctx = context.WithoutCancel(ctx)
	o.mu.Lock()
	s.setEndpoints(ctx, o, endpoints)
	alive := o.state.Alive()
	o.mu.Unlock()
	if !alive {
		return nil
	}
	errs := []error{s.editFile(o.id, "hosts", func(data []byte) []byte {
		return network.EditHosts(data, change.Removed, change.Added, change.HostName)
	})}
	if change.ResolvConf != nil {
		errs = append(errs, s.editFile(o.id, "resolv.conf", func(data []byte) []byte {
			if !bytes.Equal(data, change.ResolvConfBefore) {
				return data // somebody else's by now
			}
			return change.ResolvConf
		}))
	}
	return errors.Join(errs...)
}

// rewriteRun brings the run record to the attachment: a later life of the
// daemon takes the sandbox over by it.
func (s *Service) rewriteRun(o *object, att network.Attachment) error {
	data, err := s.cfg.RunDir.Read(o.id, runFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has ended
	}
	var run runRecord
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil {
		return fmt.Errorf("read run record: %w", err)
	}
	run.Attachment = att
	return s.writeRun(o.id, run)
}

// editFile changes one of the files bound into /etc. It is written in place:
// the container has the file, not its name.
func (s *Service) editFile(id, name string, edit func([]byte) []byte) error {
	path := s.etcPath(id, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	after := edit(data)
	if bytes.Equal(data, after) {
		return nil
	}
	if err := os.WriteFile(path, after, 0o644); err != nil {
		return fmt.Errorf("edit %s: %w", name, err)
	}
	return nil
}

// asked is what a request says about an endpoint, without what only the engine
// can know.
func asked(ep *networktypes.EndpointSettings) *networktypes.EndpointSettings {
	return &networktypes.EndpointSettings{
		IPAMConfig: ep.IPAMConfig.Copy(), Links: ep.Links, Aliases: ep.Aliases, DriverOpts: ep.DriverOpts,
		GwPriority: ep.GwPriority, MacAddress: ep.MacAddress,
	}
}

// endpointsOf are the networks that a created container is on: those of the
// request, or that of its network mode.
func endpointsOf(mode containertypes.NetworkMode, n *networktypes.NetworkingConfig) map[string]*networktypes.EndpointSettings {
	out := map[string]*networktypes.EndpointSettings{}
	if mode.IsContainer() {
		return out
	}
	if n != nil {
		for name, ep := range n.EndpointsConfig {
			if name == networktypes.NetworkDefault {
				name = networktypes.NetworkBridge
			}
			out[name] = asked(ep)
		}
	}
	if len(out) == 0 {
		name := string(mode)
		if mode.IsDefault() || name == "" {
			name = networktypes.NetworkBridge
		}
		out[name] = &networktypes.EndpointSettings{}
	}
	return out
}

// changeRequest is networkRequest for a running container: what it is attached
// to is recorded by the networks, step by step and one change after the other.
func (s *Service) changeRequest(o *object, snap *snapshot) SandboxRequest {
	req := s.networkRequest(snap)
	req.Commit = func(att network.Attachment) error { return s.rewriteRun(o, att) }
	return req
}

// networkRequest is what the networks have to know about a container, without
// what only a start needs.
func (s *Service) networkRequest(snap *snapshot) SandboxRequest {
	host, config := snap.saved.HostConfig, snap.saved.Config
	mode := string(host.NetworkMode)
	if config.NetworkDisabled {
		mode = networktypes.NetworkNone
	}
	return SandboxRequest{
		Remapped:    container.Remapped(host, s.settings.Load().Defaults),
		ContainerID: snap.id, Name: snap.name, Hostname: config.Hostname, Domainname: config.Domainname,
		Mode: mode, Endpoints: snap.saved.Endpoints, Previous: snap.saved.Addresses,
		Exposed: config.ExposedPorts, Bindings: host.PortBindings, PublishAll: host.PublishAllPorts,
		Publish: snap.saved.Publish,
		DNS:     host.DNS, DNSSearch: host.DNSSearch, DNSOptions: host.DNSOptions,
		ExtraHosts: host.ExtraHosts,
	}
}
