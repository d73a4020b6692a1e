package daemonside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/monitor/protocol"
)

// Files of a run folder.
const (
	lockFile   = "lock"
	placeFile  = "launch.json"
	socketFile = "monitor.sock"
	exitFile   = "exit.json"
)

// monitorsOwn is what a monitor makes beside them: the runtime's state, and for
// a foreign runtime its bundle.
var monitorsOwn = []string{"runtime", "rootfs", "config.json"}

const (
	// killTimeout bounds what is done for a container whose caller is gone.
	killTimeout = 30 * time.Second
	// removeAgain is how long a group is given to become empty before its
	// processes are killed once more.
	removeAgain = time.Second
	// lockPoll is how often a lock held by an unknown process is tried again:
	// flock cannot wait with a context.
	lockPoll = 2 * time.Millisecond
)

// place is the content of launch.json.
type place struct {
	ID            string `json:"id"`
	BootID        string `json:"bootId"`
	CgroupsPath   string `json:"cgroupsPath"`
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
}

// readPlace fails with ErrNotFound when the container was never launched.
func (l *Launcher) readPlace(id string) (place, error) {
	data, err := os.ReadFile(filepath.Join(l.Dir(id), placeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, errdefs.ErrNotFound.WithMessage("container " + id + " was not launched")
	}
	if err != nil {
		return place{}, fmt.Errorf("read launch of container %s: %w", id, err)
	}
	var p place
	if err := json.Unmarshal(data, &p); err != nil {
		return place{}, fmt.Errorf("read launch of container %s: %w", id, err)
	}
	return p, nil
}

// readExit fails with ErrNotFound when there is no exit file.
func (l *Launcher) readExit(id string) (container.Exit, error) {
	data, err := os.ReadFile(filepath.Join(l.Dir(id), exitFile))
	if errors.Is(err, fs.ErrNotExist) {
		return container.Exit{}, errdefs.ErrNotFound.WithMessage("container " + id + " left no exit file")
	}
	if err != nil {
		return container.Exit{}, fmt.Errorf("read exit of container %s: %w", id, err)
	}
	var e protocol.Exit
	if err := json.Unmarshal(data, &e); err != nil {
		return container.Exit{}, fmt.Errorf("read exit of container %s: %w", id, err)
	}
	return exitOf(e), nil
}

func (l *Launcher) writeExit(id string, exit container.Exit) error {
	data, err := json.Marshal(protocol.Exit{
		Code: exit.Code, Time: exit.Time, OOMKilled: exit.OOMKilled, Reason: exit.Reason, BootID: l.bootID, LogDropped: exit.LogDropped,
	})
	if err != nil {
		return fmt.Errorf("write exit of container %s: %w", id, err)
	}
	if err := replace(l.Dir(id), exitFile, data); err != nil {
		return fmt.Errorf("write exit of container %s: %w", id, err)
	}
	return nil
}

// replace writes a file atomically.
func replace(dir, name string, data []byte) error {
	tmp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// take makes the run folder and locks it for a new monitor.
func (l *Launcher) take(ctx context.Context, id string) (*os.File, error) {
	if err := os.MkdirAll(l.Dir(id), 0o700); err != nil {
		return nil, fmt.Errorf("make run folder: %w", err)
	}
	return l.takeFrom(ctx, id)
}

// takeFrom locks an existing run folder. The monitor of an earlier run holds
// the lock until its clean-up is done, which takes milliseconds; one that runs
// a container is an error of the caller and ends with ctx.
func (l *Launcher) takeFrom(ctx context.Context, id string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.Dir(id), lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock run folder: %w", err)
	}
	timer := time.NewTimer(lockPoll)
	defer timer.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock run folder: %w", err)
		}
		timer.Reset(lockPoll)
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock run folder: a monitor still holds it: %w", context.Cause(ctx))
		case <-timer.C:
		}
	}
}

func exitOf(e protocol.Exit) container.Exit {
	return container.Exit{Code: e.Code, Time: e.Time, OOMKilled: e.OOMKilled, Reason: e.Reason, LogDropped: e.LogDropped}
}
