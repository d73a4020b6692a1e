// Package bundle reads a bundle's config.json and checks what the OCI
// runtime-spec demands of it, before anything is made. Entry points: Load and
// Validate. No locks, nothing but file reads.
package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ConfigFile is the name of the configuration in a bundle.
const ConfigFile = "config.json"

// maxConfig bounds what is read, in bytes.
const maxConfig = 32 << 20

// Load reads dir/config.json. ErrNotFound when there is none,
// ErrInvalidArgument when it is not a configuration.
func Load(dir string) (*specs.Spec, error) {
	spec, _, err := Read(dir)
	return spec, err
}

// Read is Load with the bytes of the file.
func Read(dir string) (*specs.Spec, []byte, error) {
	name := filepath.Join(dir, ConfigFile)
	st, err := os.Stat(name)
	if err == nil && st.Size() > maxConfig {
		return nil, nil, fmt.Errorf("load %s: %d bytes, more than %d: %w", name, st.Size(), maxConfig, errdefs.ErrInvalidArgument)
	}
	body, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errdefs.ErrNotFound.WithMessage("JSON specification file " + name + " not found")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load bundle: %w", err)
	}
	spec, err := Decode(body)
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return spec, body, nil
}

// LoadProcess reads a process object (exec --process).
func LoadProcess(name string) (*specs.Process, error) {
	body, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("load process: %w", err)
	}
	p, err := decodeProcess(body)
	if err != nil {
		return nil, fmt.Errorf("load process %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// invalid is a finding of the class InvalidArgument.
func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// Validate checks a configuration; overlay says that its root is given as
// layers. Every finding is ErrInvalidArgument, what we cannot do at all is
// ErrNotImplemented.
func Validate(s *specs.Spec, overlay bool) error {
	switch {
	case s == nil:
		return invalid("no configuration")
	case s.Version == "":
		return invalid("ociVersion is empty")
	case !semantic(s.Version):
		return invalid("ociVersion %q is no version like 1.3.0", s.Version)
	case !strings.HasPrefix(s.Version, "1."):
		return invalid("ociVersion %q: only 1.x is known", s.Version)
	case s.Linux == nil:
		return invalid("configuration has no linux section")
	case s.VM != nil:
		return errdefs.ErrNotImplemented.WithMessage("vm: containers in virtual machines are not supported")
	case s.Linux.IntelRdt != nil:
		return errdefs.ErrNotImplemented.WithMessage("linux.intelRdt is not supported")
	}
	if !overlay && (s.Root == nil || s.Root.Path == "") {
		return invalid("root.path is empty")
	}
	if err := validateNamespaces(s); err != nil {
		return err
	}
	if err := validateMounts(s); err != nil {
		return err
	}
	if s.Process != nil {
		if err := ValidateProcess(s.Process); err != nil {
			return err
		}
	}
	if err := validateHooks(s.Hooks); err != nil {
		return err
	}
	for _, list := range [][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths} {
		for _, p := range list {
			if !filepath.IsAbs(p) {
				return invalid("masked or read-only path %q is not absolute", p)
			}
		}
	}
	if p := s.Linux.Seccomp; p != nil && p.ListenerMetadata != "" && p.ListenerPath == "" {
		return invalid("seccomp.listenerMetadata is given without listenerPath")
	}
	if err := validateNetDevices(s); err != nil {
		return err
	}
	for _, d := range s.Linux.Devices {
		if !filepath.IsAbs(d.Path) {
			return invalid("device path %q is not absolute", d.Path)
		}
		if filepath.Clean(d.Path) == "/" {
			return invalid("device path %q is the root", d.Path)
		}
		if !strings.Contains("bcup", d.Type) || len(d.Type) != 1 {
			return invalid("device %s: unknown type %q", d.Path, d.Type)
		}
	}
	return validateSysctl(s)
}

// semantic reports whether v has the three numbers of a semantic version, with
// whatever follows a "-" or "+".
func semantic(v string) bool {
	v, _, _ = strings.Cut(v, "+")
	v, _, _ = strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return false
		}
	}
	return len(parts) == 3
}

// maxDeviceName is IFNAMSIZ without the NUL byte.
const maxDeviceName = 15

func validateNetDevices(s *specs.Spec) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	if ok, _ := Namespace(s, specs.NetworkNamespace); !ok {
		return invalid("netDevices need a network namespace")
	}
	for name, d := range s.Linux.NetDevices {
		for _, n := range []string{name, d.Name} {
			if len(n) > maxDeviceName || strings.ContainsAny(n, "/: \t\n\x00") || n == "." || n == ".." {
				return invalid("netDevices: %q cannot be the name of a network device", n)
			}
		}
		if name == "" {
			return invalid("netDevices: a device has no name")
		}
	}
	return nil
}

// ValidateProcess checks a process object.
func ValidateProcess(p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return invalid("process.args is empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return invalid("process.cwd %q is not an absolute path", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env} {
		for _, v := range list {
			if strings.IndexByte(v, 0) >= 0 {
				return invalid("process: an argument or variable holds a NUL byte")
			}
		}
	}
	return nil
}

func validateNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		if _, ok := CloneFlag(ns.Type); !ok {
			return invalid("namespace type %q is unknown", ns.Type)
		}
		if seen[ns.Type] {
			return invalid("namespace %q is given twice", ns.Type)
		}
		if ns.Path != "" && !filepath.IsAbs(ns.Path) {
			return invalid("namespace %q: path %q is not absolute", ns.Type, ns.Path)
		}
		seen[ns.Type] = true
	}
	user, joined := Namespace(s, specs.UserNamespace)
	maps := len(s.Linux.UIDMappings) > 0 || len(s.Linux.GIDMappings) > 0
	switch {
	case maps && !user:
		return invalid("uidMappings or gidMappings need a user namespace")
	case user && joined == "" && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0):
		return invalid("a new user namespace needs uidMappings and gidMappings")
	case s.Hostname != "" && !seen[specs.UTSNamespace]:
		return invalid("hostname needs a uts namespace")
	case s.Domainname != "" && !seen[specs.UTSNamespace]:
		return invalid("domainname needs a uts namespace")
	case len(s.Linux.TimeOffsets) > 0 && !seen[specs.TimeNamespace]:
		return invalid("timeOffsets need a time namespace")
	case !seen[specs.MountNamespace]:
		return invalid("a mount namespace is needed: without one the mounts would be the host's")
	}
	return nil
}

func validateMounts(s *specs.Spec) error {
	for _, m := range s.Mounts {
		if m.Destination == "" {
			return invalid("a mount has no destination")
		}
		if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
			return invalid("mount %s: uidMappings and gidMappings go together", m.Destination)
		}
	}
	switch s.Linux.RootfsPropagation {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
		return nil
	}
	return invalid("rootfsPropagation %q is unknown", s.Linux.RootfsPropagation)
}

func validateHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} { //nolint:staticcheck // prestart is deprecated and still to be run
		for _, hook := range list {
			if !filepath.IsAbs(hook.Path) {
				return invalid("hook path %q is not absolute", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return invalid("hook %s: timeout %d is not positive", hook.Path, *hook.Timeout)
			}
		}
	}
	return nil
}

// ipcSysctls are what belongs to an ipc namespace beside fs.mqueue.*.
var ipcSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true, "kernel.shmall": true,
	"kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}

// validateSysctl refuses kernel parameters that are not of a namespace of the
// container: they would change the host.
func validateSysctl(s *specs.Spec) error {
	for key := range s.Linux.Sysctl {
		name := SysctlName(key)
		var need specs.LinuxNamespaceType
		switch {
		case ipcSysctls[name] || strings.HasPrefix(name, "fs.mqueue."):
			need = specs.IPCNamespace
		case strings.HasPrefix(name, "net."):
			need = specs.NetworkNamespace
		case name == "kernel.domainname":
			need = specs.UTSNamespace
		case name == "kernel.hostname":
			return invalid("sysctl %q: use hostname instead", key)
		case strings.HasPrefix(name, "user."):
			need = specs.UserNamespace
		default:
			return invalid("sysctl %q is not in a separate kernel namespace", key)
		}
		if ok, _ := Namespace(s, need); !ok {
			return invalid("sysctl %q is not allowed in the host's %s namespace", key, need)
		}
	}
	return nil
}

// SysctlName brings a parameter's name into the form with dots: with slashes
// as separators, dots belong to a component and become slashes (sysctl(8)).
func SysctlName(key string) string {
	dot, slash := strings.IndexByte(key, '.'), strings.IndexByte(key, '/')
	if slash < 0 || dot >= 0 && dot < slash {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// Namespace reports whether s asks for a namespace of type t, and the path of
// the one to join, "" for a new one.
func Namespace(s *specs.Spec, t specs.LinuxNamespaceType) (ok bool, path string) {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return true, ns.Path
		}
	}
	return false, ""
}

// cloneFlags are the CLONE_NEW* bits of namespaces(7).
var cloneFlags = map[specs.LinuxNamespaceType]uintptr{
	specs.PIDNamespace: 0x20000000, specs.NetworkNamespace: 0x40000000, specs.MountNamespace: 0x20000,
	specs.IPCNamespace: 0x8000000, specs.UTSNamespace: 0x4000000, specs.UserNamespace: 0x10000000,
	specs.CgroupNamespace: 0x2000000, specs.TimeNamespace: 0x80,
}

// CloneFlag is the CLONE_NEW* bit of a namespace type.
func CloneFlag(t specs.LinuxNamespaceType) (uintptr, bool) {
	f, ok := cloneFlags[t]
	return f, ok
}
