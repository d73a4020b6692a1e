// Package creation turns the flags of `run` and `create` into the body of a container-create request: Config,
// HostConfig and NetworkingConfig of the Engine API, with Docker's checks and Docker's words for what it refuses.
//
// Entry points: AddFlags puts the flags on a FlagSet and returns the Options they fill; Options.Request reads them
// after parsing. Files that a flag names (env and label files, a seccomp profile) are read by Request. No daemon is
// asked and there are no locks.
package creation

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/orlop/orlop/internal/cli/flagvalue"
	"github.com/spf13/pflag"
)

// Options are the values of all creation flags, in the order of AddFlags.
type Options struct {
	flags *pflag.FlagSet

	attach, env, envFiles, labels, labelFiles *flagvalue.List
	deviceRules, devices, groups, expose      *flagvalue.List
	volumes, volumesFrom, tmpfs, links        *flagvalue.List
	aliases, linkLocal, publish               *flagvalue.List
	dns, dnsOptions, dnsSearch, extraHosts    *flagvalue.List
	capAdd, capDrop, securityOpts             *flagvalue.List
	storageOpts, logOpts                      *flagvalue.List
	sysctls, annotations                      *flagvalue.Map
	mounts                                    flagvalue.Mounts
	networks                                  flagvalue.Networks
	gpus                                      flagvalue.GPUs
	ulimits                                   flagvalue.Ulimits
	weights                                   flagvalue.Weights
	readBps, writeBps, readIOps, writeIOps    flagvalue.Throttles
	memory, memoryReservation, shmSize, ioBps flagvalue.Bytes
	memorySwap                                flagvalue.SwapBytes
	cpus                                      flagvalue.CPUs
	umask                                     flagvalue.Umask

	privileged, publishAll, interactive, tty, oomKillDisable, readOnly, noHealthcheck, autoRemove, init bool

	pid, uts, userns, cgroupns, ipc, isolation, runtime, cgroupParent         string
	entrypoint, hostname, domainname, user, workdir, stopSignal, restart      string
	cpusetCPUs, cpusetMems, mac, ip, ip6, logDriver, volumeDriver, cidFile    string
	healthCmd                                                                 string
	healthInterval, healthTimeout, healthStartPeriod, healthStartInterval     time.Duration
	healthRetries, oomScoreAdj, stopTimeout                                   int
	cpuCount, cpuShares, cpuPercent, cpuPeriod, cpuQuota, rtPeriod, rtRuntime int64
	swappiness, pidsLimit                                                     int64
	ioIOps                                                                    uint64
	blkioWeight                                                               uint16
}

// AutoRemove reports --rm.
func (o *Options) AutoRemove() bool { return o.autoRemove }

// Env returns the values of --env.
func (o *Options) Env() []string { return o.env.Values() }

// SetEnv replaces the values of --env, as for proxy variables from the client's configuration.
func (o *Options) SetEnv(env []string) {
	o.env = flagvalue.NewList(flagvalue.Env)
	for _, e := range env {
		// The values come from flags already checked or from the configuration; a bare name stays a bare name.
		_ = o.env.Set(e)
	}
}

// HasAttach reports whether --attach was given.
func (o *Options) HasAttach() bool { return len(o.attach.Values()) > 0 }

const cgroupnsHelp = `Cgroup namespace to use (host|private)
'host':    Run the container in the Docker host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace as configured by the
           default-cgroupns-mode option on the daemon (default)`

// AddFlags defines the flags that describe the container itself; those about running (--detach, --name, --pull, …)
// belong to the commands.
func AddFlags(f *pflag.FlagSet) *Options {
	list := func(check flagvalue.Check) *flagvalue.List { return flagvalue.NewList(check) }
	o := &Options{
		flags:  f,
		attach: list(flagvalue.Stream), env: list(flagvalue.Env), envFiles: list(nil),
		labels: list(flagvalue.Label), labelFiles: list(nil),
		deviceRules: list(flagvalue.DeviceRule), devices: list(nil), groups: list(nil), expose: list(nil),
		volumes: list(nil), volumesFrom: list(nil), tmpfs: list(nil), links: list(flagvalue.Link),
		aliases: list(nil), linkLocal: list(nil), publish: list(nil),
		dns: list(flagvalue.IP), dnsOptions: list(nil), dnsSearch: list(flagvalue.DNSSearch), extraHosts: list(flagvalue.ExtraHost),
		capAdd: list(nil), capDrop: list(nil), securityOpts: list(nil),
		storageOpts: list(nil), logOpts: list(nil),
		sysctls: flagvalue.NewMap(flagvalue.Sysctl), annotations: flagvalue.NewMap(nil),
		readIOps: flagvalue.Throttles{Operations: true}, writeIOps: flagvalue.Throttles{Operations: true},
	}

	// The process.
	f.VarP(o.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.VarP(o.env, "env", "e", "Set environment variables")
	f.Var(o.envFiles, "env-file", "Read in a file of environment variables")
	f.StringVar(&o.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.Var(o.groups, "group-add", "Add additional groups to join")
	f.StringVarP(&o.hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&o.domainname, "domainname", "", "Container NIS domain name")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.VarP(o.labels, "label", "l", "Set meta data on a container")
	f.Var(o.labelFiles, "label-file", "Read in a line delimited file of labels")
	f.BoolVar(&o.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.StringVar(&o.restart, "restart", string(container.RestartPolicyDisabled), "Restart policy to apply when a container exits")
	f.StringVar(&o.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.Var(o.sysctls, "sysctl", "Sysctl options")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.Var(&o.ulimits, "ulimit", "Ulimit options")
	f.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	f.BoolVar(&o.autoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	f.BoolVar(&o.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.Var(o.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	since(f, "annotation", "1.43")
	f.Var(&o.umask, "umask", "Set umask for the container")
	since(f, "umask", "1.56")
	onlyOn(f, "umask", "linux")

	// Devices and security.
	f.Var(o.deviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	f.Var(o.devices, "device", "Add a host device to the container")
	f.Var(&o.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	since(f, "gpus", "1.40")
	f.Var(o.capAdd, "cap-add", "Add Linux capabilities")
	f.Var(o.capDrop, "cap-drop", "Drop Linux capabilities")
	f.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to this container")
	f.Var(o.securityOpts, "security-opt", "Security Options")
	f.StringVar(&o.userns, "userns", "", "User namespace to use")
	f.StringVar(&o.cgroupns, "cgroupns", "", cgroupnsHelp)
	since(f, "cgroupns", "1.41")
	f.StringVar(&o.ipc, "ipc", "", "IPC mode to use")
	f.StringVar(&o.pid, "pid", "", "PID namespace to use")
	f.StringVar(&o.uts, "uts", "", "UTS namespace to use")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.StringVar(&o.isolation, "isolation", "", "Container isolation technology")
	f.StringVar(&o.runtime, "runtime", "", "Runtime to use for this container")

	// Network. --net, --net-alias and --dns-opt are older spellings of the same flags.
	f.Var(o.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	f.Var(o.dns, "dns", "Set custom DNS servers")
	f.Var(o.dnsOptions, "dns-option", "Set DNS options")
	f.Var(o.dnsSearch, "dns-search", "Set custom DNS search domains")
	f.Var(o.expose, "expose", "Expose a port or a range of ports")
	f.StringVar(&o.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	f.Var(o.links, "link", "Add link to another container")
	f.Var(o.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	f.StringVar(&o.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.VarP(o.publish, "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.Var(&o.networks, "network", "Connect a container to a network")
	f.Var(o.aliases, "network-alias", "Add network-scoped alias for the container")
	for _, old := range []struct {
		name, help string
		value      pflag.Value
	}{
		{"dns-opt", "Set DNS options", o.dnsOptions},
		{"net", "Connect a container to a network", &o.networks},
		{"net-alias", "Add network-scoped alias for the container", o.aliases},
	} {
		f.Var(old.value, old.name, old.help)
		f.Lookup(old.name).Hidden = true
	}

	// Storage and logs.
	f.StringVar(&o.logDriver, "log-driver", "", "Logging driver for the container")
	f.StringVar(&o.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.Var(o.logOpts, "log-opt", "Log driver options")
	f.Var(o.storageOpts, "storage-opt", "Storage driver options for the container")
	f.Var(o.tmpfs, "tmpfs", "Mount a tmpfs directory")
	f.Var(o.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	f.VarP(o.volumes, "volume", "v", "Bind mount a volume")
	f.Var(&o.mounts, "mount", "Attach a filesystem mount to the container")

	// Health.
	f.StringVar(&o.healthCmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&o.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	f.IntVar(&o.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.DurationVar(&o.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	f.DurationVar(&o.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	f.DurationVar(&o.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	since(f, "health-start-interval", "1.44")
	f.BoolVar(&o.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")

	// Resources.
	f.Uint16Var(&o.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.Var(&o.weights, "blkio-weight-device", "Block IO weight (relative device weight)")
	f.StringVar(&o.cidFile, "cidfile", "", "Write the container ID to the file")
	f.StringVar(&o.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&o.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Int64Var(&o.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	onlyOn(f, "cpu-count", "windows")
	f.Int64Var(&o.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	onlyOn(f, "cpu-percent", "windows")
	f.Int64Var(&o.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&o.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&o.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&o.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Var(&o.cpus, "cpus", "Number of CPUs")
	f.Var(&o.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	f.Var(&o.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	f.Var(&o.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	f.Var(&o.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	f.Var(&o.ioBps, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	onlyOn(f, "io-maxbandwidth", "windows")
	f.Uint64Var(&o.ioIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	onlyOn(f, "io-maxiops", "windows")
	f.VarP(&o.memory, "memory", "m", "Memory limit")
	f.Var(&o.memoryReservation, "memory-reservation", "Memory soft limit")
	f.Var(&o.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	f.Int64Var(&o.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.IntVar(&o.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.Int64Var(&o.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.Var(&o.shmSize, "shm-size", "Size of /dev/shm")

	// Accepted and without effect, as in Docker since 29: the kernel dropped the limit it set.
	f.Var(new(flagvalue.Bytes), "kernel-memory", "Kernel memory limit (deprecated)")
	deprecated(f, "kernel-memory", "and no longer supported by the kernel")
	return o
}

// since marks the API version a flag needs; the commands refuse it on an older daemon.
func since(f *pflag.FlagSet, name, version string) {
	f.Lookup(name).Annotations = merged(f.Lookup(name).Annotations, "version", version)
}

// onlyOn marks the daemon's operating system a flag needs.
func onlyOn(f *pflag.FlagSet, name, os string) {
	f.Lookup(name).Annotations = merged(f.Lookup(name).Annotations, "ostype", os)
}

func deprecated(f *pflag.FlagSet, name, message string) {
	f.Lookup(name).Deprecated = message
	f.Lookup(name).Hidden = true
}

func merged(m map[string][]string, key, value string) map[string][]string {
	if m == nil {
		m = map[string][]string{}
	}
	m[key] = []string{value}
	return m
}
