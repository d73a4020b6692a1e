package system

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	systemtypes "github.com/moby/moby/api/types/system"
)

// indexServer is the address by which clients keep credentials of Docker Hub.
const indexServer = "https://index.docker.io/v1/"

// Info tells what `docker info` shows. It fails only when ctx ends.
func (s *Service) Info(ctx context.Context) (systemtypes.Info, error) {
	set, m, facts := s.current(), s.cfg.Machine, s.cfg.Machine.Facts
	images, err := s.cfg.Images.Count(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return systemtypes.Info{}, ctx.Err()
		}
		images = 0
	}
	all, running, paused, stopped := s.cfg.Containers.Counts()
	info := systemtypes.Info{
		ID:                s.cfg.ID,
		Containers:        all,
		ContainersRunning: running,
		ContainersPaused:  paused,
		ContainersStopped: stopped,
		Images:            images,
		Driver:            s.cfg.Driver,
		DriverStatus:      s.cfg.DriverStatus,
		Plugins: systemtypes.PluginsInfo{
			Volume:  []string{"local"},
			Network: s.cfg.NetworkDrivers,
			Log:     s.cfg.LogDrivers,
		},
		MemoryLimit:        facts.MemoryLimit,
		SwapLimit:          facts.SwapLimit,
		CPUCfsPeriod:       facts.CPUCfs,
		CPUCfsQuota:        facts.CPUCfs,
		CPUShares:          facts.CPUShares,
		CPUSet:             facts.Cpuset,
		PidsLimit:          facts.PidsLimit,
		OomKillDisable:     facts.OomKillDisable,
		IPv4Forwarding:     !facts.IPv4ForwardingDisabled,
		Debug:              set.Debug,
		NFd:                s.cfg.OpenFiles(),
		NGoroutines:        runtime.NumGoroutine(),
		SystemTime:         s.cfg.Now().Format(time.RFC3339Nano),
		LoggingDriver:      set.LogDriver,
		CgroupDriver:       "cgroupfs",
		CgroupVersion:      "1",
		NEventsListener:    s.cfg.Listeners(),
		KernelVersion:      m.Kernel,
		OperatingSystem:    m.OperatingSystem,
		OSVersion:          m.OSVersion,
		OSType:             runtime.GOOS,
		Architecture:       m.Architecture,
		IndexServerAddress: indexServer,
		RegistryConfig:     set.Registry,
		NCPU:               m.NCPU,
		MemTotal:           m.MemTotal,
		DockerRootDir:      s.cfg.DataRoot,
		HTTPProxy:          set.HTTPProxy,
		HTTPSProxy:         set.HTTPSProxy,
		NoProxy:            set.NoProxy,
		Name:               s.cfg.Hostname(),
		Labels:             slices.Clone(set.Labels),
		ExperimentalBuild:  set.Experimental,
		ServerVersion:      s.cfg.Build.Version,
		DefaultRuntime:     set.DefaultRuntime,
		Runtimes:           map[string]systemtypes.RuntimeWithStatus{},
		LiveRestoreEnabled: set.LiveRestore,
		InitBinary:         set.InitBinary,
		// No program of that kind runs: the parts are in this one.
		ContainerdCommit:    systemtypes.Commit{ID: "N/A"},
		RuncCommit:          systemtypes.Commit{ID: "N/A"},
		InitCommit:          systemtypes.Commit{ID: "N/A"},
		DefaultAddressPools: set.AddressPools,
		FirewallBackend:     s.cfg.Firewall,
		CDISpecDirs:         set.CDISpecDirs,
		SecurityOptions:     s.securityOptions(set),
	}
	if info.Labels == nil {
		info.Labels = []string{}
	}
	if info.CDISpecDirs == nil {
		info.CDISpecDirs = []string{}
	}
	info.Swarm.LocalNodeState = "inactive"
	if facts.CgroupVersion == 2 {
		info.CgroupVersion = "2"
	}
	if facts.CgroupSystemd {
		info.CgroupDriver = "systemd"
	}
	for _, name := range slices.Sorted(maps.Keys(set.Runtimes)) {
		info.Runtimes[name] = systemtypes.RuntimeWithStatus{Runtime: set.Runtimes[name]}
	}
	if s.cfg.Namespace != "" {
		info.Containerd = &systemtypes.ContainerdInfo{
			Namespaces: systemtypes.ContainerdNamespaces{Containers: s.cfg.Namespace, Plugins: "plugins." + s.cfg.Namespace},
		}
	}
	info.Warnings = append(s.limitWarnings(), s.apiWarnings(set)...)
	if facts.Seccomp && set.SeccompProfile != "" && set.SeccompProfile != "builtin" {
		info.Warnings = append(info.Warnings, "WARNING: daemon is not using the default seccomp profile")
	}
	if facts.AppArmor && facts.AppArmorMissing != "" {
		info.Warnings = append(info.Warnings, "WARNING: containers are not confined by AppArmor: "+facts.AppArmorMissing)
	}
	if s.cfg.NetworkWarnings != nil {
		info.Warnings = append(info.Warnings, s.cfg.NetworkWarnings()...)
	}
	return info, nil
}

func (s *Service) securityOptions(set Settings) []string {
	facts := s.cfg.Machine.Facts
	options := []string{}
	switch {
	case !facts.AppArmor:
	case facts.AppArmorMissing != "":
		options = append(options, "name=apparmor,profile=unconfined")
	default:
		options = append(options, "name=apparmor,profile=default")
	}
	if facts.Seccomp {
		profile := set.SeccompProfile
		if profile == "" {
			profile = "builtin"
		}
		options = append(options, "name=seccomp,profile="+profile)
	}
	if facts.SELinux {
		options = append(options, "name=selinux")
	}
	if set.UserNS {
		options = append(options, "name=userns")
	}
	if facts.CgroupNamespaces && set.CgroupnsPrivate {
		options = append(options, "name=cgroupns")
	}
	if set.NoNewPrivileges {
		options = append(options, "name=no-new-privileges")
	}
	return options
}

// limitWarnings names what this kernel cannot limit, in Docker's words.
func (s *Service) limitWarnings() []string {
	f := s.cfg.Machine.Facts
	v2 := f.CgroupVersion == 2
	io := func(v1Text, v2Text string) string {
		if v2 {
			return v2Text
		}
		return v1Text
	}
	var out []string
	for _, w := range []struct {
		missing bool
		text    string
	}{
		{!f.MemoryLimit, "No memory limit support"},
		{!f.SwapLimit, "No swap limit support"},
		{!f.OomKillDisable && !v2, "No oom kill disable support"},
		{!f.CPUCfs, "No cpu cfs quota support"},
		{!f.CPUCfs, "No cpu cfs period support"},
		{!f.CPUShares, "No cpu shares support"},
		{!f.Cpuset, "No cpuset support"},
		{!f.BlkioWeight && v2, "No io.weight support"},
		{!f.BlkioWeightDevice && v2, "No io.weight (per device) support"},
		{!f.BlkioReadBps, io("No blkio throttle.read_bps_device support", "No io.max (rbps) support")},
		{!f.BlkioWriteBps, io("No blkio throttle.write_bps_device support", "No io.max (wbps) support")},
		{!f.BlkioReadIOps, io("No blkio throttle.read_iops_device support", "No io.max (riops) support")},
		{!f.BlkioWriteIOps, io("No blkio throttle.write_iops_device support", "No io.max (wiops) support")},
		{f.IPv4ForwardingDisabled, "IPv4 forwarding is disabled"},
	} {
		if w.missing {
			out = append(out, "WARNING: "+w.text)
		}
	}
	return out
}

// apiWarnings name listeners that give root away.
func (s *Service) apiWarnings(set Settings) []string {
	const why = `
         Access to the remote API is equivalent to root access on the host. Refer
         to the 'Docker daemon attack surface' section in the documentation for
         more information: https://docs.docker.com/go/attack-surface/`
	var out []string
	for _, host := range set.Hosts {
		proto, addr, _ := strings.Cut(host, "://")
		switch {
		case proto != "tcp":
		case !set.TLS:
			out = append(out, fmt.Sprintf("WARNING: API is accessible on http://%s without encryption.%s", addr, why))
		case !set.TLSVerify:
			out = append(out, fmt.Sprintf("WARNING: API is accessible on https://%s without TLS client verification.%s", addr, why))
		}
	}
	return out
}
