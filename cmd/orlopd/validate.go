package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/httpapi"
)

// normalize fills in what depends on other values and refuses what cannot be.
func (c *Config) normalize() error {
	c.Hosts = slices.DeleteFunc(c.Hosts, func(h string) bool { return strings.TrimSpace(h) == "" })
	if len(c.Hosts) == 0 {
		c.Hosts = []string{c.Brand.Socket()}
		if c.TLS {
			c.Hosts = []string{"tcp://localhost:2376"}
		}
	}
	for i, h := range c.Hosts {
		parsed, err := parseHost(h, c.Brand)
		if err != nil {
			return err
		}
		c.Hosts[i] = parsed
	}
	slices.Sort(c.Hosts)
	c.Hosts = slices.Compact(c.Hosts)

	labels, err := mergeLabels(c.Labels)
	if err != nil {
		return err
	}
	c.Labels = labels
	return c.validate()
}

func (c *Config) validate() error {
	switch strings.ToLower(c.LogLevel) {
	case "panic", "fatal", "error", "warn", "info", "debug", "trace":
	default:
		return fmt.Errorf("invalid logging level: %s", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("invalid log format: %s", c.LogFormat)
	}
	if _, err := httpapi.ValidateMinVersion(c.MinAPIVersion); err != nil {
		return fmt.Errorf("invalid min-api-version: %w", err)
	}
	for _, n := range []struct {
		what  string
		value int
	}{
		{"default MTU", c.MTU}, {"max concurrent downloads", c.MaxDownloads}, {"max concurrent uploads", c.MaxUploads},
		{"max download attempts", c.MaxDownloadAttempts}, {"default stop timeout", c.StopTimeout},
	} {
		if n.value < 0 {
			return fmt.Errorf("invalid %s: %d", n.what, n.value)
		}
	}
	if c.ForeignForward != "auto" && c.ForeignForward != "off" {
		return fmt.Errorf("invalid foreign-forward: %s (auto or off)", c.ForeignForward)
	}
	if _, err := network.ParseInput("publish-input", c.PublishInput); err != nil {
		return err
	}
	if m := c.FirewallMark; m <= 0 || m > 1<<31 || m&(m-1) != 0 {
		return fmt.Errorf("invalid firewall-mark: %d is not one bit of 32", m)
	}
	if _, err := c.cgroupDriver(); err != nil {
		return err
	}
	if mode := containertypes.IpcMode(c.IpcMode); mode != "" && !mode.IsPrivate() && !mode.IsShareable() {
		return fmt.Errorf(`IPC mode "%v" is not supported as default value; use "shareable" or "private"`, mode)
	}
	if mode := containertypes.CgroupnsMode(c.CgroupnsMode); !mode.Valid() {
		return fmt.Errorf(`invalid default cgroup namespace (%v): use "host" or "private"`, mode)
	}
	if c.EngineID != "" && !engineIDPattern.MatchString(c.EngineID) {
		return fmt.Errorf("invalid engine-id %q: 8 hex digits are needed", c.EngineID)
	}
	switch c.StorageDriver {
	case "", "overlay2", "overlayfs":
	default:
		return fmt.Errorf("storage driver %q is not available: this engine has overlay2 only", c.StorageDriver)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Features)) {
		on := c.Features[name]
		switch {
		case name == "containerd-snapshotter" && on, name == "buildkit" && on, name == "cdi" && !on, !on:
		default:
			return fmt.Errorf("feature %q is not available in this version of the engine", name)
		}
	}
	if name := c.DefaultRuntime; !reservedRuntime(name) {
		if _, ok := c.Runtimes[name]; !ok {
			return fmt.Errorf("specified default runtime '%s' does not exist", name)
		}
	}
	return c.validateNetwork()
}

func (c *Config) validateNetwork() error {
	if c.Bridge != "" && c.BIP != "" {
		return errors.New("You specified -b & --bip, mutually exclusive options. Please specify only one")
	}
	if !linkNamePattern.MatchString(c.BridgeName) {
		return fmt.Errorf("invalid bridge-name %q: 1 to 15 letters, digits, '-', '_' or '.' are needed", c.BridgeName)
	}
	if !c.Firewall && c.IPMasq {
		// Masquerading is a firewall rule; Docker leaves it out silently.
		c.IPMasq = false
	}
	for _, p := range []struct {
		option, value string
		six           bool
	}{{"bip", c.BIP, false}, {"bip6", c.BIP6, true}, {"fixed-cidr", c.FixedCIDR, false}, {"fixed-cidr-v6", c.FixedCIDR6, true}} {
		if p.value == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p.value)
		if err != nil {
			return fmt.Errorf("invalid %s: invalid CIDR address: %s", p.option, p.value)
		}
		if prefix.Addr().Is6() != p.six {
			return fmt.Errorf("invalid %s: %s is of the wrong address family", p.option, p.value)
		}
	}
	return nil
}

// cgroupDriver reads --exec-opt native.cgroupdriver: "cgroupfs", "systemd" or
// "" when it is not given.
func (c *Config) cgroupDriver() (string, error) {
	driver := ""
	for _, opt := range c.ExecOpts {
		key, value, ok := strings.Cut(opt, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if !ok || key == "" || value == "" {
			return "", fmt.Errorf("invalid exec-opt (%s): must be formatted 'opt=value'", opt)
		}
		if key != "native.cgroupdriver" {
			return "", fmt.Errorf("invalid exec-opt (%s): unknown option: '%s'", opt, key)
		}
		if value != "cgroupfs" && value != "systemd" {
			return "", fmt.Errorf("invalid exec-opt (%s): native.cgroupdriver option %s is not internally supported", opt, value)
		}
		driver = value
	}
	return driver, nil
}

var (
	engineIDPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)
	linkNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
	domainPattern   = regexp.MustCompile(`^(:?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])))*)\.?$`)
)

func checkLabel(v string) (string, error) {
	if key, _, ok := strings.Cut(v, "="); !ok || key == "" {
		return "", fmt.Errorf("bad attribute format: %s", v)
	}
	return v, nil
}

// mergeLabels removes repeated labels and refuses those that contradict.
func mergeLabels(labels []string) ([]string, error) {
	values := map[string]string{}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		if old, ok := values[key]; ok && old != value {
			return nil, fmt.Errorf("conflict labels for %s=%s and %s=%s", key, value, key, old)
		}
		values[key] = value
	}
	out := []string{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		out = append(out, key+"="+values[key])
	}
	return out, nil
}

func checkSearchDomain(v string) (string, error) {
	trimmed := strings.Trim(v, " ")
	if trimmed == "." {
		return trimmed, nil
	}
	if !strings.ContainsAny(trimmed, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ||
		!domainPattern.MatchString(trimmed) || len(trimmed) > 254 {
		return "", fmt.Errorf("%s is not a valid domain", v)
	}
	return trimmed, nil
}

func checkMirror(v string) (string, error) {
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return "", fmt.Errorf("invalid mirror: %q is not a valid URI: %w", v, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", v)
	case u.Host == "":
		return "", fmt.Errorf("invalid mirror: %q has no host", v)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("invalid mirror: query or fragment at end of the URI %q", v)
	case u.User != nil:
		return "", fmt.Errorf("invalid mirror: username/password not allowed in URI %q", maskURL(v))
	}
	return strings.TrimSuffix(v, "/") + "/", nil
}

func checkHost(v string) (string, error) {
	if strings.TrimSpace(v) == "" {
		return v, nil
	}
	_, err := parseHost(strings.TrimSpace(v), Brand{})
	return strings.TrimSpace(v), err
}

// parseHost brings a listener's address into the form proto://address.
func parseHost(h string, b Brand) (string, error) {
	proto, addr, ok := strings.Cut(h, "://")
	if !ok {
		proto, addr = "tcp", h
	}
	refuse := func(cause string) error { return fmt.Errorf("invalid bind address (%s): %s", h, cause) }
	switch proto {
	case "fd":
		return h, nil
	case "unix":
		if strings.Contains(addr, "://") {
			return "", refuse("invalid unix address: " + addr)
		}
		if addr == "" {
			return b.Socket(), nil
		}
		return "unix://" + addr, nil
	case "tcp":
		u, err := url.Parse("tcp://" + addr)
		if err != nil {
			return "", refuse(err.Error())
		}
		if u.Path != "" {
			return "", refuse("should not contain a path element")
		}
		host, port := u.Hostname(), u.Port()
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			port = "2375"
		}
		if n, err := strconv.Atoi(port); err != nil || n == 0 || n > 65535 {
			return "", refuse("invalid port: " + port)
		}
		return "tcp://" + net.JoinHostPort(host, port), nil
	}
	return "", refuse(fmt.Sprintf("unsupported proto '%s'", proto))
}
