package httpapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	networktypes "github.com/moby/moby/api/types/network"
	systemtypes "github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fields gets a path and decodes the object.
func fields(t *testing.T, e *engine, path string) map[string]any {
	t.Helper()
	resp, err := http.Get(e.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var doc any
	if err := json.Unmarshal(body, &doc); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %s", path, resp.StatusCode, body)
	}
	if list, ok := doc.([]any); ok {
		doc = list[0]
	}
	return doc.(map[string]any)
}

func TestInspectHasTheBridgeOnTopUntil152(t *testing.T) {
	e := newEngine(t)
	e.containers.inspect = containertypes.InspectResponse{
		ID:         "0123456789abcdef",
		Config:     &containertypes.Config{Hostname: "h"},
		HostConfig: &containertypes.HostConfig{Resources: containertypes.Resources{Memory: 9007199254740993}, NetworkMode: "bridge"},
		NetworkSettings: &containertypes.NetworkSettings{Networks: map[string]*networktypes.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, EndpointID: "e1"},
			"mine":   {Aliases: []string{"a"}},
		}},
		ImageManifestDescriptor: &ocispec.Descriptor{},
	}
	old := fields(t, e, "/v1.44/containers/web/json")
	nets := old["NetworkSettings"].(map[string]any)
	if nets["IPAddress"] != "172.17.0.2" || nets["IPPrefixLen"] != 16.0 || nets["EndpointID"] != "e1" {
		t.Errorf("1.44: %v", nets)
	}
	aliases := nets["Networks"].(map[string]any)["mine"].(map[string]any)["Aliases"]
	if got, _ := json.Marshal(aliases); string(got) != `["a","0123456789ab","h"]` {
		t.Errorf("1.44: aliases %s", got)
	}
	if _, there := old["ImageManifestDescriptor"]; there {
		t.Error("1.44 has ImageManifestDescriptor")
	}
	resp, err := http.Get(e.URL + "/v1.44/containers/web/json")
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `"Memory":9007199254740993`) {
		t.Error("a large number lost its digits on the way to the old shape")
	}
	e.containers.inspect.NetworkSettings.Networks["mine"].Aliases = []string{"a"}
	now := fields(t, e, "/containers/web/json")
	if _, there := now["NetworkSettings"].(map[string]any)["IPAddress"]; there {
		t.Error("1.56 has the bridge on top")
	}
}

func TestImagesHaveVirtualSizeUntil144(t *testing.T) {
	e := newEngine(t)
	e.images.list = []imagetypes.Summary{{ID: "i", Size: 7, Containers: 2}}
	e.images.inspect = imagetypes.InspectResponse{ID: "i", Size: 7}
	if img := fields(t, e, "/v1.43/images/json"); img["VirtualSize"] != 7.0 || img["Containers"] != -1.0 {
		t.Errorf("1.43: %v", img)
	}
	if img := fields(t, e, "/v1.44/images/json"); img["VirtualSize"] != nil || img["RepoTags"] == nil {
		t.Errorf("1.44: %v", img)
	}
	e.images.list = []imagetypes.Summary{{ID: "i"}}
	if img := fields(t, e, "/v1.42/images/json"); img["RepoTags"].([]any)[0] != "<none>:<none>" {
		t.Errorf("1.42: %v", img)
	}
	e.images.list = []imagetypes.Summary{{ID: "i", Containers: 2}}
	if img := fields(t, e, "/v1.51/images/json"); img["Containers"] != 2.0 {
		t.Errorf("1.51: %v", img)
	}
	old := fields(t, e, "/v1.43/images/busybox/json")
	if old["VirtualSize"] != 7.0 || old["Created"] != "0001-01-01T00:00:00Z" || old["DockerVersion"] != "" {
		t.Errorf("1.43: %v", old)
	}
	if img := fields(t, e, "/images/busybox/json"); img["DockerVersion"] != nil || img["Parent"] != nil {
		t.Errorf("newest: %v", img)
	}
}

func TestInfoAndDiskUsageOfOldClients(t *testing.T) {
	e := newEngine(t)
	e.system.info = systemtypes.Info{
		FirewallBackend: &systemtypes.FirewallInfo{Driver: "nftables"},
		RuncCommit:      systemtypes.Commit{ID: "abc"},
		Containerd:      &systemtypes.ContainerdInfo{},
	}
	info := fields(t, e, "/v1.45/info")
	if info["FirewallBackend"] != nil || info["Containerd"] != nil || info["BridgeNfIptables"] != false ||
		info["RuncCommit"].(map[string]any)["Expected"] != "abc" {
		t.Errorf("1.45: %v", info)
	}
	if info = fields(t, e, "/info"); info["FirewallBackend"] == nil || info["BridgeNfIptables"] != nil {
		t.Errorf("newest: %v", info)
	}

	e.system.usage = systemtypes.DiskUsage{
		ImageUsage:     &imagetypes.DiskUsage{TotalSize: 9, Items: []imagetypes.Summary{{ID: "i", Size: 9}}},
		ContainerUsage: &containertypes.DiskUsage{},
	}
	du := fields(t, e, "/v1.43/system/df")
	if du["LayersSize"] != 9.0 || du["Images"].([]any)[0].(map[string]any)["VirtualSize"] != 9.0 || du["ImageUsage"] != nil || du["Containers"] == nil {
		t.Errorf("1.43: %v", du)
	}
	if du = fields(t, e, "/system/df"); du["LayersSize"] != 9.0 || du["ImageUsage"] == nil {
		t.Errorf("newest without verbose: %v", du)
	}
	if du = fields(t, e, "/system/df?verbose=1&type=image"); du["LayersSize"] != nil || !e.system.asked.Verbose || e.system.asked.Containers {
		t.Errorf("newest with verbose: %v, asked %+v", du, e.system.asked)
	}
}

func TestListOfOldClientsLeavesNewFieldsOut(t *testing.T) {
	e := newEngine(t)
	list := func(path string) map[string]any {
		e.containers.list = []containertypes.Summary{{ID: "c", ImageManifestDescriptor: &ocispec.Descriptor{}, Health: &containertypes.HealthSummary{}}}
		e.containers.list[0].HostConfig.Annotations = map[string]string{"a": "b"}
		return fields(t, e, path)
	}
	if c := list("/v1.45/containers/json"); c["ImageManifestDescriptor"] != nil || c["Health"] != nil || c["HostConfig"].(map[string]any)["Annotations"] != nil {
		t.Errorf("1.45: %v", c)
	}
	if c := list("/containers/json?all=1&limit=3"); c["Health"] == nil || !e.containers.listed.All || e.containers.listed.Limit != 3 {
		t.Errorf("newest: %v", c)
	}
	if list(`/containers/json?filters={"label":{"b":true,"a":true}}`); len(e.containers.listed.Filters["label"]) != 2 {
		t.Errorf("filters %v", e.containers.listed.Filters)
	}
	if list(`/containers/json?filters={"label":["a"]}`); len(e.containers.listed.Filters["label"]) != 1 {
		t.Errorf("filters of old clients %v", e.containers.listed.Filters)
	}
}

// create posts a request and returns the status and the answer.
func create(t *testing.T, e *engine, version, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(e.URL+version+"/containers/create", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

func TestCreateKeepsTheRequestAsItCame(t *testing.T) {
	e := newEngine(t)
	sent := `{"Image":"busybox","HostConfig":{"NetworkMode":"bridge","X-Own":{"a":[1,2.50]}},"Unknown":9007199254740993}`
	if status, answer := create(t, e, "", sent); status != 201 {
		t.Fatal(status, answer)
	}
	if got := string(e.containers.created.Raw); got != sent {
		t.Errorf("recorded %s", got)
	}
}

func TestCreateRecordsWhatTheVersionMeant(t *testing.T) {
	e := newEngine(t)
	status, answer := create(t, e, "/v1.39", `{"image":"busybox","hostconfig":{"Memory":5,"Own":1},"Unknown":9007199254740993}`)
	if status != 201 {
		t.Fatal(status, answer)
	}
	host := e.containers.created.Request.HostConfig
	if host.IpcMode != "shareable" || host.CgroupnsMode != "host" || host.NetworkMode != "bridge" {
		t.Errorf("means ipc %q, cgroupns %q, network %q", host.IpcMode, host.CgroupnsMode, host.NetworkMode)
	}
	var record struct {
		Image      string
		Unknown    json.Number
		HostConfig struct {
			Memory, Own                        int
			IpcMode, CgroupnsMode, NetworkMode string
		}
	}
	if err := json.Unmarshal(e.containers.created.Raw, &record); err != nil {
		t.Fatal(err)
	}
	if h := record.HostConfig; record.Image != "busybox" || record.Unknown != "9007199254740993" || h.Memory != 5 || h.Own != 1 ||
		h.IpcMode != "shareable" || h.CgroupnsMode != "host" || h.NetworkMode != "bridge" {
		t.Errorf("recorded %s", e.containers.created.Raw)
	}
}

func TestCreateByVersion(t *testing.T) {
	const mac = "02:42:ac:11:00:09"
	for _, c := range []struct {
		name, version, body string
		status              int
		answer              string // part of it
		check               func(containertypes.CreateRequest) bool
	}{
		{"no limit of pids", "", `{"Image":"a","HostConfig":{"PidsLimit":-1}}`, 201, "",
			func(r containertypes.CreateRequest) bool { return r.HostConfig.PidsLimit == nil }},
		{"one endpoint only", "/v1.43", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"x":{},"y":{}}}}`, 400, "multiple network endpoints: x, y", nil},
		{"several endpoints", "/v1.44", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"x":{},"y":{}}}}`, 201, "", nil},
		{"mount options of another type", "/v1.42", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/x","TmpfsOptions":{}}]}}`, 400, "TmpfsOptions must not be specified", nil},
		{"mount options of another type before they were looked at", "/v1.41", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/x","TmpfsOptions":{}}]}}`, 201, "",
			func(r containertypes.CreateRequest) bool { return r.HostConfig.Mounts[0].TmpfsOptions == nil }},
		{"read-only binds were not recursive", "/v1.43", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/x","ReadOnly":true}]}}`, 201, "",
			func(r containertypes.CreateRequest) bool {
				return r.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive
			}},
		{"subpaths", "/v1.44", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"Subpath":"y"}}]}}`, 400, "needs API v1.45", nil},
		{"image mounts", "/v1.47", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"image","Source":"b","Target":"/x"}]}}`, 400, "needs API v1.48", nil},
		{"container-wide MAC address", "/v1.43", `{"Image":"a","MacAddress":"` + mac + `"}`, 201, "",
			func(r containertypes.CreateRequest) bool {
				return r.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() == mac
			}},
		{"container-wide MAC address with a warning", "/v1.51", `{"Image":"a","MacAddress":"` + mac + `"}`, 201, "is now deprecated",
			func(r containertypes.CreateRequest) bool {
				return r.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() == mac
			}},
		{"MAC address without a network", "/v1.43", `{"Image":"a","MacAddress":"` + mac + `","HostConfig":{"NetworkMode":"host"}}`, 400, "mac-address and the network mode", nil},
		{"two MAC addresses", "/v1.44", `{"Image":"a","MacAddress":"` + mac + `","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:01"}}}}`, 400, "must match the endpoint-specific", nil},
		{"capabilities of 1.40", "/v1.40", `{"Image":"a","HostConfig":{"Capabilities":["CAP_X"]}}`, 400, "Capabilities field is not supported", nil},
		{"sysctl of eth0 moves", "/v1.47", `{"Image":"a","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","kernel.msgmax":"7"}}}`, 201, "Migrated sysctl",
			func(r containertypes.CreateRequest) bool {
				return len(r.HostConfig.Sysctls) == 1 &&
					r.NetworkingConfig.EndpointsConfig["bridge"].DriverOpts["com.docker.network.endpoint.sysctls"] == "net.ipv4.conf.IFNAME.log_martians=1"
			}},
		{"sysctl of eth1", "/v1.47", `{"Image":"a","HostConfig":{"Sysctls":{"net.ipv4.conf.eth1.log_martians":"1"}}}`, 400, "unable to determine network endpoint", nil},
		{"sysctl of eth0 now", "", `{"Image":"a","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1"}}}`, 400, "must be supplied using driver option", nil},
		{"empty port bindings", "", `{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[]}}}`, 201, "empty list of port-bindings: 80/tcp",
			func(r containertypes.CreateRequest) bool {
				return len(r.HostConfig.PortBindings[networktypes.MustParsePort("80/tcp")]) == 1
			}},
		{"default network by its other name", "", `{"Image":"a","HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{"GwPriority":3}}}}`, 201, "",
			func(r containertypes.CreateRequest) bool {
				return r.HostConfig.NetworkMode == "bridge" && r.NetworkingConfig.EndpointsConfig["bridge"].GwPriority == 3
			}},
		{"volume driver without use", "", `{"Image":"a","HostConfig":{"VolumeDriver":"x","Mounts":[{"Type":"volume","Target":"/x"}]}}`, 201, "volume-driver configuration is ignored", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			status, answer := create(t, e, c.version, c.body)
			if status != c.status || !strings.Contains(answer, c.answer) {
				t.Fatalf("%d %s", status, answer)
			}
			if c.check != nil && !c.check(e.containers.created.Request) {
				host, _ := json.Marshal(e.containers.created.Request)
				t.Errorf("meant %s", host)
			}
		})
	}
}

func TestStopOptionsByVersion(t *testing.T) {
	e := newEngine(t)
	for version, signal := range map[string]string{"/v1.41": "", "/v1.42": "INT"} {
		if resp, err := http.Post(e.URL+version+"/containers/web/stop?signal=INT&t=-1", "", nil); err != nil || resp.StatusCode != 204 {
			t.Fatal(resp, err)
		}
		if got := e.containers.stopped; got.Signal != signal || *got.Timeout != -1 {
			t.Errorf("%s: %+v", version, got)
		}
	}
}

func TestUpdateByVersion(t *testing.T) {
	e := newEngine(t)
	body := `{"PidsLimit":-5,"BlkioWeightDevice":[{"Path":"/dev/sda","Weight":1}]}`
	if resp, err := http.Post(e.URL+"/v1.54/containers/web/update", "application/json", strings.NewReader(body)); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	if u := e.containers.updated; *u.PidsLimit != 0 || u.BlkioWeightDevice != nil {
		t.Errorf("updated %+v", u)
	}
}
