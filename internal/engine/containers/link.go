package containers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
)

// parseLink reads "name:alias" (or "name") of --link.
func parseLink(raw string) (ref, alias string, err error) {
	if raw == "" {
		return "", "", invalid("empty string specified for links")
	}
	parts := strings.Split(raw, ":")
	if len(parts) > 2 {
		return "", "", invalid("bad format for links: %s", raw)
	}
	ref, alias = parts[0], parts[len(parts)-1]
	// Records of old clients: "/name:/this/alias".
	if i := strings.LastIndexByte(alias, '/'); i >= 0 {
		alias = alias[i+1:]
	}
	return strings.TrimPrefix(ref, "/"), alias, nil
}

// checkLinks refuses links to containers that are not there.
func (s *Service) checkLinks(host *containertypes.HostConfig) error {
	for _, raw := range host.Links {
		ref, _, err := parseLink(raw)
		if err != nil {
			return err
		}
		other, err := s.find(ref)
		if err != nil {
			return invalid("could not get container for %s: %v", ref, err)
		}
		if other.snapshot().saved.HostConfig.NetworkMode.IsHost() {
			return conflict("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
	}
	return nil
}

// links gives what --link adds on the default bridge: names for /etc/hosts and
// the variables of old.
func (s *Service) links(snap *snapshot) (hosts, env []string, err error) {
	host := snap.saved.HostConfig
	if len(host.Links) == 0 || !host.NetworkMode.IsDefault() && host.NetworkMode != "bridge" {
		return nil, nil, nil
	}
	for _, raw := range host.Links {
		ref, alias, err := parseLink(raw)
		if err != nil {
			return nil, nil, err
		}
		other, err := s.find(ref)
		if err != nil {
			return nil, nil, fmt.Errorf("link to %s: %w", ref, err)
		}
		linked := other.snapshot()
		if !linked.state.Alive() {
			return nil, nil, conflict("Cannot link to a non running container: /%s AS /%s/%s", linked.name, snap.name, alias)
		}
		settings := s.cfg.Networks.Settings(linked.id)
		if settings == nil {
			continue
		}
		ep := settings.Networks["bridge"]
		if ep == nil || !ep.IPAddress.IsValid() {
			continue
		}
		addr := ep.IPAddress.String()
		for _, name := range []string{alias, linked.name, linked.saved.Config.Hostname} {
			if entry := name + ":" + addr; name != "" && !slices.Contains(hosts, entry) {
				hosts = append(hosts, entry)
			}
		}
		prefix := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
		env = append(env, prefix+"_NAME=/"+snap.name+"/"+alias)
		first := true
		for _, p := range slices.Sorted(maps.Keys(portsByText(linked.saved.Config))) {
			num, proto, _ := strings.Cut(p, "/")
			url := fmt.Sprintf("%s://%s:%s", proto, addr, num)
			if first {
				env = append(env, prefix+"_PORT="+url)
				first = false
			}
			key := fmt.Sprintf("%s_PORT_%s_%s", prefix, num, strings.ToUpper(proto))
			env = append(env, key+"="+url, key+"_ADDR="+addr, key+"_PORT="+num, key+"_PROTO="+proto)
		}
		for _, e := range linked.saved.Config.Env {
			if k, v, ok := strings.Cut(e, "="); ok && k != "HOME" && k != "PATH" {
				env = append(env, prefix+"_ENV_"+k+"="+v)
			}
		}
	}
	return hosts, env, nil
}

func portsByText(c *containertypes.Config) map[string]struct{} {
	out := map[string]struct{}{}
	for p := range c.ExposedPorts {
		out[p.String()] = struct{}{}
	}
	return out
}
