package rootfs

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
)

// Kind says what a step of a plan does.
type Kind string

// The kinds of steps.
const (
	// Bind attaches a clone of Source, Prepared one handed over by descriptor.
	Bind Kind = "bind"
	// FileSystem attaches a new file system of Type.
	FileSystem Kind = "mount"
	// Cgroup shows the container's control groups.
	Cgroup Kind = "cgroup"
	// Remount changes what is mounted at Dest.
	Remount Kind = "remount"
	// Device makes a device node.
	Device Kind = "device"
	// Link makes a symbolic link Dest → Source.
	Link Kind = "link"
	// Mask hides Dest, Readonly protects it; both ignore a Dest that is not there.
	Mask     Kind = "mask"
	Readonly Kind = "readonly"
)

// Step is one act of a plan. Paths of the container are absolute.
type Step struct {
	Kind    Kind
	Source  string
	Dest    string
	Type    string
	Options mount.Options
	// Mount is the index in Spec.Mounts, by which sources that were opened
	// beforehand are found.
	Mount int
	Node  *specs.LinuxDevice
}

// String is the step as a line.
func (s Step) String() string {
	switch s.Kind {
	case Link, Bind:
		return fmt.Sprintf("%s %s -> %s", s.Kind, s.Source, s.Dest)
	case FileSystem:
		return fmt.Sprintf("%s %s on %s %s", s.Kind, s.Type, s.Dest, strings.Join(s.Options.Data, ","))
	case Device:
		return fmt.Sprintf("%s %s %s %d:%d", s.Kind, s.Dest, s.Node.Type, s.Node.Major, s.Node.Minor)
	}
	return fmt.Sprintf("%s %s", s.Kind, s.Dest)
}

// Plan is everything that is done in a container's root, in order.
type Plan []Step

// String is the plan, a step per line.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p {
		b.WriteString(s.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// defaultDevices are made in every /dev that is the container's own
// (runtime-spec config-linux.md, "Default Devices").
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// defaultLinks are the symbolic links of "Dev symbolic links" in the same chapter.
var defaultLinks = [][2]string{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
	{"/proc/kcore", "/dev/core"},
	{"pts/ptmx", "/dev/ptmx"},
}

// NewPlan computes the plan of a configuration. Relative bind sources start at
// bundle. ErrInvalidArgument names the mount that makes no sense.
func NewPlan(s *specs.Spec, bundle string) (Plan, error) {
	plan := make(Plan, 0, len(s.Mounts)+len(defaultDevices)+len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths)+len(defaultLinks)+len(s.Linux.Devices))
	ownDev := true
	for i, m := range s.Mounts {
		step, err := mountStep(m, bundle)
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("mount %s: %s", m.Destination, err))
		}
		step.Mount = i
		if step.Dest == "/dev" && step.Kind == Bind {
			ownDev = false
		}
		plan = append(plan, step)
	}
	if ownDev {
		plan = append(plan, devices(s.Linux.Devices)...)
		for _, l := range defaultLinks {
			plan = append(plan, Step{Kind: Link, Source: l[0], Dest: l[1]})
		}
	}
	for _, p := range s.Linux.ReadonlyPaths {
		plan = append(plan, Step{Kind: Readonly, Dest: filepath.Clean(p)})
	}
	for _, p := range s.Linux.MaskedPaths {
		plan = append(plan, Step{Kind: Mask, Dest: filepath.Clean(p)})
	}
	return plan, nil
}

func mountStep(m specs.Mount, bundle string) (Step, error) {
	o, err := mount.ParseOptions(m.Options)
	if err != nil {
		return Step{}, err
	}
	// A relative destination is relative to "/" (runtime-spec config.md, "Mounts").
	step := Step{Source: m.Source, Dest: filepath.Clean("/" + m.Destination), Type: m.Type, Options: o}
	if step.Dest == "/" && !o.Remount {
		return Step{}, fmt.Errorf("the root cannot be mounted over")
	}
	if len(m.UIDMappings) > 0 {
		step.Options.IDMap = true
	}
	switch {
	case o.Remount:
		step.Kind = Remount
	case o.Bind || m.Type == "bind":
		step.Kind = Bind
		step.Options.Bind = true
		if m.Source == "" {
			return Step{}, fmt.Errorf("a bind mount needs a source")
		}
		if len(o.Data) > 0 {
			return Step{}, fmt.Errorf("bind mounts cannot have any filesystem-specific options applied: %s", strings.Join(o.Data, ","))
		}
		if !filepath.IsAbs(m.Source) {
			step.Source = filepath.Join(bundle, m.Source)
		}
	case m.Type == "cgroup", m.Type == "cgroup2":
		step.Kind = Cgroup
	case m.Type == "":
		return Step{}, fmt.Errorf("neither a type nor the option bind")
	default:
		step.Kind = FileSystem
	}
	if o.CopyUp && m.Type != "tmpfs" {
		return Step{}, fmt.Errorf("tmpcopyup is an option of tmpfs")
	}
	if step.Options.IDMap && step.Kind != Bind {
		return Step{}, fmt.Errorf("only bind mounts can be idmapped")
	}
	for i, p := range o.Propagation {
		if p&unix.MS_REC == 0 && i > 0 && o.Propagation[i-1]&unix.MS_REC != 0 {
			return Step{}, fmt.Errorf("propagation of the mount after that of its whole tree")
		}
	}
	return step, nil
}

// devices lists the default ones, which a configured one at the same path replaces.
func devices(own []specs.LinuxDevice) Plan {
	plan := make(Plan, 0, len(own)+len(defaultDevices))
	taken := make(map[string]bool, len(own))
	for i := range own {
		d := own[i]
		d.Path = filepath.Clean(d.Path)
		if d.Path == "/dev/ptmx" || d.Path == "/dev/console" {
			continue // made otherwise: a link, and a bind of the terminal
		}
		taken[d.Path] = true
		plan = append(plan, Step{Kind: Device, Dest: d.Path, Node: &d})
	}
	for i := range defaultDevices {
		if d := defaultDevices[i]; !taken[d.Path] {
			plan = append(plan, Step{Kind: Device, Dest: d.Path, Node: &d})
		}
	}
	return plan
}
