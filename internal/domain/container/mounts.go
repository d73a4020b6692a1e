package container

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Mount is a resolved mount of a container: where it comes from on the host
// and where it goes. It is part of the stored state.
type Mount struct {
	Type mount.Type `json:"type"`
	// Name of the volume; "" for others.
	Name string `json:"name,omitempty"`
	// Source on the host; "" for a tmpfs and for a volume not made yet.
	Source      string            `json:"source,omitempty"`
	Destination string            `json:"destination"`
	Driver      string            `json:"driver,omitempty"`
	Mode        string            `json:"mode,omitempty"`
	RW          bool              `json:"rw"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	// Anonymous volumes go with their container.
	Anonymous bool `json:"anonymous,omitempty"`
	// Copy fills a new volume with what the image has at the destination.
	Copy bool `json:"copy,omitempty"`
	// CreateSource makes a missing folder on the host (-v, not --mount).
	CreateSource bool `json:"createSource,omitempty"`
	// NonRecursive binds only the mount itself, not those below it.
	NonRecursive bool `json:"nonRecursive,omitempty"`
	// ReadOnlyNonRecursive leaves mounts below writable; ForceRecursive fails
	// where the kernel cannot make them read-only.
	ReadOnlyNonRecursive   bool `json:"readOnlyNonRecursive,omitempty"`
	ReadOnlyForceRecursive bool `json:"readOnlyForceRecursive,omitempty"`
	// Explicit propagation: asked for, not the default.
	ExplicitPropagation bool `json:"explicitPropagation,omitempty"`
	// Subpath of a volume.
	Subpath string `json:"subpath,omitempty"`
	// Options of a tmpfs, comma separated.
	Options string `json:"options,omitempty"`
	// Labels of a volume that is made for this mount.
	Labels map[string]string `json:"labels,omitempty"`
}

// LocalDriver is the name of the volume driver that is a folder of the host.
const LocalDriver = "local"

var propagations = map[mount.Propagation]bool{
	mount.PropagationPrivate: true, mount.PropagationRPrivate: true, mount.PropagationSlave: true,
	mount.PropagationRSlave: true, mount.PropagationShared: true, mount.PropagationRShared: true,
}

// validateTarget checks where a mount goes.
func validateTarget(target string) error {
	if path.Clean(target) == "/" {
		return errors.New("invalid specification: destination can't be '/'")
	}
	return validateAbsolute(target)
}

func validateAbsolute(p string) error {
	if !path.IsAbs(p) {
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", p)
	}
	return nil
}

// isLocalPath reports whether p stays below the folder it is joined to.
func isLocalPath(p string) bool {
	if p == "" || path.IsAbs(p) {
		return false
	}
	clean := path.Clean(p)
	return clean != ".." && !strings.HasPrefix(clean, "../")
}

// ValidateMount checks one entry of HostConfig.Mounts, without looking at the
// host. Errors are plain, in Docker's words.
func ValidateMount(m *mount.Mount) error {
	if err := validateMount(m); err != nil {
		return fmt.Errorf("invalid mount config for type %q: %w", m.Type, err)
	}
	return nil
}

func validateMount(m *mount.Mount) error {
	for _, o := range []struct {
		name  string
		given bool
		typ   mount.Type
	}{
		{"BindOptions", m.BindOptions != nil, mount.TypeBind},
		{"VolumeOptions", m.VolumeOptions != nil, mount.TypeVolume},
		{"ImageOptions", m.ImageOptions != nil, mount.TypeImage},
		{"TmpfsOptions", m.TmpfsOptions != nil, mount.TypeTmpfs},
		{"ClusterOptions", m.ClusterOptions != nil, mount.TypeCluster},
	} {
		if o.given && m.Type != o.typ {
			return fmt.Errorf("field %s must not be specified", o.name)
		}
	}
	if m.Target == "" {
		return errors.New("field Target must not be empty")
	}
	if err := validateTarget(m.Target); err != nil {
		return err
	}
	switch m.Type {
	case mount.TypeBind:
		if m.Source == "" {
			return errors.New("field Source must not be empty")
		}
		if o := m.BindOptions; o != nil {
			if o.Propagation != "" && !propagations[o.Propagation] {
				return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
			}
			if !m.ReadOnly && o.ReadOnlyNonRecursive {
				return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
			}
			if !m.ReadOnly && o.ReadOnlyForceRecursive {
				return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
			}
			if o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive {
				return errors.New("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
			}
		}
		return validateAbsolute(m.Source)
	case mount.TypeVolume:
		if o := m.VolumeOptions; o != nil {
			if o.Subpath != "" {
				if m.Source == "" {
					return errors.New("must not set Subpath when using anonymous volumes")
				}
				if !isLocalPath(o.Subpath) {
					return errors.New("subpath must be a relative path within the volume")
				}
			}
			if o.DriverConfig != nil && o.DriverConfig.Name != "" && o.DriverConfig.Name != LocalDriver {
				return fmt.Errorf("error looking up volume plugin %[1]s: plugin %[1]q not found", o.DriverConfig.Name)
			}
			if o.DriverConfig != nil && len(o.DriverConfig.Options) > 0 {
				return errors.New("options of the local volume driver are not supported by this engine")
			}
		}
		if m.Source != "" {
			return ValidateVolumeName(m.Source)
		}
		return nil
	case mount.TypeTmpfs:
		if m.Source != "" {
			return errors.New("field Source must not be specified")
		}
		_, err := tmpfsOptions(m.TmpfsOptions, m.ReadOnly)
		return err
	}
	if m.Type == mount.TypeImage || m.Type == mount.TypeCluster {
		return errors.New("mounts of this type are not supported by this engine")
	}
	return errors.New("mount type unknown")
}

// ValidateVolumeName checks a volume's name. Plain error in Docker's words.
func ValidateVolumeName(name string) error {
	if !validName(name) {
		return fmt.Errorf("create %s: %q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, name, nameChars)
	}
	return nil
}

// modes of a bind "-v source:target:mode": each kind at most once.
func parseMode(mode string) (ro, copySet, copyOn bool, propagation mount.Propagation, ok bool) {
	copyOn = true
	if mode == "" {
		return false, false, true, "", true
	}
	var rw, label, prop, cp, consistency int
	for o := range strings.SplitSeq(mode, ",") {
		switch {
		case o == "rw" || o == "ro":
			rw++
			ro = o == "ro"
		case o == "z" || o == "Z":
			label++
		case propagations[mount.Propagation(o)]:
			prop++
			propagation = mount.Propagation(o)
		case o == "nocopy":
			cp++
			copySet, copyOn = true, false
		case o == "consistent" || o == "cached" || o == "delegated":
			consistency++
		default:
			return false, false, false, "", false
		}
	}
	ok = rw <= 1 && label <= 1 && prop <= 1 && cp <= 1 && consistency <= 1
	return ro, copySet, copyOn, propagation, ok
}

// parseBind reads one "-v" of the request.
func parseBind(raw, volumeDriver string) (Mount, error) {
	invalid := withTextf(errdefs.ErrInvalidArgument, "invalid volume specification: '%s'", raw)
	parts := strings.SplitN(raw, ":", 4)
	if parts[0] == "" {
		return Mount{}, invalid
	}
	var source, target, mode string
	switch len(parts) {
	case 1:
		target = parts[0]
	case 2:
		if _, _, _, _, ok := parseMode(parts[1]); ok {
			return Mount{}, invalid
		}
		source, target = parts[0], parts[1]
	case 3:
		source, target, mode = parts[0], parts[1], parts[2]
	default:
		return Mount{}, invalid
	}
	ro, copySet, copyOn, propagation, ok := parseMode(mode)
	if !ok {
		return Mount{}, withTextf(errdefs.ErrInvalidArgument, "invalid mode: %s", mode)
	}
	m := mount.Mount{Type: mount.TypeVolume, Source: source, Target: target, ReadOnly: ro}
	if path.IsAbs(source) {
		m.Type = mount.TypeBind
	}
	if m.Type == mount.TypeVolume {
		if propagation != "" {
			return Mount{}, withTextf(errdefs.ErrInvalidArgument, "%v: %v", invalid, ValidateMount(&mount.Mount{Type: m.Type, Target: target, BindOptions: &mount.BindOptions{}}))
		}
		if volumeDriver != "" || copySet {
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: !copyOn}
			if volumeDriver != "" {
				m.VolumeOptions.DriverConfig = &mount.Driver{Name: volumeDriver}
			}
		}
	} else if propagation != "" {
		m.BindOptions = &mount.BindOptions{Propagation: propagation}
	}
	if err := ValidateMount(&m); err != nil {
		return Mount{}, withTextf(errdefs.ErrInvalidArgument, "%v: %v", invalid, err)
	}
	out := mountOf(m)
	out.Mode = mode
	out.CreateSource = m.Type == mount.TypeBind
	return out, nil
}

// mountOf resolves a validated entry.
func mountOf(m mount.Mount) Mount {
	out := Mount{Type: m.Type, Destination: path.Clean(m.Target), RW: !m.ReadOnly}
	switch m.Type {
	case mount.TypeVolume:
		out.Name, out.Driver, out.Copy = m.Source, LocalDriver, true
		out.Anonymous = m.Source == ""
		if o := m.VolumeOptions; o != nil {
			out.Copy, out.Labels, out.Subpath = !o.NoCopy, o.Labels, o.Subpath
		}
	case mount.TypeBind:
		out.Source, out.Propagation = path.Clean(m.Source), mount.PropagationRPrivate
		if o := m.BindOptions; o != nil {
			if o.Propagation != "" {
				out.Propagation, out.ExplicitPropagation = o.Propagation, true
			}
			out.CreateSource, out.NonRecursive = o.CreateMountpoint, o.NonRecursive
			out.ReadOnlyNonRecursive, out.ReadOnlyForceRecursive = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
		}
	case mount.TypeTmpfs:
		// Checked before: validateMount has seen the options.
		out.Options, _ = tmpfsOptions(m.TmpfsOptions, m.ReadOnly)
	}
	return out
}

// tmpfsOptions spells the options of a tmpfs for mount(8).
func tmpfsOptions(o *mount.TmpfsOptions, readOnly bool) (string, error) {
	var out []string
	if readOnly {
		out = append(out, "ro")
	}
	if o != nil {
		if o.Mode != 0 {
			out = append(out, fmt.Sprintf("mode=%o", o.Mode))
		}
		if o.SizeBytes != 0 {
			size, suffix := o.SizeBytes, ""
			for _, unit := range []struct {
				suffix string
				bytes  int64
			}{{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}} {
				if size%unit.bytes == 0 {
					size, suffix = size/unit.bytes, unit.suffix
					break
				}
			}
			out = append(out, fmt.Sprintf("size=%d%s", size, suffix))
		}
		for _, opt := range o.Options {
			switch {
			case len(opt) < 1 || len(opt) > 2:
				return "", errors.New("invalid option array length")
			case opt[0] != "exec" && opt[0] != "noexec":
				return "", errors.New("invalid option: " + opt[0])
			}
			out = append(out, strings.Join(opt, "="))
		}
	}
	return strings.Join(out, ","), nil
}

// OtherMounts finds the mounts of another container, for --volumes-from.
type OtherMounts func(ref string) ([]Mount, error)

// ResolveMounts lists what a container mounts beside the defaults: mounts of
// other containers, then -v and --mount, then the image's volumes. Later ones
// replace --volumes-from; two of the request at one place are an error.
// Failures are ErrInvalidArgument in Docker's words.
func ResolveMounts(h *containertypes.HostConfig, c *containertypes.Config, d Defaults, others OtherMounts) ([]Mount, error) {
	byDest := map[string]Mount{}
	for _, from := range h.VolumesFrom {
		ref, mode, _ := strings.Cut(from, ":")
		if ref == "" {
			return nil, withText(errdefs.ErrInvalidArgument, "volumes-from specification cannot be an empty string")
		}
		ro, copySet, _, propagation, ok := parseMode(mode)
		if !ok || copySet || propagation != "" {
			return nil, withTextf(errdefs.ErrInvalidArgument, "invalid mode: %s", mode)
		}
		mounts, err := others(ref)
		if err != nil {
			return nil, withText(errdefs.ErrInvalidArgument, err.Error())
		}
		for _, m := range mounts {
			m.RW, m.Copy, m.Anonymous = m.RW && !ro, false, false
			byDest[m.Destination] = m
		}
	}
	asked := map[string]bool{}
	add := func(m Mount, spelled string) error {
		if err := d.keepRootShared(&m); err != nil {
			return err
		}
		if _, tmpfs := h.Tmpfs[m.Destination]; asked[m.Destination] || tmpfs {
			return withTextf(errdefs.ErrInvalidArgument, "Duplicate mount point: %s", spelled)
		}
		asked[m.Destination] = true
		byDest[m.Destination] = m
		return nil
	}
	for _, raw := range h.Binds {
		m, err := parseBind(raw, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if m.Type == mount.TypeVolume && m.Mode == "" {
			m.Mode = "z"
		}
		if err := add(m, m.Destination); err != nil {
			return nil, err
		}
	}
	for _, raw := range h.Mounts {
		m := mountOf(raw)
		if m.Type == mount.TypeVolume {
			m.Mode = "z"
		}
		if err := add(m, raw.Target); err != nil {
			return nil, err
		}
	}
	for target := range c.Volumes {
		dest := path.Clean(target)
		if err := validateTarget(dest); err != nil {
			return nil, withText(errdefs.ErrInvalidArgument, err.Error())
		}
		if _, tmpfs := h.Tmpfs[dest]; tmpfs {
			continue
		}
		if _, known := byDest[dest]; known {
			continue
		}
		byDest[dest] = Mount{Type: mount.TypeVolume, Destination: dest, Driver: LocalDriver, RW: true, Copy: true, Anonymous: true}
	}
	out := make([]Mount, 0, len(byDest))
	for _, m := range byDest {
		out = append(out, m)
	}
	SortMounts(out)
	return out, nil
}

// keepRootShared keeps a bind of the daemon's own folder from holding its
// mounts: such a bind follows the host's unmounts.
func (d Defaults) keepRootShared(m *Mount) error {
	if m.Type != mount.TypeBind || d.RootDir == "" {
		return nil
	}
	if !strings.HasPrefix(m.Source, d.RootDir) && !strings.HasPrefix(d.RootDir, m.Source) {
		return nil
	}
	if !m.ExplicitPropagation {
		m.Propagation = mount.PropagationRSlave
		return nil
	}
	switch m.Propagation {
	case mount.PropagationRSlave, mount.PropagationRShared:
		return nil
	}
	return withTextf(errdefs.ErrInvalidArgument,
		`invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, daemon root: %q, bind mount source: %q, propagation: %q`,
		d.RootDir, m.Source, m.Propagation)
}

// SortMounts orders mounts so that a parent comes before what is below it.
func SortMounts(mounts []Mount) {
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		if n := depth(a.Destination) - depth(b.Destination); n != 0 {
			return n
		}
		return strings.Compare(a.Destination, b.Destination)
	})
}

func depth(p string) int {
	if p = path.Clean(p); p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// MountPoints shows mounts as inspect and list do.
func MountPoints(mounts []Mount) []containertypes.MountPoint {
	out := make([]containertypes.MountPoint, 0, len(mounts))
	for _, m := range mounts {
		out = append(out, containertypes.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
			Mode: m.Mode, RW: m.RW, Propagation: m.Propagation,
		})
	}
	return out
}
