package container

import (
	"fmt"
	"strconv"
	"strings"
)

// Unconfined is the name of no profile, for seccomp and AppArmor.
const Unconfined = "unconfined"

// Security is what --security-opt says.
type Security struct {
	NoNewPrivileges bool
	// WritableCgroups is nil when nothing was said: then --privileged decides.
	WritableCgroups *bool
	// Seccomp is "" (the daemon's), "unconfined" or a profile as JSON.
	Seccomp string
	// AppArmor is "" (the default profile), "unconfined" or a loaded profile.
	AppArmor string
	// Labels are SELinux options (user:, role:, type:, level:, disable).
	Labels []string
	// UnconfinedPaths leaves /proc and /sys unmasked (systempaths=unconfined;
	// Docker's client turns that into empty lists itself).
	UnconfinedPaths bool
}

// ParseSecurityOpts reads the options. Errors are plain, in Docker's words.
func ParseSecurityOpts(opts []string, d Defaults) (Security, error) {
	s := Security{NoNewPrivileges: d.NoNewPrivileges}
	for _, opt := range opts {
		switch opt {
		case "no-new-privileges":
			s.NoNewPrivileges = true
			continue
		case "writable-cgroups":
			yes := true
			s.WritableCgroups = &yes
			continue
		case "disable":
			s.Labels = append(s.Labels, opt)
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !strings.Contains(opt, "=") {
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok {
			return s, fmt.Errorf("invalid --security-opt 1: %q", opt)
		}
		bad := fmt.Errorf("invalid --security-opt 2: %q", opt)
		switch key {
		case "label":
			s.Labels = append(s.Labels, value)
		case "apparmor":
			s.AppArmor = value
		case "seccomp":
			s.Seccomp = value
		case "no-new-privileges":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return s, bad
			}
			s.NoNewPrivileges = b
		case "writable-cgroups":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return s, bad
			}
			s.WritableCgroups = &b
		case "systempaths":
			if value != Unconfined {
				return s, bad
			}
			s.UnconfinedPaths = true
		default:
			return s, bad
		}
	}
	return s, nil
}

// processLabel and mountLabel put SELinux options together; both are empty
// when labels are off or none are given (the host's policy then decides).
func (s Security) processLabel() string {
	var user, role, typ, level string
	for _, l := range s.Labels {
		key, value, ok := strings.Cut(l, ":")
		if !ok {
			if l == "disable" {
				return ""
			}
			continue
		}
		switch key {
		case "user":
			user = value
		case "role":
			role = value
		case "type":
			typ = value
		case "level":
			level = value
		}
	}
	if typ == "" && level == "" {
		return ""
	}
	if user == "" {
		user = "system_u"
	}
	if role == "" {
		role = "system_r"
	}
	if typ == "" {
		typ = "container_t"
	}
	if level == "" {
		level = "s0"
	}
	return strings.Join([]string{user, role, typ, level}, ":")
}
