package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
)

// endpointSysctls is the driver option that holds the sysctls of one endpoint's
// interface (since API 1.46).
const endpointSysctls = "com.docker.network.endpoint.sysctls"

// compatContainerCreate gives a request the meaning that it has in the client's
// version of the API: fields the version does not have are taken out, old
// defaults are put in, and what moved is moved. It returns warnings for the
// client, or the refusal of what this version does not allow.
func compatContainerCreate(r *request, raw json.RawMessage, req *containertypes.CreateRequest) ([]string, error) {
	host, nets := req.HostConfig, req.NetworkingConfig

	// "default" names the default network of the platform, which is "bridge".
	if host.NetworkMode == "" || host.NetworkMode.IsDefault() {
		host.NetworkMode = networktypes.NetworkBridge
		if ep, ok := nets.EndpointsConfig[networktypes.NetworkDefault]; ok {
			nets.EndpointsConfig[networktypes.NetworkBridge] = ep
			delete(nets.EndpointsConfig, networktypes.NetworkDefault)
		}
	}
	if err := compatMounts(r, host); err != nil {
		return nil, err
	}
	if r.before(40) && host.IpcMode.IsEmpty() {
		host.IpcMode = containertypes.IPCModeShareable
	}
	if r.before(41) && host.CgroupnsMode.IsEmpty() {
		host.CgroupnsMode = containertypes.CgroupnsModeHost
	}
	if r.before(42) {
		host.ConsoleSize = [2]uint{}
	}
	if r.before(43) {
		host.Annotations = nil
	}
	if r.before(44) {
		if req.Healthcheck != nil {
			req.Healthcheck.StartInterval = 0
		}
		if len(nets.EndpointsConfig) > 1 {
			names := slices.Sorted(maps.Keys(nets.EndpointsConfig))
			return nil, invalid("Container cannot be created with multiple network endpoints: " + strings.Join(names, ", "))
		}
	}
	if r.before(48) {
		for _, ep := range nets.EndpointsConfig {
			if ep != nil {
				ep.GwPriority = 0
			}
		}
	}
	if r.before(56) {
		host.Umask = nil
	}

	var warnings []string
	warn := func(text string) {
		if text != "" {
			warnings = append(warnings, text)
		}
	}
	warn(compatVolumeDriver(r, host))
	if r.before(52) {
		var legacy struct {
			MacAddress networktypes.HardwareAddr
			HostConfig struct{ Capabilities []string }
		}
		// Fields of another type are not the legacy ones.
		_ = json.Unmarshal(raw, &legacy)
		if len(legacy.HostConfig.Capabilities) > 0 && r.version == one(40) {
			return nil, invalid("the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities")
		}
		text, err := compatMAC(r, host, nets, legacy.MacAddress)
		if err != nil {
			return nil, err
		}
		warn(text)
	}
	text, err := compatSysctls(r, host, nets)
	if err != nil {
		return nil, err
	}
	warn(text)
	warn(compatPortBindings(r, host))

	if host.PidsLimit != nil && *host.PidsLimit <= 0 {
		// 0 and every negative number mean without limit.
		host.PidsLimit = nil
	}
	return warnings, nil
}

func compatMounts(r *request, host *containertypes.HostConfig) error {
	for i := range host.Mounts {
		m := &host.Mounts[i]
		if m.BindOptions != nil {
			if r.before(40) {
				m.BindOptions.NonRecursive = false
			}
			if r.before(42) {
				m.BindOptions.CreateMountpoint = false
			}
			if r.before(44) && m.Type == mount.TypeBind {
				if m.BindOptions.ReadOnlyForceRecursive {
					return invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
				}
			}
		}
		if r.before(42) {
			// Options of another type were not looked at.
			if m.Type != mount.TypeVolume {
				m.VolumeOptions = nil
			}
			if m.Type != mount.TypeTmpfs {
				m.TmpfsOptions = nil
			}
		} else {
			switch {
			case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
				return invalid(fmt.Sprintf("VolumeOptions must not be specified on mount type %q", m.Type))
			case m.BindOptions != nil && m.Type != mount.TypeBind:
				return invalid(fmt.Sprintf("BindOptions must not be specified on mount type %q", m.Type))
			case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
				return invalid(fmt.Sprintf("TmpfsOptions must not be specified on mount type %q", m.Type))
			}
		}
		if r.before(44) && m.Type == mount.TypeBind && m.ReadOnly {
			// Read-only binds were not recursive.
			if m.BindOptions == nil {
				m.BindOptions = &mount.BindOptions{}
			}
			m.BindOptions.ReadOnlyNonRecursive = true
		}
		if r.before(45) && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
			return invalid("VolumeOptions.Subpath needs API v1.45 or newer")
		}
		if r.before(48) && m.Type == mount.TypeImage {
			return invalid(`Mount type "Image" needs API v1.48 or newer`)
		}
	}
	return nil
}

// compatVolumeDriver warns of a container-wide volume driver that mounts do not
// use; before API 1.48 the command line did.
func compatVolumeDriver(r *request, host *containertypes.HostConfig) string {
	if host.VolumeDriver == "" || r.before(48) {
		return ""
	}
	for _, m := range host.Mounts {
		o := m.VolumeOptions
		if m.Type == mount.TypeVolume && (o == nil || o.DriverConfig == nil || o.DriverConfig.Name == "") {
			return "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
		}
	}
	return ""
}

// compatMAC moves the container-wide MAC address, which clients before API 1.44
// send and those before 1.52 may send, to the endpoint it is meant for.
func compatMAC(r *request, host *containertypes.HostConfig, nets *networktypes.NetworkingConfig, mac networktypes.HardwareAddr) (string, error) {
	onNetwork := host.NetworkMode.IsBridge() || host.NetworkMode.IsUserDefined()
	if r.before(44) {
		if len(mac) == 0 {
			// Such a client cannot mean an endpoint's own address.
			for _, ep := range nets.EndpointsConfig {
				if ep != nil {
					ep.MacAddress = nil
				}
			}
			return "", nil
		}
		if !onNetwork {
			return "", invalid("conflicting options: mac-address and the network mode")
		}
		ep, err := endpointOfMode(r, host.NetworkMode, nets)
		if err != nil {
			return "", err
		}
		ep.MacAddress = mac
		return "", nil
	}
	if len(mac) == 0 {
		return "", nil
	}
	if onNetwork {
		ep, err := endpointOfMode(r, host.NetworkMode, nets)
		if err != nil {
			return "", fmt.Errorf("unable to migrate container-wide MAC address to a specific network: %w", err)
		}
		switch {
		case len(ep.MacAddress) == 0:
			ep.MacAddress = mac
		case !slices.Equal(ep.MacAddress, mac):
			return "", invalid("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
		}
	}
	return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.", nil
}

// compatSysctls moves sysctls that name the interface eth0 to its endpoint: the
// interface does not exist yet when the others are set. Since API 1.48 the
// client has to do it.
func compatSysctls(r *request, host *containertypes.HostConfig, nets *networktypes.NetworkingConfig) (string, error) {
	if !host.NetworkMode.IsPrivate() {
		return "", nil
	}
	var ep *networktypes.EndpointSettings
	var moved, settings []string
	for _, key := range slices.Sorted(maps.Keys(host.Sysctls)) {
		part := strings.SplitN(key, ".", 5)
		if len(part) != 5 || part[0] != "net" || !strings.HasPrefix(part[3], "eth") {
			continue
		}
		if !r.before(48) {
			return "", invalid(fmt.Sprintf("interface specific sysctl setting %q must be supplied using driver option '%s'", key, endpointSysctls))
		}
		if part[3] != "eth0" {
			return "", invalid(fmt.Sprintf("unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", key, endpointSysctls))
		}
		if ep == nil {
			var err error
			if ep, err = endpointOfMode(r, host.NetworkMode, nets); err != nil {
				return "", fmt.Errorf("unable to find a network for sysctl %s: %w", key, err)
			}
		}
		moved = append(moved, key)
		settings = append(settings, fmt.Sprintf("net.%s.%s.IFNAME.%s=%s", part[1], part[2], part[4], host.Sysctls[key]))
	}
	if ep == nil {
		return "", nil
	}
	option := strings.Join(settings, ",")
	warning := fmt.Sprintf(`Migrated sysctl %q to DriverOpts{%q:%q}.`, strings.Join(moved, ","), endpointSysctls, option)
	if ep.DriverOpts == nil {
		ep.DriverOpts = map[string]string{}
	}
	if own := ep.DriverOpts[endpointSysctls]; own != "" {
		// Later settings win: the endpoint's own stay in force.
		option += "," + own
	}
	ep.DriverOpts[endpointSysctls] = option
	for _, key := range moved {
		delete(host.Sysctls, key)
	}
	return warning, nil
}

// compatPortBindings fills an empty list of bindings with one that lets the
// engine choose; clients are told since API 1.52 that this will end.
func compatPortBindings(r *request, host *containertypes.HostConfig) string {
	var empty []string
	for port, bindings := range host.PortBindings {
		if len(bindings) > 0 {
			continue
		}
		if !r.before(52) {
			empty = append(empty, port.String())
		}
		host.PortBindings[port] = []networktypes.PortBinding{{}}
	}
	if len(empty) == 0 {
		return ""
	}
	slices.Sort(empty)
	return fmt.Sprintf("Following container port(s) have an empty list of port-bindings: %s. Such bindings will be discarded in a future version.", strings.Join(empty, ", "))
}

// endpointOfMode finds or makes the endpoint of the network that the network
// mode names. With several endpoints under other names it cannot be known which
// is meant, because a network has a name, an id and a short id.
func endpointOfMode(r *request, mode containertypes.NetworkMode, nets *networktypes.NetworkingConfig) (*networktypes.EndpointSettings, error) {
	name := mode.NetworkName()
	if len(nets.EndpointsConfig) == 0 {
		ep := &networktypes.EndpointSettings{}
		nets.EndpointsConfig = map[string]*networktypes.EndpointSettings{name: ep}
		return ep, nil
	}
	if r.before(44) {
		for key, ep := range nets.EndpointsConfig {
			if ep == nil {
				ep = &networktypes.EndpointSettings{}
				nets.EndpointsConfig[key] = ep
			}
			return ep, nil
		}
	}
	if ep := nets.EndpointsConfig[name]; ep != nil {
		return ep, nil
	}
	return nil, invalid("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
}

// carryOver puts what changed between the request as it was sent and as it is
// meant into the raw bytes; everything else of them, unknown keys too, stays.
func carryOver(raw json.RawMessage, asSent []byte, meant containertypes.CreateRequest) (json.RawMessage, error) {
	after, err := json.Marshal(meant)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(asSent, after) {
		return raw, nil
	}
	var doc [3]map[string]any
	for i, text := range [][]byte{raw, asSent, after} {
		if doc[i], err = fieldsOf(text); err != nil {
			return nil, err
		}
	}
	if !carry(doc[0], doc[1], doc[2]) {
		return raw, nil
	}
	return marshal(doc[0])
}

// carry changes dst where old and now differ and tells whether it did. Keys are
// compared as encoding/json does, without regard to case.
func carry(dst, old, now map[string]any) bool {
	changed := false
	for key, value := range now {
		before, there := old[key]
		if there && reflect.DeepEqual(before, value) {
			continue
		}
		changed = true
		at := keyOf(dst, key)
		to, isObject := value.(map[string]any)
		if into, ok := dst[at].(map[string]any); ok && isObject {
			from, _ := before.(map[string]any)
			carry(into, from, to)
			continue
		}
		dst[at] = value
	}
	for key := range old {
		if _, still := now[key]; !still {
			delete(dst, keyOf(dst, key))
			changed = true
		}
	}
	return changed
}

// keyOf is the key under which dst has a field.
func keyOf(dst map[string]any, field string) string {
	if _, ok := dst[field]; ok {
		return field
	}
	for key := range dst {
		if strings.EqualFold(key, field) {
			return key
		}
	}
	return field
}
