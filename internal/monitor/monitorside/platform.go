package monitorside

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

// platform is what a monitor stands on; tests give their own.
type platform struct {
	now    func() time.Time
	bootID string
	start  func(ctx context.Context, l *launch, s stdio) (runner, error)
	// args are those of this program that make it a monitor.
	args []string
}

// execution is a decoded exec request.
type execution struct {
	protocol.ExecArgs
	Process *specs.Process `json:"process"`
}

// stdio is what becomes descriptors 0, 1 and 2; nil is /dev/null. A process
// with a terminal gets none of them.
type stdio struct{ in, out, err *os.File }

// process is a started process, of a container or of an exec.
type process interface {
	Pid() int
	// StartTime is field 22 of /proc/<pid>/stat.
	StartTime() uint64
	// Console is the terminal's master, which the monitor takes over; nil
	// without one.
	Console() *os.File
	// Wait returns the exit status, or 128+n after signal n.
	Wait() (code int, err error)
	Signal(sig int) error
	Close() error
}

// runner is a running container.
type runner interface {
	process
	// Ended blocks until the first process has ended, and leaves its status to
	// Wait: another program of this process must still find that child.
	Ended() error
	// SignalAll sends to every process of the container.
	SignalAll(sig int) error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(ctx context.Context, r *specs.LinuxResources) error
	Exec(ctx context.Context, x *execution, s stdio) (process, error)
	// OOM counts processes the OOM killer took; OOMEvents gets a value after
	// each, until ctx ends.
	OOM() (uint64, error)
	OOMEvents(ctx context.Context) (<-chan struct{}, error)
	// Delete kills what is left and removes cgroup and state.
	Delete(ctx context.Context) error
	// Remember writes into s what another program of this process needs to go
	// on with the container; false when that cannot be.
	Remember(s *settledState) bool
}
