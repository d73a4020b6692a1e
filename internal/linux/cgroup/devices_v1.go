package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Limiting devices on v1 takes a write per rule, a dozen of them 110 µs. A
// group starts with its parent's list, so containers with the default list
// are made below one group that has it: <parent>/devices-<hash>/<name>.
// That detour is in the devices hierarchy alone.

// sharedName is the name of that group. The number is the FNV-1a hash of the
// list: another list must have another group, because this one may outlive the
// program that made it. A test holds them together.
const sharedName = "devices-f952ad2e"

// direct is the directory without the detour.
func direct(p *place) string {
	if up := path.Dir(p.dir); path.Base(up) == sharedName {
		return path.Join(path.Dir(up), path.Base(p.dir))
	}
	return p.dir
}

// detour is the directory with it, or "" for a group directly below the root,
// where nothing of ours should be added.
func detour(p *place) string {
	d := direct(p)
	parent := path.Dir(d)
	if len(parent) <= len(p.mount) {
		return ""
	}
	return path.Join(parent, sharedName, path.Base(d))
}

// findDevicesV1 is the directory of a group that may have been made before.
func findDevicesV1(p *place) string {
	if d := detour(p); d != "" && exists(d) {
		return d
	}
	return direct(p)
}

// makeDevicesV1 makes the directory in the devices hierarchy with its list.
func (g *group) makeDevicesV1(p *place, rules deviceRules) (made []string, err error) {
	if !g.whole {
		return mkdirs(p)
	}
	if d := detour(p); d != "" && g.scope == nil && !g.config.Plain && rules.equal(defaultRules()) && !exists(direct(p)) {
		// A parent that forbids one of these devices cannot have the shared
		// group: then the error is this group's.
		if makeShared(&place{p.hierarchy, path.Dir(d)}, rules) == nil {
			g.moved(p, d)
			return mkdirs(p)
		}
	}
	g.moved(p, direct(p))
	made, err = mkdirs(p)
	if err != nil {
		return made, err
	}
	return made, writeDevicesV1(p.dir, rules)
}

// temporary numbers the groups that makeShared makes, of one process.
var temporary atomic.Int64

// makeShared makes the group with the default list. It appears under its name
// only when the list is complete: another starter must not inherit half of it.
func makeShared(p *place, rules deviceRules) error {
	if exists(p.dir) {
		return nil
	}
	temp := &place{p.hierarchy, p.dir + "." + strconv.Itoa(unix.Getpid()) + "." + strconv.FormatInt(temporary.Add(1), 10)}
	if _, err := mkdirs(temp); err != nil {
		return err
	}
	err := writeDevicesV1(temp.dir, rules)
	if err == nil {
		err = unix.Rename(temp.dir, p.dir)
	}
	if err != nil {
		_ = unix.Rmdir(temp.dir) // what failed before is told
	}
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

const unlimitedDevices = "a *:* rwm"

// writeDevicesV1 gives a group its list, or nothing when it has it already.
func writeDevicesV1(dir string, rules deviceRules) error {
	b, err := readFile(dir + "/devices.list")
	if err != nil {
		return err
	}
	now, unlimited := parseDevicesV1(b)
	if !unlimited && now.equal(rules) {
		return nil
	}
	if unlimited && rules.allowAll && len(rules.exceptions) == 0 {
		return nil
	}
	// From scratch, so that nothing of an older list stays. (An unlimited
	// group's list does not show its exceptions.)
	first, each := "devices.deny", "devices.allow"
	if rules.allowAll {
		first, each = each, first
	}
	if !(rules.allowAll && unlimited) {
		if err := writeFile(dir+"/"+first, "a"); err != nil {
			return err
		}
	}
	list := make([]string, len(rules.exceptions))
	for i, e := range rules.exceptions {
		list[i] = e.id.String() + " " + e.may.String()
	}
	return writeEach(dir+"/"+each, list)
}

// parseDevicesV1 reads devices.list.
func parseDevicesV1(b []byte) (d deviceRules, unlimited bool) {
	if string(bytes.TrimSpace(b)) == unlimitedDevices {
		return deviceRules{allowAll: true}, true
	}
	number := func(s string) int64 {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		return anyNumber
	}
	eachLine(b, func(line []byte) {
		f := strings.Fields(string(line))
		if len(f) != 3 || len(f[0]) != 1 {
			return
		}
		major, minor, _ := strings.Cut(f[1], ":")
		may, err := parseAccess(f[2])
		if err != nil {
			return
		}
		d.allow([]exception{{deviceID{f[0][0], number(major), number(minor)}, may}})
	})
	return d, false
}

// setDevicesV1 changes the list of a group with processes. Below the shared
// group nothing can be allowed that it forbids, so the group moves out first.
func (g *group) setDevicesV1(rules deviceRules) error {
	p := g.v1("devices")
	if p == nil {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("limit devices of cgroup %s: %w", p.dir, err) }
	if d := direct(p); d != p.dir {
		if rules.equal(defaultRules()) {
			return nil
		}
		out := &place{p.hierarchy, d}
		if _, err := mkdirs(out); err != nil {
			return fail(err)
		}
		if err := writeDevicesV1(d, rules); err != nil {
			_ = unix.Rmdir(d) // what failed before is told
			return fail(err)
		}
		if err := moveAll(p.dir, d); err != nil {
			return fail(err)
		}
		old := p.dir
		g.moved(p, d)
		if err := unix.Rmdir(old); err != nil && err != unix.EBUSY {
			return fail(err) // an exiting process may hold it; Remove looks there too
		}
		return nil
	}
	if err := writeDevicesV1(p.dir, rules); err != nil {
		return fail(err)
	}
	return nil
}
