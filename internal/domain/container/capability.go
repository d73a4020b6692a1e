package container

import (
	"fmt"
	"slices"
	"strings"
)

// defaultCapabilities of a container, Docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

const allCapabilities = "ALL"

// normalizeCapabilities spells capabilities as CAP_NAME and refuses those that
// do not exist or that the daemon does not have.
func normalizeCapabilities(caps []string, facts HostFacts) ([]string, error) {
	out := slices.Clone(caps)
	for i, c := range out {
		c = strings.ToUpper(c)
		if c != allCapabilities && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		out[i] = c
		switch {
		case c == allCapabilities:
		case !slices.Contains(facts.KnownCapabilities, c):
			return nil, fmt.Errorf("unknown capability: %q", c)
		case !slices.Contains(facts.Capabilities, c):
			return nil, fmt.Errorf("capability not supported by your kernel or not available in the current environment: %q", c)
		}
	}
	return out, nil
}

// Capabilities computes the set of a container from --cap-add, --cap-drop and
// --privileged.
func Capabilities(add, drop []string, privileged bool, facts HostFacts) ([]string, error) {
	if privileged {
		return slices.Clone(facts.Capabilities), nil
	}
	if len(add) == 0 && len(drop) == 0 {
		return slices.Clone(defaultCapabilities), nil
	}
	drop, err := normalizeCapabilities(drop, facts)
	if err != nil {
		return nil, err
	}
	add, err = normalizeCapabilities(add, facts)
	if err != nil {
		return nil, err
	}
	var out []string
	switch {
	case slices.Contains(add, allCapabilities):
		for _, c := range facts.Capabilities {
			if !slices.Contains(drop, c) {
				out = append(out, c)
			}
		}
	case slices.Contains(drop, allCapabilities):
		out = add
	default:
		for _, c := range defaultCapabilities {
			if !slices.Contains(drop, c) {
				out = append(out, c)
			}
		}
		for _, c := range add {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out, nil
}
