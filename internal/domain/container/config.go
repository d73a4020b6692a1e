package container

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// ImageDefaults reads the part of an image that fills what a create request
// leaves open. A malformed exposed port of an image is left out.
func ImageDefaults(img dockerspec.DockerOCIImageConfig) containertypes.Config {
	c := containertypes.Config{
		User:        img.User,
		Env:         img.Env,
		Cmd:         img.Cmd,
		Entrypoint:  img.Entrypoint,
		WorkingDir:  img.WorkingDir,
		Volumes:     img.Volumes,
		Labels:      img.Labels,
		StopSignal:  img.StopSignal,
		Healthcheck: img.Healthcheck,
		OnBuild:     img.OnBuild,
		Shell:       img.Shell,
	}
	if len(img.ExposedPorts) > 0 {
		c.ExposedPorts = network.PortSet{}
		for raw := range img.ExposedPorts {
			if p, err := network.ParsePort(raw); err == nil {
				c.ExposedPorts[p] = struct{}{}
			}
		}
	}
	return c
}

// Merge fills what user leaves open from the image's defaults, as Docker does,
// and returns a new configuration that shares nothing with either. It fails
// with ErrInvalidArgument when there is nothing to run.
func Merge(user, image containertypes.Config) (containertypes.Config, error) {
	c := user
	if c.User == "" {
		c.User = image.User
	}
	c.ExposedPorts = maps.Clone(user.ExposedPorts)
	for p := range image.ExposedPorts {
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[p] = struct{}{}
	}
	c.Env = slices.Clone(user.Env)
	for _, e := range image.Env {
		key, _, _ := strings.Cut(e, "=")
		known := slices.ContainsFunc(user.Env, func(u string) bool {
			k, _, _ := strings.Cut(u, "=")
			return k == key
		})
		if !known {
			c.Env = append(c.Env, e)
		}
	}
	c.Labels = map[string]string{}
	maps.Copy(c.Labels, image.Labels)
	maps.Copy(c.Labels, user.Labels)

	// An entrypoint of the user's clears the image's command; [""] clears the
	// image's entrypoint.
	c.Cmd, c.Entrypoint = slices.Clone(user.Cmd), slices.Clone(user.Entrypoint)
	if len(user.Entrypoint) == 0 {
		if len(user.Cmd) == 0 {
			c.Cmd = slices.Clone(image.Cmd)
		}
		if user.Entrypoint == nil {
			c.Entrypoint = slices.Clone(image.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return containertypes.Config{}, withText(errdefs.ErrInvalidArgument, "no command specified")
	}

	c.Healthcheck = mergeHealth(user.Healthcheck, image.Healthcheck)
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	c.Volumes = maps.Clone(user.Volumes)
	for v := range image.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if c.WorkingDir != "" {
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	return c, nil
}

func mergeHealth(user, image *containertypes.HealthConfig) *containertypes.HealthConfig {
	if user == nil && image == nil {
		return nil
	}
	var h containertypes.HealthConfig
	if user != nil {
		h = *user
	}
	if image != nil {
		if len(h.Test) == 0 {
			h.Test = image.Test
		}
		if h.Interval == 0 {
			h.Interval = image.Interval
		}
		if h.Timeout == 0 {
			h.Timeout = image.Timeout
		}
		if h.StartPeriod == 0 {
			h.StartPeriod = image.StartPeriod
		}
		if h.StartInterval == 0 {
			h.StartInterval = image.StartInterval
		}
		if h.Retries == 0 {
			h.Retries = image.Retries
		}
	}
	h.Test = slices.Clone(h.Test)
	return &h
}

// maxHostname is HOST_NAME_MAX of linux/limits.h.
const maxHostname = 64

// ValidateConfig checks the portable half of a create request. Every failure
// is ErrInvalidArgument in Docker's words.
func ValidateConfig(c *containertypes.Config) error {
	if c == nil {
		return withText(errdefs.ErrInvalidArgument, "config cannot be empty in order to create a container")
	}
	if err := validateConfig(c); err != nil {
		return withText(errdefs.ErrInvalidArgument, err.Error())
	}
	return nil
}

func validateConfig(c *containertypes.Config) error {
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if c.StopSignal != "" {
		if _, err := ParseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	for _, e := range c.Env {
		if key, _, _ := strings.Cut(e, "="); key == "" {
			return errors.New("invalid environment variable: " + e)
		}
	}
	if h := c.Healthcheck; h != nil {
		for _, d := range []struct {
			name  string
			value int64
		}{
			{"Interval", int64(h.Interval)}, {"Timeout", int64(h.Timeout)},
			{"StartPeriod", int64(h.StartPeriod)}, {"StartInterval", int64(h.StartInterval)},
		} {
			if d.value != 0 && d.value < int64(containertypes.MinimumDuration) {
				return fmt.Errorf("%s in Healthcheck cannot be less than %s", d.name, containertypes.MinimumDuration)
			}
		}
		if h.Retries < 0 {
			return errors.New("Retries in Healthcheck cannot be negative")
		}
	}
	if len(c.Hostname) > maxHostname {
		return fmt.Errorf("hostname %q is too long (maximum %d bytes)", c.Hostname, maxHostname)
	}
	return nil
}

// Command is what a container runs: the entrypoint followed by the command.
func Command(c *containertypes.Config) (path string, args []string) {
	all := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(all) == 0 {
		return "", []string{}
	}
	return all[0], all[1:]
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment of a container's processes: Docker's defaults, overridden and
// extended by the configuration's.
func Environment(c *containertypes.Config, tty bool) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.Hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return OverrideEnv(env, c.Env)
}

// OverrideEnv replaces variables of env by those of overrides, appends new
// ones, and removes those that overrides name without a value. It returns a
// new list.
func OverrideEnv(env, overrides []string) []string {
	index := make(map[string]int, len(env))
	out := slices.Clone(env)
	for i, e := range out {
		key, _, _ := strings.Cut(e, "=")
		index[key] = i
	}
	for _, o := range overrides {
		key, _, hasValue := strings.Cut(o, "=")
		i, known := index[key]
		switch {
		case !hasValue && known:
			out[i] = ""
		case !hasValue:
		case known:
			out[i] = o
		default:
			out = append(out, o)
		}
	}
	return slices.DeleteFunc(out, func(e string) bool { return e == "" })
}

// StopSignalOf is the signal that ends the container politely; SIGTERM unless
// configured.
func StopSignalOf(c *containertypes.Config) int {
	if c.StopSignal != "" {
		if n, err := ParseSignal(c.StopSignal); err == nil && ValidSignal(n) {
			return n
		}
	}
	return SIGTERM
}
