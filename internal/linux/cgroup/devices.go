package cgroup

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// access is a set of rwm.
type access uint8

const (
	mayRead access = 1 << iota
	mayWrite
	mayMknod
	mayAll = mayRead | mayWrite | mayMknod
)

func (a access) String() string {
	s := ""
	if a&mayRead != 0 {
		s += "r"
	}
	if a&mayWrite != 0 {
		s += "w"
	}
	if a&mayMknod != 0 {
		s += "m"
	}
	return s
}

// anyNumber is "*" as a major or minor.
const anyNumber = -1

// deviceID is what a rule is about: kind 'b' or 'c' and numbers or any.
type deviceID struct {
	kind         byte
	major, minor int64
}

func (d deviceID) String() string {
	n := func(v int64) string {
		if v == anyNumber {
			return "*"
		}
		return strconv.FormatInt(v, 10)
	}
	return string(d.kind) + " " + n(d.major) + ":" + n(d.minor)
}

// deviceRules are who may use which device: all, with exceptions forbidden, or
// none, with exceptions allowed, as the v1 controller keeps them
// (admin-guide/cgroup-v1/devices.rst). Both versions are made from it.
type deviceRules struct {
	allowAll   bool
	exceptions []exception // sorted
}

type exception struct {
	id  deviceID
	may access
}

// String is one canonical text, v1's rule form.
func (d deviceRules) String() string {
	var b strings.Builder
	if d.allowAll {
		b.WriteString("all but")
	} else {
		b.WriteString("only")
	}
	for _, e := range d.exceptions {
		b.WriteString("\n" + e.id.String() + " " + e.may.String())
	}
	return b.String()
}

func (d deviceRules) equal(o deviceRules) bool {
	return d.allowAll == o.allowAll && slices.Equal(d.exceptions, o.exceptions)
}

func (d *deviceRules) find(id deviceID) (int, bool) {
	return slices.BinarySearchFunc(d.exceptions, id, func(e exception, id deviceID) int {
		return cmp.Or(cmp.Compare(e.id.kind, id.kind), cmp.Compare(e.id.major, id.major), cmp.Compare(e.id.minor, id.minor))
	})
}

// apply adds a rule to those before it. It fails when the rule would cut a
// hole into a wildcard exception: v1 ignores such rules silently, which would
// leave a device open that the user believes closed (runc refuses them too).
func (d *deviceRules) apply(allow bool, id deviceID, may access) error {
	if allow == d.allowAll {
		for _, wide := range []deviceID{{id.kind, anyNumber, id.minor}, {id.kind, id.major, anyNumber}, {id.kind, anyNumber, anyNumber}} {
			if i, ok := d.find(wide); ok && wide != id && d.exceptions[i].may&may != 0 {
				return invalid("device rule for %s cannot except from the one for %s", id, wide)
			}
		}
		// Back to the default: takes from an exception.
		if i, ok := d.find(id); ok {
			if d.exceptions[i].may &^= may; d.exceptions[i].may == 0 {
				d.exceptions = slices.Delete(d.exceptions, i, i+1)
			}
		}
		return nil
	}
	i, ok := d.find(id)
	if !ok {
		d.exceptions = slices.Insert(d.exceptions, i, exception{id: id})
	}
	d.exceptions[i].may |= may
	return nil
}

// allow adds devices to a list of allowed ones.
func (d *deviceRules) allow(list []exception) {
	for _, e := range list {
		i, ok := d.find(e.id)
		if !ok {
			d.exceptions = slices.Insert(d.exceptions, i, exception{id: e.id})
		}
		d.exceptions[i].may |= e.may
	}
}

// defaultDevices are those every container may use, as runc allows them:
// making nodes harms nobody, and the OCI default devices (config-linux.md)
// with the pseudo-terminals.
func defaultDevices() []exception {
	return []exception{
		{deviceID{'c', anyNumber, anyNumber}, mayMknod},
		{deviceID{'b', anyNumber, anyNumber}, mayMknod},
		{deviceID{'c', 1, 3}, mayAll},           // null
		{deviceID{'c', 1, 5}, mayAll},           // zero
		{deviceID{'c', 1, 7}, mayAll},           // full
		{deviceID{'c', 1, 8}, mayAll},           // random
		{deviceID{'c', 1, 9}, mayAll},           // urandom
		{deviceID{'c', 5, 0}, mayAll},           // tty
		{deviceID{'c', 5, 1}, mayAll},           // console
		{deviceID{'c', 5, 2}, mayAll},           // ptmx
		{deviceID{'c', 136, anyNumber}, mayAll}, // pts
	}
}

// defaultRules are those of a container whose configuration lists none.
func defaultRules() deviceRules {
	d := deviceRules{exceptions: make([]exception, 0, 16)}
	d.allow(defaultDevices())
	return d
}

// rules reads the device list. It starts with everything forbidden, and the
// default devices are allowed whatever the list says, both as in runc.
func (g *group) rules(r *specs.LinuxResources) (deviceRules, error) {
	if !g.whole {
		return deviceRules{allowAll: true}, nil
	}
	return rulesOf(r.Devices)
}

func rulesOf(list []specs.LinuxDeviceCgroup) (deviceRules, error) {
	var d deviceRules
	for _, l := range list {
		id := deviceID{major: anyNumber, minor: anyNumber}
		if l.Major != nil && *l.Major >= 0 {
			id.major = *l.Major
		}
		if l.Minor != nil && *l.Minor >= 0 {
			id.minor = *l.Minor
		}
		may, err := parseAccess(l.Access)
		if err != nil {
			return d, err
		}
		switch l.Type {
		case "a", "":
			if id.major == anyNumber && id.minor == anyNumber && may == mayAll {
				d = deviceRules{allowAll: l.Allow}
				continue
			}
			if l.Type == "a" {
				// v1 has no such rule: the kernel ignores what follows "a".
				return d, invalid("device rule of type a must be for all devices and rwm")
			}
			// Type is optional; without it the rule is for both kinds.
			for _, k := range []byte{'b', 'c'} {
				id.kind = k
				if err := d.apply(l.Allow, id, may); err != nil {
					return d, err
				}
			}
		case "b", "c", "u": // u is an unbuffered character device
			id.kind = l.Type[0]
			if id.kind == 'u' {
				id.kind = 'c'
			}
			if err := d.apply(l.Allow, id, may); err != nil {
				return d, err
			}
		default:
			return d, invalid("device type %q is not a, b or c", l.Type)
		}
	}
	if !d.allowAll {
		d.allow(defaultDevices())
	}
	return d, nil
}

// parseAccess reads "rwm"; empty is all, as an omitted OCI access.
func parseAccess(s string) (access, error) {
	if s == "" {
		return mayAll, nil
	}
	var a access
	for i := range len(s) {
		switch s[i] {
		case 'r':
			a |= mayRead
		case 'w':
			a |= mayWrite
		case 'm':
			a |= mayMknod
		default:
			return 0, invalid("device access %q is not made of r, w and m", s)
		}
	}
	return a, nil
}
