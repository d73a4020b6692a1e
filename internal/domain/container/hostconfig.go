package container

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Defaults of the daemon that fill a create request.
type Defaults struct {
	// ShmSize in bytes; 0 is 64 MiB.
	ShmSize int64
	// IpcMode "" is "private"; CgroupnsMode "" is Docker's choice for the
	// cgroup version.
	IpcMode      containertypes.IpcMode
	CgroupnsMode containertypes.CgroupnsMode
	// Runtime is the name of the runtime used when none is asked for, and
	// Runtimes the names that may be asked for.
	Runtime  string
	Runtimes []string
	// Log is the log driver and its options when none is asked for.
	Log             containertypes.LogConfig
	NoNewPrivileges bool
	Init            bool
	// InitPath is the program of --init on the host; "" when there is none.
	InitPath string
	Ulimits  []*containertypes.Ulimit
	// CgroupParent of containers without their own.
	CgroupParent string
	// Seccomp is "" (Docker's profile), "unconfined" or a profile as JSON.
	Seccomp string
	// IDMap of containers in user namespaces (--userns-remap); empty when there
	// are none.
	IDMap IDMap
	// RootDir of the daemon, which may not be mounted privately.
	RootDir string
}

// DefaultShmSize of /dev/shm in bytes.
const DefaultShmSize = 64 << 20

// ValidateHostConfig checks and adapts (in place) the other half of a create
// request: limits that this kernel does not have are taken out with a warning,
// as Docker does. Failures are ErrInvalidArgument in Docker's words.
func ValidateHostConfig(h *containertypes.HostConfig, facts HostFacts, d Defaults) (warnings []string, err error) {
	if h == nil {
		return nil, nil
	}
	warnings, err = validateHostConfig(h, facts, d)
	if err != nil {
		return warnings, withText(errdefs.ErrInvalidArgument, err.Error())
	}
	return warnings, nil
}

func validateHostConfig(h *containertypes.HostConfig, facts HostFacts, d Defaults) ([]string, error) {
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return nil, errors.New("can't create 'AutoRemove' container with restart policy")
	}
	for i := range h.Mounts {
		if err := ValidateMount(&h.Mounts[i]); err != nil {
			return nil, err
		}
	}
	for _, e := range h.ExtraHosts {
		if err := validateExtraHost(e); err != nil {
			return nil, err
		}
	}
	if err := validatePorts(h.PortBindings); err != nil {
		return nil, err
	}
	if err := containertypes.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return nil, err
	}
	if _, err := normalizeCapabilities(h.CapAdd, facts); err != nil {
		return nil, fmt.Errorf("invalid CapAdd: %w", err)
	}
	if _, err := normalizeCapabilities(h.CapDrop, facts); err != nil {
		return nil, fmt.Errorf("invalid CapDrop: %w", err)
	}
	if h.Isolation != "" && !h.Isolation.IsDefault() {
		return nil, fmt.Errorf("invalid isolation '%s' on linux", h.Isolation)
	}
	if _, ok := h.Annotations[""]; ok {
		return nil, errors.New("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	warnings, err := validateResources(&h.Resources, facts, false)
	if err != nil {
		return warnings, err
	}
	if !h.IpcMode.Valid() {
		return warnings, fmt.Errorf("invalid IPC mode: %v", h.IpcMode)
	}
	if !h.PidMode.Valid() {
		return warnings, fmt.Errorf("invalid PID mode: %v", h.PidMode)
	}
	if h.ShmSize < 0 {
		return warnings, errors.New("SHM size can not be less than 0")
	}
	if !h.UTSMode.Valid() {
		return warnings, fmt.Errorf("invalid UTS mode: %v", h.UTSMode)
	}
	if !h.CgroupnsMode.Valid() {
		return warnings, fmt.Errorf("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	}
	if !h.UsernsMode.Valid() {
		return warnings, fmt.Errorf("invalid user namespace mode: %v", h.UsernsMode)
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return warnings, fmt.Errorf("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	if facts.IPv4ForwardingDisabled && !h.NetworkMode.IsHost() && !h.NetworkMode.IsNone() {
		warnings = append(warnings, "IPv4 forwarding is disabled. Networking will not work.")
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if Remapped(h, d) {
		switch {
		case h.Privileged:
			return warnings, errors.New("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
		case h.NetworkMode.IsHost():
			return warnings, errors.New("cannot share the host's network namespace when user namespaces are enabled")
		case h.PidMode.IsHost():
			return warnings, errors.New("cannot share the host PID namespace when user namespaces are enabled")
		}
	}
	if h.CgroupParent != "" && facts.CgroupSystemd && (len(h.CgroupParent) <= 6 || !strings.HasSuffix(h.CgroupParent, ".slice")) {
		return warnings, errors.New(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	if h.Runtime == "" {
		h.Runtime = d.Runtime
	}
	if h.Runtime != "" && len(d.Runtimes) > 0 && !slices.Contains(d.Runtimes, h.Runtime) {
		return warnings, fmt.Errorf("unknown or invalid runtime name: %s", h.Runtime)
	}
	for dest := range h.Tmpfs {
		if err := validateTarget(dest); err != nil {
			return warnings, err
		}
	}
	for _, rule := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(rule); err != nil {
			return warnings, err
		}
	}
	for _, dev := range h.Devices {
		if err := validateDeviceMode(dev.CgroupPermissions); err != nil {
			return warnings, err
		}
	}
	security, err := ParseSecurityOpts(h.SecurityOpt, d)
	if err != nil {
		return warnings, err
	}
	// Docker says nothing about either and runs the container without it.
	if p := security.AppArmor; p != "" && p != Unconfined && !facts.AppArmor {
		warnings = append(warnings, fmt.Sprintf("Your kernel does not support AppArmor or it is disabled. Profile %s discarded.", p))
	}
	if label := security.processLabel(); label != "" && !facts.SELinux {
		warnings = append(warnings, fmt.Sprintf("Your kernel does not support SELinux or it is disabled. Label %s discarded.", label))
	}
	if err := validateSysctls(h); err != nil {
		return warnings, err
	}
	for _, u := range h.Ulimits {
		if u == nil {
			return warnings, errors.New("invalid ulimit: null")
		}
		if _, ok := rlimits[strings.ToLower(u.Name)]; !ok {
			return warnings, fmt.Errorf("invalid ulimit type: %s", u.Name)
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return warnings, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	if h.Umask != nil && *h.Umask > 0o777 {
		return warnings, fmt.Errorf("invalid umask %#o: must be in the range 0-0777", *h.Umask)
	}
	if len(h.DeviceRequests) > 0 {
		r := h.DeviceRequests[0]
		return warnings, fmt.Errorf("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	}
	if len(h.StorageOpt) > 0 {
		return warnings, errors.New("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
	}
	return warnings, nil
}

// Remapped reports whether a container is in a user namespace.
func Remapped(h *containertypes.HostConfig, d Defaults) bool {
	return !d.IDMap.Empty() && h.UsernsMode.IsPrivate()
}

// rlimits are the names of ulimits, as getrlimit(2) has them.
var rlimits = map[string]struct{}{
	"core": {}, "cpu": {}, "data": {}, "fsize": {}, "locks": {}, "memlock": {}, "msgqueue": {}, "nice": {},
	"nofile": {}, "nproc": {}, "rss": {}, "rtprio": {}, "rttime": {}, "sigpending": {}, "stack": {}, "as": {},
}

func validateExtraHost(v string) error {
	name, ip, ok := strings.Cut(v, ":")
	if !ok || name == "" {
		return fmt.Errorf("bad format for add-host: %q", v)
	}
	if ip == "host-gateway" {
		return nil
	}
	trimmed := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
	if _, err := netip.ParseAddr(trimmed); err != nil {
		return fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return nil
}

func validatePorts(ports network.PortMap) error {
	for port, bindings := range ports {
		if !port.IsValid() || port.Num() == 0 {
			return fmt.Errorf("invalid port specification: %q", port.String())
		}
		for _, b := range bindings {
			if b.HostPort == "" {
				continue
			}
			if _, err := network.ParsePortRange(b.HostPort); err != nil {
				return fmt.Errorf("invalid port specification: %q", b.HostPort)
			}
		}
	}
	return nil
}

// validateSysctls refuses settings of a namespace that the container does not
// have for itself: they would change the host or another container.
func validateSysctls(h *containertypes.HostConfig) error {
	for key := range h.Sysctls {
		key = strings.ReplaceAll(key, "/", ".")
		switch {
		case strings.HasPrefix(key, "net."):
			if h.NetworkMode.IsHost() {
				return fmt.Errorf("sysctl '%s' is not allowed in the host's network namespace", key)
			}
		case key == "kernel.domainname" || key == "kernel.hostname":
			if h.UTSMode.IsHost() {
				return fmt.Errorf("sysctl '%s' is not allowed in the host's UTS namespace", key)
			}
		case strings.HasPrefix(key, "fs.mqueue.") || slices.Contains(ipcSysctls, key):
			if h.IpcMode.IsHost() {
				return fmt.Errorf("sysctl '%s' is not allowed in the host's IPC namespace", key)
			}
		}
	}
	return nil
}

// ipcSysctls are those of kernel.* that belong to the IPC namespace.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// Adapt fills a validated host configuration with the daemon's defaults, as
// Docker records them. idOf turns a name or prefix into the id of a container.
func Adapt(h *containertypes.HostConfig, facts HostFacts, d Defaults, idOf func(ref string) (string, bool)) {
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = containertypes.RestartPolicyDisabled
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.ShmSize == 0 {
		h.ShmSize = DefaultShmSize
		if d.ShmSize > 0 {
			h.ShmSize = d.ShmSize
		}
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = containertypes.IPCModePrivate
		if d.IpcMode != "" {
			h.IpcMode = d.IpcMode
		}
	}
	if h.CgroupnsMode.IsEmpty() {
		switch {
		case h.Privileged && facts.CgroupVersion != 2:
			h.CgroupnsMode = containertypes.CgroupnsModeHost
		case d.CgroupnsMode != "":
			h.CgroupnsMode = d.CgroupnsMode
		case facts.CgroupVersion == 2:
			h.CgroupnsMode = containertypes.CgroupnsModePrivate
		default:
			h.CgroupnsMode = containertypes.CgroupnsModeHost
		}
	}
	// Names may change: what a container shares is recorded by id.
	if ref := h.PidMode.Container(); ref != "" {
		if id, ok := idOf(ref); ok {
			h.PidMode = containertypes.PidMode("container:" + id)
		}
	}
	if ref := h.IpcMode.Container(); ref != "" {
		if id, ok := idOf(ref); ok {
			h.IpcMode = containertypes.IpcMode("container:" + id)
		}
	}
	if h.NetworkMode.IsContainer() {
		if id, ok := idOf(h.NetworkMode.ConnectedContainer()); ok {
			h.NetworkMode = containertypes.NetworkMode("container:" + id)
		}
	}
	labeled := slices.ContainsFunc(h.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "label") })
	if facts.SELinux && !labeled && (h.IpcMode.IsHost() || h.PidMode.IsHost() || h.Privileged) {
		h.SecurityOpt = append(h.SecurityOpt, "label=disable")
	}
	if h.OomKillDisable == nil && facts.OomKillDisable {
		off := false
		h.OomKillDisable = &off
	}
	if h.NetworkMode == "" {
		h.NetworkMode = network.NetworkDefault
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = d.Log.Type
		if h.LogConfig.Type == "" {
			h.LogConfig.Type = "json-file"
		}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.LogConfig.Type == d.Log.Type {
		for k, v := range d.Log.Config {
			if _, ok := h.LogConfig.Config[k]; !ok {
				h.LogConfig.Config[k] = v
			}
		}
	}
	if !h.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = maskedPaths(facts)
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = slices.Clone(defaultReadonlyPaths)
		}
	}
	if h.PortBindings == nil {
		h.PortBindings = network.PortMap{}
	}
}
