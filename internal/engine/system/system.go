// Package system tells about the engine as a whole: Info and Version, what is
// on the disk, and whether credentials are good.
//
// Entry point: New. There is one lock, Service.mu, around the settings that a
// reload of the configuration replaces; nothing is called with it held.
package system

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/orlop/orlop/internal/domain/container"
)

// Containers is what is asked about containers.
type Containers interface {
	// Counts by state.
	Counts() (all, running, paused, stopped int)
	// Sizes lists every container with its sizes.
	Sizes(ctx context.Context) ([]containertypes.Summary, error)
}

// Images is what is asked about images.
type Images interface {
	Count(ctx context.Context) (int, error)
	// Usage lists the images with shared sizes and the number of containers
	// of each, and the bytes that all layers take on the disk.
	Usage(ctx context.Context) (images []imagetypes.Summary, layers int64, err error)
}

// Volumes is what is asked about volumes; each has its UsageData.
type Volumes interface {
	Usage(ctx context.Context) ([]volumetypes.Volume, error)
}

// Machine is what does not change while the daemon runs.
type Machine struct {
	// Kernel as uname -r, OperatingSystem and OSVersion as /etc/os-release
	// have them, Architecture as uname -m.
	Kernel, OperatingSystem, OSVersion, Architecture string
	NCPU                                             int
	// MemTotal in bytes.
	MemTotal int64
	Facts    container.HostFacts
}

// Build says what the daemon was built from.
type Build struct {
	// Product is the platform's name, e.g. "Orlop".
	Product, Version, Commit string
	// Built is RFC 3339.
	Built string
	// Components are other parts with a version of their own, e.g. the
	// runtime.
	Components []systemtypes.ComponentVersion
}

// Settings are the daemon's own configuration, as far as /info shows it. They
// can be replaced while it runs.
type Settings struct {
	Labels []string
	// UserNS: containers are in user namespaces unless they say otherwise.
	UserNS         bool
	Debug          bool
	Experimental   bool
	LiveRestore    bool
	LogDriver      string
	DefaultRuntime string
	Runtimes       map[string]systemtypes.Runtime
	InitBinary     string
	// SeccompProfile is "builtin", "unconfined" or the path of a file.
	SeccompProfile  string
	NoNewPrivileges bool
	// CgroupnsPrivate: containers get a cgroup namespace of their own.
	CgroupnsPrivate bool
	// HTTPProxy and HTTPSProxy without credentials.
	HTTPProxy, HTTPSProxy, NoProxy string
	AddressPools                   []systemtypes.NetworkAddressPool
	Registry                       *registry.ServiceConfig
	CDISpecDirs                    []string
	// Hosts the API listens on, TLS whether TCP is encrypted, TLSVerify
	// whether clients must have a certificate.
	Hosts          []string
	TLS, TLSVerify bool
}

// Config of a Service; every field is required unless it says otherwise.
type Config struct {
	// ID of the engine, stable across restarts.
	ID string
	// DataRoot is the daemon's folder.
	DataRoot string
	// Driver is the name of the layer store, DriverStatus what `docker info`
	// shows below it.
	Driver       string
	DriverStatus [][2]string
	// Namespace of containerd's libraries in this process.
	Namespace string
	// Firewall shown by info; nil when there is none.
	Firewall *systemtypes.FirewallInfo
	// NetworkWarnings are added to the warnings of info; nil for none.
	NetworkWarnings func() []string
	// NetworkDrivers and LogDrivers that can be asked for.
	NetworkDrivers, LogDrivers []string

	Machine    Machine
	Build      Build
	Settings   Settings
	Containers Containers
	Images     Images
	// Volumes may be nil.
	Volumes Volumes
	// Hostname, OpenFiles and Listeners (of events) are asked each time.
	Hostname  func() string
	OpenFiles func() int
	Listeners func() int
	// Login checks credentials with their registry.
	Login func(ctx context.Context, credentials registry.AuthConfig) (token string, err error)
	// MinAPI and MaxAPI versions, "major.minor".
	MinAPI, MaxAPI string
	Now            func() time.Time
}

// Service is safe for concurrent use.
type Service struct {
	cfg Config

	mu       sync.RWMutex
	settings Settings
}

// New checks the configuration and makes a service.
func New(cfg Config) (*Service, error) {
	for name, missing := range map[string]bool{
		"ID": cfg.ID == "", "Containers": cfg.Containers == nil, "Images": cfg.Images == nil, "Hostname": cfg.Hostname == nil,
		"OpenFiles": cfg.OpenFiles == nil, "Listeners": cfg.Listeners == nil, "Login": cfg.Login == nil, "Now": cfg.Now == nil,
	} {
		if missing {
			return nil, errors.New("system: configuration has no " + name)
		}
	}
	return &Service{cfg: cfg, settings: cfg.Settings}, nil
}

// Reload replaces the settings.
func (s *Service) Reload(settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings = settings
}

func (s *Service) current() Settings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.settings
}

// Auth checks credentials with their registry; the token may be empty.
func (s *Service) Auth(ctx context.Context, credentials registry.AuthConfig) (string, error) {
	return s.cfg.Login(ctx, credentials)
}

// Version tells what the daemon is.
func (s *Service) Version(context.Context) (systemtypes.VersionResponse, error) {
	b, set := s.cfg.Build, s.current()
	details := map[string]string{
		"GitCommit":     b.Commit,
		"ApiVersion":    s.cfg.MaxAPI,
		"MinAPIVersion": s.cfg.MinAPI,
		"GoVersion":     runtime.Version(),
		"Os":            runtime.GOOS,
		"Arch":          runtime.GOARCH,
		"BuildTime":     b.Built,
		"KernelVersion": s.cfg.Machine.Kernel,
		"Experimental":  boolText(set.Experimental),
	}
	v := systemtypes.VersionResponse{
		Platform:      systemtypes.PlatformInfo{Name: b.Product},
		Version:       b.Version,
		APIVersion:    s.cfg.MaxAPI,
		MinAPIVersion: s.cfg.MinAPI,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		Components:    []systemtypes.ComponentVersion{{Name: "Engine", Version: b.Version, Details: details}},
		GitCommit:     b.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: s.cfg.Machine.Kernel,
		Experimental:  set.Experimental,
		BuildTime:     b.Built,
	}
	v.Components = append(v.Components, b.Components...)
	return v, nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
