package container

import (
	"encoding/json"
	"fmt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

func TestRestartDelaysDoubleAndStartAgainAfterAGoodRun(t *testing.T) {
	always := containertypes.RestartPolicy{Name: "always"}
	var h RestartHistory
	var delays []time.Duration
	for range 11 {
		var again bool
		again, h = RestartDecision(always, h, 1, false, time.Second)
		if !again {
			t.Fatal("always does not restart")
		}
		delays = append(delays, h.Delay)
	}
	if delays[0] != 100*time.Millisecond || delays[1] != 200*time.Millisecond || delays[9] != 51200*time.Millisecond || delays[10] != time.Minute {
		t.Errorf("delays %v", delays)
	}
	_, h = RestartDecision(always, h, 1, false, 10*time.Second)
	if h.Delay != 100*time.Millisecond || h.Count != 12 {
		t.Errorf("after a run of 10 s: %+v", h)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy string
		max    int
		count  int
		code   int
		manual bool
		want   bool
	}{
		{"no", 0, 0, 1, false, false}, {"", 0, 0, 1, false, false},
		{"always", 0, 9, 0, false, true}, {"always", 0, 0, 0, true, true},
		{"unless-stopped", 0, 0, 0, false, true}, {"unless-stopped", 0, 0, 1, true, false},
		{"on-failure", 0, 99, 1, false, true}, {"on-failure", 0, 0, 0, false, false},
		{"on-failure", 3, 2, 1, false, true}, {"on-failure", 3, 3, 1, false, false},
	} {
		p := containertypes.RestartPolicy{Name: containertypes.RestartPolicyMode(c.policy), MaximumRetryCount: c.max}
		if got, _ := RestartDecision(p, RestartHistory{Count: c.count}, c.code, c.manual, time.Second); got != c.want {
			t.Errorf("%+v: restart %v", c, got)
		}
	}
}

func TestSignals(t *testing.T) {
	for raw, want := range map[string]int{"TERM": 15, "SIGTERM": 15, "sigint": 2, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-14": 50, "rtmax": 64} {
		if got, err := ParseSignal(raw); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "FOO", "0", "RTMIN+16", "RTMAX-15", "SIG"} {
		if _, err := ParseSignal(raw); !errdefs.IsInvalidArgument(err) || err.Error() != "invalid signal: "+raw {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, ok := range []string{"web", "/web", "a1", "A_b.c-d", "0x"} {
		if _, err := ParseName(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "/", "a", "-a", "a b", "a/b", "ä1", "_x", "../x"} {
		_, err := ParseName(bad)
		want := "Invalid container name (" + bad + "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
		if !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMergeFillsWhatTheRequestLeavesOpen(t *testing.T) {
	image := ImageDefaults(dockerspec.DockerOCIImageConfig{})
	image.Env = []string{"PATH=/bin", "A=image", "B=image"}
	image.Cmd, image.Entrypoint = []string{"serve"}, []string{"/entry"}
	image.Labels = map[string]string{"a": "image", "b": "image"}
	image.WorkingDir, image.User, image.StopSignal = "/srv/", "app", "SIGQUIT"
	image.ExposedPorts = network.PortSet{network.MustParsePort("80/tcp"): {}}
	image.Volumes = map[string]struct{}{"/data": {}}
	user := containertypes.Config{
		Env: []string{"A=user"}, Labels: map[string]string{"a": "user"}, Volumes: map[string]struct{}{"/more": {}},
		ExposedPorts: network.PortSet{network.MustParsePort("443/tcp"): {}},
	}
	c, err := Merge(user, image)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=user", "PATH=/bin", "B=image"}; !slices.Equal(c.Env, want) {
		t.Errorf("env %v", c.Env)
	}
	if c.Labels["a"] != "user" || c.Labels["b"] != "image" || len(user.Labels) != 1 {
		t.Errorf("labels %v, the request's %v", c.Labels, user.Labels)
	}
	if len(c.ExposedPorts) != 2 || len(c.Volumes) != 2 || len(user.Volumes) != 1 {
		t.Errorf("ports %v volumes %v", c.ExposedPorts, c.Volumes)
	}
	if c.WorkingDir != "/srv" || c.User != "app" || c.StopSignal != "SIGQUIT" {
		t.Errorf("dir %s user %s signal %s", c.WorkingDir, c.User, c.StopSignal)
	}
	for _, x := range []struct {
		name            string
		entrypoint, cmd []string
		want            []string
	}{
		{"neither", nil, nil, []string{"/entry", "serve"}},
		{"a command", nil, []string{"sh"}, []string{"/entry", "sh"}},
		{"an entrypoint clears the image's command", []string{"/mine"}, nil, []string{"/mine"}},
		{"an empty entrypoint clears the image's", []string{""}, []string{"sh"}, []string{"sh"}},
		{"an empty list keeps the image's command only", []string{}, nil, []string{"serve"}},
	} {
		c, err := Merge(containertypes.Config{Entrypoint: x.entrypoint, Cmd: x.cmd}, image)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		program, args := Command(&c)
		if got := append([]string{program}, args...); !slices.Equal(got, x.want) {
			t.Errorf("%s: runs %v, want %v", x.name, got, x.want)
		}
	}
	if _, err := Merge(containertypes.Config{}, containertypes.Config{}); !errdefs.IsInvalidArgument(err) || err.Error() != "no command specified" {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	got := OverrideEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=x", "C", "D", "E=5"})
	if want := []string{"A=1", "B=x", "E=5"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// facts of a machine with everything, cgroup v1.
func facts() HostFacts {
	return HostFacts{
		CgroupVersion: 1, MemoryLimit: true, SwapLimit: true, MemoryReservation: true, MemorySwappiness: true, OomKillDisable: true,
		CPUShares: true, CPUCfs: true, CPURealtime: true, Cpuset: true, PidsLimit: true, BlkioWeight: true, BlkioWeightDevice: true, BlkioReadBps: true,
		BlkioWriteBps: true, BlkioReadIOps: true, BlkioWriteIOps: true, Cpus: "0-3", Mems: "0", NCPU: 4, Seccomp: true,
		CgroupNamespaces: true, RecursiveReadOnly: true, PingGroupRange: true, UnprivilegedPortStart: true,
		Capabilities:      append(slices.Clone(defaultCapabilities), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
		KnownCapabilities: append(slices.Clone(defaultCapabilities), "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"),
	}
}

func TestHostConfigIsRefusedInDockersWords(t *testing.T) {
	type host = containertypes.HostConfig
	ptr := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		change func(*host)
		want   string
	}{
		{func(h *host) { h.Memory = 1 << 20 }, "Minimum memory limit allowed is 6MB"},
		{func(h *host) { h.Memory, h.MemorySwap = 64<<20, 32<<20 }, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{func(h *host) { h.MemorySwap = 64 << 20 }, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{func(h *host) { h.MemorySwappiness = ptr(101) }, "Invalid value: 101, valid memory swappiness range is 0-100"},
		{func(h *host) { h.NanoCPUs = 5e9 }, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"},
		{func(h *host) { h.NanoCPUs, h.CPUPeriod = 1e9, 1000 }, "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{func(h *host) { h.CPURealtimePeriod, h.CPURealtimeRuntime = 1000, 1001 }, "cpu real-time runtime cannot be higher than cpu real-time period"},
		{func(h *host) { h.CpusetCpus = "0-9" }, "Requested CPUs are not available - requested 0-9, available: 0-3"},
		{func(h *host) { h.CpusetCpus = "a" }, "Invalid value a for cpuset cpus: invalid format: a"},
		{func(h *host) { h.CpusetMems = "1-9223372036854775807" }, "Invalid value 1-9223372036854775807 for cpuset mems: value of out range, maximum is 8192"},
		{func(h *host) { h.BlkioWeight = 5 }, "Range of blkio weight is from 10 to 1000"},
		{func(h *host) { h.OomScoreAdj = 2000 }, "Invalid value 2000, range for oom score adj is [-1000, 1000]"},
		{func(h *host) { h.ShmSize = -1 }, "SHM size can not be less than 0"},
		{func(h *host) { h.PidMode = "x" }, "invalid PID mode: x"},
		{func(h *host) { h.CapAdd = []string{"FLY"} }, `invalid CapAdd: unknown capability: "CAP_FLY"`},
		{func(h *host) { h.CapAdd = []string{"sys_resource"} }, `invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_SYS_RESOURCE"`},
		{func(h *host) { h.AutoRemove, h.RestartPolicy.Name = true, "always" }, "can't create 'AutoRemove' container with restart policy"},
		{func(h *host) { h.RestartPolicy.Name = "sometimes" }, "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
		{func(h *host) { h.ExtraHosts = []string{"db"} }, `bad format for add-host: "db"`},
		{func(h *host) { h.ExtraHosts = []string{"db:nowhere"} }, `invalid IP address in add-host: "nowhere"`},
		{func(h *host) { h.SecurityOpt = []string{"magic"} }, `invalid --security-opt 1: "magic"`},
		{func(h *host) { h.SecurityOpt = []string{"magic=on"} }, `invalid --security-opt 2: "magic=on"`},
		{func(h *host) { h.DeviceCgroupRules = []string{"c 1 rwm"} }, "invalid device cgroup rule format: 'c 1 rwm'"},
		{func(h *host) { h.Mounts = []mount.Mount{{Type: "bind", Target: "/x"}} }, `invalid mount config for type "bind": field Source must not be empty`},
		{func(h *host) { h.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/"}} }, `invalid mount config for type "tmpfs": invalid specification: destination can't be '/'`},
		{func(h *host) { h.Mounts = []mount.Mount{{Type: "disk", Target: "/x"}} }, `invalid mount config for type "disk": mount type unknown`},
		{func(h *host) { h.Runtime = "kata" }, "unknown or invalid runtime name: kata"},
	} {
		var h host
		c.change(&h)
		_, err := ValidateHostConfig(&h, facts(), Defaults{Runtimes: []string{"orlop"}})
		if !errdefs.IsInvalidArgument(err) || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestWhatTheKernelLacksIsDiscardedWithAWarning(t *testing.T) {
	h := containertypes.HostConfig{Resources: containertypes.Resources{Memory: 64 << 20, CPUShares: 512, BlkioWeight: 100}}
	warnings, err := ValidateHostConfig(&h, HostFacts{NCPU: 1}, Defaults{})
	if err != nil || len(warnings) != 3 {
		t.Fatalf("%d warnings (%v), %v", len(warnings), warnings, err)
	}
	if h.Memory != 0 || h.CPUShares != 0 || h.BlkioWeight != 0 {
		t.Errorf("limits are kept: %+v", h.Resources)
	}
	h = containertypes.HostConfig{Resources: containertypes.Resources{CPURealtimeRuntime: 1000}}
	if _, err := ValidateHostConfig(&h, HostFacts{NCPU: 1}, Defaults{}); err == nil || err.Error() != "kernel does not support CPU real-time scheduler" {
		t.Errorf("a real-time limit: %v", err)
	}
}

func TestConfigIsRefusedInDockersWords(t *testing.T) {
	for want, c := range map[string]*containertypes.Config{
		"config cannot be empty in order to create a container":                   nil,
		"the working directory 'srv' is invalid, it needs to be an absolute path": {WorkingDir: "srv"},
		"invalid signal: NOPE":                                                        {StopSignal: "NOPE"},
		"invalid environment variable: =x":                                            {Env: []string{"=x"}},
		"Interval in Healthcheck cannot be less than 1ms":                             {Healthcheck: &containertypes.HealthConfig{Interval: 3}},
		"hostname \"" + strings.Repeat("h", 65) + "\" is too long (maximum 64 bytes)": {Hostname: strings.Repeat("h", 65)},
		"Retries in Healthcheck cannot be negative":                                   {Healthcheck: &containertypes.HealthConfig{Retries: -1}},
	} {
		if err := ValidateConfig(c); !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestMountsAreResolvedInDockersOrder(t *testing.T) {
	h := &containertypes.HostConfig{
		Binds:       []string{"/host:/a:ro", "data:/b", "/src:/a/b:rshared,z", "/only"},
		Mounts:      []mount.Mount{{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 2 << 20, Mode: 0o700}}},
		VolumesFrom: []string{"other:ro"},
	}
	c := &containertypes.Config{Volumes: map[string]struct{}{"/a": {}, "/v": {}}}
	got, err := ResolveMounts(h, c, Defaults{}, func(string) ([]Mount, error) {
		return []Mount{{Type: "volume", Name: "theirs", Source: "/vol/theirs", Destination: "/b", RW: true}, {Type: "bind", Source: "/z", Destination: "/z", RW: true}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range got {
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(raw))
	}
	golden(t, "mounts.txt", strings.Join(lines, "\n")+"\n")
}

func TestBindsAreRefusedInDockersWords(t *testing.T) {
	for raw, want := range map[string]string{
		"":            "invalid volume specification: ''",
		":/a":         "invalid volume specification: ':/a'",
		"/a:ro":       "invalid volume specification: '/a:ro'",
		"/a:/b:c":     "invalid mode: c",
		"/a:/b:ro,rw": "invalid mode: ro,rw",
		"/a:/b:ro:x":  "invalid volume specification: '/a:/b:ro:x'",
		"/a:b":        "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
		"/a:/":        "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
		"../x:/b":     "invalid volume specification: '../x:/b': invalid mount config for type \"volume\": create ../x: \"../x\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
	} {
		_, err := ResolveMounts(&containertypes.HostConfig{Binds: []string{raw}}, &containertypes.Config{}, Defaults{}, nil)
		if !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("%q\ngot  %v\nwant %s", raw, err, want)
		}
	}
	_, err := ResolveMounts(&containertypes.HostConfig{Binds: []string{"/a:/x", "/b:/x"}}, &containertypes.Config{}, Defaults{}, nil)
	if err == nil || err.Error() != "Duplicate mount point: /x" {
		t.Errorf("two at one place: %v", err)
	}
}

func TestSavedKeepsKeysItDoesNotKnow(t *testing.T) {
	raw := `{"state":"exited","config":{},"hostConfig":{},"fromTheFuture":{"a":1}}`
	s, err := ParseSaved(Record{ID: "x", Schema: 1, State: json.RawMessage(raw)})
	if err != nil {
		t.Fatal(err)
	}
	s.ExitCode = 3
	out, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]json.RawMessage
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatal(err)
	}
	if string(back["fromTheFuture"]) != `{"a":1}` || string(back["exitCode"]) != "3" {
		t.Errorf("written as %s", out)
	}
	if _, err := ParseSaved(Record{ID: "x", Schema: SavedSchema + 1, State: json.RawMessage(raw)}); err == nil {
		t.Error("a schema of the future is read")
	}
	typ := reflect.TypeFor[Saved]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if !f.IsExported() {
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !slices.Contains(savedKeys, key) {
			t.Errorf("savedKeys has no %q (field %s)", key, f.Name)
		}
	}
}

func TestStatusSentences(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := Saved{StartedAt: now.Add(-3 * time.Minute), FinishedAt: now.Add(-time.Hour), ExitCode: 3}
	healthy := &containertypes.Health{Status: containertypes.Healthy}
	starting := &containertypes.Health{Status: containertypes.Starting}
	for _, c := range []struct {
		state  State
		saved  Saved
		health *containertypes.Health
		want   string
	}{
		{StateCreated, Saved{}, nil, "Created"},
		{StateRunning, s, nil, "Up 3 minutes"},
		{StateRunning, s, healthy, "Up 3 minutes (healthy)"},
		{StateRunning, s, starting, "Up 3 minutes (health: starting)"},
		{StatePaused, s, nil, "Up 3 minutes (Paused)"},
		{StateRestarting, s, nil, "Restarting (3) About an hour ago"},
		{StateExited, s, nil, "Exited (3) About an hour ago"},
		{StateRemoving, s, nil, "Removal In Progress"},
		{StateDead, s, nil, "Dead"},
	} {
		if got := Status(c.state, c.saved, c.health, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.state, got, c.want)
		}
	}
}

func TestLogOptions(t *testing.T) {
	saved := &Saved{
		Config: &containertypes.Config{
			Labels: map[string]string{"tier": "front", "x": "y"}, Env: []string{"A=1", "ABC=2"}, Image: "web:1", Cmd: []string{"serve", "-v"},
		},
		Image: ImageUse{ID: "sha256:0123456789abcdef0123"},
	}
	conf := func(typ string, opts map[string]string) (LogConfig, error) {
		info := NewLogInfo("fedcba9876543210", "shop", "host1", "/log", saved)
		return LogConfigOf(containertypes.LogConfig{Type: typ, Config: opts}, info, "/log")
	}
	type options = map[string]string
	for _, c := range []struct {
		name string
		typ  string
		opts options
		want LogConfig
	}{
		{"bounded by default", "json-file", nil, LogConfig{Driver: "json-file", Path: "/log", MaxSize: 20 << 20, MaxFiles: 5}},
		{"sizes", "json-file", options{"max-size": "10m", "max-file": "3", "compress": "true"}, LogConfig{Driver: "json-file", Path: "/log", MaxSize: 10e6, MaxFiles: 3, Compress: true}},
		{"unlimited when asked for", "json-file", options{"max-size": "-1"}, LogConfig{Driver: "json-file", Path: "/log", MaxFiles: 5}},
		{"local", "local", nil, LogConfig{Driver: "local", Path: "/log", MaxSize: 20 << 20, MaxFiles: 5, Compress: true}},
		{"local, plain", "local", options{"max-file": "1", "compress": "false"}, LogConfig{Driver: "local", Path: "/log", MaxSize: 20 << 20, MaxFiles: 1}},
		{"none", "none", options{"what": "ever"}, LogConfig{Driver: "none", MaxSize: 20 << 20, MaxFiles: 5}},
		{"attributes", "json-file", options{"labels": "tier,absent", "env": "A"}, LogConfig{Attrs: options{"tier": "front", "A": "1"}}},
		{"attributes by pattern", "json-file", options{"labels-regex": "^t", "env-regex": "^A"}, LogConfig{Attrs: options{"tier": "front", "A": "1", "ABC": "2"}}},
		{"literal tag", "json-file", options{"tag": "prod"}, LogConfig{Attrs: options{"tag": "prod"}}},
		{"tag", "json-file", options{"tag": "{{.Name}}/{{.ID}}/{{.FullID}}/{{.ImageName}}/{{.ImageID}}/{{.Command}}/{{.Hostname}}/{{.DaemonName}}"},
			LogConfig{Attrs: options{"tag": "shop/fedcba987654/fedcba9876543210/web:1/0123456789ab/serve -v/host1/docker"}}},
		{"tag with functions", "json-file", options{"tag": `{{upper .Name}} {{truncate .FullID 3}} {{json .ContainerArgs}} {{index .ContainerLabels "x"}} {{title "one two"}} {{pad .Name 1 0}} {{join (split "a,b" ",") "-"}}`},
			LogConfig{Attrs: options{"tag": `SHOP fed ["-v"] y One Two  shop a-b`}}},
		{"empty tag", "json-file", options{"tag": "{{if false}}x{{end}}"}, LogConfig{}},
		{"blocking", "json-file", options{"mode": "blocking"}, LogConfig{}},
		{"not blocking", "json-file", options{"mode": "non-blocking"}, LogConfig{Buffer: 1e6}},
		{"buffer", "local", options{"mode": "non-blocking", "max-buffer-size": "4m"}, LogConfig{Driver: "local", Path: "/log", MaxSize: 20 << 20, MaxFiles: 5, Compress: true, Buffer: 4 << 20}},
	} {
		if c.want.Driver == "" {
			c.want.Driver, c.want.Path, c.want.MaxSize, c.want.MaxFiles = "json-file", "/log", 20<<20, 5
		}
		if got, err := conf(c.typ, c.opts); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
	const start = "failed to initialize logging driver: "
	for want, c := range map[string]struct {
		typ  string
		opts options
	}{
		`error looking up logging plugin paper: plugin "paper" not found`:                                                             {"paper", nil},
		"unknown log opt 'ink' for json-file log driver":                                                                              {"json-file", options{"ink": "blue"}},
		"unknown log opt 'tag' for log driver local":                                                                                  {"local", options{"tag": "x"}},
		"logger: logging mode not supported: sometimes":                                                                               {"json-file", options{"mode": "sometimes"}},
		"logger: max-buffer-size option is only supported with 'mode=non-blocking'":                                                   {"json-file", options{"max-buffer-size": "1m"}},
		"error parsing option max-buffer-size: invalid size: 'x'":                                                                     {"json-file", options{"mode": "non-blocking", "max-buffer-size": "x"}},
		start + "max-file cannot be less than 1":                                                                                      {"json-file", options{"max-file": "0"}},
		start + "max-size must be a positive number":                                                                                  {"json-file", options{"max-size": "0"}},
		start + "invalid size: 'big'":                                                                                                 {"json-file", options{"max-size": "big"}},
		start + "compress cannot be true when max-file is less than 2 or max-size is not set":                                         {"json-file", options{"max-file": "1", "compress": "true"}},
		start + "compression cannot be enabled when max file count is 1":                                                              {"local", options{"max-file": "1"}},
		start + `strconv.ParseBool: parsing "perhaps": invalid syntax`:                                                                {"json-file", options{"compress": "perhaps"}},
		start + "error parsing regexp: missing closing ]: `[`":                                                                        {"json-file", options{"env-regex": "["}},
		start + `template: log-tag:1: function "nosuch" not defined`:                                                                  {"json-file", options{"tag": "{{nosuch}}"}},
		start + "template: log-tag:1:2: executing \"log-tag\" at <.Nothing>: can't evaluate field Nothing in type *container.LogInfo": {"json-file", options{"tag": "{{.Nothing}}"}},
	} {
		if _, err := conf(c.typ, c.opts); !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestContainersInUserNamespaces(t *testing.T) {
	d := Defaults{IDMap: IDMap{
		UIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}},
		GIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}},
	}}
	if uid, gid := d.IDMap.RootPair(); uid != 100000 || gid != 200000 {
		t.Errorf("root is %d:%d", uid, gid)
	}
	for _, c := range []struct {
		host containertypes.HostConfig
		want string
	}{
		{containertypes.HostConfig{}, ""},
		{containertypes.HostConfig{Privileged: true}, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"},
		{containertypes.HostConfig{NetworkMode: "host"}, "cannot share the host's network namespace when user namespaces are enabled"},
		{containertypes.HostConfig{PidMode: "host"}, "cannot share the host PID namespace when user namespaces are enabled"},
		{containertypes.HostConfig{Privileged: true, NetworkMode: "host", PidMode: "host", UsernsMode: "host"}, ""},
	} {
		host := c.host
		_, err := ValidateHostConfig(&host, HostFacts{}, d)
		if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && (got != c.want || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%+v: %v, want %q", c.host, err, c.want)
		}
		if _, err := ValidateHostConfig(&host, HostFacts{}, Defaults{}); err != nil {
			t.Errorf("without user namespaces: %v", err)
		}
	}
}
