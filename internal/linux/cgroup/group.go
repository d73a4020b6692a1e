package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// place is the group's directory in one hierarchy.
type place struct {
	*hierarchy
	dir string
}

// group implements Manager with directories and files. The same type serves
// v1, v2 and hybrid hosts: it is a list of places, v1 ones first.
type group struct {
	config Config
	// pure: the host has nothing but v2.
	pure bool
	// whole is set for the group of a container, whose devices are limited;
	// not for a parent group or a sub-group.
	whole bool
	// sub is set for the group of an exec below a container's.
	sub   bool
	scope *scope

	mu sync.Mutex
	// places never changes its length; the directory in the devices hierarchy
	// may change (see devices_v1.go). Guarded by mu: use all, v1 and v2.
	places []place
	// warned are the sentences of Warnings. Guarded by mu.
	warned []string
}

// all is the group's places now.
func (g *group) all() []place {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.places)
}

// moved records that the group's directory of a hierarchy is another.
func (g *group) moved(p *place, dir string) {
	p.dir = dir
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.places {
		if g.places[i].hierarchy == p.hierarchy {
			g.places[i].dir = dir
		}
	}
}

// v2 is the group's place on cgroup v2, or nil.
func (g *group) v2() *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.places[len(g.places)-1]; p.v2 {
		return &p
	}
	return nil
}

// v1 is the group's place in the hierarchy of a v1 controller, or nil.
func (g *group) v1(controller string) *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.places {
		if p.has(controller) {
			return &p
		}
	}
	return nil
}

// dir is where the files of a controller are: its v1 hierarchy, else v2; ""
// on a host without.
func (g *group) dir(controller string) string {
	if p := g.v1(controller); p != nil {
		return p.dir
	}
	if p := g.v2(); p != nil {
		return p.dir
	}
	return ""
}

// home is a directory that lists every process of the group.
func (g *group) home() string {
	for _, c := range []string{"freezer", "pids", "memory", "devices", "cpu"} {
		if p := g.v1(c); p != nil {
			return p.dir
		}
	}
	return g.all()[0].dir
}

func (g *group) warn(sentences ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range sentences {
		if !slices.Contains(g.warned, s) {
			g.warned = append(g.warned, s)
		}
	}
}

func (g *group) Warnings() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.warned)
}

func (g *group) Paths() map[string]string {
	out := make(map[string]string)
	for _, p := range g.all() {
		if p.v2 {
			if g.pure || exists(p.dir) {
				out[""] = p.dir
			}
			continue
		}
		for _, c := range p.controllers {
			out[c] = p.dir
		}
	}
	return out
}

func (g *group) Exists() bool {
	for _, p := range g.all() {
		if exists(p.dir) {
			return true
		}
	}
	return false
}

// Create makes the directories, then limits.
func (g *group) Create(ctx context.Context, r *specs.LinuxResources) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	p, err := g.plan(r, false)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.config.Path, err)
	}
	rules, err := g.rules(r)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.config.Path, err)
	}
	var made []string // in order; undone from the end
	started := false
	defer func() {
		if err == nil {
			return
		}
		for _, d := range slices.Backward(made) {
			_ = unix.Rmdir(d) // what failed before is told
		}
		if started {
			g.scope.stop(context.WithoutCancel(ctx)) //nolint:errcheck // the first error is the one to tell
		}
	}()
	if g.scope != nil {
		if err := g.scope.start(ctx, g, r); err != nil {
			return err
		}
		started = true
	}
	places := g.all()
	for i := range places {
		pl := &places[i]
		var m []string
		switch {
		case pl.v2 && !g.pure && !g.needsV2(p):
			continue // a hybrid host's v2 side costs a directory only when a limit is there
		case pl.v2:
			m, err = g.makeV2(pl)
		case pl.has("devices"):
			m, err = g.makeDevicesV1(pl, rules)
		default:
			m, err = makeV1(pl)
		}
		made = append(made, m...)
		if err != nil {
			return fmt.Errorf("create cgroup %s: %w", pl.dir, err)
		}
	}
	if err := g.perform(p); err != nil {
		return err
	}
	if g.whole && g.pure {
		return g.limitDevicesV2(rules)
	}
	return nil
}

// checkBefore refuses a memory limit below what is used, when the configuration
// asks for that (runtime-spec config-linux.md, "Memory", checkBeforeUpdate): v2
// would start to kill, where v1 refuses by itself.
func (g *group) checkBefore(m *specs.LinuxMemory) error {
	if !g.pure || m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || value(m.Limit) <= 0 {
		return nil
	}
	used, err := readUint(g.v2().dir + "/memory.current")
	if err != nil {
		return err
	}
	if limit := uint64(*m.Limit); limit < used {
		return invalid("memory limit %d is below the %d bytes in use", limit, used)
	}
	return nil
}

// Set changes limits of a group that has processes.
func (g *group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	p, err := g.plan(r, true)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.config.Path, err)
	}
	if err := g.checkBefore(r.Memory); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.config.Path, err)
	}
	if g.scope != nil {
		if err := g.scope.set(context.Background(), g, r); err != nil {
			return err
		}
	}
	if v2 := g.v2(); v2 != nil && !g.pure && g.needsV2(p) && !exists(v2.dir) {
		// The first limit of the v2 side: the processes have to move there.
		if _, err := g.makeV2(v2); err != nil {
			return fmt.Errorf("create cgroup %s: %w", v2.dir, err)
		}
		if err := moveAll(g.home(), v2.dir); err != nil {
			return err
		}
	}
	if err := g.perform(p); err != nil {
		return err
	}
	if !g.whole || r.Devices == nil {
		return nil
	}
	rules, err := g.rules(r)
	if err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.config.Path, err)
	}
	if g.pure {
		return g.limitDevicesV2(rules)
	}
	return g.setDevicesV1(rules)
}

// plan turns resources into writes for this host's mixture of versions.
func (g *group) plan(r *specs.LinuxResources, update bool) (plan, error) {
	memoryNow := func() int64 { return 0 }
	if update && g.pure {
		memoryNow = func() int64 {
			v, err := readUint(path.Join(g.v2().dir, "memory.max"))
			switch {
			case err != nil:
				return 0
			case v > 1<<62:
				return -1
			}
			return int64(v)
		}
	}
	if g.pure {
		if m := r.Memory; update && m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
			if err := g.checkUsage(m); err != nil {
				return plan{}, err
			}
		}
		return planV2(r, memoryNow)
	}
	v2 := g.v2()
	p, err := planV1(r)
	if err != nil {
		return p, err
	}
	if v2 == nil {
		if len(r.Unified) > 0 {
			return p, invalid("unified limits need cgroup v2")
		}
		return p, nil
	}
	// Hybrid: controllers without a v1 hierarchy are v2's.
	p.writes = slices.DeleteFunc(p.writes, func(w write) bool { return g.v1(w.controller) == nil })
	q, err := planV2(&specs.LinuxResources{HugepageLimits: r.HugepageLimits, Rdma: r.Rdma, Unified: r.Unified}, nil)
	if err != nil {
		return p, err
	}
	for _, w := range q.writes {
		if g.v1(w.controller) == nil {
			p.writes = append(p.writes, w)
		} else if _, said := r.Unified[w.file]; said {
			return p, invalid("unified limit %s: this host has the controller %s on cgroup v1", w.file, w.controller)
		}
	}
	return p, nil
}

// needsV2 reports whether a hybrid host's v2 side is written to.
func (g *group) needsV2(p plan) bool {
	return slices.ContainsFunc(p.writes, func(w write) bool { return g.v1(w.controller) == nil })
}

func (g *group) checkUsage(m *specs.LinuxMemory) error {
	usage, err := readUint(path.Join(g.v2().dir, "memory.current"))
	if err != nil {
		return nil // nothing to compare with
	}
	for _, l := range []struct {
		what string
		v    int64
	}{{"memory+swap", value(m.Swap)}, {"memory", value(m.Limit)}} {
		if l.v > 0 && uint64(l.v) <= usage {
			return invalid("%s limit %d is not above the present usage %d", l.what, l.v, usage)
		}
	}
	return nil
}

// perform writes a plan. The kernel refuses (EINVAL) a value that does not fit
// its partner: memory above memory+swap, a burst above its quota. Which of
// the two must come first depends on the old values, so a refused write is
// tried again after the others.
func (g *group) perform(p plan) error {
	g.warn(p.warnings...)
	todo := p.writes
	for {
		var again []write
		for _, w := range todo {
			err := g.write(w)
			if errors.Is(err, unix.EINVAL) && len(todo) > 1 {
				again = append(again, w)
				continue
			}
			if err != nil {
				return g.explain(w, err)
			}
		}
		if len(again) == 0 {
			return nil
		}
		if len(again) == len(todo) {
			return g.explain(again[0], unix.EINVAL)
		}
		todo = again
	}
}

func (g *group) write(w write) error {
	dir := g.dir(w.controller)
	err := error(unix.ENOENT)
	if dir != "" {
		err = writeFile(dir+"/"+w.file, w.value)
		if errors.Is(err, unix.ENOENT) && w.instead != "" {
			err = writeFile(dir+"/"+w.instead, w.insteadValue)
		}
	}
	if err != nil && w.optional != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
		if w.optional != "-" {
			g.warn(w.optional)
		}
		return nil
	}
	return err
}

// explain gives a refused write its class and a sentence.
func (g *group) explain(w write, err error) error {
	what := fmt.Sprintf("limit cgroup %s: set %s to %q", g.config.Path, w.file, w.value)
	dir := g.dir(w.controller)
	switch {
	case errors.Is(err, unix.ENOENT) && (dir == "" || exists(dir)):
		return fmt.Errorf("%s: this host has no cgroup controller %q: %w", what, w.controller, errdefs.ErrNotImplemented)
	case errors.Is(err, unix.EBUSY) && w.controller == "memory":
		usage, _ := readUint(path.Join(dir, "memory.usage_in_bytes"))
		return fmt.Errorf("%s: the group uses %d bytes: %w: %w", what, usage, errdefs.ErrInvalidArgument, err)
	case errors.Is(err, unix.EINVAL): // it and its class are the same words
		return fmt.Errorf("%s: %w", what, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%s: %w: %w", what, errdefs.ErrInvalidArgument, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (g *group) JoinPaths() []string {
	if g.pure {
		return nil
	}
	var out []string
	for _, p := range g.all() {
		switch {
		case !p.v2:
			out = append(out, p.dir+"/tasks")
		case exists(p.dir):
			out = append(out, p.dir+"/cgroup.procs")
		}
	}
	return out
}

func (g *group) JoinFiles() ([]*os.File, error) {
	if g.pure {
		return nil, nil
	}
	out := make([]*os.File, 0, 12)
	for _, p := range g.all() {
		file := p.dir + "/tasks"
		if p.v2 {
			// A v2 group takes whole processes. Only a container with a limit
			// there has the directory, and pays for it.
			file = p.dir + "/cgroup.procs"
		}
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if p.v2 && err == unix.ENOENT {
			continue
		}
		if err != nil {
			for _, f := range out {
				f.Close()
			}
			return nil, fmt.Errorf("open %s: %w", file, err)
		}
		out = append(out, os.NewFile(uintptr(fd), file))
	}
	return out, nil
}

func (g *group) DirFD() (*os.File, error) {
	if !g.pure {
		return nil, nil
	}
	dir := g.v2().dir
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

func (g *group) AddProcess(pid int) error {
	for _, p := range g.all() {
		if p.v2 && !g.pure && !exists(p.dir) {
			continue
		}
		if err := writeFile(p.dir+"/cgroup.procs", itoa(int64(pid))); err != nil {
			return fmt.Errorf("move process %d to cgroup %s: %w", pid, p.dir, err)
		}
	}
	return nil
}

// moveAll moves the processes of one directory to another, also those that
// are forked meanwhile. The directories may be of different hierarchies.
func moveAll(from, to string) error {
	for {
		pids, err := readPids(from)
		if err != nil {
			return err
		}
		there, err := readPids(to)
		if err != nil {
			return err
		}
		moved := 0
		for _, pid := range pids {
			if slices.Contains(there, pid) {
				continue
			}
			switch err := writeFile(to+"/cgroup.procs", itoa(int64(pid))); {
			case err == nil:
				moved++
			case errors.Is(err, unix.ESRCH): // gone meanwhile
			default:
				return fmt.Errorf("move process %d to cgroup %s: %w", pid, to, err)
			}
		}
		if moved == 0 {
			return nil
		}
	}
}

// makeV1 makes the directory of a v1 hierarchy.
func makeV1(p *place) (made []string, err error) {
	made, err = mkdirs(p)
	if err != nil || !p.has("cpuset") {
		return made, err
	}
	// Below a group with clone_children (ours have it) nothing is to be done.
	if v, err := readText(p.dir + "/cpuset.cpus"); err == nil && v != "" {
		return made, nil
	}
	return made, initCpuset(p)
}

// mkdirs makes p's directory and what is missing above it, and returns those
// it made. A group that exists is taken over: Create may be repeated.
func mkdirs(p *place) (made []string, err error) {
	const tries = 10 // whoever failed below the same parent may remove it, when empty
	for range tries {
		var more []string
		more, err = mkdirsOnce(p)
		made = append(made, more...)
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return made, err
}

func mkdirsOnce(p *place) (made []string, err error) {
	switch err := unix.Mkdir(p.dir, 0o755); err {
	case nil:
		return []string{p.dir}, nil
	case unix.EEXIST:
		return nil, nil
	case unix.ENOENT:
	default:
		return nil, err
	}
	below := strings.TrimPrefix(p.dir, p.mount+"/")
	dir := p.mount
	for _, name := range strings.Split(below, "/") {
		dir += "/" + name
		switch err := unix.Mkdir(dir, 0o755); err {
		case nil:
			made = append(made, dir)
			if p.has("cpuset") && dir != p.dir {
				// Children start with our processors instead of none.
				if err := initCpuset(&place{p.hierarchy, dir}); err != nil {
					return made, err
				}
				if err := writeFile(dir+"/cgroup.clone_children", "1"); err != nil {
					return made, err
				}
			}
		case unix.EEXIST:
		default:
			return made, err
		}
	}
	return made, nil
}

// initCpuset gives a v1 cpuset the processors and memory nodes of the nearest
// group above that has some: an empty one takes no process.
func initCpuset(p *place) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		v, err := readText(p.dir + "/" + file)
		if err != nil {
			return err
		}
		if v != "" {
			continue
		}
		if p.dir == p.mount {
			return invalid("%s of the root cgroup is empty", file)
		}
		parent := &place{p.hierarchy, path.Dir(p.dir)}
		if err := initCpuset(parent); err != nil {
			return err
		}
		v, err = readText(parent.dir + "/" + file)
		if err != nil {
			return err
		}
		if err := writeFile(p.dir+"/"+file, v); err != nil {
			return err
		}
	}
	return nil
}
