package container

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

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

// logOptions are the options of each driver that writes a local file, beside
// those of all drivers (mode, max-buffer-size).
var logOptions = map[string][]string{
	"json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
	"local":     {"max-size", "max-file", "compress"},
	"none":      nil,
}

const (
	nonBlocking = "non-blocking"
	// defaultLogBuffer in bytes of mode=non-blocking, as in Docker.
	defaultLogBuffer = 1e6
)

// ValidateLogConfig checks the driver and the options of a log by what Docker
// checks when a container is created: names, mode and max-buffer-size.
// ErrInvalidArgument in Docker's words.
func ValidateLogConfig(log containertypes.LogConfig) error {
	bad := func(format string, args ...any) error {
		return withTextf(errdefs.ErrInvalidArgument, format, args...)
	}
	if log.Type == "none" {
		return nil
	}
	mode := log.Config["mode"]
	if mode != "" && mode != "blocking" && mode != nonBlocking {
		return bad("logger: logging mode not supported: %s", mode)
	}
	if size, ok := log.Config["max-buffer-size"]; ok {
		if mode != nonBlocking {
			return bad("logger: max-buffer-size option is only supported with 'mode=%s'", nonBlocking)
		}
		if _, err := units.RAMInBytes(size); err != nil {
			return bad("error parsing option max-buffer-size: %v", err)
		}
	}
	known, ok := logOptions[log.Type]
	if !ok {
		return bad(`error looking up logging plugin %s: plugin "%s" not found`, log.Type, log.Type)
	}
	for _, key := range slices.Sorted(maps.Keys(log.Config)) {
		switch {
		case key == "mode", key == "max-buffer-size", slices.Contains(known, key):
		case log.Type == "local":
			return bad("unknown log opt '%s' for log driver local", key)
		default:
			return bad("unknown log opt '%s' for %s log driver", key, log.Type)
		}
	}
	return nil
}

// LogConfigOf turns a container's log driver and options into what its monitor
// is told. path is the file of the log, info what a tag is made from.
// ErrInvalidArgument in Docker's words for an unknown driver, option or value.
func LogConfigOf(log containertypes.LogConfig, info LogInfo, path string) (LogConfig, error) {
	if err := ValidateLogConfig(log); err != nil {
		return LogConfig{}, err
	}
	out, err := logConfigOf(log, info, path)
	if err != nil {
		return LogConfig{}, withTextf(errdefs.ErrInvalidArgument, "failed to initialize logging driver: %v", err)
	}
	return out, nil
}

func logConfigOf(log containertypes.LogConfig, info LogInfo, path string) (LogConfig, error) {
	out := LogConfig{Driver: log.Type, MaxSize: DefaultLogSize, MaxFiles: DefaultLogFiles, Compress: log.Type == "local"}
	if log.Type == "none" {
		return out, nil
	}
	out.Path = path
	opts := log.Config
	if value, ok := opts["max-size"]; ok && value != "-1" {
		n, err := units.FromHumanSize(value)
		if err != nil {
			return out, err
		}
		if n <= 0 {
			return out, errors.New("max-size must be a positive number")
		}
		out.MaxSize = n
	} else if ok {
		out.MaxSize = 0
	}
	if value, ok := opts["max-file"]; ok {
		n, err := strconv.Atoi(value)
		if err != nil {
			return out, err
		}
		if n < 1 {
			return out, errors.New("max-file cannot be less than 1")
		}
		out.MaxFiles = n
	}
	if value, ok := opts["compress"]; ok {
		var err error
		if out.Compress, err = strconv.ParseBool(value); err != nil {
			return out, err
		}
	}
	if out.Compress && (out.MaxFiles < 2 || out.MaxSize == 0) {
		if log.Type == "local" {
			return out, errors.New("compression cannot be enabled when max file count is 1")
		}
		return out, errors.New("compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	if opts["mode"] == nonBlocking {
		out.Buffer = defaultLogBuffer
		// Checked already; Docker takes anything below 1 as the default.
		if n, err := units.RAMInBytes(opts["max-buffer-size"]); err == nil && n > 0 {
			out.Buffer = n
		}
	}
	info.Config = opts
	attrs, err := info.ExtraAttributes(nil)
	if err != nil {
		return out, err
	}
	if opts["tag"] != "" {
		tag, err := info.tag(opts["tag"])
		if err != nil {
			return out, err
		}
		if tag != "" {
			attrs["tag"] = tag
		}
	}
	if len(attrs) > 0 {
		out.Attrs = attrs
	}
	return out, nil
}

// LogFile is the name of a container's log below its folder.
func LogFile(id, driver string) string {
	if driver == "local" {
		return "local-logs/container.log"
	}
	return fmt.Sprintf("%s-json.log", id)
}
