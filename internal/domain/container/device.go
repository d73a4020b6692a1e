package container

import (
	"fmt"
	"regexp"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// parseDeviceRule reads one rule of --device-cgroup-rule.
func parseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	m := deviceRule.FindStringSubmatch(rule)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, fmt.Errorf("invalid device cgroup rule format: '%s'", rule)
	}
	number := func(s, what string) (*int64, error) {
		n := int64(-1)
		if s != "*" {
			var err error
			if n, err = strconv.ParseInt(s, 10, 64); err != nil {
				return nil, fmt.Errorf("invalid %s value in device cgroup rule format: '%s'", what, rule)
			}
		}
		return &n, nil
	}
	major, err := number(m[2], "major")
	if err != nil {
		return specs.LinuxDeviceCgroup{}, err
	}
	minor, err := number(m[3], "minor")
	if err != nil {
		return specs.LinuxDeviceCgroup{}, err
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Major: major, Minor: minor, Access: m[4]}, nil
}

func validateDeviceMode(mode string) error {
	seen := map[rune]bool{}
	for _, r := range mode {
		if (r != 'r' && r != 'w' && r != 'm') || seen[r] {
			return fmt.Errorf("invalid device mode: %s", mode)
		}
		seen[r] = true
	}
	return nil
}

// allow makes the cgroup rule of one device.
func allow(d specs.LinuxDevice, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: access}
}

// defaultDeviceRules deny everything but the harmless nodes of every
// container, as Docker's do.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rule := func(ok bool, major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: ok, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule(true, 1, 5),     // zero
		rule(true, 1, 3),     // null
		rule(true, 1, 9),     // urandom
		rule(true, 1, 8),     // random
		rule(true, 5, 0),     // tty
		rule(true, 5, 1),     // console
		rule(false, 10, 229), // fuse
	}
}
