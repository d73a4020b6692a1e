package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// readPids lists the processes of one directory. Processes of another pid
// namespace than ours show as 0 and are left out.
func readPids(dir string) ([]int, error) {
	b, err := readFile(dir + "/cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A threaded v2 group lists no processes.
		b, err = readFile(dir + "/cgroup.threads")
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	eachLine(b, func(line []byte) {
		if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	})
	return pids, nil
}

// below calls f with dir and every group below it, the deepest first. A group
// that disappears meanwhile is skipped.
func below(dir string, f func(dir string) error) error {
	subs, err := subgroups(dir)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for _, s := range subs {
		if err := below(dir+"/"+s, f); err != nil {
			return err
		}
	}
	return f(dir)
}

// subgroups lists the directories in a group. Reading the entries' types
// spares a stat of each of the many control files.
func subgroups(dir string) ([]string, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []string
	buf := make([]byte, 8192)
	for {
		n, err := retryEINTR(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
		for b := buf[:n]; len(b) > 19; {
			reclen := int(uint16(b[16]) | uint16(b[17])<<8)
			name, _, _ := bytes.Cut(b[19:reclen], []byte{0})
			if b[18] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
				out = append(out, string(name))
			}
			b = b[reclen:]
		}
	}
}

func (g *group) Pids() ([]int, error) {
	var pids []int
	home := g.home()
	err := below(home, func(dir string) error {
		p, err := readPids(dir)
		if gone(err) {
			return nil
		}
		pids = append(pids, p...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", home, err)
	}
	return pids, nil
}

// pause waits a little longer each time, or until ctx ends.
type pause struct{ d time.Duration }

func (p *pause) wait(ctx context.Context) error {
	p.d = min(max(2*p.d, 20*time.Microsecond), 20*time.Millisecond)
	t := time.NewTimer(p.d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (g *group) Freeze(ctx context.Context) error {
	if err := g.freeze(ctx); err != nil {
		g.Thaw(context.WithoutCancel(ctx)) //nolint:errcheck // the first error is the one to tell
		return fmt.Errorf("freeze cgroup %s: %w", g.config.Path, err)
	}
	return nil
}

func (g *group) freeze(ctx context.Context) error {
	if g.pure {
		dir := g.v2().dir
		if err := writeFile(dir+"/cgroup.freeze", "1"); err != nil {
			return err
		}
		return waitEvent(ctx, dir+"/cgroup.events", "frozen 1")
	}
	p := g.v1("freezer")
	if p == nil {
		return fmt.Errorf("set freezer.state: this host has no freezer: %w", unix.ENOENT)
	}
	var w pause
	for i := 0; ; i++ {
		// A process forked at the wrong moment keeps the group in FREEZING
		// until the state is written again; thawing in between helps when
		// that does not (kernel bug runc issue 2105 works around).
		if i > 0 && i%50 == 0 {
			if err := writeFile(p.dir+"/freezer.state", "THAWED"); err != nil {
				return err
			}
		}
		if err := writeFile(p.dir+"/freezer.state", "FROZEN"); err != nil {
			return err
		}
		s, err := readText(p.dir + "/freezer.state")
		if err != nil {
			return err
		}
		if s == "FROZEN" {
			return nil
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

func (g *group) Thaw(ctx context.Context) error {
	fail := func(err error) error { return fmt.Errorf("thaw cgroup %s: %w", g.config.Path, err) }
	if g.pure {
		dir := g.v2().dir
		if err := writeFile(dir+"/cgroup.freeze", "0"); err != nil {
			return fail(err)
		}
		if err := waitEvent(ctx, dir+"/cgroup.events", "frozen 0"); err != nil {
			return fail(err)
		}
		return nil
	}
	p := g.v1("freezer")
	if p == nil {
		return nil
	}
	if err := writeFile(p.dir+"/freezer.state", "THAWED"); err != nil {
		return fail(err)
	}
	return nil
}

func (g *group) Frozen() (bool, error) {
	if g.pure {
		s, err := readText(g.v2().dir + "/cgroup.freeze")
		if gone(err) {
			return false, nil
		}
		return s == "1", err
	}
	p := g.v1("freezer")
	if p == nil {
		return false, nil
	}
	s, err := readText(p.dir + "/freezer.state")
	if gone(err) {
		return false, nil
	}
	return s == "FROZEN" || s == "FREEZING", err
}

func (g *group) FreezerFile() (file, thawed string) {
	if g.pure {
		return g.v2().dir + "/cgroup.freeze", "0\n"
	}
	if p := g.v1("freezer"); p != nil {
		return p.dir + "/freezer.state", "THAWED\n"
	}
	return "", ""
}

// waitEvent waits until a file that the kernel polls (cgroup.events) has a line.
func waitEvent(ctx context.Context, file, line string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 512)
	for {
		n, err := retryEINTR(func() (int, error) { return unix.Pread(fd, buf, 0) })
		if err != nil {
			return err
		}
		if bytes.Contains(append([]byte("\n"), buf[:n]...), []byte("\n"+line+"\n")) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// poll cannot wait for ctx as well: look at it now and then.
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, 20); err != nil && err != unix.EINTR {
			return err
		}
	}
}

func (g *group) Kill(ctx context.Context) error {
	fail := func(err error) error { return fmt.Errorf("kill processes of cgroup %s: %w", g.config.Path, err) }
	if g.pure {
		switch err := writeFile(g.v2().dir+"/cgroup.kill", "1"); {
		case err == nil:
			return nil // the kernel catches forks and wakes the frozen (since Linux 5.14)
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT):
			// Threaded, an older kernel, or gone.
		case gone(err):
			return nil
		default:
			return fail(err)
		}
	}
	if !exists(g.home()) {
		return nil
	}
	// Frozen processes cannot fork: one pass reaches all. Where freezing
	// fails (a process in an uninterruptible wait), passes are made until
	// none is new.
	hurry, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	frozen := g.freeze(hurry) == nil
	cancel()
	err := g.killPasses(ctx, frozen)
	if e := g.Thaw(context.WithoutCancel(ctx)); err == nil && e != nil && !gone(e) {
		err = e
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func (g *group) killPasses(ctx context.Context, frozen bool) error {
	killed := map[int]bool{}
	for {
		pids, err := g.Pids()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if killed[pid] {
				continue
			}
			fresh = true
			killed[pid] = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if !fresh || frozen {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (g *group) OOM() (uint64, error) {
	var kills uint64
	p := g.v1("memory")
	file := "memory.oom_control"
	if p == nil {
		if p = g.v2(); p == nil {
			return 0, nil
		}
		file = "memory.events"
	}
	err := eachPair(p.dir+"/"+file, func(k string, v uint64) {
		if k == "oom_kill" {
			kills = v
		}
	})
	if err != nil && !gone(err) {
		return 0, fmt.Errorf("count OOM kills of cgroup %s: %w", p.dir, err)
	}
	return kills, nil
}

// OOMEvents watches memory.events by inotify on v2, which is written after a
// kill. On v1 an eventfd is registered in cgroup.event_control; it fires when
// memory has run out, just before the kill (or instead of it, where the killer
// is switched off). Both also fire when the group is removed.
func (g *group) OOMEvents(ctx context.Context) (<-chan struct{}, error) {
	var f *os.File
	var err error
	p := g.v1("memory")
	v1 := p != nil
	if v1 {
		f, err = oomEventfd(p.dir)
	} else if p = g.v2(); p != nil {
		f, err = watchFile(p.dir + "/memory.events")
	} else {
		err = unix.ENOENT
	}
	if err != nil {
		return nil, fmt.Errorf("watch OOM kills of cgroup %s: %w", g.config.Path, err)
	}
	before, _ := g.OOM()
	out := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		defer close(out)
		defer f.Close()
		defer stop()
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
			now, _ := g.OOM()
			// The count follows v1's event.
			var w pause
			late, cancel := context.WithTimeout(ctx, time.Second)
			for v1 && now == before && exists(p.dir) && w.wait(late) == nil {
				now, _ = g.OOM()
			}
			cancel()
			if now > before || v1 && exists(p.dir) {
				before = now
				select {
				case out <- struct{}{}:
				default: // one is waiting already
				}
			}
			if !exists(p.dir) {
				return
			}
		}
	}()
	return out, nil
}

func oomEventfd(dir string) (*os.File, error) {
	control, err := unix.Open(dir+"/memory.oom_control", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(control)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := writeFile(dir+"/cgroup.event_control", strconv.Itoa(fd)+" "+strconv.Itoa(control)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "oom"), nil
}

func watchFile(file string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), file), nil
}

// Remove removes the directories, sub-groups first.
func (g *group) Remove(ctx context.Context) error {
	var errs []error
	if g.scope != nil {
		if err := g.scope.stop(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	for _, p := range g.all() {
		if err := removeTree(ctx, p.dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", p.dir, err))
		}
		if p.has("devices") && g.whole {
			// Left behind by setDevicesV1.
			if d := detour(&p); d != "" && d != p.dir {
				if err := removeTree(ctx, d); err != nil {
					errs = append(errs, fmt.Errorf("remove cgroup %s: %w", d, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a directory. The kernel answers EBUSY until the last
// process is reaped, and while a group below is there.
func removeTree(ctx context.Context, dir string) error {
	var w pause
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, gone(err):
			return nil
		case err == unix.EINTR:
			continue
		case err != unix.EBUSY && err != unix.ENOTEMPTY:
			return err
		}
		subs, lerr := subgroups(dir)
		if lerr != nil && !gone(lerr) {
			return lerr
		}
		for _, s := range subs {
			if err := removeTree(ctx, path.Join(dir, s)); err != nil {
				return err
			}
		}
		if len(subs) > 0 {
			continue
		}
		if werr := w.wait(ctx); werr != nil {
			return fmt.Errorf("%w: %w", err, werr)
		}
	}
}

// Sub is the group of an exec.
func (g *group) Sub(name string) Manager {
	if !g.pure {
		return sameGroup{g}
	}
	p := *g.v2()
	p.dir = path.Join(p.dir, path.Join("/", name))
	return &group{config: Config{Path: path.Join(g.config.Path, name), Root: g.config.Root}, pure: true, sub: true, places: []place{p}}
}
