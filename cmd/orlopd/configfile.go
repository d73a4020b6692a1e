package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// readConfigFile puts the values of daemon.json into the settings of opts. It
// refuses keys that are no options, and options that were given as flags too:
// neither would win without surprising somebody. A file that does not exist is
// an error of class fs.ErrNotExist.
func readConfigFile(path string, flags *pflag.FlagSet, opts []option) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Editors of Windows put a byte order mark in front.
	raw = bytes.TrimSpace(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")))
	if len(raw) == 0 {
		return nil
	}
	if !utf8.Valid(raw) {
		return errors.New("failed to decode configuration JSON: it is not UTF-8")
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(raw, &file); err != nil {
		return fmt.Errorf("invalid JSON: %w", err)
	}
	if old, ok := file["host-gateway-ip"]; ok {
		if _, both := file["host-gateway-ips"]; both {
			return errors.New("host-gateway-ip and host-gateway-ips must not both be specified in the config file")
		}
		file["host-gateway-ips"] = old
		delete(file, "host-gateway-ip")
	}
	flattenProxies(file)
	// Docker ignores these for old files that still have them.
	delete(file, "deprecated-key-path")
	delete(file, "allow-nondistributable-artifacts")

	known := map[string]option{}
	for _, o := range opts {
		known[o.key] = o
	}
	var unknown, conflicts []string
	for _, key := range slices.Sorted(maps.Keys(file)) {
		o, ok := known[key]
		if !ok {
			unknown = append(unknown, key)
			continue
		}
		if f := flags.Lookup(o.flag); f != nil && f.Changed && !o.both {
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %v, from file: %v)",
				key, maskURL(o.setting.String()), maskURL(shown(file[key]))))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(conflicts) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		if string(file[key]) == "null" {
			continue
		}
		if err := known[key].setting.decode(file[key]); err != nil {
			var wrongType *json.UnmarshalTypeError
			if errors.As(err, &wrongType) {
				return fmt.Errorf("invalid JSON: %s: a JSON %s cannot be a %s", key, wrongType.Value, wrongType.Type)
			}
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// flattenProxies reads {"proxies":{"http-proxy":…}}, which is how Docker writes
// the proxies in daemon.json.
func flattenProxies(file map[string]json.RawMessage) {
	var proxies map[string]json.RawMessage
	if json.Unmarshal(file["proxies"], &proxies) != nil {
		return
	}
	delete(file, "proxies")
	maps.Copy(file, proxies)
}

// shown is a JSON value as Docker prints it in a conflict.
func shown(raw json.RawMessage) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return string(raw)
	}
	return fmt.Sprint(v)
}

// maskURL hides the user and password of a URL.
func maskURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

// fileMissing: the default daemon.json need not exist, a named one must.
func fileMissing(err error, flags *pflag.FlagSet) bool {
	return errors.Is(err, fs.ErrNotExist) && !flags.Changed("config-file")
}
