package cgroup

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// makeV2 makes the directory and has every controller of the hierarchy handed
// down to it.
func (g *group) makeV2(p *place) (made []string, err error) {
	made, err = mkdirs(p)
	if err != nil {
		return made, err
	}
	if g.sub {
		// The container's own group has processes: handing controllers down
		// from it is refused, or makes it "threaded".
		return made, nil
	}
	all, err := readText(p.mount + "/cgroup.controllers")
	if err != nil {
		return made, err
	}
	have, err := readText(p.dir + "/cgroup.controllers")
	if err != nil {
		return made, err
	}
	// One comparison in the usual case: a sibling was made before.
	if have == all {
		return made, nil
	}
	return made, g.handDown(p, strings.Fields(all))
}

// handDown enables controllers in cgroup.subtree_control of every group above
// p, from the root. A controller that cannot be enabled is left out: if a
// limit needs it, its write will say so.
func (g *group) handDown(p *place, controllers []string) error {
	dir := p.mount
	for _, name := range strings.Split(strings.TrimPrefix(p.dir, p.mount+"/"), "/") {
		on, err := readText(dir + "/cgroup.subtree_control")
		if err != nil {
			return err
		}
		enabled := strings.Fields(on)
		var missing []string
		for _, c := range controllers {
			if !slices.Contains(enabled, c) {
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 {
			if err := g.enable(p, dir, missing); err != nil {
				return err
			}
		}
		dir += "/" + name
	}
	return nil
}

// nestedInit is where the processes of a nested root go, the name that
// Docker-in-Docker setups use.
const nestedInit = "init"

func (g *group) enable(p *place, dir string, controllers []string) error {
	err := writeFile(dir+"/cgroup.subtree_control", "+"+strings.Join(controllers, " +"))
	if errors.Is(err, unix.EBUSY) && dir == p.mount && p.self == "/" {
		// We run in the root of a cgroup namespace: to the kernel it is an
		// ordinary group, and one with processes hands nothing down ("no
		// internal processes"). Ours may move.
		leaf := path.Join(dir, nestedInit)
		if err := unix.Mkdir(leaf, 0o755); err != nil && err != unix.EEXIST {
			return err
		}
		if err := moveAll(dir, leaf); err != nil {
			return err
		}
		err = writeFile(dir+"/cgroup.subtree_control", "+"+strings.Join(controllers, " +"))
	}
	if err == nil {
		return nil
	}
	// One by one: what the kernel forbids (cpu beside real-time tasks) must
	// not cost the others. A limit that needs it will say so.
	for _, c := range controllers {
		if e := writeFile(dir+"/cgroup.subtree_control", "+"+c); errors.Is(e, unix.EROFS) || errors.Is(e, unix.EACCES) {
			return e
		}
	}
	return nil
}
