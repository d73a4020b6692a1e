package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/v2/daemon/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestWithoutTheDefaultProfileOnlyAProfileAskedForIsSet(t *testing.T) {
	for opt, want := range map[string]string{"": "", "apparmor=mine": "mine", "apparmor=unconfined": "unconfined"} {
		spec := build(t, specInput(func(h *containertypes.HostConfig, _ *containertypes.Config, in *SpecInput) {
			in.Facts.AppArmor, in.Facts.AppArmorMissing = true, "no apparmor_parser"
			if opt != "" {
				h.SecurityOpt = []string{opt}
			}
		}))
		if got := spec.Process.ApparmorProfile; got != want {
			t.Errorf("--security-opt %q: profile %q, not %q", opt, got, want)
		}
	}
}

func specInput(change func(*containertypes.HostConfig, *containertypes.Config, *SpecInput)) SpecInput {
	host, config := &containertypes.HostConfig{}, &containertypes.Config{Hostname: "h", Cmd: []string{"sh", "-c", "true"}, Env: []string{"A=1"}}
	in := SpecInput{
		ID: "0123456789abcdef", Config: config, Host: host, Facts: facts(), CgroupParent: "/orlop-1", CgroupPrefix: "orlop",
		AppArmorProfile: "orlop-default",
		Device: func(path string) (specs.LinuxDevice, error) {
			if path == "/dev/dir" {
				return specs.LinuxDevice{}, errors.New("not a device node")
			}
			return specs.LinuxDevice{Path: path, Type: "c", Major: 10, Minor: 200}, nil
		},
		DevicesBelow: func(dir string) ([]specs.LinuxDevice, error) {
			return []specs.LinuxDevice{{Path: dir + "/a", Type: "b", Major: 7, Minor: 1}}, nil
		},
		HostDevices: func() ([]specs.LinuxDevice, error) { return []specs.LinuxDevice{{Path: "/dev/all", Type: "c"}}, nil },
		Propagation: func(string) (string, string, error) { return "/", "shared", nil },
		Seccomp: func(profile string, _ *specs.Spec) (*specs.LinuxSeccomp, error) {
			return &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction("profile " + profile)}, nil
		},
	}
	if change != nil {
		change(host, config, &in)
	}
	Adapt(host, in.Facts, in.Defaults, func(string) (string, bool) { return "", false })
	return in
}

func build(t *testing.T, in SpecInput) *specs.Spec {
	t.Helper()
	s, err := BuildSpec(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What Docker gives every container is read from its own source.
func TestDefaultsAreDockers(t *testing.T) {
	docker := oci.DefaultLinuxSpec()
	in := specInput(nil)
	// It looks at the machine it runs on for these.
	in.Host.MaskedPaths = docker.Linux.MaskedPaths
	ours := build(t, in)

	if got, want := maskedPaths(HostFacts{}), docker.Linux.MaskedPaths; !slices.Equal(got, want[:min(len(got), len(want))]) {
		t.Errorf("masked paths %v\nDocker's %v", got, want)
	}
	if !slices.Equal(ours.Linux.ReadonlyPaths, docker.Linux.ReadonlyPaths) {
		t.Errorf("read-only paths %v\nDocker's %v", ours.Linux.ReadonlyPaths, docker.Linux.ReadonlyPaths)
	}
	for name, pair := range map[string][2]any{
		"capabilities": {ours.Process.Capabilities, docker.Process.Capabilities},
		"devices":      {ours.Linux.Resources.Devices, docker.Linux.Resources.Devices},
	} {
		got, want := text(t, pair[0]), text(t, pair[1])
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", name, got, want)
		}
	}
	for i, want := range docker.Mounts {
		if want.Destination == "/dev/shm" {
			want.Options = append(want.Options, "size=67108864")
		}
		if got := text(t, ours.Mounts[i]); got != text(t, want) {
			t.Errorf("mount %d\ngot  %s\nwant %s", i, got, text(t, want))
		}
	}
	for _, want := range docker.Linux.Namespaces {
		if want.Type == specs.TimeNamespace {
			continue // boot and monotonic clocks are the host's for every container; see decision 0054
		}
		if !slices.Contains(ours.Linux.Namespaces, want) {
			t.Errorf("no namespace %s", want.Type)
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestSpecs(t *testing.T) {
	shares := int64(64)
	yes := true
	umask := uint32(0o27)
	for name, change := range map[string]func(*containertypes.HostConfig, *containertypes.Config, *SpecInput){
		"plain": nil,
		"privileged": func(h *containertypes.HostConfig, _ *containertypes.Config, _ *SpecInput) {
			h.Privileged = true
			h.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/x", PathInContainer: "/dev/y", CgroupPermissions: "r"}}
		},
		"everything": func(h *containertypes.HostConfig, c *containertypes.Config, in *SpecInput) {
			in.User = specs.User{UID: 900, GID: 50, AdditionalGids: []uint32{50, 29, 44}}
			c.User, c.WorkingDir, c.Tty, c.Domainname = "app:staff", "/srv", true, "example.org"
			h.CapAdd, h.CapDrop = []string{"net_admin"}, []string{"MKNOD"}
			h.Devices = []containertypes.DeviceMapping{{PathOnHost: "/dev/net/tun", PathInContainer: "/dev/net/tun", CgroupPermissions: "rw"}, {PathOnHost: "/dev/dir", PathInContainer: "/dev/d"}}
			h.DeviceCgroupRules = []string{"b 8:* r"}
			h.ReadonlyRootfs, h.Init, h.Umask = true, &yes, &umask
			in.Defaults.InitPath = "/usr/bin/docker-init"
			h.Tmpfs = map[string]string{"/run": "size=1m,exec"}
			in.Mounts = []Mount{
				{Type: mount.TypeBind, Source: "/host", Destination: "/a", Propagation: "rprivate"},
				{Type: mount.TypeBind, Source: "/host/b", Destination: "/a/b", RW: true, Propagation: "rshared", ExplicitPropagation: true},
			}
			in.HostsPath, in.HostnamePath, in.ResolvConfPath = "/c/hosts", "/c/hostname", "/c/resolv.conf"
			h.Memory, h.PidsLimit, h.NanoCPUs, h.CPUShares, h.CpusetCpus = 64<<20, &shares, 15e8, 512, "0-1"
			h.Ulimits = []*containertypes.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}}
			h.Sysctls = map[string]string{"net.core.somaxconn": "1024"}
			h.SecurityOpt = []string{"no-new-privileges", "seccomp={}", "apparmor=mine"}
			in.Facts.AppArmor = true
			h.OomScoreAdj, h.GroupAdd = 500, []string{"audio", "44"}
			h.CgroupParent = "../../evil"
			h.Annotations = map[string]string{"a": "b"}
			h.ConsoleSize = [2]uint{24, 80}
			h.CgroupnsMode = "private"
		},
		"shared": func(h *containertypes.HostConfig, _ *containertypes.Config, in *SpecInput) {
			h.PidMode, h.IpcMode, h.UTSMode, h.NetworkMode, h.CgroupnsMode = "container:x", "container:x", "host", "host", "host"
			in.PIDNSPath, in.IPCNSPath, in.ShmPath = "/proc/7/ns/pid", "/proc/7/ns/ipc", "/run/x/shm"
			h.SecurityOpt = []string{"seccomp=unconfined", "systempaths=unconfined"}
		},
		"systemd": func(h *containertypes.HostConfig, _ *containertypes.Config, in *SpecInput) {
			in.Facts.CgroupVersion, in.Facts.CgroupSystemd = 2, true
			in.CgroupParent = ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(build(t, specInput(change)))
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, raw, "", "  "); err != nil {
				t.Fatal(err)
			}
			golden(t, "spec_"+name+".json", pretty.String()+"\n")
		})
	}
}

func TestASharedBindNeedsASharedMount(t *testing.T) {
	in := specInput(func(_ *containertypes.HostConfig, _ *containertypes.Config, in *SpecInput) {
		in.Mounts = []Mount{{Type: mount.TypeBind, Source: "/host", Destination: "/a", RW: true, Propagation: "shared", ExplicitPropagation: true}}
		in.Propagation = func(string) (string, string, error) { return "/", "private", nil }
	})
	if _, err := BuildSpec(in); err == nil || err.Error() != "path /host is mounted on / but it is not a shared mount" {
		t.Errorf("bind: %v", err)
	}
}

func TestTmpfsOptionsOfTheUserWin(t *testing.T) {
	got, err := mergeTmpfsOptions("exec,size=1m,size=2m")
	if want := []string{"nosuid", "nodev", "rprivate", "exec", "size=2m"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := mergeTmpfsOptions("sizze=1m"); err == nil || err.Error() != `invalid tmpfs option "sizze"` {
		t.Errorf("unknown option: %v", err)
	}
}

func TestExecStartsFromItsContainersProcess(t *testing.T) {
	in := specInput(func(h *containertypes.HostConfig, c *containertypes.Config, in *SpecInput) {
		in.User = specs.User{UID: 900}
		c.WorkingDir = "/srv"
		h.CapDrop = []string{"ALL"}
	})
	p, err := ExecProcess(in, containertypes.ExecCreateRequest{Cmd: []string{"id"}, Env: []string{"A=2"}, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	if p.User.UID != 900 || p.Cwd != "/srv" || len(p.Capabilities.Bounding) != 0 || !slices.Contains(p.Env, "A=2") || !slices.Contains(p.Env, "TERM=xterm") || p.Args[0] != "id" {
		t.Errorf("%+v", p)
	}
	p, err = ExecProcess(in, containertypes.ExecCreateRequest{Cmd: []string{"id"}, WorkingDir: "/", Privileged: true})
	if err != nil || p.Cwd != "/" || len(p.Capabilities.Bounding) != len(in.Facts.Capabilities) {
		t.Errorf("%+v, %v", p, err)
	}
}

// Where no node can be made, a device with another name is the host's, bound.
func TestARenamedDeviceInAUserNamespaceIsABind(t *testing.T) {
	change := func(h *containertypes.HostConfig, _ *containertypes.Config, in *SpecInput) {
		h.Devices = []containertypes.DeviceMapping{
			{PathOnHost: "/dev/x", PathInContainer: "/dev/y", CgroupPermissions: "r"}, {PathOnHost: "/dev/z"}, {PathOnHost: "/dev/dir", PathInContainer: "/dev/d"},
		}
		in.Defaults.IDMap = IDMap{UIDs: []specs.LinuxIDMapping{{HostID: 1000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 1000, Size: 10}}}
	}
	s := build(t, specInput(change))
	if len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/z" {
		t.Errorf("nodes %+v", s.Linux.Devices)
	}
	options := []string{"bind", "nosuid", "noexec"}
	want := []specs.Mount{
		{Destination: "/dev/y", Type: "bind", Source: "/dev/x", Options: options},
		{Destination: "/dev/d/a", Type: "bind", Source: "/dev/dir/a", Options: options},
	}
	if got := s.Mounts[len(s.Mounts)-2:]; !reflect.DeepEqual(got, want) {
		t.Errorf("the last mounts are %+v", got)
	}
	if n := len(s.Linux.Resources.Devices); n != len(defaultDeviceRules())+3 {
		t.Errorf("%d device rules", n)
	}
	s = build(t, specInput(func(h *containertypes.HostConfig, c *containertypes.Config, in *SpecInput) {
		change(h, c, in)
		h.UsernsMode = "host"
	}))
	if len(s.Linux.Devices) != 3 {
		t.Errorf("without a user namespace: %+v", s.Linux.Devices)
	}
}
