package main

import (
	"net/netip"
	"path/filepath"

	containertypes "github.com/moby/moby/api/types/container"
	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/netdriver/firewall"
)

// Config is everything a user can choose about an engine: the defaults, then
// daemon.json, then the command line. It is read once and not changed; a reload
// makes a new one (reload.go).
type Config struct {
	// Brand is how the engine calls itself and what its defaults are named.
	Brand Brand

	Hosts       []string
	DataRoot    string
	ExecRoot    string
	PidFile     string
	SocketGroup string
	EngineID    string
	Labels      []string

	TLS, TLSVerify            bool
	TLSSet                    bool // --tls or --tlsverify was given either way
	TLSCA, TLSCert, TLSKey    string
	MinAPIVersion             string
	Experimental              bool
	Debug                     bool
	LogLevel, LogFormat       string
	ShutdownTimeout           int // seconds; negative waits without end
	LiveRestore               bool
	RuntimeBinary, NetdBinary string

	// Defaults of containers.
	LogDriver       string
	LogOpts         map[string]string
	CgroupParent    string
	ExecOpts        []string
	DefaultRuntime  string
	Runtimes        map[string]systemtypes.Runtime
	Ulimits         map[string]*containertypes.Ulimit
	StopTimeout     int // seconds
	ShmSize         int64
	IpcMode         string
	CgroupnsMode    string
	Init            bool
	NoNewPrivileges bool
	InitPath        string
	SeccompProfile  string
	// UsernsRemap is user[:group], by name or number, or "default"; IDMap is
	// what it leads to, see remap.
	UsernsRemap string
	IDMap       container.IDMap

	// Networks.
	Bridge            string
	BridgeName        string
	BIP, BIP6         string
	FixedCIDR         string
	FixedCIDR6        string
	Gateway, Gateway6 netip.Addr
	IPv6, ICC, IPMasq bool
	IPForward         bool
	Firewall          bool
	// ForeignForward is "auto" or "off".
	ForeignForward string
	FirewallMark   int
	// PublishInput is "bypass" or "obey".
	PublishInput string
	HostIP       netip.Addr
	MTU          int
	Pools        []network.Pool
	// NetworkOpts are options of networks by driver.
	NetworkOpts        map[string]map[string]string
	DNS                []netip.Addr
	DNSSearch, DNSOpts []string
	HostGateway        []netip.Addr

	// Registries.
	InsecureRegistries             []string
	RegistryMirrors                []string
	MaxDownloads                   int
	MaxUploads                     int
	MaxDownloadAttempts            int
	HTTPProxy, HTTPSProxy, NoProxy string

	StorageDriver string
	Features      map[string]bool
}

// Brand is what differs between an engine started as orlopd and one started
// under the name dockerd, which takes the place of Docker's on a host.
type Brand struct {
	// Program is the command's name, Product how messages call the engine.
	Program, Product string
	// Dir names the folders below /etc, /run and /var/lib, and the socket.
	Dir string
	// Group owns the socket when it exists.
	Group string
	// Device is the default bridge.
	Device string
	// LiveRestore is the default of that option.
	LiveRestore bool
}

// brandOf chooses by the name the program was started as.
func brandOf(argv0 string) Brand {
	if filepath.Base(argv0) == "dockerd" {
		return Brand{Program: "dockerd", Product: "Docker", Dir: "docker", Group: "docker", Device: "docker0"}
	}
	return Brand{Program: "orlopd", Product: "Orlop", Dir: "orlop", Group: "orlop", Device: "orlop0", LiveRestore: true}
}

// ConfigFile is where daemon.json is looked for when no other is named.
func (b Brand) ConfigFile() string { return "/etc/" + b.Dir + "/daemon.json" }

// Socket is the default listener. Docker's clients look for it in /var/run,
// which is /run on every system of this century but may be another folder.
func (b Brand) Socket() string {
	if b.Dir == "docker" {
		return "unix:///var/run/docker.sock"
	}
	return "unix:///run/orlop/orlop.sock"
}

// defaultConfig has Docker's defaults where Docker has the option.
func defaultConfig(b Brand) *Config {
	c := &Config{
		Brand:           b,
		DataRoot:        "/var/lib/" + b.Dir,
		ExecRoot:        "/run/" + b.Dir,
		SocketGroup:     b.Group,
		MinAPIVersion:   "1.24",
		LogLevel:        "info",
		LogFormat:       "text",
		ShutdownTimeout: 15,
		LiveRestore:     b.LiveRestore,
		LogDriver:       "json-file",
		LogOpts:         map[string]string{},
		DefaultRuntime:  "orlop",
		Runtimes:        map[string]systemtypes.Runtime{},
		Ulimits:         map[string]*containertypes.Ulimit{},
		StopTimeout:     10,
		ShmSize:         64 << 20,
		IpcMode:         "private",
		SeccompProfile:  "builtin",
		BridgeName:      b.Device,
		ICC:             true,
		IPMasq:          true,
		IPForward:       true,
		Firewall:        true,
		ForeignForward:  "auto", FirewallMark: int(firewall.DefaultMark),
		PublishInput: string(network.InputBypass),
		HostIP:       netip.IPv4Unspecified(),
		MTU:          1500,
		MaxDownloads: 3, MaxUploads: 5, MaxDownloadAttempts: 5,
		Features: map[string]bool{},
	}
	c.PidFile = "/run/" + b.Dir + "/" + b.Program + ".pid"
	if b.Dir == "docker" {
		c.DefaultRuntime = "runc"
		c.PidFile = "/run/docker.pid"
	}
	return c
}
