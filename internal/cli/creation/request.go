package creation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/orlop/orlop/internal/cli/flagvalue"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// Request is the body of a create request.
type Request struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

// Request reads the parsed flags into a request for image and command. serverOS tells what the daemon runs on
// ("linux", "windows"; empty counts as linux), which decides how devices are read; it is called only if there are any.
// Errors are the user's (a flag that makes no sense, a file that cannot be read) and have Docker's words.
func (o *Options) Request(image string, command []string, serverOS func() string) (*Request, error) {
	if o.mac != "" {
		if _, err := net.ParseMAC(strings.TrimSpace(o.mac)); err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", o.mac)
		}
	}
	if o.swappiness < -1 || o.swappiness > 100 {
		return nil, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", o.swappiness)
	}
	binds, volumes, err := flagvalue.SplitVolumes(o.volumes.Values())
	if err != nil {
		return nil, err
	}
	exposed, bindings, err := o.ports()
	if err != nil {
		return nil, err
	}
	resources, err := o.resources(serverOS)
	if err != nil {
		return nil, err
	}
	env, err := flagvalue.ReadPairs(o.envFiles.Values(), o.env.Values(), os.LookupEnv)
	if err != nil {
		return nil, err
	}
	labels, err := flagvalue.ReadPairs(o.labelFiles.Values(), o.labels.Values(), nil)
	if err != nil {
		return nil, err
	}
	if err := o.checkModes(); err != nil {
		return nil, err
	}
	restart, err := ParseRestart(o.restart)
	if err != nil {
		return nil, err
	}
	if o.logDriver == "none" && len(o.logOpts.Values()) > 0 {
		return nil, fmt.Errorf("invalid logging opts for driver %s", o.logDriver)
	}
	security, masked, readonly, err := o.security()
	if err != nil {
		return nil, err
	}
	storage, err := o.storage()
	if err != nil {
		return nil, err
	}
	health, err := o.health()
	if err != nil {
		return nil, err
	}
	if o.autoRemove && !restart.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	endpoints, err := o.endpoints()
	if err != nil {
		return nil, err
	}

	config := &container.Config{
		Hostname: o.hostname, Domainname: o.domainname, User: o.user,
		AttachStdin: o.attach.Has("stdin") || o.interactive, AttachStdout: o.attach.Has("stdout"), AttachStderr: o.attach.Has("stderr"),
		ExposedPorts: exposed, Tty: o.tty, OpenStdin: o.interactive,
		Env: env, Cmd: command, Image: image, Volumes: volumes, Entrypoint: o.entry(), WorkingDir: o.workdir,
		Labels: flagvalue.PairsToMap(labels), StopSignal: o.stopSignal, Healthcheck: health,
	}
	if !o.HasAttach() {
		config.AttachStdout, config.AttachStderr = true, true
	}
	// The daemon closes the process's stdin when the client that feeds it goes away.
	config.StdinOnce = config.OpenStdin && config.AttachStdin
	if o.flags.Changed("stop-timeout") {
		config.StopTimeout = &o.stopTimeout
	}

	host := &container.HostConfig{
		Binds: binds, ContainerIDFile: o.cidFile, OomScoreAdj: o.oomScoreAdj, AutoRemove: o.autoRemove,
		Privileged: o.privileged, PortBindings: bindings, Links: o.links.Values(), PublishAllPorts: o.publishAll,
		DNS: addrs(o.dns.Values()), DNSSearch: o.dnsSearch.ValuesOrEmpty(), DNSOptions: o.dnsOptions.ValuesOrEmpty(),
		ExtraHosts: o.extraHosts.Values(), VolumesFrom: o.volumesFrom.Values(),
		NetworkMode: container.NetworkMode(o.networks.Mode()),
		IpcMode:     container.IpcMode(o.ipc), PidMode: container.PidMode(o.pid), UTSMode: container.UTSMode(o.uts),
		UsernsMode: container.UsernsMode(o.userns), CgroupnsMode: container.CgroupnsMode(o.cgroupns),
		CapAdd: o.capAdd.Values(), CapDrop: o.capDrop.Values(), GroupAdd: o.groups.Values(),
		RestartPolicy: restart, SecurityOpt: security, StorageOpt: storage, ReadonlyRootfs: o.readOnly,
		LogConfig:    container.LogConfig{Type: o.logDriver, Config: flagvalue.PairsToMap(o.logOpts.Values())},
		VolumeDriver: o.volumeDriver, Isolation: container.Isolation(o.isolation), ShmSize: int64(o.shmSize),
		Resources: resources, Tmpfs: o.tmpfsMap(), Sysctls: o.sysctls.Values(), Runtime: o.runtime,
		Mounts: o.mounts.Value(), MaskedPaths: masked, ReadonlyPaths: readonly,
		Annotations: o.annotations.Values(), Umask: o.umask.Value(),
	}
	if o.flags.Changed("init") {
		host.Init = &o.init
	}
	return &Request{Config: config, HostConfig: host, Networking: &network.NetworkingConfig{EndpointsConfig: endpoints}}, nil
}

// entry is nil unless --entrypoint was given; given and empty it is one empty word, which resets the image's.
func (o *Options) entry() []string {
	if o.entrypoint != "" || o.flags.Changed("entrypoint") {
		return []string{o.entrypoint}
	}
	return nil
}

func (o *Options) tmpfsMap() map[string]string {
	m := map[string]string{}
	for _, t := range o.tmpfs.Values() {
		target, options, _ := strings.Cut(t, ":")
		m[target] = options
	}
	return m
}

func (o *Options) ports() (network.PortSet, network.PortMap, error) {
	exposed, bindings, err := flagvalue.ParsePublished(o.publish.Values())
	if err != nil {
		return nil, nil, err
	}
	for _, text := range o.expose.Values() {
		ports, err := flagvalue.ParseExposed(text)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %s, error: %w", text, err)
		}
		for port := range ports.All() {
			exposed[port] = struct{}{}
		}
	}
	return exposed, bindings, nil
}

func (o *Options) checkModes() error {
	switch {
	case !container.PidMode(o.pid).Valid():
		return errors.New("--pid: invalid PID mode")
	case !container.UTSMode(o.uts).Valid():
		return errors.New("--uts: invalid UTS mode")
	case !container.UsernsMode(o.userns).Valid():
		return errors.New("--userns: invalid USER mode")
	case !container.CgroupnsMode(o.cgroupns).Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

// ParseRestart reads NAME[:MAX]; which names exist is the daemon's business.
func ParseRestart(text string) (container.RestartPolicy, error) {
	if text == "" {
		return container.RestartPolicy{}, nil
	}
	name, count, ok := strings.Cut(text, ":")
	if ok && name == "" {
		return container.RestartPolicy{}, errors.New("invalid restart policy format: no policy provided before colon")
	}
	policy := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return container.RestartPolicy{}, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		policy.MaximumRetryCount = n
	}
	return policy, nil
}

// security returns the options for the daemon. A seccomp profile is sent as its content, because the daemon may run
// elsewhere; systempaths=unconfined is not an option of the API but the two empty path lists.
func (o *Options) security() (opts, masked, readonly []string, _ error) {
	for _, opt := range o.securityOpts.Values() {
		key, val, ok := strings.Cut(opt, "=")
		if !ok && key != "no-new-privileges" {
			key, val, ok = strings.Cut(opt, ":")
		}
		if (!ok || val == "") && key != "no-new-privileges" {
			return nil, nil, nil, fmt.Errorf("Invalid --security-opt: %q", opt)
		}
		if key == "seccomp" && val != "builtin" && val != "unconfined" {
			profile, err := os.ReadFile(val)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", val, err)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, profile); err != nil {
				return nil, nil, nil, fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", val, err)
			}
			opt = "seccomp=" + compact.String()
		}
		if opt == "systempaths=unconfined" {
			masked, readonly = []string{}, []string{}
			continue
		}
		opts = append(opts, opt)
	}
	return opts, masked, readonly, nil
}

func (o *Options) storage() (map[string]string, error) {
	m := map[string]string{}
	for _, opt := range o.storageOpts.Values() {
		k, v, ok := strings.Cut(opt, "=")
		if !ok {
			return nil, errors.New("invalid storage option")
		}
		m[k] = v
	}
	return m, nil
}

func (o *Options) health() (*container.HealthConfig, error) {
	given := o.healthCmd != "" || o.healthInterval != 0 || o.healthTimeout != 0 || o.healthStartPeriod != 0 ||
		o.healthRetries != 0 || o.healthStartInterval != 0
	if o.noHealthcheck {
		if given {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !given {
		return nil, nil
	}
	for _, v := range []struct {
		flag     string
		negative bool
	}{
		{"interval", o.healthInterval < 0}, {"timeout", o.healthTimeout < 0}, {"retries", o.healthRetries < 0},
		{"start-period", o.healthStartPeriod < 0}, {"start-interval", o.healthStartInterval < 0},
	} {
		if v.negative {
			return nil, fmt.Errorf("--health-%s cannot be negative", v.flag)
		}
	}
	h := &container.HealthConfig{
		Interval: o.healthInterval, Timeout: o.healthTimeout, Retries: o.healthRetries,
		StartPeriod: o.healthStartPeriod, StartInterval: o.healthStartInterval,
	}
	if o.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", o.healthCmd}
	}
	return h, nil
}

func (o *Options) resources(serverOS func() string) (container.Resources, error) {
	devices, cdi, err := splitDevices(o.devices.Values(), serverOS)
	if err != nil {
		return container.Resources{}, err
	}
	requests := o.gpus.Value()
	if len(cdi) > 0 {
		requests = append(requests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return container.Resources{
		CgroupParent: o.cgroupParent,
		Memory:       int64(o.memory), MemoryReservation: int64(o.memoryReservation), MemorySwap: int64(o.memorySwap),
		MemorySwappiness: &o.swappiness, OomKillDisable: &o.oomKillDisable, PidsLimit: &o.pidsLimit,
		NanoCPUs: int64(o.cpus), CPUCount: o.cpuCount, CPUPercent: o.cpuPercent, CPUShares: o.cpuShares,
		CPUPeriod: o.cpuPeriod, CPUQuota: o.cpuQuota, CPURealtimePeriod: o.rtPeriod, CPURealtimeRuntime: o.rtRuntime,
		CpusetCpus: o.cpusetCPUs, CpusetMems: o.cpusetMems,
		BlkioWeight: o.blkioWeight, BlkioWeightDevice: o.weights.Value(),
		BlkioDeviceReadBps: o.readBps.Value(), BlkioDeviceWriteBps: o.writeBps.Value(),
		BlkioDeviceReadIOps: o.readIOps.Value(), BlkioDeviceWriteIOps: o.writeIOps.Value(),
		IOMaximumIOps: o.ioIOps, IOMaximumBandwidth: uint64(o.ioBps),
		Ulimits: o.ulimits.Value(), DeviceCgroupRules: o.deviceRules.Values(), Devices: devices, DeviceRequests: requests,
	}, nil
}

// splitDevices tells --device values that name a CDI device (vendor/class=name) from paths.
func splitDevices(values []string, serverOS func() string) (devices []container.DeviceMapping, cdi []string, _ error) {
	devices = []container.DeviceMapping{}
	for _, value := range values {
		if parser.IsQualifiedName(value) {
			cdi = append(cdi, value)
			continue
		}
		if serverOS() == "windows" {
			devices = append(devices, container.DeviceMapping{PathOnHost: value})
			continue
		}
		device, err := parseDevice(value)
		if err != nil {
			return nil, nil, err
		}
		devices = append(devices, device)
	}
	return devices, cdi, nil
}

// parseDevice reads HOST[:CONTAINER][:MODE] with a mode of r, w and m.
func parseDevice(value string) (container.DeviceMapping, error) {
	parts := strings.Split(value, ":")
	if len(parts) > 3 || parts[0] == "" {
		return container.DeviceMapping{}, fmt.Errorf("bad format for path: %s", value)
	}
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	inside := &d.PathInContainer
	switch {
	case len(parts) == 1:
		d.PathOnHost = path.Clean(parts[0])
	case len(parts) == 2 && isDeviceMode(parts[1]):
		d.PathOnHost, d.CgroupPermissions = path.Clean(parts[0]), parts[1]
	case len(parts) == 2:
		*inside = path.Clean(parts[1])
	case !isDeviceMode(parts[2]):
		return container.DeviceMapping{}, fmt.Errorf("bad mode specified: %s", parts[2])
	default:
		*inside, d.CgroupPermissions = parts[1], parts[2]
	}
	if len(parts) == 1 || len(parts) == 2 && isDeviceMode(parts[1]) {
		*inside = d.PathOnHost
	}
	if !path.IsAbs(*inside) {
		return container.DeviceMapping{}, fmt.Errorf("%s is not an absolute path", *inside)
	}
	return d, nil
}

func isDeviceMode(mode string) bool {
	left := "rwm"
	for _, c := range mode {
		if !strings.ContainsRune(left, c) {
			return false
		}
		left = strings.ReplaceAll(left, string(c), "")
	}
	return mode != ""
}

// addrs converts addresses that flagvalue.IP has already accepted.
func addrs(texts []string) []netip.Addr {
	list := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			list = append(list, addr)
		}
	}
	return list
}
