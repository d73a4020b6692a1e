package flagvalue

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SplitVolumes reads --volume values, SOURCE:TARGET[:OPTIONS] or TARGET. It returns those with a source as the
// strings of HostConfig.Binds, a relative host path made absolute, and the anonymous ones as Config.Volumes.
// A value given twice counts once.
func SplitVolumes(values []string) (binds []string, volumes map[string]struct{}, _ error) {
	volumes = map[string]struct{}{}
	seen := map[string]bool{}
	for _, value := range values {
		if seen[value] {
			continue
		}
		seen[value] = true
		source, err := volumeSource(value)
		if err != nil {
			return nil, nil, err
		}
		if source == "" {
			volumes[value] = struct{}{}
			continue
		}
		if isPath(source) {
			host, rest, _ := strings.Cut(value, ":")
			if strings.HasPrefix(host, ".") && !filepath.IsAbs(host) {
				if abs, err := filepath.Abs(host); err == nil {
					host = abs
				}
			}
			value = host + ":" + rest
		}
		binds = append(binds, value)
	}
	return binds, volumes, nil
}

// volumeSource splits a value at its colons, those of Windows drives excepted, and returns the source.
func volumeSource(spec string) (string, error) {
	if spec == "" {
		return "", errors.New("invalid empty volume spec")
	}
	if len(spec) <= 2 {
		return "", nil
	}
	var parts []string
	start := 0
	for i, r := range spec {
		if r != ':' || isDrive(spec[start:i]) {
			continue
		}
		parts = append(parts, spec[start:i])
		start = i + 1
	}
	parts = append(parts, spec[start:])
	for i, part := range parts {
		if part == "" {
			return "", fmt.Errorf("invalid spec: %s: %w", spec, errors.New("empty section between colons"))
		}
		if i == 3 || i == 2 && len(parts) > 3 {
			return "", fmt.Errorf("invalid spec: %s: %w", spec, errors.New("too many colons"))
		}
	}
	if len(parts) == 1 {
		return "", nil
	}
	return parts[0], nil
}

func isDrive(section string) bool {
	r, size := utf8.DecodeRuneInString(section)
	return size > 0 && size == len(section) && unicode.IsLetter(r)
}

// isPath tells a path on the host from the name of a volume.
func isPath(source string) bool {
	switch source[0] {
	case '.', '/', '~':
		return true
	}
	if strings.HasPrefix(source, `\\`) {
		return true // a Windows named pipe
	}
	r, size := utf8.DecodeRuneInString(source)
	return size < len(source) && unicode.IsLetter(r) && source[size] == ':'
}
