package cgroup

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	// controllers of a v1 hierarchy as the kernel names them, "name=systemd"
	// for a named one; nil on v2.
	controllers []string
	v2          bool
	// mount is where it is mounted, root the group that shows there ("/"
	// but in a container without a cgroup namespace).
	mount, root string
	// self is this process's own group.
	self string
}

func (h *hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// absolute is the directory of a group named from the mount's root.
func (h *hierarchy) absolute(group string) string { return path.Join(h.mount, path.Join("/", group)) }

// relative is the directory of a group named from this process's own. On v2
// it is beside the own group, not in it: a group with processes cannot hand
// controllers down.
func (h *hierarchy) relative(group string) string {
	self := h.self
	if h.v2 {
		self = path.Dir(self)
	}
	below, ok := strings.CutPrefix(self, h.root)
	if !ok {
		below = "" // mounted from elsewhere: its root is all we see
	}
	return path.Join(h.mount, path.Join("/", below), path.Join("/", group))
}

const defaultMount = "/sys/fs/cgroup"

// find lists the mounted hierarchies, v2 last. Only mounts at or below root
// count when it is not empty. Without relative, the hierarchies' roots need
// not be known, which spares reading mountinfo (120 µs on v1).
func find(root string, relative bool) ([]hierarchy, error) {
	own, err := readFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read /proc/self/cgroup: %w", err)
	}
	// On most hosts one statfs tells everything.
	at := root
	if at == "" {
		at = defaultMount
	}
	var st unix.Statfs_t
	if unix.Statfs(at, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		if self, ok := ownGroup(own, nil, true); ok && !strings.HasPrefix(self, "/..") {
			return []hierarchy{{v2: true, mount: at, root: "/", self: self}}, nil
		}
	}
	if root == "" && !relative {
		if hs := usualPlaces(own); hs != nil {
			return hs, nil
		}
	}
	mounts, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read /proc/self/mountinfo: %w", err)
	}
	hs := parse(mounts, own, root)
	if len(hs) == 0 {
		return nil, errdefs.ErrNotImplemented.WithMessage("no cgroup file system is mounted")
	}
	return hs, nil
}

// usualPlaces are the hierarchies where systemd and everybody since mounts
// them; nil unless every v1 hierarchy is there.
func usualPlaces(own []byte) []hierarchy {
	var out []hierarchy
	var v2 *hierarchy
	complete := true
	is := func(dir string, magic int64) bool {
		var st unix.Statfs_t
		return unix.Statfs(dir, &st) == nil && uint32(st.Type) == uint32(magic)
	}
	eachLine(own, func(line []byte) {
		_, rest, _ := bytes.Cut(line, []byte{':'})
		list, self, ok := bytes.Cut(rest, []byte{':'})
		switch {
		case !ok:
		case len(list) == 0:
			if h := (hierarchy{v2: true, mount: defaultMount + "/unified", root: "/", self: string(self)}); is(h.mount, unix.CGROUP2_SUPER_MAGIC) {
				v2 = &h
			}
		default:
			h := hierarchy{controllers: strings.Split(string(list), ","), root: "/", self: string(self)}
			h.mount = defaultMount + "/" + strings.TrimPrefix(string(list), "name=")
			complete = complete && is(h.mount, unix.CGROUP_SUPER_MAGIC)
			out = append(out, h)
		}
	})
	if !complete || len(out) == 0 {
		return nil
	}
	if v2 != nil {
		out = append(out, *v2)
	}
	return out
}

// parse finds hierarchies in the texts of /proc/self/mountinfo (proc(5)) and
// /proc/self/cgroup (cgroups(7)).
func parse(mountinfo, own []byte, under string) []hierarchy {
	var out []hierarchy
	eachLine(mountinfo, func(line []byte) {
		// id parent dev root mountpoint options [tags…] - type source superoptions
		before, after, ok := bytes.Cut(line, []byte(" - cgroup"))
		if !ok {
			return
		}
		f := bytes.Fields(before)
		g := bytes.Fields(after)
		if len(f) < 6 || len(g) < 1 {
			return
		}
		h := hierarchy{root: unescape(f[3]), mount: unescape(f[4])}
		if under != "" && h.mount != under && !strings.HasPrefix(h.mount, strings.TrimSuffix(under, "/")+"/") {
			return
		}
		switch {
		case len(after) > 0 && after[0] == '2':
			h.v2 = true
			h.self, ok = ownGroup(own, nil, true)
		case len(g) >= 2:
			options := strings.Split(string(g[len(g)-1]), ",")
			h.self, ok = ownGroup(own, options, false)
			if ok {
				h.controllers = controllersOf(own, options)
			}
		default:
			ok = false
		}
		if !ok {
			return
		}
		for i := range out {
			if out[i].v2 == h.v2 && slices.Equal(out[i].controllers, h.controllers) {
				// Mounted twice: the usual place is the better one.
				if strings.HasPrefix(h.mount, defaultMount) && !strings.HasPrefix(out[i].mount, defaultMount) {
					out[i] = h
				}
				return
			}
		}
		out = append(out, h)
	})
	slices.SortStableFunc(out, func(a, b hierarchy) int {
		switch {
		case a.v2 == b.v2:
			return 0
		case a.v2:
			return 1
		}
		return -1
	})
	return out
}

// ownGroup is this process's group in the hierarchy with the given mount
// options, or in v2's.
func ownGroup(own []byte, options []string, v2 bool) (group string, ok bool) {
	eachLine(own, func(line []byte) {
		_, rest, _ := bytes.Cut(line, []byte{':'})
		ctrls, dir, found := bytes.Cut(rest, []byte{':'})
		if !found || ok {
			return
		}
		if v2 {
			if len(ctrls) == 0 {
				group, ok = string(dir), true
			}
			return
		}
		if len(ctrls) > 0 && slices.Contains(options, strings.Split(string(ctrls), ",")[0]) {
			group, ok = string(dir), true
		}
	})
	return group, ok
}

// controllersOf is the controller list of the hierarchy with these options.
func controllersOf(own []byte, options []string) (out []string) {
	eachLine(own, func(line []byte) {
		f := bytes.SplitN(line, []byte{':'}, 3)
		if len(f) == 3 && len(f[1]) > 0 && out == nil {
			if list := strings.Split(string(f[1]), ","); slices.Contains(options, list[0]) {
				out = list
			}
		}
	})
	return out
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if v, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(v))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
