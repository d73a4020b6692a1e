package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	eventtypes "github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/domain/version"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/engine/system"
	"github.com/orlop/orlop/internal/store/metadata"
)

func (e *engine) wireSystem(c *Config, id Identity, machine *host, imageService *images.Service) (*system.Service, error) {
	var firewallInfo *systemtypes.FirewallInfo
	if c.Firewall {
		firewallInfo = &systemtypes.FirewallInfo{Driver: "nftables", Info: [][2]string{{"Table", id.Table}}}
	}
	return system.New(system.Config{
		ID: id.ID, DataRoot: c.DataRoot,
		Driver: storageDriver, DriverStatus: driverStatus(c.DataRoot), Namespace: id.Namespace,
		Firewall:        firewallInfo,
		NetworkWarnings: e.networks.Warnings,
		NetworkDrivers:  []string{network.DriverBridge, network.DriverHost, network.Ipvlan, network.Macvlan, network.DriverNull},
		LogDrivers:      []string{"json-file", "local"},
		Machine:         describeMachine(machine),
		Build: system.Build{
			Product: "Orlop", Version: version.Version, Commit: version.Commit, Built: version.Built,
		},
		Settings:   c.settings(machine),
		Containers: e.containers,
		Images:     imageUsage{imageService, e.db},
		Volumes:    e.volumes,
		Hostname:   machine.Hostname,
		OpenFiles:  openFiles,
		Listeners:  e.broker.Listeners,
		Login: func(ctx context.Context, credentials registry.AuthConfig) (string, error) {
			return e.registry.get().Login(ctx, credentials)
		},
		MinAPI: c.MinAPIVersion, MaxAPI: version.MaxAPI, Now: now,
	})
}

// settings are the options that /info shows.
func (c *Config) settings(machine *host) system.Settings {
	s := system.Settings{
		Labels: c.Labels, UserNS: !c.IDMap.Empty(), Debug: c.Debug, Experimental: c.Experimental, LiveRestore: c.LiveRestore,
		LogDriver: c.LogDriver, DefaultRuntime: c.DefaultRuntime, InitBinary: c.initBinary(),
		Runtimes:       map[string]systemtypes.Runtime{"orlop": {Path: "orlop-runtime"}, "runc": {Path: "orlop-runtime"}},
		SeccompProfile: c.SeccompProfile, NoNewPrivileges: c.NoNewPrivileges,
		CgroupnsPrivate: c.CgroupnsMode == "private" || c.CgroupnsMode == "" && machine.facts.CgroupVersion == 2,
		HTTPProxy:       maskURL(c.HTTPProxy), HTTPSProxy: maskURL(c.HTTPSProxy), NoProxy: c.NoProxy,
		Registry: c.registryInfo(), CDISpecDirs: []string{},
		Hosts: c.Hosts, TLS: c.TLS, TLSVerify: c.TLSVerify,
	}
	for name, rt := range c.Runtimes {
		s.Runtimes[name] = rt
	}
	for _, p := range c.Pools {
		s.AddressPools = append(s.AddressPools, systemtypes.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	return s
}

// registryInfo is how /info describes the registries.
func (c *Config) registryInfo() *registry.ServiceConfig {
	info := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               []string{},
	}
	if len(c.RegistryMirrors) > 0 {
		info.Mirrors = c.RegistryMirrors
		info.IndexConfigs["docker.io"].Mirrors = c.RegistryMirrors
	}
	for _, name := range c.InsecureRegistries {
		if prefix, err := netip.ParsePrefix(name); err == nil {
			info.InsecureRegistryCIDRs = append(info.InsecureRegistryCIDRs, prefix)
			continue
		}
		info.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
	}
	return info
}

// reload takes over what may change while containers run; all of it or, with an
// error, nothing. Who listens to events is told, as by Docker, also when
// nothing has changed.
func (e *engine) reload(_ context.Context, c *Config) error {
	settings, err := c.containerSettings()
	if err != nil {
		return err
	}
	if err := e.registry.reload(c); err != nil {
		return err
	}
	e.containers.Reload(settings)
	e.images.Bound(c.MaxDownloads, c.MaxUploads)
	e.system.Reload(c.settings(e.machine))
	attributes := c.reloadAttributes()
	attributes["name"] = e.machine.Hostname()
	e.broker.Publish(eventtypes.Message{
		Type: eventtypes.DaemonEventType, Action: eventtypes.ActionReload,
		Actor: eventtypes.Actor{ID: e.id, Attributes: attributes},
	})
	return nil
}

// reloadAttributes are those of Docker's event "reload": every option that it
// looks at again.
func (c *Config) reloadAttributes() map[string]string {
	list := func(l []string) string {
		if len(l) == 0 {
			return "[]"
		}
		raw, err := json.Marshal(l)
		if err != nil {
			panic(err) // strings only
		}
		return string(raw)
	}
	var runtimes []string
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		runtimes = append(runtimes, name+":"+c.Runtimes[name].Path)
	}
	return map[string]string{
		"debug": strconv.FormatBool(c.Debug), "labels": list(c.Labels), "live-restore": strconv.FormatBool(c.LiveRestore),
		"shutdown-timeout": strconv.Itoa(c.ShutdownTimeout), "default-stop-timeout": strconv.Itoa(c.StopTimeout),
		"features":            fmt.Sprint(c.Features),
		"insecure-registries": list(c.InsecureRegistries), "registry-mirrors": list(c.RegistryMirrors),
		"max-concurrent-downloads": strconv.Itoa(c.MaxDownloads), "max-concurrent-uploads": strconv.Itoa(c.MaxUploads),
		"max-download-attempts": strconv.Itoa(c.MaxDownloadAttempts),
		"runtimes":              strings.Join(runtimes, " "), "default-runtime": c.DefaultRuntime,
		"default-shm-size": strconv.FormatInt(c.ShmSize, 10), "default-ipc-mode": c.IpcMode, "default-cgroupns-mode": c.CgroupnsMode,
	}
}

func describeMachine(h *host) system.Machine {
	m := system.Machine{NCPU: h.facts.NCPU, MemTotal: int64(memTotal()), Facts: h.facts}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel, m.Architecture = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	}
	m.OperatingSystem, m.OSVersion = osRelease()
	return m
}

// osRelease reads os-release(5): the system's name for people, and its version.
func osRelease() (name, osVersion string) {
	name = "Linux"
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			key, value, _ := strings.Cut(strings.TrimSpace(in.Text()), "=")
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
			switch key {
			case "PRETTY_NAME":
				name = value
			case "VERSION_ID":
				osVersion = value
			}
		}
		break
	}
	return name, osVersion
}

// driverStatus is what `docker info` shows below the storage driver.
func driverStatus(root string) [][2]string {
	status := [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil {
		if name, ok := fileSystems[st.Type]; ok {
			status = append([][2]string{{"Backing Filesystem", name}}, status...)
		}
	}
	return status
}

// fileSystems by the magic number of statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "zfs",
}

// openFiles counts the daemon's descriptors.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // the one that reads the folder
}

// imageUsage is system.Images.
type imageUsage struct {
	s  *images.Service
	db *metadata.DB
}

func (i imageUsage) Count(ctx context.Context) (int, error) { return i.s.Count(ctx) }

func (i imageUsage) Usage(ctx context.Context) ([]imagetypes.Summary, int64, error) {
	list, err := i.s.List(ctx, images.ListOptions{SharedSize: true})
	if err != nil {
		return nil, 0, err
	}
	// Every layer counts once, however many images stand on it.
	var total int64
	ctx = i.db.Context(ctx)
	err = i.db.Snapshots().Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		usage, err := i.db.Snapshots().Usage(ctx, info.Name)
		total += usage.Size
		return err
	})
	return list, total, err
}
