// Package daemonside is the daemon's half of a container's monitor: it starts
// monitors, finds those of an earlier life of the daemon, and speaks with them
// (package protocol). The entry point is New.
//
// Every container has a run folder <exec-root>/containers/<id> (a tmpfs):
//
//	lock          locked (flock) by the monitor until nothing of the container is left
//	launch.json   what is needed to end the container when its monitor is lost
//	monitor.sock  the monitor's socket, mode 0600, gone once the container ended
//	exit.json     how it ended, written before anybody was told
//
// The engine keeps files of its own beside them. Nothing in it is synced.
//
// Whoever notices that a monitor died before its container kills the cgroup
// and records exit 137 with the reason "monitor lost"; on a running daemon that
// is the goroutine that follows the monitor, later it is LastExit.
//
// Lock order: Launcher.mu, Monitor.mu, Exec.mu; none is held over the kernel,
// the network or a wait.
package daemonside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/linux/cgroup"
	"github.com/orlop/orlop/internal/linux/process"
)

// Config of a Launcher.
type Config struct {
	// Runtime is the path of the orlop-runtime program.
	Runtime string
	// ExecRoot is the engine's run folder, e.g. /run/orlop.
	ExecRoot string
	// Logger gets what no caller waits for; nil discards.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Patience is how long a monitor may say nothing at all to somebody who
	// waits for it; 0 is 15 s. One that is at work answers in between.
	Patience time.Duration
}

// patience is the default of Config.Patience.
const patience = 15 * time.Second

// Launcher starts and finds monitors.
type Launcher struct {
	root   string
	log    *slog.Logger
	now    func() time.Time
	bootID string
	exe    *os.File
	// patience: see Config.
	patience time.Duration

	following sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	monitors map[string]*Monitor
	spare    *newborn
	filling  bool // a spare is being started
}

// New prepares the exec root and seals the runtime program once: every monitor
// is exec'ed from that copy, so that an upgrade of the file, or a container
// that reaches it, changes nothing for those that run.
func New(cfg Config) (*Launcher, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Patience <= 0 {
		cfg.Patience = patience
	}
	root := filepath.Join(cfg.ExecRoot, "containers")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("prepare exec root: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	exe, err := seal(cfg.Runtime)
	if err != nil {
		return nil, err
	}
	return &Launcher{
		root:     root,
		log:      cfg.Logger,
		now:      cfg.Now,
		bootID:   strings.TrimSpace(string(boot)),
		exe:      exe,
		patience: cfg.Patience,
		monitors: map[string]*Monitor{},
	}, nil
}

// seal makes the copy that monitors are exec'ed from. Where the kernel forbids
// executing memory files (sysctl vm.memfd_noexec=2) it is the file itself.
func seal(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	sealed, err := process.Seal(file)
	if errors.Is(err, unix.EACCES) {
		return file, nil
	}
	file.Close()
	return sealed, err
}

// Close lets go of every monitor and waits for the goroutines that follow
// them. Containers go on, except tied ones.
func (l *Launcher) Close() error {
	l.mu.Lock()
	l.closed = true
	var all []*Monitor
	for _, m := range l.monitors {
		all = append(all, m)
	}
	spare := l.spare
	l.spare = nil
	l.mu.Unlock()
	if spare != nil {
		spare.unwatch()
		spare.end()
	}
	for _, m := range all {
		m.release()
	}
	l.following.Wait()
	return l.exe.Close()
}

// Dir is the run folder of a container.
func (l *Launcher) Dir(id string) string { return filepath.Join(l.root, id) }

// Leftovers lists the ids that have a run folder, sorted.
func (l *Launcher) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(l.root)
	if err != nil {
		return nil, fmt.Errorf("list run folders: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// Forget ends whatever is left of a container (its monitor, every process of
// its cgroup), and removes its cgroup and its run folder. It waits for the
// monitor of a container that has just ended to finish its own clean-up. It
// may be repeated; an unknown id is no error.
func (l *Launcher) Forget(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	dir := l.Dir(id)
	if m := l.monitor(id); m != nil {
		select {
		case <-m.Exited():
		default:
			m.kill()
		}
		if err := m.waitGone(ctx); err != nil {
			return fmt.Errorf("forget container %s: %w", id, err)
		}
		if m.clean() {
			return l.removeRun(id, m)
		}
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := l.takeFrom(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else has just forgotten it
	}
	if err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}
	defer lock.Close()
	if err := l.killGroup(ctx, id, true); err != nil {
		return fmt.Errorf("forget container %s: %w", id, err)
	}
	return l.removeRun(id, nil)
}

// removeRun removes the run folder and the monitor that belongs to it.
func (l *Launcher) removeRun(id string, m *Monitor) error {
	l.mu.Lock()
	if m == nil || l.monitors[id] == m {
		delete(l.monitors, id)
	}
	l.mu.Unlock()
	// A folder that says that it ran, and not how it ended, is that of a lost
	// monitor.
	err := os.Remove(filepath.Join(l.Dir(id), placeFile))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(l.Dir(id))
	}
	if err != nil {
		return fmt.Errorf("remove run folder of container %s: %w", id, err)
	}
	return nil
}

// LastExit tells how a container ended whose monitor is gone. When it left no
// exit file in this boot, the monitor was lost: the container is killed and
// the exit is 137, "monitor lost". ErrNotFound: nothing is known, it never ran
// or ran in another boot.
func (l *Launcher) LastExit(id string) (container.Exit, error) {
	if err := checkID(id); err != nil {
		return container.Exit{}, err
	}
	if exit, err := l.readExit(id); err == nil || !errors.Is(err, errdefs.ErrNotFound) {
		return exit, err
	}
	p, err := l.readPlace(id)
	if err != nil {
		return container.Exit{}, err
	}
	if p.BootID != l.bootID {
		return container.Exit{}, errdefs.ErrNotFound.WithMessage("container " + id + " ran in another boot")
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	lock, err := l.takeFrom(ctx, id)
	if err != nil {
		return container.Exit{}, fmt.Errorf("end container %s: %w", id, err)
	}
	defer lock.Close()
	// The monitor may have written it before it let go of the lock.
	if exit, err := l.readExit(id); err == nil {
		return exit, nil
	}
	return l.lost(ctx, id)
}

// lost ends a container without a monitor and records it. The lock is held, or
// the monitor is known to be dead.
func (l *Launcher) lost(ctx context.Context, id string) (container.Exit, error) {
	exit := container.Exit{Code: 137, Time: l.now().UTC(), Reason: container.ReasonMonitorLost}
	if err := l.killGroup(ctx, id, false); err != nil {
		return exit, fmt.Errorf("kill container %s after its monitor was lost: %w", id, err)
	}
	if err := l.writeExit(id, exit); err != nil {
		return exit, err
	}
	return exit, nil
}

// killGroup ends every process of the container's cgroup, waits for that, and
// removes the cgroup when asked to.
func (l *Launcher) killGroup(ctx context.Context, id string, remove bool) error {
	p, err := l.readPlace(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.BootID != l.bootID {
		return nil
	}
	g, err := cgroup.New(cgroup.Config{Path: p.CgroupsPath, Systemd: p.SystemdCgroup})
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", p.CgroupsPath, err)
	}
	for {
		if err := g.Kill(ctx); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", p.CgroupsPath, err)
		}
		if !remove {
			l.emptied(ctx, id, g)
			return nil
		}
		// An init whose monitor was killed in the middle of a start may join the
		// group only now: then it is killed too.
		once, cancel := context.WithTimeout(ctx, removeAgain)
		err := g.Remove(once)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("remove cgroup %s: %w", p.CgroupsPath, err)
		}
	}
}

// emptied waits until no process of a group that was killed is left: who hears of
// the container's end may use its volumes.
func (l *Launcher) emptied(ctx context.Context, id string, g cgroup.Manager) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := g.Pids()
		if err == nil && len(pids) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			l.log.Warn("processes of a container that was killed do not end", "container", id, "pids", pids, "error", err)
			return
		}
	}
}

// monitor returns the known monitor of a container, or nil.
func (l *Launcher) monitor(id string) *Monitor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.monitors[id]
}

// checkID refuses ids that are not the name of a folder.
func checkID(id string) error {
	if id == "" || len(id) > 255 || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("bad container id %q", id))
	}
	return nil
}
