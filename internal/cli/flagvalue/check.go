package flagvalue

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
)

const blanks = " \t"

// Env takes NAME=VALUE, or NAME alone, which stands for the value in this process's environment; a NAME that is not
// in the environment stays bare and the daemon drops it.
func Env(value string) (string, error) {
	name, _, given := strings.Cut(value, "=")
	if name == "" {
		return "", errors.New("invalid environment variable: " + value)
	}
	if given {
		return value, nil
	}
	if here, ok := os.LookupEnv(name); ok {
		return name + "=" + here, nil
	}
	return value, nil
}

// Label takes KEY or KEY=VALUE with a key that is not empty and has no blanks.
func Label(value string) (string, error) {
	key, _, _ := strings.Cut(value, "=")
	key = strings.TrimLeft(key, blanks)
	if key == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", value)
	}
	if strings.ContainsAny(key, blanks) {
		return "", fmt.Errorf("label '%s' contains whitespaces", key)
	}
	return value, nil
}

// IP takes an IPv4 or IPv6 address without brackets and returns its canonical form.
func IP(value string) (string, error) {
	if ip := net.ParseIP(strings.TrimSpace(value)); ip != nil {
		return ip.String(), nil
	}
	return "", fmt.Errorf("IP address is not correctly formatted: %s", value)
}

var domainForm = sync.OnceValue(func() *regexp.Regexp {
	const label = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])`
	return regexp.MustCompile(`^(` + label + `(?:\.` + label + `)*)\.?\s*$`)
})

// DNSSearch takes a search domain; "." stands for none.
func DNSSearch(value string) (string, error) {
	value = strings.Trim(value, " ")
	if value == "." {
		return value, nil
	}
	letter := strings.ContainsFunc(value, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
	if m := domainForm().FindStringSubmatch(value); letter && m != nil && len(m[1]) < 255 {
		return m[1], nil
	}
	return "", fmt.Errorf("%s is not a valid domain", value)
}

// namespacedSysctls are the settings of kernel.* that belong to the IPC namespace; all of net.* and fs.mqueue.* is
// namespaced as well.
var namespacedSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// Sysctl takes KEY=VALUE for a setting that belongs to a container's namespaces.
func Sysctl(value string) (string, error) {
	key, _, ok := strings.Cut(value, "=")
	if ok && (strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "fs.mqueue.")) {
		return value, nil
	}
	for _, allowed := range namespacedSysctls {
		if ok && key == allowed {
			return value, nil
		}
	}
	return "", fmt.Errorf("sysctl '%s' is not allowed", value)
}

// ExtraHost takes NAME:ADDRESS or NAME=ADDRESS, where the address may stand in brackets or be "host-gateway", and
// returns the form the API knows, NAME:ADDRESS without brackets. The address keeps the spelling it was given in.
func ExtraHost(value string) (string, error) {
	name, addr, ok := strings.Cut(value, "=")
	if !ok {
		name, addr, ok = strings.Cut(value, ":")
	}
	if !ok || name == "" || strings.Contains(name, ":") {
		return "", fmt.Errorf("bad format for add-host: %q", value)
	}
	if addr != "host-gateway" {
		if len(addr) > 2 && addr[0] == '[' && addr[len(addr)-1] == ']' {
			addr = addr[1 : len(addr)-1]
		}
		if _, err := IP(addr); err != nil {
			return "", fmt.Errorf("invalid IP address in add-host: %q", addr)
		}
	}
	return name + ":" + addr, nil
}

// Link takes CONTAINER or CONTAINER:ALIAS.
func Link(value string) (string, error) {
	if value == "" {
		return value, errors.New("empty string specified for links")
	}
	if strings.Count(value, ":") > 1 {
		return value, errors.New("bad format for links: " + value)
	}
	return value, nil
}

// Stream takes the name of a standard stream in any case.
func Stream(value string) (string, error) {
	switch s := strings.ToLower(value); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return value, errors.New("valid streams are STDIN, STDOUT and STDERR")
}

var deviceRuleForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`)
})

// DeviceRule takes "TYPE MAJOR:MINOR MODE", a line of the devices cgroup.
func DeviceRule(value string) (string, error) {
	if deviceRuleForm().MatchString(value) {
		return value, nil
	}
	return value, fmt.Errorf("invalid device cgroup format '%s'", value)
}
