package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func noEnv(string) string { return "" }

// configure parses args and loads a daemon.json with the given text ("" for
// none).
func configure(t *testing.T, argv0, file string, args ...string) (*Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "daemon.json")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config-file", path)
	} else if !slices.Contains(args, "--config-file") {
		args = append(args, "--config-file=")
	}
	cmd, err := parse(brandOf(argv0), args)
	if err != nil {
		return nil, err
	}
	return cmd.config, cmd.load(noEnv)
}

func TestDefaultsByName(t *testing.T) {
	c, err := configure(t, "/usr/bin/orlopd", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Hosts[0] != "unix:///run/orlop/orlop.sock" || c.DataRoot != "/var/lib/orlop" || !c.LiveRestore || c.SocketGroup != "orlop" || c.BridgeName != "orlop0" {
		t.Errorf("orlopd: %+v", c)
	}
	c, err = configure(t, "/usr/bin/dockerd", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Hosts[0] != "unix:///var/run/docker.sock" || c.DataRoot != "/var/lib/docker" || c.LiveRestore || c.SocketGroup != "docker" || c.BridgeName != "docker0" {
		t.Errorf("dockerd: %+v", c)
	}
}

func TestFlagsAreDockers(t *testing.T) {
	c, err := configure(t, "orlopd", "",
		"-H", "unix:///tmp/a.sock", "-H", "tcp://127.0.0.1:2375", "--tls=false", "-D", "-l", "warn", "-p", "/tmp/p", "-G", "wheel", "-b", "none",
		"--dns", "1.1.1.1,2.2.2.2", "--dns", "3.3.3.3", "--default-address-pool", "base=10.0.0.0/8,size=24",
		"--log-opt", "max-size=1m", "--add-runtime", "crun=/usr/bin/crun", "--default-ulimit", "nofile=10:20",
		"--default-shm-size", "32m", "--ip", "127.0.0.1", "--live-restore=false", "--exec-opt", "native.cgroupdriver=systemd", "--label", "b=2", "--label", "a=1")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 2 || !c.Debug || c.LogLevel != "warn" || c.PidFile != "/tmp/p" || c.SocketGroup != "wheel" || c.Bridge != "none" ||
		len(c.DNS) != 3 || c.Pools[0].Size != 24 || c.LogOpts["max-size"] != "1m" || c.Runtimes["crun"].Path != "/usr/bin/crun" ||
		c.Ulimits["nofile"].Hard != 20 || c.ShmSize != 32<<20 || c.HostIP != netip.MustParseAddr("127.0.0.1") || c.LiveRestore ||
		!slices.Equal(c.Labels, []string{"a=1", "b=2"}) {
		t.Errorf("%+v", c)
	}
	if driver, err := c.cgroupDriver(); driver != "systemd" || err != nil {
		t.Errorf("cgroup driver %q, %v", driver, err)
	}
}

func TestTheFileHasDockersKeys(t *testing.T) {
	c, err := configure(t, "orlopd", "\xef\xbb\xbf"+`{
		"hosts": ["unix:///tmp/x.sock"], "debug": true, "live-restore": false, "icc": false, "log-driver": "local",
		"log-opts": {"max-file": "3"}, "dns": ["9.9.9.9"], "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}],
		"runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}}, "default-runtime": "crun",
		"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64, "Soft": 32}}, "proxies": {"http-proxy": "http://p:1"},
		"default-shm-size": "1g", "max-concurrent-downloads": 7, "bip": "172.30.0.1/24", "features": {"containerd-snapshotter": true},
		"host-gateway-ip": "10.0.0.1", "userns-remap": "", "storage-driver": "overlay2", "mtu": 1400, "labels": ["x=y"]
	}`, "--add-runtime", "other=/bin/other")
	if err != nil {
		t.Fatal(err)
	}
	if c.Hosts[0] != "unix:///tmp/x.sock" || !c.Debug || c.LiveRestore || c.ICC || c.LogDriver != "local" || c.LogOpts["max-file"] != "3" ||
		c.DNS[0].String() != "9.9.9.9" || c.Pools[0].Base.String() != "10.1.0.0/16" || c.Runtimes["crun"].Args[0] != "--debug" ||
		c.Runtimes["other"].Path != "/bin/other" || c.Ulimits["nofile"].Soft != 32 || c.HTTPProxy != "http://p:1" || c.ShmSize != 1<<30 ||
		c.MaxDownloads != 7 || c.BIP != "172.30.0.1/24" || c.HostGateway[0].String() != "10.0.0.1" || c.MTU != 1400 {
		t.Errorf("%+v", c)
	}
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name, file string
		args       []string
		want       string
	}{
		{"flag and file", `{"debug": true}`, []string{"-D"}, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		{"named flag and file", `{"labels": ["a=b"]}`, []string{"--label", "c=d"}, "labels: (from flag: [c=d], from file: [a=b])"},
		{"unknown keys", `{"zebra": 1, "apple": 2}`, nil, "the following directives don't match any configuration option: apple, zebra"},
		{"broken JSON", `{"debug": `, nil, "invalid JSON: unexpected end of JSON input"},
		{"wrong type", `{"debug": "yes"}`, nil, "invalid JSON: debug: a JSON string cannot be a bool"},
		{"missing file that was named", "", []string{"--config-file", "/nonexistent/daemon.json"}, "unable to configure the Orlop daemon with file /nonexistent/daemon.json"},
		{"unknown flag", "", []string{"--nope"}, "unknown flag: --nope\nSee 'orlopd --help'."},
		{"argument", "", []string{"run"}, `"orlopd" accepts no arguments.`},
		{"log level", "", []string{"-l", "loud"}, "invalid logging level: loud"},
		{"log format", "", []string{"--log-format", "xml"}, "invalid log format: xml"},
		{"proto", "", []string{"-H", "ftp://x"}, "unsupported proto 'ftp'"},
		{"port", "", []string{"-H", "tcp://x:99999"}, "invalid port"},
		{"bip", "", []string{"--bip", "nonsense"}, "invalid bip: invalid CIDR address: nonsense"},
		{"bip of the other family", "", []string{"--bip", "fd00::1/64"}, "wrong address family"},
		{"bridge and bip", "", []string{"-b", "br0", "--bip", "10.0.0.1/24"}, "mutually exclusive"},
		{"runtime", "", []string{"--default-runtime", "nope"}, "specified default runtime 'nope' does not exist"},
		{"reserved runtime", "", []string{"--add-runtime", "runc=/x"}, "runtime name 'runc' is reserved"},
		{"exec-opt", "", []string{"--exec-opt", "x"}, "must be formatted 'opt=value'"},
		{"unknown exec-opt", "", []string{"--exec-opt", "isolation=hyperv"}, "unknown option: 'isolation'"},
		{"labels", "", []string{"--label", "a=1", "--label", "a=2"}, "conflict labels for a=2 and a=1"},
		{"label", "", []string{"--label", "a"}, "bad attribute format: a"},
		{"search domain", "", []string{"--dns-search", "-"}, "is not a valid domain"},
		{"mirror", "", []string{"--registry-mirror", "ftp://x"}, "invalid mirror"},
		{"pool", "", []string{"--default-address-pool", "base=10.0.0.0/24,size=8"}, "size 8 does not fit into 10.0.0.0/24"},
		{"storage driver", "", []string{"-s", "zfs"}, `storage driver "zfs" is not available`},
		{"engine id", "", []string{"--engine-id", "XYZ"}, "8 hex digits are needed"},
		{"API version", "", []string{"--min-api-version", "1.10"}, "minimum supported API version is 1.24: 1.10"},
		{"downloads", `{"max-concurrent-downloads": -1}`, nil, "invalid max concurrent downloads: -1"},
		{"gateway address twice", `{"host-gateway-ip": "10.0.0.1", "host-gateway-ips": ["10.0.0.1"]}`, nil, "must not both be specified"},
		{"ipc mode", "", []string{"--default-ipc-mode", "host"}, "is not supported as default value"},
		{"feature", "", []string{"--feature", "containerd-image-tricks"}, `feature "containerd-image-tricks" is not available`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := configure(t, "orlopd", c.file, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestProxyCredentialsAreHiddenInConflicts(t *testing.T) {
	_, err := configure(t, "orlopd", `{"http-proxy": "http://me:secret@p"}`, "--http-proxy", "http://you:hidden@q")
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hidden") {
		t.Error(err)
	}
}

func TestTLSIsImpliedByVerifying(t *testing.T) {
	for _, c := range []struct {
		args                 []string
		tls, verify, decided bool
	}{
		{nil, false, false, false},
		{[]string{"--tls=false"}, false, false, true},
		{[]string{"--tls"}, true, true, true},
		{[]string{"--tlsverify"}, true, true, true},
		{[]string{"--tlsverify=false"}, true, false, true},
	} {
		got, err := configure(t, "orlopd", "", c.args...)
		if err != nil || got.TLS != c.tls || got.TLSVerify != c.verify || got.TLSSet != c.decided {
			t.Errorf("%v: %v %v %v, %v", c.args, got.TLS, got.TLSVerify, got.TLSSet, err)
		}
	}
}

// Every option stands in --help or is one of Docker's that this engine refuses.
func TestOptionsAreNamedOnce(t *testing.T) {
	flags, keys := map[string]bool{}, map[string]bool{}
	for _, o := range options(defaultConfig(brandOf("orlopd"))) {
		if flags[o.flag] || keys[o.key] || o.help == "" {
			t.Errorf("option --%s (%s) is there twice or without help", o.flag, o.key)
		}
		flags[o.flag], keys[o.key] = true, true
	}
}

func TestReloadTakesWhatMayChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	write := func(text string) *command {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, err := parse(brandOf("orlopd"), []string{"--config-file", path, "--mtu", "1400"})
		if err == nil {
			err = cmd.load(noEnv)
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	before := write(`{"labels": ["a=1"], "icc": true}`)
	after := write(`{"labels": ["a=2"], "icc": false, "debug": true}`)
	merged, changed, pending := mergeReload(before.config, after)
	if !slices.Equal(changed, []string{"label", "debug"}) || !slices.Equal(pending, []string{"icc"}) {
		t.Errorf("changed %v, pending %v", changed, pending)
	}
	// Every option that is said to be taken over is.
	all, _, _ := mergeReload(before.config, write(`{"labels": ["a=3"], "debug": true, "live-restore": false, "shutdown-timeout": 7,
		"default-stop-timeout": 8, "features": {"containerd-snapshotter": true}, "insecure-registries": ["r.test"], "registry-mirrors": ["https://m.test"],
		"max-concurrent-downloads": 9, "max-concurrent-uploads": 10, "max-download-attempts": 11,
		"runtimes": {"other": {"path": "/bin/other"}}, "default-runtime": "other",
		"default-shm-size": "1M", "default-ipc-mode": "shareable", "default-cgroupns-mode": "host"}`))
	was := options(before.config)
	for i, o := range options(all) {
		if same := o.setting.String() == was[i].setting.String(); same == o.reload {
			t.Errorf("%s: reload %v, but %q after %q", o.flag, o.reload, o.setting, was[i].setting)
		}
	}
	want := map[string]string{
		"debug": "true", "labels": `["a=3"]`, "live-restore": "false", "shutdown-timeout": "7", "default-stop-timeout": "8",
		"features": "map[containerd-snapshotter:true]", "insecure-registries": `["r.test"]`, "registry-mirrors": `["https://m.test/"]`,
		"max-concurrent-downloads": "9", "max-concurrent-uploads": "10", "max-download-attempts": "11",
		"runtimes": "other:/bin/other", "default-runtime": "other",
		"default-shm-size": "1048576", "default-ipc-mode": "shareable", "default-cgroupns-mode": "host",
	}
	if diff := cmp.Diff(want, all.reloadAttributes()); diff != "" {
		t.Errorf("the event's attributes (-want +got):\n%s", diff)
	}
	if merged.Labels[0] != "a=2" || !merged.Debug || !merged.ICC || merged.MTU != 1400 {
		t.Errorf("merged %+v", merged)
	}
	if before.config.Debug || before.config.Labels[0] != "a=1" {
		t.Error("the running configuration was changed in place")
	}
}
