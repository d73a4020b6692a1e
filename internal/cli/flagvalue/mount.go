package flagvalue

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// Mounts is the repeated --mount, comma separated KEY=VALUE fields of one mount each. What is checked here is what
// the fields say about each other; paths and volumes are the daemon's business.
type Mounts struct{ list []mount.Mount }

// Set adds one mount; without type= it is a volume.
func (m *Mounts) Set(value string) error {
	value = strings.TrimSpace(value)
	if value == "" {
		return errors.New("value is empty")
	}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return err
	}
	mnt := mount.Mount{Type: mount.TypeVolume}
	for _, field := range fields {
		if err := setMountField(&mnt, field); err != nil {
			return err
		}
	}
	if err := checkMount(&mnt); err != nil {
		return err
	}
	m.list = append(m.list, mnt)
	return nil
}

// bareMountKeys may stand without a value and then mean true.
var bareMountKeys = map[string]bool{
	"readonly": true, "ro": true, "volume-nocopy": true, "bind-nonrecursive": true, "bind-create-src": true,
}

func setMountField(m *mount.Mount, field string) error {
	key, val, hasValue := strings.Cut(field, "=")
	if trimmed := strings.TrimSpace(key); trimmed != key {
		return fmt.Errorf("invalid option '%s' in '%s': option should not have whitespace", trimmed, field)
	}
	if hasValue {
		trimmed := strings.TrimSpace(val)
		if trimmed == "" {
			return fmt.Errorf("invalid value for '%s': value is empty", key)
		}
		if trimmed != val {
			return fmt.Errorf("invalid value for '%s' in '%s': value should not have whitespace", key, field)
		}
	}
	key = strings.ToLower(key)
	if !hasValue && !bareMountKeys[key] {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
	}

	var err error
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(val))
	case "source", "src":
		m.Source = val
		if strings.HasPrefix(val, ".") && !filepath.IsAbs(val) {
			if abs, err := filepath.Abs(val); err == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = val
	case "readonly", "ro":
		m.ReadOnly, err = flagField(key, val, hasValue)
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
	case "bind-propagation":
		bindOf(m).Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-nonrecursive":
		return errors.New("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
	case "bind-recursive":
		err = setRecursion(m, val)
	case "bind-create-src":
		bindOf(m).CreateMountpoint, err = flagField(key, val, hasValue)
	case "volume-subpath":
		volumeOf(m).Subpath = val
	case "volume-nocopy":
		volumeOf(m).NoCopy, err = flagField(key, val, hasValue)
	case "volume-label":
		addPair(&volumeOf(m).Labels, val)
	case "volume-driver":
		driverOf(m).Name = val
	case "volume-opt":
		addPair(&driverOf(m).Options, val)
	case "image-subpath":
		if m.ImageOptions == nil {
			m.ImageOptions = &mount.ImageOptions{}
		}
		m.ImageOptions.Subpath = val
	case "tmpfs-size":
		size, sizeErr := units.RAMInBytes(val)
		if sizeErr != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		tmpfsOf(m).SizeBytes = size
	case "tmpfs-mode":
		mode, modeErr := strconv.ParseUint(val, 8, 32)
		if modeErr != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		tmpfsOf(m).Mode = os.FileMode(mode)
	default:
		return fmt.Errorf("unknown option '%s' in '%s'", key, field)
	}
	return err
}

func setRecursion(m *mount.Mount, val string) error {
	switch val {
	case "enabled":
		// The default: with readonly, as recursive as the kernel can (Engine ≥ 25, Linux ≥ 5.12).
	case "disabled":
		bindOf(m).NonRecursive = true
	case "writable":
		bindOf(m).ReadOnlyNonRecursive = true
	case "readonly":
		bindOf(m).ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf(`invalid value for bind-recursive: %s (must be "enabled", "disabled", "writable", or "readonly")`, val)
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	if m.Type == "" {
		return errors.New("type is required")
	}
	for _, group := range []struct {
		name  string
		owner mount.Type
		given bool
	}{
		{"bind", mount.TypeBind, m.BindOptions != nil},
		{"volume", mount.TypeVolume, m.VolumeOptions != nil},
		{"image", mount.TypeImage, m.ImageOptions != nil},
		{"tmpfs", mount.TypeTmpfs, m.TmpfsOptions != nil},
	} {
		if group.given && m.Type != group.owner {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", group.name, m.Type)
		}
	}
	if b := m.BindOptions; b != nil {
		switch {
		case b.ReadOnlyNonRecursive && !m.ReadOnly:
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		case b.ReadOnlyForceRecursive && !m.ReadOnly:
			return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
		case b.ReadOnlyForceRecursive && b.Propagation != mount.PropagationRPrivate:
			return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
		}
	}
	return nil
}

// flagField reads a boolean field, which is narrower than Go's booleans and true without a value.
func flagField(key, val string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	switch val {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf(`invalid value for '%s': invalid boolean value (%q): must be one of "true", "1", "false", or "0" (default "true")`, key, val)
}

func bindOf(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volumeOf(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	return m.VolumeOptions
}

func driverOf(m *mount.Mount) *mount.Driver {
	v := volumeOf(m)
	if v.DriverConfig == nil {
		v.DriverConfig = &mount.Driver{}
	}
	return v.DriverConfig
}

func tmpfsOf(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

// addPair adds KEY=VALUE to a map that may be nil; an entry without a key is dropped.
func addPair(to *map[string]string, pair string) {
	k, v, _ := strings.Cut(pair, "=")
	if k == "" {
		return
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[k] = v
}

// String lists type, source and target.
func (m *Mounts) String() string {
	out := make([]string, 0, len(m.list))
	for _, mnt := range m.list {
		out = append(out, fmt.Sprintf("%s %s %s", mnt.Type, mnt.Source, mnt.Target))
	}
	return strings.Join(out, ", ")
}

// Type is "mount".
func (*Mounts) Type() string { return "mount" }

// Value returns the mounts in the order given.
func (m *Mounts) Value() []mount.Mount { return m.list }
