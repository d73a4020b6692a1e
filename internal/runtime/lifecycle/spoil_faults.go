//go:build faults

package lifecycle

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/initproc"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// spoil puts the chosen defect into what a stage is told.
func spoil(c *initproc.Config) {
	p := *c.Process
	c.Process = &p
	c.Plan = slices.Clone(c.Plan)
	for _, drop := range []struct {
		name string
		kind rootfs.Kind
	}{{"mask skipped", rootfs.Mask}, {"read-only path skipped", rootfs.Readonly}} {
		if fault.On(drop.name) {
			c.Plan = slices.DeleteFunc(c.Plan, func(s rootfs.Step) bool { return s.Kind == drop.kind })
		}
	}
	if fault.On("default device left out") {
		c.Plan = slices.DeleteFunc(c.Plan, func(s rootfs.Step) bool { return s.Kind == rootfs.Device && s.Dest == "/dev/full" })
	}
	if fault.On("mounts reversed") {
		n := slices.IndexFunc(c.Plan, func(s rootfs.Step) bool { return s.Kind != rootfs.Bind && s.Kind != rootfs.FileSystem })
		slices.Reverse(c.Plan[:n])
	}
	for i := range c.Plan {
		spoilStep(&c.Plan[i])
	}
	spoilProcess(c, &p)
	if fault.On("root writable") {
		c.ReadonlyRoot = false
	}
	if fault.On("host name skipped") {
		c.Hostname = ""
	}
	if fault.On("sysctl skipped") {
		c.Sysctl = nil
	}
	if fault.On("seccomp skipped") && !c.Exec {
		c.Seccomp = nil
	}
	if fault.On("exec without seccomp") && c.Exec {
		c.Seccomp = nil
	}
	if fault.On("root propagation ignored") {
		c.Propagation = ""
	}
	if fault.On("createContainer hooks skipped") {
		c.Rare.CreateContainer = nil
	}
}

func spoilStep(s *rootfs.Step) {
	if fault.On("mount propagation ignored") {
		s.Options.Propagation = nil
	}
	if fault.On("recursive bind not recursive") {
		s.Options.Recursive = false
	}
	if fault.On("bind flags ignored") && s.Kind == rootfs.Bind {
		s.Options.Set = 0
	}
	if fault.On("recursive flags ignored") {
		s.Options.TreeSet = 0
	}
	if fault.On("file system options lost") && s.Dest != "/dev/pts" {
		s.Options.Data = nil
	}
	if fault.On("tmpfs flags ignored") && s.Kind == rootfs.FileSystem && s.Type == "tmpfs" {
		s.Options = mount.Options{Data: s.Options.Data}
	}
	if fault.On("device mode ignored") && s.Node != nil {
		d := *s.Node
		d.FileMode = nil
		s.Node = &d
	}
	if fault.On("tmpfs not filled") {
		s.Options.CopyUp = false
	}
}

func spoilProcess(c *initproc.Config, p *specs.Process) {
	var caps specs.LinuxCapabilities
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	p.Capabilities = &caps
	if fault.On("bounding set kept") {
		caps.Bounding = capability.Known().Names()
	}
	if fault.On("ambient set lost") {
		caps.Ambient = nil
	}
	if fault.On("capability inheritable") {
		caps.Inheritable = append(slices.Clone(caps.Inheritable), caps.Permitted...)
	}
	if fault.On("noNewPrivileges skipped") {
		p.NoNewPrivileges = false
	}
	if fault.On("umask ignored") {
		p.User.Umask = nil
	}
	if fault.On("additional groups lost") {
		p.User.AdditionalGids = nil
	}
	if fault.On("exec user ignored") && c.Exec {
		p.User.UID = 0
	}
	if fault.On("hard limit is the soft one") {
		p.Rlimits = slices.Clone(p.Rlimits)
		for i := range p.Rlimits {
			p.Rlimits[i].Hard = p.Rlimits[i].Soft
		}
	}
	if fault.On("current folder ignored") {
		p.Cwd = "/"
	}
	if fault.On("empty argument dropped") {
		p.Args = slices.DeleteFunc(slices.Clone(p.Args), func(a string) bool { return a == "" })
	}
	if fault.On("first variable lost") && len(p.Env) > 1 {
		p.Env = append(p.Env[:1:1], p.Env[2:]...)
	}
	if fault.On("scheduling ignored") {
		c.Rare.Scheduler, c.Rare.IOPriority = nil, nil
	}
	if fault.On("personality ignored") {
		c.Rare.Personality = nil
	}
}
