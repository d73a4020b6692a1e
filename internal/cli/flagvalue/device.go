package flagvalue

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// Weights are the per-device block IO weights, PATH:WEIGHT with a weight of 0 (unset) or 10 to 1000.
type Weights struct{ list []*blkiodev.WeightDevice }

// Set adds one device.
func (w *Weights) Set(value string) error {
	path, weight, err := devicePath(value)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(weight, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return fmt.Errorf("invalid weight for device: %s", value)
	}
	w.list = append(w.list, &blkiodev.WeightDevice{Path: path, Weight: uint16(n)})
	return nil
}

// String lists the devices.
func (w *Weights) String() string { return stringsOf(w.list) }

// Type is "list".
func (*Weights) Type() string { return "list" }

// Value returns the devices; never nil.
func (w *Weights) Value() []*blkiodev.WeightDevice {
	return append([]*blkiodev.WeightDevice{}, w.list...)
}

// Throttles are per-device limits, PATH:RATE: bytes per second with a unit, or operations per second.
type Throttles struct {
	// Operations makes the rate a plain number of operations; the default is bytes with an optional unit.
	Operations bool
	list       []*blkiodev.ThrottleDevice
}

// Set adds one device.
func (t *Throttles) Set(value string) error {
	path, text, err := devicePath(value)
	if err != nil {
		return err
	}
	var rate uint64
	if t.Operations {
		rate, err = strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", value)
		}
	} else {
		n, err := units.RAMInBytes(text)
		if err != nil || n < 0 {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", value)
		}
		rate = uint64(n)
	}
	t.list = append(t.list, &blkiodev.ThrottleDevice{Path: path, Rate: rate})
	return nil
}

// String lists the devices.
func (t *Throttles) String() string { return stringsOf(t.list) }

// Type is "list".
func (*Throttles) Type() string { return "list" }

// Value returns the devices; never nil.
func (t *Throttles) Value() []*blkiodev.ThrottleDevice {
	return append([]*blkiodev.ThrottleDevice{}, t.list...)
}

func devicePath(value string) (path, rest string, _ error) {
	path, rest, ok := strings.Cut(value, ":")
	if !ok || path == "" {
		return "", "", fmt.Errorf("bad format: %s", value)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", value)
	}
	return path, rest, nil
}

func stringsOf[T fmt.Stringer](list []T) string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return fmt.Sprint(out)
}

// Ulimits are resource limits NAME=SOFT[:HARD], the last of a name wins.
type Ulimits struct{ byName map[string]*container.Ulimit }

// Set adds one limit.
func (u *Ulimits) Set(value string) error {
	limit, err := units.ParseUlimit(value)
	if err != nil {
		return err
	}
	if u.byName == nil {
		u.byName = map[string]*container.Ulimit{}
	}
	u.byName[limit.Name] = limit
	return nil
}

// String lists the limits in alphabetical order.
func (u *Ulimits) String() string {
	out := make([]string, 0, len(u.byName))
	for _, limit := range u.byName {
		out = append(out, limit.String())
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

// Type is "ulimit".
func (*Ulimits) Type() string { return "ulimit" }

// Value returns the limits ordered by name; nil when none was given.
func (u *Ulimits) Value() []*container.Ulimit {
	return slices.SortedFunc(maps.Values(u.byName), func(a, b *container.Ulimit) int { return strings.Compare(a.Name, b.Name) })
}

// GPUs are device requests in the form of --gpus: a count, "all", or comma separated fields
// (driver, count, device, capabilities, options).
type GPUs struct{ list []container.DeviceRequest }

// Set adds one request.
func (g *GPUs) Set(value string) error {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return err
	}
	var req container.DeviceRequest
	seen := map[string]bool{}
	for _, field := range fields {
		key, val, hasValue := strings.Cut(field, "=")
		if seen[key] {
			return fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		if !hasValue {
			seen["count"] = true
			if req.Count, err = gpuCount(key); err != nil {
				return err
			}
			continue
		}
		switch key {
		case "driver":
			req.Driver = val
		case "count":
			if req.Count, err = gpuCount(val); err != nil {
				return err
			}
		case "device":
			req.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			pairs, err := csv.NewReader(strings.NewReader(val)).Read()
			if err != nil {
				return fmt.Errorf("failed to read gpu options: %w", err)
			}
			req.Options = PairsToMap(pairs)
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if !seen["count"] && req.DeviceIDs == nil {
		req.Count = 1
	}
	if req.Options == nil {
		req.Options = map[string]string{}
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	g.list = append(g.list, req)
	return nil
}

func gpuCount(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf(`invalid count (%s): value must be either "all" or an integer: %w`, text, numberFault(err))
	}
	return n, nil
}

// numberFault takes the reason out of strconv's error, without the function name and the quoted input.
func numberFault(err error) error {
	var num *strconv.NumError
	if errors.As(err, &num) {
		return num.Err
	}
	return err
}

// String lists the requests.
func (g *GPUs) String() string {
	out := make([]string, 0, len(g.list))
	for _, r := range g.list {
		out = append(out, fmt.Sprint(r))
	}
	return strings.Join(out, ", ")
}

// Type is "gpu-request".
func (*GPUs) Type() string { return "gpu-request" }

// Value returns the requests.
func (g *GPUs) Value() []container.DeviceRequest { return g.list }
