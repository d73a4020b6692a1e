package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/domain/version"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/engine/events"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/engine/system"
	"github.com/orlop/orlop/internal/httpapi"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/linux/orphan"
	program "github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/seccomp"
	"github.com/orlop/orlop/internal/logfile"
	"github.com/orlop/orlop/internal/monitor/daemonside"
	"github.com/orlop/orlop/internal/netdriver/bridge"
	"github.com/orlop/orlop/internal/netdriver/firewall"
	nethost "github.com/orlop/orlop/internal/netdriver/host"
	"github.com/orlop/orlop/internal/netdriver/ipvlan"
	"github.com/orlop/orlop/internal/netdriver/macvlan"
	"github.com/orlop/orlop/internal/netdriver/netd"
	"github.com/orlop/orlop/internal/netdriver/sandbox"
	"github.com/orlop/orlop/internal/netdriver/uplink"
	"github.com/orlop/orlop/internal/plugin"
	"github.com/orlop/orlop/internal/registry/remote"
	"github.com/orlop/orlop/internal/store/eventlog"
	"github.com/orlop/orlop/internal/store/layers"
	"github.com/orlop/orlop/internal/store/metadata"
	"github.com/orlop/orlop/internal/store/records"
	"github.com/orlop/orlop/internal/store/volumedir"
)

// engine is the wired engine as main uses it.
type engine struct {
	api http.Handler

	db         *metadata.DB
	broker     *events.Broker
	networks   *networks.Service
	containers *containers.Service
	images     *images.Service
	registry   *registries
	system     *system.Service
	machine    *host
	id         string
	volumes    *volumeList
	monitors   *daemonside.Launcher
	// ownGroup is the cgroup that only this engine uses; "" where the parent
	// is another's or systemd's.
	ownGroup string

	// closers undo what wire opened, the last first.
	closers []func() error
}

// wire builds the engine. Nothing runs yet, and nothing outside the data root
// was changed. On failure everything that was opened is closed.
func wire(ctx context.Context, c *Config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	runtimeBinary, err := findBinary(c.RuntimeBinary, "orlop-runtime", self, lookPath)
	if err != nil {
		return nil, err
	}
	netdBinary, err := findBinary(c.NetdBinary, "orlop-netd", self, lookPath)
	if err != nil {
		return nil, err
	}
	id, err := identity(c.DataRoot, c.EngineID)
	if err != nil {
		return nil, err
	}
	e.id = id.ID
	if err := c.canRemap(); err != nil {
		return nil, err
	}
	driver, err := c.cgroupDriver()
	if err != nil {
		return nil, err
	}
	machine, err := newHost(ctx, driver, c.IPForward, log)
	if err != nil {
		return nil, err
	}
	e.machine = machine

	// What is stored.
	e.db, err = metadata.Open(ctx, metadata.Config{Root: c.DataRoot, Namespace: id.Namespace, Logger: log, Now: now})
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, e.db.Close)
	layerStore, err := layers.New(layers.Config{
		Content: e.db.Content(), Snapshots: e.db.Snapshots(), Name: metadata.Snapshotter,
		UpperDirLabel: metadata.UpperDirLabel, NewID: newID, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	containerStore, err := records.OpenContainers(ctx, records.ContainersConfig{DB: e.db, Layers: layerStore, Logger: log})
	if err != nil {
		return nil, err
	}
	networkBucket, err := records.OpenBucket(ctx, e.db, records.BucketConfig{Name: "networks", Known: records.KeysOf(network.Record{})})
	if err != nil {
		return nil, err
	}
	volumeStore, err := volumedir.New(volumedir.Config{Root: filepath.Join(c.DataRoot, "volumes"), Now: now, NewID: newID})
	if err != nil {
		return nil, err
	}
	if err := volumeStore.Sweep(); err != nil {
		log.Warn("remove what is left of volumes", "error", err)
	}

	// Events.
	eventLog, err := eventlog.Open(eventlog.Config{Root: filepath.Join(c.DataRoot, "events"), Logger: log})
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, eventLog.Close)
	e.broker = events.New(events.Config{Log: eventLog, Logger: log, Now: now})

	// Images.
	if e.registry, err = newRegistries(c, log); err != nil {
		return nil, err
	}
	e.images, err = images.New(images.Config{
		Namespace: id.Namespace,
		Content:   e.db.Content(), Images: e.db.Images(), Leases: e.db.Leases(),
		Tx: func(ctx context.Context, fn func(context.Context) error) error {
			return e.db.Update(ctx, func(ctx context.Context, _ *bolt.Tx) error { return fn(ctx) })
		},
		Lease:    e.db.Lease,
		Layers:   layerStore,
		Registry: e.registry.open,
		Events:   e.broker,
		InUse:    func(image digest.Digest) []images.Use { return e.usersOf(image) },
		// The space is free when the removal returns.
		Released: func(ctx context.Context) error {
			if err := containerStore.ReleaseUnused(ctx); err != nil {
				return err
			}
			return e.db.Collect(ctx)
		},
		Driver: storageDriver, MaxDownloads: c.MaxDownloads, MaxUploads: c.MaxUploads,
		Now: now, NewID: newID, Logger: log,
	})
	if err != nil {
		return nil, err
	}

	// Networks.
	if e.networks, err = e.wireNetworks(c, id, netdBinary, networkBucket, log); err != nil {
		return nil, err
	}

	// Containers.
	if err := staticRuntime(runtimeBinary); err != nil {
		return nil, err
	}
	monitors, err := daemonside.New(daemonside.Config{Runtime: runtimeBinary, ExecRoot: c.ExecRoot, Logger: log, Now: now})
	if err != nil {
		return nil, err
	}
	e.monitors = monitors
	e.closers = append(e.closers, monitors.Close)
	logReader := logfile.NewReader()
	e.closers = append(e.closers, logReader.Close)
	containerSettings, err := c.containerSettings()
	if err != nil {
		return nil, err
	}
	cgroupParent := id.CgroupParent
	if machine.facts.CgroupSystemd {
		cgroupParent = id.SystemdSlice
	} else if c.CgroupParent == "" {
		e.ownGroup = id.CgroupParent
	}
	if err := (runDir{c.ExecRoot}).sweepPins(); err != nil {
		log.Error("drop what starts have left", "error", err)
	}
	e.containers, err = containers.New(containers.Config{
		Store:           containerStore,
		Launcher:        launcher{monitors},
		Images:          containerImages{e.images},
		Networks:        e.networks,
		NetworkWarnings: e.networkWarnings,
		Logs:            logs{logReader},
		Events:          e.broker,
		Host:            machine,
		Views:           views{},
		Volumes:         volumes{volumeStore},
		RunDir:          runDir{c.ExecRoot},
		Storage:         layerStorage{},
		Seccomp:         seccompProfile,

		Settings: containerSettings, CgroupParent: cgroupParent, CgroupPrefix: "orlop-" + id.ID,
		AppArmorProfile: lsm.DefaultProfile,
		Logger:          log, Now: now, NewID: newID,
	})
	if err != nil {
		return nil, err
	}

	e.volumes = &volumeList{store: volumeStore, containers: e.containers}
	if e.system, err = e.wireSystem(c, id, machine, e.images); err != nil {
		return nil, err
	}
	watcher, err := newHangups()
	if err != nil {
		return nil, err
	}
	e.api, err = httpapi.New(httpapi.Config{
		Containers: e.containers, Images: e.images, Networks: e.networks, Volumes: e.volumes, Events: e.broker, System: e.system,
		Product: "Orlop", Version: version.Version, MinVersion: c.MinAPIVersion, Experimental: c.Experimental,
		BuilderVersion: "2",
		Hangup:         watcher.watch,
		Taken:          awaitTaken,
		Logger:         log, Now: now,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// staticRuntime refuses a runtime whose every exec would fail: its stages are
// executed inside containers.
func staticRuntime(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open runtime: %w", err)
	}
	defer f.Close()
	return program.Static(f)
}

// wireNetworks connects to the kernel's network of the namespace the daemon
// runs in.
func (e *engine) wireNetworks(c *Config, id Identity, netdBinary string, bucket *records.Bucket, log *slog.Logger) (*networks.Service, error) {
	bridges, err := bridge.New()
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, bridges.Close)
	parents, err := uplink.New()
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, parents.Close)
	sandboxes, err := sandbox.New(idMap(c.IDMap.UIDs), idMap(c.IDMap.GIDs))
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, sandboxes.Close)
	rules, err := firewall.New(firewall.Config{Table: id.Table, Dir: c.ExecRoot, Mark: uint32(c.FirewallMark), WarnOnly: c.ForeignForward == "off", Logger: log})
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, rules.Close)
	def, err := c.defaultBridge()
	if err != nil {
		return nil, err
	}
	var fw networks.Firewall = rules
	if !c.Firewall {
		fw = openFirewall{}
	}
	return networks.New(networks.Config{
		Default: def, Pools: c.Pools, EngineID: id.ID, DriverOptions: c.NetworkOpts,
		DNS: c.DNS, DNSSearch: c.DNSSearch, DNSOptions: c.DNSOpts, HostGateway: c.HostGateway,
		KeepForwarding: !c.IPForward, PublishInput: network.Input(c.PublishInput),
		Plugins: networkPlugins{plugin.New(plugin.Config{
			Sockets: []string{filepath.Join(c.ExecRoot, "plugins"), "/run/docker/plugins"},
			Specs:   []string{"/etc/" + c.Brand.Dir + "/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"},
			Logger:  log,
		})},
		Drivers: map[string]networks.Driver{
			network.DriverBridge: bridges, network.Macvlan: macvlan.New(parents), network.Ipvlan: ipvlan.New(parents),
		},
		Sandboxes: sandboxes,
		Firewall:  fw,
		Nameserver: netd.New(netd.Config{
			Program: netdBinary, Dir: filepath.Join(c.ExecRoot, "netd"), Logger: log,
		}),
		Host:   nethost.New(log),
		Store:  networkStore{bucket},
		Events: e.broker,
		Logger: log, Now: now, NewID: newID,
	})
}

// restore brings back what the previous life of the daemon left: networks with
// the sandboxes that live, containers with their monitors, then what was left
// over is removed. It returns when every container answers.
func (e *engine) restore(ctx context.Context) error { return e.containers.Restore(ctx) }

// run runs the engine's own work until ctx ends.
func (e *engine) run(ctx context.Context) error {
	e.monitors.Prepare()
	g, ctx := errgroup.WithContext(ctx)
	for name, part := range map[string]func(context.Context) error{
		"events": e.broker.Run, "networks": e.networks.Run, "containers": e.containers.Run, "store": e.db.Run,
		"orphans": orphan.Run,
	} {
		g.Go(func() error {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// shutdown lets go of containers, or stops them first (stopAll).
func (e *engine) shutdown(ctx context.Context, stopAll bool) error {
	err := e.containers.Shutdown(ctx, stopAll)
	// Takes netd, table and bridge away when no container is left that names or
	// ports are kept for.
	err = errors.Join(err, e.networks.Shutdown(context.WithoutCancel(ctx)))
	if stopAll {
		err = errors.Join(err, e.removeGroup(ctx))
	}
	return err
}

// removeGroup removes the empty parent of the containers' cgroups, when it is
// the engine's own.
func (e *engine) removeGroup(ctx context.Context) error {
	if e.ownGroup == "" {
		return nil
	}
	group, err := cgroup.New(cgroup.Config{Path: e.ownGroup})
	if err != nil || !group.Exists() {
		return err
	}
	return group.Remove(ctx)
}

func (e *engine) close() error {
	var errs []error
	for i := len(e.closers) - 1; i >= 0; i-- {
		errs = append(errs, e.closers[i]())
	}
	e.closers = nil
	return errors.Join(errs...)
}

// usersOf lists the containers that stand on an image.
func (e *engine) usersOf(image digest.Digest) []images.Use {
	var out []images.Use
	for _, u := range e.containers.UsersOf(image.String()) {
		out = append(out, images.Use{ContainerID: u.ID, Running: u.Running})
	}
	return out
}

// seccompProfile is containers.Config.Seccomp.
func seccompProfile(profile string, spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	var caps []string
	if spec.Process != nil && spec.Process.Capabilities != nil {
		caps = spec.Process.Capabilities.Bounding
	}
	if profile == "" {
		return seccomp.DefaultProfile(caps)
	}
	return seccomp.LoadProfile([]byte(profile), caps)
}

// containerSettings are the options for containers.
func (c *Config) containerSettings() (containers.Settings, error) {
	s := containers.Settings{
		Runtimes:    map[string]containers.Runtime{"orlop": {}, "runc": {}},
		StopTimeout: time.Duration(c.StopTimeout) * time.Second,
	}
	var err error
	if s.Defaults, err = c.containerDefaults(); err != nil {
		return s, err
	}
	if s.Defaults.InitPath, err = c.initProgram(); err != nil {
		return s, err
	}
	for name, rt := range c.Runtimes {
		if path, err := lookPath(rt.Path); err == nil {
			rt.Path = path // one that is not there is told when it is wanted
		}
		s.Runtimes[name] = containers.Runtime{Path: rt.Path, Args: rt.Args}
	}
	return s, nil
}

// containerDefaults are the options that fill create requests.
func (c *Config) containerDefaults() (container.Defaults, error) {
	d := container.Defaults{
		ShmSize: c.ShmSize, IpcMode: containertypes.IpcMode(c.IpcMode), CgroupnsMode: containertypes.CgroupnsMode(c.CgroupnsMode),
		Runtime:         c.DefaultRuntime,
		Log:             containertypes.LogConfig{Type: c.LogDriver, Config: c.LogOpts},
		NoNewPrivileges: c.NoNewPrivileges, Init: c.Init,
		CgroupParent: c.CgroupParent, RootDir: c.DataRoot, IDMap: c.IDMap,
	}
	if err := container.ValidateLogConfig(containertypes.LogConfig{Type: c.LogDriver}); err != nil {
		return d, fmt.Errorf("error finding the logging driver: %w", err)
	}
	if err := container.ValidateLogConfig(d.Log); err != nil {
		return d, fmt.Errorf("failed to set log opts: %w", err)
	}
	for _, limit := range c.Ulimits {
		d.Ulimits = append(d.Ulimits, limit)
	}
	switch c.SeccompProfile {
	case "", "builtin":
	case "unconfined":
		d.Seccomp = "unconfined"
	default:
		raw, err := os.ReadFile(c.SeccompProfile)
		if err != nil {
			return d, fmt.Errorf("opening seccomp profile (%s) failed: %w", c.SeccompProfile, err)
		}
		if _, err := seccomp.LoadProfile(raw, nil); err != nil {
			return d, fmt.Errorf("seccomp profile %s: %w", c.SeccompProfile, err)
		}
		d.Seccomp = string(raw)
	}
	return d, nil
}

// defaultBridge describes the default network.
func (c *Config) defaultBridge() (network.DefaultBridge, error) {
	d := network.DefaultBridge{
		Disabled: c.Bridge == "none", Device: c.BridgeName,
		Gateway: c.Gateway, Gateway6: c.Gateway6, MTU: c.MTU,
		ICC: c.ICC, Masquerade: c.IPMasq, IPv6: c.IPv6, HostIP: c.HostIP,
	}
	if c.Bridge != "" && c.Bridge != "none" {
		d.Device, d.Foreign = c.Bridge, true
	}
	for _, p := range []struct {
		text string
		into *netip.Prefix
	}{{c.BIP, &d.Address}, {c.BIP6, &d.Address6}, {c.FixedCIDR, &d.Range}, {c.FixedCIDR6, &d.Range6}} {
		if p.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p.text)
		if err != nil {
			return d, err
		}
		*p.into = prefix
	}
	return d, nil
}

// registries is the client of registries, replaced when its configuration is
// reloaded.
type registries struct {
	*holder[*remote.Client]
	log *slog.Logger
}

func newRegistries(c *Config, log *slog.Logger) (*registries, error) {
	client, err := remote.New(remoteConfig(c, log))
	if err != nil {
		return nil, err
	}
	return &registries{hold(client), log}, nil
}

func remoteConfig(c *Config, log *slog.Logger) remote.Config {
	return remote.Config{
		Insecure: c.InsecureRegistries, Mirrors: c.RegistryMirrors, CertsDir: "/etc/" + c.Brand.Dir + "/certs.d",
		UserAgent: "orlop/" + version.Version, Attempts: c.MaxDownloadAttempts, Logger: log,
	}
}

func (r *registries) reload(c *Config) error {
	client, err := remote.New(remoteConfig(c, r.log))
	if err != nil {
		return err
	}
	r.set(client)
	return nil
}

func (r *registries) open(ctx context.Context, ref reference.Named, access image.Access) (images.Repository, error) {
	return r.get().Open(ctx, ref, access)
}

// now is the clock that every part is given.
func now() time.Time { return time.Now() }

// networkWarnings are those of the firewall as a container's maker sees them:
// the client says itself that they are warnings.
func (e *engine) networkWarnings() []string {
	list := e.networks.Warnings()
	for i, w := range list {
		list[i] = strings.TrimPrefix(w, "WARNING: ")
	}
	return list
}
