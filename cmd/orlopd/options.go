package main

import (
	"fmt"

	"github.com/spf13/pflag"
)

// option ties a command line flag to its key in daemon.json.
type option struct {
	flag, short string
	// key in daemon.json; empty when the option cannot stand there.
	key     string
	help    string
	setting setting
	// reload: the key may change while the daemon runs (SIGHUP).
	reload bool
	// both: flag and file add up instead of being in conflict.
	both bool
	// hidden from --help: kept for command lines that were written for
	// Docker.
	hidden bool
}

// options is every option of the daemon, in the order of --help. New options go
// here and nowhere else.
func options(c *Config) []option {
	str := func(p *string) setting { return stringSetting{p} }
	yes := func(p *bool) setting { return boolSetting{p} }
	num := func(p *int) setting { return intSetting{p} }
	list := func(p *[]string) setting { return listSetting{p: p} }
	return []option{
		{flag: "host", short: "H", key: "hosts", help: "Daemon socket(s) to connect to", setting: listSetting{&c.Hosts, checkHost}},
		{flag: "data-root", key: "data-root", help: "Root directory of persistent state", setting: str(&c.DataRoot)},
		{flag: "exec-root", key: "exec-root", help: "Root directory for execution state files", setting: str(&c.ExecRoot)},
		{flag: "pidfile", short: "p", key: "pidfile", help: "Path to use for daemon PID file", setting: str(&c.PidFile)},
		{flag: "group", short: "G", key: "group", help: "Group for the unix socket", setting: str(&c.SocketGroup)},
		{flag: "engine-id", key: "engine-id", help: "Short id (8 hex digits) that names what this engine makes on the host; drawn once when not given", setting: str(&c.EngineID)},
		{flag: "label", key: "labels", help: "Set key=value labels to the daemon", setting: listSetting{&c.Labels, checkLabel}, reload: true},

		{flag: "debug", short: "D", key: "debug", help: "Enable debug mode", setting: yes(&c.Debug), reload: true},
		{flag: "log-level", short: "l", key: "log-level", help: `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`, setting: str(&c.LogLevel)},
		{flag: "log-format", key: "log-format", help: `Set the logging format ("text"|"json")`, setting: str(&c.LogFormat)},
		{flag: "experimental", key: "experimental", help: "Enable experimental features", setting: yes(&c.Experimental)},
		{flag: "feature", key: "features", help: "Enable feature in the daemon", setting: featureSetting{&c.Features}, reload: true},
		{flag: "shutdown-timeout", key: "shutdown-timeout", help: "Set the default shutdown timeout in seconds", setting: num(&c.ShutdownTimeout), reload: true},
		{flag: "live-restore", key: "live-restore", help: "Let containers go on when the daemon stops", setting: yes(&c.LiveRestore), reload: true},
		{flag: "min-api-version", key: "min-api-version", help: "Oldest version of the API that is answered", setting: str(&c.MinAPIVersion)},

		{flag: "tls", key: "tls", help: "Use TLS; implied by --tlsverify", setting: yes(&c.TLS)},
		{flag: "tlsverify", key: "tlsverify", help: "Use TLS and verify the remote", setting: yes(&c.TLSVerify)},
		{flag: "tlscacert", key: "tlscacert", help: "Trust certs signed only by this CA", setting: str(&c.TLSCA)},
		{flag: "tlscert", key: "tlscert", help: "Path to TLS certificate file", setting: str(&c.TLSCert)},
		{flag: "tlskey", key: "tlskey", help: "Path to TLS key file", setting: str(&c.TLSKey)},

		{flag: "log-driver", key: "log-driver", help: "Default driver for container logs", setting: str(&c.LogDriver)},
		{flag: "log-opt", key: "log-opts", help: "Default log driver options for containers", setting: mapSetting{&c.LogOpts}},
		{flag: "cgroup-parent", key: "cgroup-parent", help: "Set parent cgroup for all containers", setting: str(&c.CgroupParent)},
		{flag: "exec-opt", key: "exec-opts", help: "Runtime execution options (native.cgroupdriver=cgroupfs|systemd)", setting: list(&c.ExecOpts)},
		{flag: "add-runtime", key: "runtimes", help: "Register an additional OCI compatible runtime", setting: runtimeSetting{&c.Runtimes}, both: true, reload: true},
		{flag: "default-runtime", key: "default-runtime", help: "Default OCI runtime for containers", setting: str(&c.DefaultRuntime), reload: true},
		{flag: "default-ulimit", key: "default-ulimits", help: "Default ulimits for containers", setting: ulimitSetting{&c.Ulimits}},
		{flag: "default-stop-timeout", key: "default-stop-timeout", help: "Set the default container stop timeout in seconds (0 to terminate immediately)", setting: num(&c.StopTimeout), reload: true},
		{flag: "userns-remap", key: "userns-remap", help: "User/Group setting for user namespaces", setting: str(&c.UsernsRemap)},
		{flag: "default-shm-size", key: "default-shm-size", help: "Default shm size for containers", setting: bytesSetting{&c.ShmSize}, reload: true},
		{flag: "default-ipc-mode", key: "default-ipc-mode", help: `Default mode for containers ipc ("shareable" | "private")`, setting: str(&c.IpcMode), reload: true},
		{flag: "default-cgroupns-mode", key: "default-cgroupns-mode", help: `Default mode for containers cgroup namespace ("host" | "private")`, setting: str(&c.CgroupnsMode), reload: true},
		{flag: "init", key: "init", help: "Run an init in the container to forward signals and reap processes", setting: yes(&c.Init)},
		{flag: "init-path", key: "init-path", help: "Path to the init binary", setting: str(&c.InitPath)},
		{flag: "no-new-privileges", key: "no-new-privileges", help: "Set no-new-privileges by default for new containers", setting: yes(&c.NoNewPrivileges)},
		{flag: "seccomp-profile", key: "seccomp-profile", help: `Path to seccomp profile. Set to "unconfined" to disable the default seccomp profile`, setting: str(&c.SeccompProfile)},

		{flag: "bridge", short: "b", key: "bridge", help: `Attach containers to an existing network bridge; "none" for no default network`, setting: str(&c.Bridge)},
		{flag: "bridge-name", key: "bridge-name", help: "Name of the bridge that the daemon makes for the default network", setting: str(&c.BridgeName)},
		{flag: "bip", key: "bip", help: "IPv4 address for the default bridge", setting: str(&c.BIP)},
		{flag: "bip6", key: "bip6", help: "IPv6 address for the default bridge", setting: str(&c.BIP6)},
		{flag: "fixed-cidr", key: "fixed-cidr", help: "IPv4 subnet for the default bridge network", setting: str(&c.FixedCIDR)},
		{flag: "fixed-cidr-v6", key: "fixed-cidr-v6", help: "IPv6 subnet for the default bridge network", setting: str(&c.FixedCIDR6)},
		{flag: "default-gateway", key: "default-gateway", help: "Default gateway IPv4 address for the default bridge network", setting: addrSetting{&c.Gateway}},
		{flag: "default-gateway-v6", key: "default-gateway-v6", help: "Default gateway IPv6 address for the default bridge network", setting: addrSetting{&c.Gateway6}},
		{flag: "ipv6", key: "ipv6", help: "Enable IPv6 networking for the default bridge network", setting: yes(&c.IPv6)},
		{flag: "icc", key: "icc", help: "Enable inter-container communication for the default bridge network", setting: yes(&c.ICC)},
		{flag: "ip", key: "ip", help: "Host IP for port publishing from the default bridge network", setting: addrSetting{&c.HostIP}},
		{flag: "ip-masq", key: "ip-masq", help: "Enable IP masquerading for the default bridge network", setting: yes(&c.IPMasq)},
		{flag: "ip-forward", key: "ip-forward", help: "Enable IP forwarding in system configuration", setting: yes(&c.IPForward)},
		{flag: "iptables", key: "iptables", help: "Filter, translate and publish ports with the kernel's firewall", setting: yes(&c.Firewall)},
		{flag: "foreign-forward", key: "foreign-forward", help: `Let containers' packets through chains of Docker, ufw, firewalld and iptables that drop what is forwarded ("auto"|"off": only warn)`, setting: str(&c.ForeignForward)},
		{flag: "firewall-mark", key: "firewall-mark", help: "Bit of the packet mark, as a number, by which other firewalls recognize what the engine lets through", setting: num(&c.FirewallMark)},
		{flag: "publish-input", key: "publish-input", help: `Whether published ports obey the host's input rules, for containers and networks that do not say ("bypass"|"obey")`, setting: str(&c.PublishInput)},
		{flag: "mtu", key: "mtu", help: `Set the MTU for the default "bridge" network`, setting: num(&c.MTU)},
		{flag: "default-network-opt", key: "default-network-opts", help: "Default network options", setting: driverSetting{&c.NetworkOpts}},
		{flag: "default-address-pool", key: "default-address-pools", help: "Default address pools for node specific local networks", setting: poolSetting{&c.Pools}},
		{flag: "dns", key: "dns", help: "DNS server to use", setting: addrsSetting{&c.DNS}},
		{flag: "dns-search", key: "dns-search", help: "DNS search domains to use", setting: listSetting{&c.DNSSearch, checkSearchDomain}},
		{flag: "dns-opt", key: "dns-opts", help: "DNS options to use", setting: list(&c.DNSOpts)},
		{flag: "host-gateway-ip", key: "host-gateway-ips", help: "IP addresses that the special 'host-gateway' string in --add-host resolves to. Defaults to the IP addresses of the default bridge", setting: addrsSetting{&c.HostGateway}},

		{flag: "insecure-registry", key: "insecure-registries", help: "Enable insecure registry communication", setting: list(&c.InsecureRegistries), reload: true},
		{flag: "registry-mirror", key: "registry-mirrors", help: "Preferred registry mirror", setting: listSetting{&c.RegistryMirrors, checkMirror}, reload: true},
		{flag: "max-concurrent-downloads", key: "max-concurrent-downloads", help: "Set the max concurrent downloads", setting: num(&c.MaxDownloads), reload: true},
		{flag: "max-concurrent-uploads", key: "max-concurrent-uploads", help: "Set the max concurrent uploads", setting: num(&c.MaxUploads), reload: true},
		{flag: "max-download-attempts", key: "max-download-attempts", help: "Set the max download attempts for each pull", setting: num(&c.MaxDownloadAttempts), reload: true},
		{flag: "http-proxy", key: "http-proxy", help: "HTTP proxy URL to use for outgoing traffic", setting: str(&c.HTTPProxy)},
		{flag: "https-proxy", key: "https-proxy", help: "HTTPS proxy URL to use for outgoing traffic", setting: str(&c.HTTPSProxy)},
		{flag: "no-proxy", key: "no-proxy", help: "Comma-separated list of hosts or IP addresses for which the proxy is skipped", setting: str(&c.NoProxy)},

		{flag: "storage-driver", short: "s", key: "storage-driver", help: "Storage driver to use (overlay2)", setting: str(&c.StorageDriver)},
		{flag: "runtime-binary", key: "runtime-binary", help: "Path of orlop-runtime; beside this program or in PATH when not given", setting: str(&c.RuntimeBinary)},
		{flag: "netd-binary", key: "netd-binary", help: "Path of orlop-netd; beside this program or in PATH when not given", setting: str(&c.NetdBinary)},

		// What Docker has and this engine does not: refused with the reason,
		// unless the value asks for what is the case anyway.
		absent("authorization-plugin", "authorization-plugins", "Authorization plugins to load", "", "plugins are not available in this version of the engine"),
		absent("metrics-addr", "metrics-addr", "Set default address and port to serve the metrics api on", "", "metrics are not available in this version of the engine"),
		absent("selinux-enabled", "selinux-enabled", "Enable selinux support", "false", "SELinux labels are not available in this version of the engine"),
		absent("apparmor-profile", "apparmor-profile", "Path to AppArmor profile template", "", "the AppArmor profile is built in"),
		absent("containerd", "containerd", "containerd grpc address", "", "the image store is part of this program, there is no containerd to connect to"),
		absent("cri-containerd", "cri-containerd", "start containerd with cri", "false", "the image store is part of this program, there is no containerd to start"),
		absent("storage-opt", "storage-opts", "Storage driver options", "", "the storage driver has no options"),
		absent("bridge-accept-fwmark", "bridge-accept-fwmark", "In bridge networks, accept packets with this firewall mark/mask", "", "it is not available in this version of the engine"),
		absent("allow-direct-routing", "allow-direct-routing", "Allow remote access to published ports on container IP addresses", "false", "it is not available in this version of the engine"),
		absent("firewall-backend", "firewall-backend", "Firewall backend to use", "nftables", "the firewall backend is always nftables"),
		absent("swarm-default-advertise-addr", "swarm-default-advertise-addr", "Set default address or interface for swarm advertised address", "", "swarm mode is not available in this version of the engine"),
		absent("node-generic-resource", "node-generic-resources", "Advertise user-defined resource", "", "swarm mode is not available in this version of the engine"),
		absent("cdi-spec-dir", "cdi-spec-dirs", "CDI specification directories to use", "", "CDI devices are not available in this version of the engine"),
		absent("rootless", "rootless", "Enable rootless mode", "false", "rootless mode is not available in this version of the engine"),
		absent("cpu-rt-period", "cpu-rt-period", "Limit the CPU real-time period in microseconds for the parent cgroup", "0", "it is not available in this version of the engine"),
		absent("cpu-rt-runtime", "cpu-rt-runtime", "Limit the CPU real-time runtime in microseconds for the parent cgroup", "0", "it is not available in this version of the engine"),
		absent("raw-logs", "raw-logs", "Full timestamps without ANSI coloring", "true", "the daemon's log is never colored"),
	}
}

// absent is an option of Docker's that takes only the value which describes
// what this engine does.
func absent(flag, key, help, only, why string) option {
	return option{flag: flag, key: key, help: help, hidden: true, setting: &fixedSetting{only: only, why: why}}
}

// bind adds the options to a flag set.
func bind(flags *pflag.FlagSet, opts []option) {
	for _, o := range opts {
		f := flags.VarPF(o.setting, o.flag, o.short, o.help)
		f.Hidden = o.hidden
		switch s := o.setting.(type) {
		case boolSetting:
			f.NoOptDefVal = "true"
		case *fixedSetting:
			if s.only == "true" || s.only == "false" {
				f.NoOptDefVal = "true"
			}
		}
	}
}

// fixedSetting is a value that cannot be chosen.
type fixedSetting struct{ only, why string }

func (s *fixedSetting) Set(v string) error {
	if v == s.only || v == "" {
		return nil
	}
	return fmt.Errorf("%s", s.why)
}
func (s *fixedSetting) String() string { return s.only }
func (s *fixedSetting) Type() string {
	if s.only == "true" || s.only == "false" {
		return "bool"
	}
	return "string"
}
