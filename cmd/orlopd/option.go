package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/docker/go-units"

	"github.com/orlop/orlop/internal/domain/network"
)

// A setting is the value of one option: pflag.Value for the command line, and
// the same value written in JSON in daemon.json. Either replaces the default.
type setting interface {
	Set(string) error
	String() string
	Type() string
	// decode reads the value of daemon.json.
	decode(json.RawMessage) error
}

type stringSetting struct{ p *string }

func (s stringSetting) Set(v string) error               { *s.p = v; return nil }
func (s stringSetting) String() string                   { return *s.p }
func (s stringSetting) Type() string                     { return "string" }
func (s stringSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

type boolSetting struct{ p *bool }

func (s boolSetting) Set(v string) (err error) {
	*s.p, err = strconv.ParseBool(v)
	return err
}
func (s boolSetting) String() string                   { return strconv.FormatBool(*s.p) }
func (s boolSetting) Type() string                     { return "bool" }
func (s boolSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

type intSetting struct{ p *int }

func (s intSetting) Set(v string) (err error) {
	*s.p, err = strconv.Atoi(v)
	return err
}
func (s intSetting) String() string                   { return strconv.Itoa(*s.p) }
func (s intSetting) Type() string                     { return "int" }
func (s intSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

// bytesSetting is a size: "64m" on the command line, the same text or a number
// in JSON.
type bytesSetting struct{ p *int64 }

func (s bytesSetting) Set(v string) (err error) {
	*s.p, err = units.RAMInBytes(v)
	return err
}
func (s bytesSetting) String() string { return units.BytesSize(float64(*s.p)) }
func (s bytesSetting) Type() string   { return "bytes" }
func (s bytesSetting) decode(raw json.RawMessage) error {
	if raw[0] != '"' {
		return json.Unmarshal(raw, s.p)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	return s.Set(text)
}

// listSetting is given several times on the command line and as a list in JSON.
// check may be nil.
type listSetting struct {
	p     *[]string
	check func(string) (string, error)
}

func (s listSetting) Set(v string) error {
	if s.check != nil {
		var err error
		if v, err = s.check(v); err != nil {
			return err
		}
	}
	*s.p = append(*s.p, v)
	return nil
}
func (s listSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s listSetting) Type() string { return "list" }
func (s listSetting) decode(raw json.RawMessage) error {
	var values []string
	if err := json.Unmarshal(raw, &values); err != nil {
		return err
	}
	*s.p = nil
	for _, v := range values {
		if err := s.Set(v); err != nil {
			return err
		}
	}
	return nil
}

// mapSetting is key=value.
type mapSetting struct{ p *map[string]string }

func (s mapSetting) Set(v string) error {
	key, value, _ := strings.Cut(v, "=")
	(*s.p)[key] = value
	return nil
}
func (s mapSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s mapSetting) Type() string                     { return "map" }
func (s mapSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

// featureSetting is name or name=bool.
type featureSetting struct{ p *map[string]bool }

func (s featureSetting) Set(v string) error {
	name, value, given := strings.Cut(v, "=")
	on := true
	if given {
		var err error
		if on, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("invalid boolean value for feature %q: %w", name, err)
		}
	}
	(*s.p)[name] = on
	return nil
}
func (s featureSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s featureSetting) Type() string                     { return "map" }
func (s featureSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

// addrSetting is one IP address; "" is none.
type addrSetting struct{ p *netip.Addr }

func (s addrSetting) Set(v string) error {
	if v == "" {
		*s.p = netip.Addr{}
		return nil
	}
	addr, err := netip.ParseAddr(v)
	if err != nil {
		return fmt.Errorf("failed to parse IP: %q", v)
	}
	*s.p = addr.Unmap()
	return nil
}
func (s addrSetting) String() string {
	if !s.p.IsValid() {
		return ""
	}
	return s.p.String()
}
func (s addrSetting) Type() string { return "ip" }
func (s addrSetting) decode(raw json.RawMessage) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	return s.Set(text)
}

// addrsSetting is a list of IP addresses; several may stand in one value,
// separated by commas.
type addrsSetting struct{ p *[]netip.Addr }

func (s addrsSetting) Set(v string) error {
	for text := range strings.SplitSeq(v, ",") {
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("%s is not an ip address", text)
		}
		*s.p = append(*s.p, addr.Unmap())
	}
	return nil
}
func (s addrsSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s addrsSetting) Type() string { return "list" }
func (s addrsSetting) decode(raw json.RawMessage) error {
	var texts []string
	if raw[0] == '"' {
		// "host-gateway-ip" was one address.
		texts = make([]string, 1)
		if err := json.Unmarshal(raw, &texts[0]); err != nil {
			return err
		}
	} else if err := json.Unmarshal(raw, &texts); err != nil {
		return err
	}
	*s.p = nil
	for _, text := range texts {
		if err := s.Set(text); err != nil {
			return err
		}
	}
	return nil
}

// poolSetting is base=ADDRESS/BITS,size=BITS.
type poolSetting struct{ p *[]network.Pool }

func (s poolSetting) Set(v string) error {
	var pool network.Pool
	for field := range strings.SplitSeq(v, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch strings.ToLower(key) {
		case "base":
			base, err := netip.ParsePrefix(value)
			if err != nil {
				return fmt.Errorf("invalid base prefix %q: %w", value, err)
			}
			pool.Base = base
		case "size":
			size, err := strconv.Atoi(value)
			if err != nil {
				return fmt.Errorf("invalid size value: %q (must be integer): %w", value, err)
			}
			pool.Size = size
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	return s.add(pool)
}

func (s poolSetting) add(pool network.Pool) error {
	switch {
	case !pool.Base.IsValid():
		return fmt.Errorf("invalid default-address-pool: base is missing")
	case pool.Size < pool.Base.Bits() || pool.Size > pool.Base.Addr().BitLen():
		return fmt.Errorf("invalid default-address-pool: size %d does not fit into %s", pool.Size, pool.Base)
	}
	*s.p = append(*s.p, pool)
	return nil
}

func (s poolSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s poolSetting) Type() string { return "pool-options" }
func (s poolSetting) decode(raw json.RawMessage) error {
	var pools []network.Pool
	if err := json.Unmarshal(raw, &pools); err != nil {
		return err
	}
	*s.p = nil
	for _, pool := range pools {
		if err := s.add(pool); err != nil {
			return err
		}
	}
	return nil
}

// driverSetting is driver=option=value.
type driverSetting struct{ p *map[string]map[string]string }

func (s driverSetting) Set(v string) error {
	driver, rest, ok := strings.Cut(v, "=")
	key, value, pair := strings.Cut(rest, "=")
	if !ok || !pair || driver == "" || key == "" {
		return fmt.Errorf("invalid value %q for map option, should be root-key=key=value", v)
	}
	if *s.p == nil {
		*s.p = map[string]map[string]string{}
	}
	if (*s.p)[driver] == nil {
		(*s.p)[driver] = map[string]string{}
	}
	(*s.p)[driver][key] = value
	return nil
}
func (s driverSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s driverSetting) Type() string                     { return "mapmap" }
func (s driverSetting) decode(raw json.RawMessage) error { return json.Unmarshal(raw, s.p) }

// runtimeSetting is name=path.
type runtimeSetting struct {
	p *map[string]systemtypes.Runtime
}

func (s runtimeSetting) Set(v string) error {
	name, path, ok := strings.Cut(v, "=")
	name, path = strings.TrimSpace(name), strings.TrimSpace(path)
	switch {
	case !ok:
		return fmt.Errorf("invalid runtime argument: %s", v)
	case name == "" || path == "":
		return fmt.Errorf("invalid runtime argument: %s", v)
	case reservedRuntime(name):
		return fmt.Errorf("runtime name '%s' is reserved", name)
	}
	if _, ok := (*s.p)[name]; ok {
		return fmt.Errorf("runtime '%s' was already defined", name)
	}
	(*s.p)[name] = systemtypes.Runtime{Path: path}
	return nil
}

// reservedRuntime names are those of our own runtime; "runc" is one, because
// clients ask for it by that name.
func reservedRuntime(name string) bool { return name == "orlop" || name == "runc" }

func (s runtimeSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	return fmt.Sprint(*s.p)
}
func (s runtimeSetting) Type() string { return "runtime" }
func (s runtimeSetting) decode(raw json.RawMessage) error {
	var runtimes map[string]systemtypes.Runtime
	if err := json.Unmarshal(raw, &runtimes); err != nil {
		return err
	}
	for name, rt := range runtimes {
		switch {
		case reservedRuntime(name):
			return fmt.Errorf("runtime name '%s' is reserved", name)
		case rt.Path == "" && rt.Type == "":
			return fmt.Errorf("runtime '%s': either a path or a runtimeType is required", name)
		case rt.Type != "":
			return fmt.Errorf("runtime '%s': runtimeType is not available: there is no containerd to run %s; give the path of an OCI runtime", name, rt.Type)
		}
		(*s.p)[name] = rt
	}
	return nil
}

// ulimitSetting is name=soft[:hard].
type ulimitSetting struct {
	p *map[string]*containertypes.Ulimit
}

func (s ulimitSetting) Set(v string) error {
	limit, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	(*s.p)[limit.Name] = limit
	return nil
}
func (s ulimitSetting) String() string {
	if len(*s.p) == 0 {
		return ""
	}
	texts := []string{}
	for _, limit := range *s.p {
		texts = append(texts, limit.String())
	}
	return fmt.Sprint(texts)
}
func (s ulimitSetting) Type() string { return "ulimit" }
func (s ulimitSetting) decode(raw json.RawMessage) error {
	limits := map[string]*containertypes.Ulimit{}
	if err := json.Unmarshal(raw, &limits); err != nil {
		return err
	}
	for name, limit := range limits {
		if limit.Name == "" {
			limit.Name = name
		}
		if _, err := limit.GetRlimit(); err != nil {
			return err
		}
		(*s.p)[name] = limit
	}
	return nil
}

// decode accepts the fixed value in any form, and emptiness.
func (s *fixedSetting) decode(raw json.RawMessage) error {
	switch text := strings.Trim(string(raw), `"`); text {
	case "[]", "{}", "null":
		return nil
	default:
		return s.Set(text)
	}
}
