package lifecycle

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/rlimit"
	"github.com/orlop/orlop/internal/linux/seccomp"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/initproc"
	"github.com/orlop/orlop/internal/runtime/rootfs"
	"github.com/orlop/orlop/internal/testkit/mutation"
)

// usual is a configuration with something of everything.
func usual() *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL"}
	score, umask, id := 10, uint32(0o22), uint32(5)
	timeout := 3
	s := &specs.Spec{
		Version: specs.Version, Hostname: "h", Domainname: "d",
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"sh", "-c", "true"}, Env: []string{"PATH=/bin"}, Cwd: "/", OOMScoreAdj: &score,
			User:         specs.User{UID: 1, GID: 1, AdditionalGids: []uint32{2}, Umask: &umask},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755"}},
			{Destination: "/data", Type: "bind", Source: "data", Options: []string{"rbind", "ro", "rprivate"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}},
		},
		Hooks: &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/true", Timeout: &timeout}}},
		Linux: &specs.Linux{
			CgroupsPath: "/orlop/x", MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}, Sysctl: map[string]string{"net.ipv4.ip_forward": "1"},
			Devices: []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, UID: &id}},
			Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		},
	}
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	return s
}

// vocabulary are strings that mean something somewhere in a configuration.
func vocabulary() []string {
	list := []string{
		"", "/", ".", "..", "/..", "/../../etc", "a/../..", "//x//", "/dev", "/dev/", "/dev/ptmx", "/dev/console", "/dev/null", "/proc", "/sys/fs/cgroup", "rootfs",
		"bind", "tmpfs", "cgroup", "cgroup2", "proc", "sysfs", "mqueue", "devpts", "c", "b", "u", "p", "cu", "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
		"/proc/1/ns/net", "1.2.0", "1.", "2.0.0", "shared", "rslave", "unbindable", "net.core.somaxconn", "net/ipv4/conf/eth0.1/forwarding", "kernel.msgmax",
		"kernel.hostname", "kernel.domainname", "fs.mqueue.msg_max", "user.max_pid_namespaces", "vm.swappiness", "kernel/../net.x", "CAP_SYS_ADMIN", "ALL", "cap_kill",
		"RLIMIT_CPU", "RLIMIT_NONE", "SCHED_FIFO", "SCHED_FLAG_RECLAIM", "IOPRIO_CLASS_BE", "LINUX32", "MPOL_BIND", "0-3,7", "monotonic", "boottime", "PATH=/bin", "=", "A=\x00",
		"\xff\xfe", "system.slice:a:b", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "read", "ioctl", "SCMP_ARCH_X86",
	}
	return append(list, mount.OptionNames()...)
}

// checkConfiguration takes a configuration through everything that happens
// before the kernel is asked. What is refused must be refused with a class.
func checkConfiguration(t *testing.T, s *specs.Spec, layers bool) {
	t.Helper()
	refused := func(step string, err error) bool {
		if err != nil && !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Fatalf("%s: refused without a class: %v", step, err)
		}
		return err != nil
	}
	if refused("validate", bundle.Validate(s, layers)) {
		return
	}
	plan, err := rootfs.NewPlan(s, "/bundle")
	if refused("plan", err) {
		return
	}
	_ = plan.String()
	for _, step := range plan {
		if !filepath.IsAbs(step.Dest) || step.Dest != filepath.Clean(step.Dest) || step.Dest == "/" && step.Kind != rootfs.Remount && step.Kind != rootfs.Readonly && step.Kind != rootfs.Mask {
			t.Fatalf("step %s has the destination %q", step, step.Dest)
		}
		if step.Kind == rootfs.Bind && !filepath.IsAbs(step.Source) {
			t.Fatalf("step %s has a relative source", step)
		}
		if step.Kind == rootfs.Device && step.Node == nil {
			t.Fatalf("step %s has no node", step)
		}
		o := step.Options
		if o.Set&o.Clear != 0 && o.Set&o.Clear&^0x70 != 0 || o.TreeSet&o.TreeClear&^0x70 != 0 {
			t.Fatalf("step %s sets and clears %#x, %#x", step, o.Set&o.Clear, o.TreeSet&o.TreeClear)
		}
	}
	k := &creation{Options: Options{ID: "id", Bundle: "/bundle", Spec: s, Logger: slog.New(slog.DiscardHandler)}, plan: plan}
	if layers {
		k.Rootfs = &rootfs.Overlay{Lower: []string{"/l"}, Upper: "/u", Work: "/w"}
	}
	k.c = &Container{spec: s, root: "/root", dir: "/root/id", saved: saved{ID: "id", Bundle: "/bundle", CgroupPath: "/x"}}
	if !layers {
		k.c.saved.Rootfs = rootfs.HostPath(s, "/bundle")
	}
	if k.c.cgroup, err = cgroup.New(cgroup.Config{Path: "/orlop-fuzz/x"}); err != nil {
		t.Skip(err)
	}
	if s.Linux.Seccomp != nil {
		filter, err := compile(s.Linux.Seccomp)
		if refused("seccomp", err) {
			return
		}
		if _, err := seccomp.UnmarshalFilter(filter); err != nil {
			t.Fatal(err)
		}
		k.config.Seccomp = filter
	}
	if s.Process != nil {
		want, _ := capability.FromSpec(s.Process.Capabilities)
		have := capability.State{Permitted: 0xff, Effective: 0xff, Bounding: 0xf0ff, Inheritable: 3}
		got, lost := want.Clip(have)
		if got.Permitted&^have.Permitted != 0 || got.Effective&^got.Permitted != 0 || got.Ambient&^(got.Permitted&got.Inheritable) != 0 ||
			got.Bounding&^have.Bounding != 0 || lost == 0 && got.Permitted != want.Permitted {
			t.Fatalf("capabilities %+v of %+v become %+v, lost %v", want, have, got, lost)
		}
		if refused("rlimits", rlimit.Check(s.Process.Rlimits)) {
			return
		}
	}
	k.describe()
	raw, err := k.config.Encode()
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	back, err := initproc.DecodeConfig(raw)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	// What no stage reads does not travel; an empty list is no list.
	sent := *k.config.Process
	sent.OOMScoreAdj, sent.Scheduler, sent.IOPriority, sent.ExecCPUAffinity, sent.CommandLine, sent.User.Username = nil, nil, nil, nil, "", ""
	want := k.config
	want.Process = &sent
	if d := cmp.Diff(&want, back, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("the init gets something else: %s", d)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("save: %v", err)
	}
	var saved specs.Spec
	if err := json.Unmarshal(text, &saved); err != nil {
		t.Fatalf("a configuration that was taken cannot be read again: %v", err)
	}
	if err := bundle.Validate(&saved, layers); err != nil {
		t.Fatalf("a configuration that was taken is refused when it is read again: %v", err)
	}
}

// FuzzConfiguration shakes a configuration field by field.
func FuzzConfiguration(f *testing.F) {
	words := vocabulary()
	f.Add([]byte{}, false)
	f.Add([]byte("\x03\x01\x00\x05\x04\x00\x00\x01"), true)
	f.Fuzz(func(t *testing.T, data []byte, layers bool) {
		s := usual()
		mutation.Apply(s, data, words)
		// Through text, as every configuration comes: all of it is UTF-8 then.
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var read specs.Spec
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		checkConfiguration(t, &read, layers)
	})
}

// FuzzConfigurationText reads it from text, as config.json is.
func FuzzConfigurationText(f *testing.F) {
	text, err := json.Marshal(usual())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"ociVersion":"1.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"mount"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s specs.Spec
		if json.Unmarshal(text, &s) == nil {
			checkConfiguration(t, &s, false)
		}
	})
}
