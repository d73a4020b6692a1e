package container

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// initInContainer is where the program of --init is bound.
const initInContainer = "/sbin/docker-init"

// SpecInput is everything the OCI configuration of a container depends on.
type SpecInput struct {
	ID     string
	Config *containertypes.Config
	Host   *containertypes.HostConfig
	// Mounts with their sources on the host, see ResolveMounts.
	Mounts []Mount
	// HostsPath, HostnamePath and ResolvConfPath are files of the host that
	// are bound into /etc; "" leaves the image's own.
	HostsPath, HostnamePath, ResolvConfPath string
	// NetNSPath, PIDNSPath and IPCNSPath join a namespace of another
	// container, e.g. /proc/7/ns/net.
	// Who joins one of a container in a user namespace has to join that, too:
	// UserNSPath.
	NetNSPath, PIDNSPath, IPCNSPath, UserNSPath string
	// ShmPath is bound at /dev/shm for an IPC namespace that is shared; ""
	// gives a tmpfs of its own.
	ShmPath string
	// User of the process: the configuration's, resolved from the container's
	// own passwd and group.
	User specs.User
	// LinkEnv are the variables that --link adds.
	LinkEnv []string

	Facts    HostFacts
	Defaults Defaults
	// CgroupParent when neither the request nor the daemon names one.
	CgroupParent string
	// CgroupPrefix names scopes under systemd ("docker" in Docker).
	CgroupPrefix string
	// AppArmorProfile is the name of the default profile.
	AppArmorProfile string

	// Device describes one device node of the host, DevicesBelow those of a
	// folder, HostDevices all of them.
	Device       func(path string) (specs.LinuxDevice, error)
	DevicesBelow func(dir string) ([]specs.LinuxDevice, error)
	HostDevices  func() ([]specs.LinuxDevice, error)
	// Propagation of the mount that a path of the host is on.
	Propagation func(path string) (mountpoint, propagation string, err error)
	// Seccomp loads a profile: "" is Docker's default.
	Seccomp func(profile string, spec *specs.Spec) (*specs.LinuxSeccomp, error)
}

// maskedPaths hide what tells about the host or can harm it, as Docker does.
func maskedPaths(facts HostFacts) []string {
	return append([]string{
		"/proc/acpi", "/proc/asound",
		"/proc/interrupts", // GHSA-6fw5-f8r9-fgfm
		"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", // GHSA-jq35-85cj-fj4p
		"/sys/firmware",
	}, facts.ThermalThrottle...)
}

var defaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
	}
}

// BuildSpec makes the complete OCI configuration of a container, the one that
// Docker would make. Root.Path stays empty: the layers go beside the spec.
func BuildSpec(in SpecInput) (*specs.Spec, error) {
	security, err := ParseSecurityOpts(in.Host.SecurityOpt, in.Defaults)
	if err != nil {
		return nil, err
	}
	process, err := BuildProcess(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version,
		Process: process,
		Root:    &specs.Root{Readonly: in.Host.ReadonlyRootfs},
		Linux: &specs.Linux{
			CgroupsPath: cgroupsPath(in),
			Sysctl:      map[string]string{},
		},
	}
	if !in.Host.UTSMode.IsHost() {
		s.Hostname, s.Domainname = in.Config.Hostname, in.Config.Domainname
	}
	setNamespaces(s, in)
	setSysctls(s, in)
	renamed, err := setDevices(s, in)
	if err != nil {
		return nil, err
	}
	if err := setMounts(s, in, security); err != nil {
		return nil, err
	}
	s.Mounts = append(s.Mounts, renamed...)
	if !in.Host.Privileged && !security.UnconfinedPaths {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths(in.Facts), slices.Clone(defaultReadonlyPaths)
		if in.Host.MaskedPaths != nil {
			s.Linux.MaskedPaths = in.Host.MaskedPaths
		}
		if in.Host.ReadonlyPaths != nil {
			s.Linux.ReadonlyPaths = in.Host.ReadonlyPaths
		}
	}
	if err := setSeccomp(s, in, security); err != nil {
		return nil, err
	}
	s.Linux.MountLabel = mountLabel(security.processLabel())
	if len(in.Host.Annotations) > 0 {
		s.Annotations = maps.Clone(in.Host.Annotations)
	}
	return s, nil
}

// mountLabel is the label of files for a process label.
func mountLabel(process string) string {
	parts := strings.SplitN(process, ":", 4)
	if len(parts) < 4 {
		return ""
	}
	return strings.Join([]string{parts[0], "object_r", "container_file_t", parts[3]}, ":")
}

// BuildProcess makes the process of a container; an exec starts from the same
// one, see ExecProcess.
func BuildProcess(in SpecInput) (*specs.Process, error) {
	security, err := ParseSecurityOpts(in.Host.SecurityOpt, in.Defaults)
	if err != nil {
		return nil, err
	}
	caps, err := Capabilities(in.Host.CapAdd, in.Host.CapDrop, in.Host.Privileged, in.Facts)
	if err != nil {
		return nil, err
	}
	program, args := Command(in.Config)
	p := &specs.Process{
		Terminal:        in.Config.Tty,
		Args:            append([]string{program}, args...),
		Env:             withLinkEnv(in.Config, in.LinkEnv),
		Cwd:             in.Config.WorkingDir,
		User:            in.User,
		NoNewPrivileges: security.NoNewPrivileges,
		SelinuxLabel:    security.processLabel(),
		Capabilities:    capabilitySets(caps),
	}
	p.User.Umask = in.Host.Umask
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	score := in.Host.OomScoreAdj
	p.OOMScoreAdj = &score
	if in.Config.Tty && in.Host.ConsoleSize != [2]uint{} {
		p.ConsoleSize = &specs.Box{Height: in.Host.ConsoleSize[0], Width: in.Host.ConsoleSize[1]}
	}
	if in.wantsInit() {
		if in.Defaults.InitPath == "" {
			return nil, errors.New(`exec: "docker-init": executable file not found in $PATH`)
		}
		p.Args = append([]string{initInContainer, "--"}, p.Args...)
	}
	given := map[string]bool{}
	for _, u := range in.Host.Ulimits {
		given[u.Name] = true
		p.Rlimits = append(p.Rlimits, rlimit(u))
	}
	for _, u := range in.Defaults.Ulimits {
		if !given[u.Name] {
			p.Rlimits = append(p.Rlimits, rlimit(u))
		}
	}
	if in.Facts.AppArmor {
		switch {
		case security.AppArmor != "":
			p.ApparmorProfile = security.AppArmor
		case in.Host.Privileged:
			p.ApparmorProfile = Unconfined
		case in.Facts.AppArmorMissing != "":
			// Said by the daemon's information; a profile asked for is still set.
		default:
			p.ApparmorProfile = in.AppArmorProfile
		}
	}
	return p, nil
}

// withLinkEnv puts the variables of links between the defaults and the
// configuration's, which win.
func withLinkEnv(c *containertypes.Config, link []string) []string {
	if len(link) == 0 {
		return Environment(c, c.Tty)
	}
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.Hostname}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	return OverrideEnv(append(env, link...), c.Env)
}

// wantsInit: an init makes sense only in a pid namespace of its own.
func (in SpecInput) wantsInit() bool {
	if !in.Host.PidMode.IsPrivate() {
		return false
	}
	if in.Host.Init != nil {
		return *in.Host.Init
	}
	return in.Defaults.Init
}

func rlimit(u *containertypes.Ulimit) specs.POSIXRlimit {
	return specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
}

func capabilitySets(caps []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{
		Bounding:  caps,
		Effective: slices.Clone(caps),
		Permitted: slices.Clone(caps),
	}
}

// ExecProcess makes the process of an exec from that of its container. in.User
// is the user of the exec.
func ExecProcess(in SpecInput, req containertypes.ExecCreateRequest) (*specs.Process, error) {
	p, err := BuildProcess(in)
	if err != nil {
		return nil, err
	}
	p.Args = slices.Clone(req.Cmd)
	p.Terminal = req.Tty
	p.Env = OverrideEnv(Environment(in.Config, req.Tty), req.Env)
	if req.WorkingDir != "" {
		p.Cwd = req.WorkingDir
	}
	if req.Privileged {
		p.Capabilities = capabilitySets(slices.Clone(in.Facts.Capabilities))
	}
	p.ConsoleSize = nil
	if req.Tty && req.ConsoleSize != nil {
		p.ConsoleSize = &specs.Box{Height: req.ConsoleSize[0], Width: req.ConsoleSize[1]}
	}
	return p, nil
}

func cgroupsPath(in SpecInput) string {
	parent := in.CgroupParent
	if in.Defaults.CgroupParent != "" {
		parent = in.Defaults.CgroupParent
	}
	if in.Host.CgroupParent != "" {
		parent = in.Host.CgroupParent
	}
	if in.Facts.CgroupSystemd {
		if parent == "" || !strings.HasSuffix(parent, ".slice") {
			parent = "system.slice"
		}
		return parent + ":" + in.CgroupPrefix + ":" + in.ID
	}
	// Clean below the root: "../.." leads nowhere else.
	return path.Join(path.Clean("/"+parent), in.ID)
}

func setNamespaces(s *specs.Spec, in SpecInput) {
	add := func(t specs.LinuxNamespaceType, path string) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
	}
	if Remapped(in.Host, in.Defaults) {
		add(specs.UserNamespace, in.UserNSPath)
		s.Linux.UIDMappings, s.Linux.GIDMappings = slices.Clone(in.Defaults.IDMap.UIDs), slices.Clone(in.Defaults.IDMap.GIDs)
	}
	add(specs.MountNamespace, "")
	if !in.Host.NetworkMode.IsHost() || in.Config.NetworkDisabled {
		add(specs.NetworkNamespace, in.NetNSPath)
	}
	if !in.Host.UTSMode.IsHost() {
		add(specs.UTSNamespace, "")
	}
	if !in.Host.PidMode.IsHost() {
		add(specs.PIDNamespace, in.PIDNSPath)
	}
	if !in.Host.IpcMode.IsHost() {
		add(specs.IPCNamespace, in.IPCNSPath)
	}
	if in.Host.CgroupnsMode.IsPrivate() && in.Facts.CgroupNamespaces {
		add(specs.CgroupNamespace, "")
	}
}

func setSysctls(s *specs.Spec, in SpecInput) {
	if in.Host.NetworkMode.IsPrivate() {
		if in.Facts.PingGroupRange && !Remapped(in.Host, in.Defaults) {
			s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
		}
		if in.Facts.UnprivilegedPortStart {
			s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
		}
	}
	maps.Copy(s.Linux.Sysctl, in.Host.Sysctls)
	if len(s.Linux.Sysctl) == 0 {
		s.Linux.Sysctl = nil
	}
}

// setDevices sets device nodes, their cgroup rules and the other limits. In a
// user namespace no node can be made and a runtime binds the host's, which it
// looks for under the container's name (runtime-spec config-linux.md, "Devices",
// has no other): those with another name are returned as mounts.
func setDevices(s *specs.Spec, in SpecInput) (renamed []specs.Mount, err error) {
	limits, err := Limits(in.Host.Resources, func(p string) (int64, int64, error) {
		d, err := in.Device(p)
		return d.Major, d.Minor, err
	})
	if err != nil {
		return nil, err
	}
	s.Linux.Resources = limits
	if in.Host.Privileged {
		devices, err := in.HostDevices()
		if err != nil {
			return nil, err
		}
		s.Linux.Devices = devices
		for _, m := range in.Host.Devices {
			if m.PathOnHost == m.PathInContainer {
				continue
			}
			found, err := in.devices(m.PathOnHost, m.PathInContainer)
			if err != nil {
				return nil, err
			}
			for _, d := range found {
				s.Linux.Devices = append(s.Linux.Devices, d.LinuxDevice)
			}
		}
		limits.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil, nil
	}
	limits.Devices = defaultDeviceRules()
	for _, m := range in.Host.Devices {
		target := m.PathInContainer
		if target == "" {
			target = m.PathOnHost
		}
		access := m.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		found, err := in.devices(m.PathOnHost, target)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			limits.Devices = append(limits.Devices, allow(d.LinuxDevice, access))
			if Remapped(in.Host, in.Defaults) && d.onHost != d.Path {
				renamed = append(renamed, specs.Mount{Destination: d.Path, Type: "bind", Source: d.onHost, Options: []string{"bind", "nosuid", "noexec"}})
				continue
			}
			s.Linux.Devices = append(s.Linux.Devices, d.LinuxDevice)
		}
	}
	for _, raw := range in.Host.DeviceCgroupRules {
		rule, err := parseDeviceRule(raw)
		if err != nil {
			return nil, err
		}
		limits.Devices = append(limits.Devices, rule)
	}
	return renamed, nil
}

// foundDevice is a device of the host with its path in the container.
type foundDevice struct {
	specs.LinuxDevice
	onHost string
}

// devices finds one device, or those below a folder, and gives them their
// paths in the container.
func (in SpecInput) devices(onHost, inContainer string) ([]foundDevice, error) {
	d, err := in.Device(onHost)
	if err == nil {
		d.Path = inContainer
		return []foundDevice{{d, onHost}}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		found, belowErr := in.DevicesBelow(onHost)
		if belowErr == nil && len(found) > 0 {
			out := make([]foundDevice, len(found))
			for i, d := range found {
				out[i] = foundDevice{d, d.Path}
				out[i].Path = path.Join(inContainer, strings.TrimPrefix(d.Path, onHost))
			}
			return out, nil
		}
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // the path is said
	}
	return nil, fmt.Errorf("error gathering device information while adding custom device %q: %w", onHost, err)
}

// tmpfs is a mount of --tmpfs or of type tmpfs before its options are merged.
const tmpfsSource = "tmpfs"

func setMounts(s *specs.Spec, in SpecInput, security Security) error {
	mounts := slices.Clone(in.Mounts)
	for dest, options := range in.Host.Tmpfs {
		mounts = append(mounts, Mount{Type: mount.TypeTmpfs, Destination: path.Clean(dest), Options: options, RW: true})
	}
	user := map[string]bool{}
	for _, m := range mounts {
		user[m.Destination] = true
	}
	if in.ShmPath != "" && !user["/dev/shm"] {
		mounts = append(mounts, Mount{Type: mount.TypeBind, Source: in.ShmPath, Destination: "/dev/shm", RW: true, Propagation: mount.PropagationRPrivate})
		user["/dev/shm"] = true
	}
	for _, f := range []struct{ dest, source string }{
		{"/etc/resolv.conf", in.ResolvConfPath}, {"/etc/hostname", in.HostnamePath}, {"/etc/hosts", in.HostsPath},
	} {
		if f.source != "" && !user[f.dest] {
			mounts = append(mounts, Mount{Type: mount.TypeBind, Source: f.source, Destination: f.dest, RW: !in.Host.ReadonlyRootfs, Propagation: mount.PropagationRPrivate})
			user[f.dest] = true
		}
	}
	SortMounts(mounts)

	for _, m := range defaultMounts() {
		if user[m.Destination] || user["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		if m.Destination == "/dev/shm" {
			if in.Host.IpcMode.IsNone() {
				continue
			}
			m.Options = append(m.Options, "size="+strconv.FormatInt(in.Host.ShmSize, 10))
		}
		s.Mounts = append(s.Mounts, m)
	}
	if in.wantsInit() {
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: initInContainer, Type: "bind", Source: in.Defaults.InitPath, Options: []string{"bind", "ro"},
		})
	}
	for _, m := range mounts {
		if m.Type == mount.TypeTmpfs {
			options, err := mergeTmpfsOptions(m.Options)
			if err != nil {
				return err
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: tmpfsSource, Options: options})
			continue
		}
		bound, err := bind(s, in, m)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, bound)
	}

	if in.Host.ReadonlyRootfs {
		for i, m := range s.Mounts {
			switch m.Destination {
			case "/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev":
				continue
			}
			if !user[m.Destination] && !slices.Contains(m.Options, "ro") {
				s.Mounts[i].Options = append(s.Mounts[i].Options, "ro")
			}
		}
	}
	writableCgroups := in.Host.Privileged
	if Remapped(in.Host, in.Defaults) {
		if security.WritableCgroups != nil {
			return errors.New("option WritableCgroups conflicts with user namespaces and rootless mode")
		}
		// As in Docker; the groups are the host's root's, so nobody can write.
		writableCgroups = true
	}
	if security.WritableCgroups != nil {
		writableCgroups = *security.WritableCgroups
	}
	for i, m := range s.Mounts {
		if m.Type == "sysfs" && in.Host.Privileged || m.Type == "cgroup" && writableCgroups {
			s.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
	return nil
}

// bind makes one bind mount and raises the propagation of the root as far as
// the bind needs it.
func bind(s *specs.Spec, in SpecInput, m Mount) (specs.Mount, error) {
	out := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source}
	propagation := m.Propagation
	switch propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		on, kind, err := in.Propagation(m.Source)
		if err != nil {
			return out, err
		}
		if kind != "shared" {
			return out, fmt.Errorf("path %s is mounted on %s but it is not a shared mount", m.Source, on)
		}
		s.Linux.RootfsPropagation = "shared"
	case mount.PropagationSlave, mount.PropagationRSlave:
		on, kind, err := in.Propagation(m.Source)
		if err == nil && kind != "shared" && kind != "slave" {
			err = fmt.Errorf("path %s is mounted on %s but it is not a shared or slave mount", m.Source, on)
		}
		switch {
		case err != nil && m.ExplicitPropagation:
			return out, err
		case err != nil:
			// Given by us to a bind of the daemon's folder: the default will do.
		case s.Linux.RootfsPropagation == "":
			s.Linux.RootfsPropagation = "rslave"
		}
	}
	mode := "rbind"
	if m.NonRecursive {
		mode = "bind"
	}
	out.Options = []string{mode}
	if !m.RW {
		recursive := !m.ReadOnlyNonRecursive && in.Facts.RecursiveReadOnly
		switch {
		case recursive:
			out.Options = append(out.Options, "rro")
		case m.ReadOnlyForceRecursive:
			return out, errors.New("rro is not supported: the kernel is older than 5.12")
		default:
			out.Options = append(out.Options, "ro")
		}
	}
	if propagation != "" {
		out.Options = append(out.Options, string(propagation))
	}
	return out, nil
}

// tmpfsFlags are the options without a value; those of one group exclude each
// other, the last one counts.
var tmpfsFlags = map[string]string{
	"ro": "ro", "rw": "ro", "suid": "suid", "nosuid": "suid", "dev": "dev", "nodev": "dev", "exec": "exec",
	"noexec": "exec", "sync": "sync", "async": "sync", "dirsync": "dirsync", "remount": "remount", "mand": "mand",
	"nomand": "mand", "atime": "atime", "noatime": "atime", "diratime": "diratime", "nodiratime": "diratime",
	"bind": "propagation", "rbind": "propagation", "unbindable": "propagation", "runbindable": "propagation",
	"private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation", "relatime": "relatime", "norelatime": "relatime",
	"strictatime": "strictatime", "nostrictatime": "strictatime",
}

var tmpfsValues = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}

// mergeTmpfsOptions puts the options of a tmpfs after Docker's defaults; of
// two that exclude each other the later one counts.
func mergeTmpfsOptions(raw string) ([]string, error) {
	options := []string{"noexec", "nosuid", "nodev", string(mount.PropagationRPrivate)}
	if raw != "" {
		options = append(options, strings.Split(raw, ",")...)
	}
	seen := map[string]bool{}
	var out []string
	for _, o := range slices.Backward(options) {
		if o == "defaults" {
			continue
		}
		key, isFlag := tmpfsFlags[o]
		if !isFlag {
			name, _, hasValue := strings.Cut(o, "=")
			if !hasValue || !slices.Contains(tmpfsValues, name) {
				return nil, fmt.Errorf("invalid tmpfs option %q", name)
			}
			key = name + "="
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, o)
		}
	}
	slices.Reverse(out)
	return out, nil
}

func setSeccomp(s *specs.Spec, in SpecInput, security Security) error {
	profile := security.Seccomp
	switch {
	case profile == Unconfined:
		return nil
	case in.Host.Privileged && profile == "":
		return nil
	case !in.Facts.Seccomp:
		if profile != "" && profile != "builtin" {
			return errors.New("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
		}
		return nil
	case profile == "" && in.Defaults.Seccomp == Unconfined:
		return nil
	case profile == "":
		profile = in.Defaults.Seccomp
	case profile == "builtin":
		profile = ""
	}
	filter, err := in.Seccomp(profile, s)
	if err != nil {
		return err
	}
	s.Linux.Seccomp = filter
	return nil
}
