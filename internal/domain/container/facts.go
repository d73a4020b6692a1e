package container

// HostFacts is what the configuration of containers depends on, probed once by
// the daemon. The zero value is a host without any controller.
type HostFacts struct {
	// CgroupVersion is 1 (also "hybrid") or 2.
	CgroupVersion int
	// CgroupSystemd: systemd manages the cgroups (native.cgroupdriver).
	CgroupSystemd bool

	MemoryLimit, SwapLimit, MemoryReservation, MemorySwappiness, OomKillDisable bool
	CPUShares, CPUCfs, CPURealtime, Cpuset, PidsLimit                           bool
	BlkioWeight, BlkioWeightDevice                                              bool
	BlkioReadBps, BlkioWriteBps, BlkioReadIOps, BlkioWriteIOps                  bool
	// Cpus and Mems are the lists of the cpuset controller, e.g. "0-3".
	Cpus, Mems string
	NCPU       int

	Seccomp, AppArmor, SELinux bool
	// AppArmorMissing is why the kernel has AppArmor and our default profile is
	// not loaded, "" when it is: a container that names no profile has none then.
	AppArmorMissing  string
	CgroupNamespaces bool
	// RecursiveReadOnly: mount_setattr(2) with AT_RECURSIVE (kernel 5.12).
	RecursiveReadOnly bool
	// TimeNamespaces: /proc/self/ns/time exists (kernel 5.6).
	TimeNamespaces bool
	// PingGroupRange and UnprivilegedPortStart: the sysctls of these names
	// exist in net.ipv4.
	PingGroupRange, UnprivilegedPortStart bool
	IPv4ForwardingDisabled                bool

	// Capabilities are those of the daemon itself, in the kernel's order,
	// spelled CAP_NAME; KnownCapabilities those the kernel has.
	Capabilities, KnownCapabilities []string
	// ThermalThrottle lists the /sys/devices/system/cpu/cpu*/thermal_throttle
	// folders of this host, which are masked.
	ThermalThrottle []string
}
