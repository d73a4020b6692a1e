package container

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	containertypes "github.com/moby/moby/api/types/container"
)

// Bounds of logs whose options say nothing: unlike Docker's json-file, a log
// never fills the disk.
const (
	DefaultLogSize  = 20 << 20
	DefaultLogFiles = 5
)

// logOptions are the options of each driver that writes a local file.
var logOptions = map[string][]string{
	"json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"},
	"local":     {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
	"none":      nil,
}

// LogConfigOf turns a container's log driver and options into what its monitor
// is told. path is the file of the log. ErrInvalidArgument in Docker's words
// for an unknown driver, option or value.
func LogConfigOf(h *containertypes.HostConfig, c *containertypes.Config, path string) (LogConfig, error) {
	driver := h.LogConfig.Type
	known, ok := logOptions[driver]
	if !ok {
		return LogConfig{}, withTextf(errdefs.ErrInvalidArgument, "logger: no log driver named '%s' is registered", driver)
	}
	out := LogConfig{Driver: driver, MaxSize: DefaultLogSize, MaxFiles: DefaultLogFiles, Compress: driver == "local"}
	if driver != "none" {
		out.Path = path
	}
	bad := func(format string, args ...any) (LogConfig, error) {
		return LogConfig{}, withTextf(errdefs.ErrInvalidArgument, format, args...)
	}
	for key, value := range h.LogConfig.Config {
		supported := false
		for _, k := range known {
			supported = supported || k == key
		}
		if !supported && driver != "none" {
			return bad("unknown log opt '%s' for %s log driver", key, driver)
		}
		switch key {
		case "max-size":
			n, err := units.FromHumanSize(value)
			if err != nil {
				return bad("failed to parse max-size: %v", err)
			}
			out.MaxSize = max(n, 0)
		case "max-file":
			n, err := strconv.Atoi(value)
			if err != nil {
				return bad("failed to parse max-file: %v", err)
			}
			if n < 1 {
				return bad("max-file cannot be less than 1")
			}
			out.MaxFiles = n
		case "compress":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return bad("failed to parse compress: %v", err)
			}
			out.Compress = b
		case "mode":
			if value != "" && value != "blocking" && value != "non-blocking" {
				return bad("logger: logging mode not supported: %s", value)
			}
		case "labels-regex", "env-regex":
			if _, err := regexp.Compile(value); err != nil {
				return bad("failed to parse %s: %v", key, err)
			}
		}
	}
	out.Attrs = logAttrs(h.LogConfig.Config, c)
	return out, nil
}

// logAttrs picks the labels and variables that are written into every line.
func logAttrs(opts map[string]string, c *containertypes.Config) map[string]string {
	attrs := map[string]string{}
	if list := opts["labels"]; list != "" {
		for name := range strings.SplitSeq(list, ",") {
			if v, ok := c.Labels[name]; ok {
				attrs[name] = v
			}
		}
	}
	if re, err := regexp.Compile(opts["labels-regex"]); err == nil && opts["labels-regex"] != "" {
		for name, v := range c.Labels {
			if re.MatchString(name) {
				attrs[name] = v
			}
		}
	}
	env := map[string]string{}
	for _, e := range c.Env {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}
	if list := opts["env"]; list != "" {
		for name := range strings.SplitSeq(list, ",") {
			if v, ok := env[name]; ok {
				attrs[name] = v
			}
		}
	}
	if re, err := regexp.Compile(opts["env-regex"]); err == nil && opts["env-regex"] != "" {
		for name, v := range env {
			if re.MatchString(name) {
				attrs[name] = v
			}
		}
	}
	if tag, ok := opts["tag"]; ok && tag != "" {
		attrs["tag"] = tag
	}
	if len(attrs) == 0 {
		return nil
	}
	return attrs
}

// LogFile is the name of a container's log below its folder.
func LogFile(id, driver string) string {
	if driver == "local" {
		return "local-logs/container.log"
	}
	return fmt.Sprintf("%s-json.log", id)
}
