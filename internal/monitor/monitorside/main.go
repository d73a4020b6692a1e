// Package monitorside is the process that runs one container: `orlop-runtime
// monitor`. The entry point is Main.
//
// A monitor starts its container itself (through runtime/lifecycle, or by
// running another OCI runtime), holds the standard streams or the terminal,
// writes the log, reaps, and answers requests (package protocol) on the
// connection it was born with and on its socket in the run folder. It needs
// nobody: the daemon may come and go.
//
// # The end
//
// Whoever waits for a container's end should not wait for its clean-up. When
// the process has ended, the monitor
//
//  1. reads what is left in the pipes (everything the container wrote is in the
//     log and with the clients that keep up),
//  2. writes the exit file (exec root, a tmpfs: nothing is synced),
//  3. removes its socket and tells every connection,
//  4. removes cgroup and state, delivers what slow clients have not read yet,
//  5. closes the lock of the run folder, says "gone", and ends.
//
// A process in the background that keeps a pipe open delays none of this.
//
// # Memory
//
// A machine has as many monitors as containers. Everything parsed for the
// start is dropped and the heap given back (trim) once the container has run
// for a moment; no goroutine holds a buffer while it waits.
//
// Lock order: monitor.mu, task.mu; buffer.mu, fanout.mu, client.mu,
// logfile.Writer's own; input.mu stands alone. None is held over a wait.
package monitorside

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

const (
	// controlFD is the connection a monitor is born with.
	controlFD = 3
	// gcPercent keeps the heap of a process that hardly allocates small.
	gcPercent = 25
	// startHeap, in bytes, is what a start may allocate before anything is
	// collected: with gcPercent a start would collect two or three times.
	startHeap = 32 << 20
	// oomScore: the kernel should rather take the container than its monitor.
	// Containers get their own value from their configuration.
	oomScore = "-998"
)

// Main runs a monitor and returns its exit status. It expects a connected unix
// socket as descriptor 3, a launch as its first request, and no arguments.
func Main(args []string) int {
	settled := len(args) == 1 && strings.HasPrefix(args[0], settledArg)
	if len(args) > 0 && !settled {
		fmt.Fprintln(os.Stderr, "orlop-runtime monitor: takes no arguments; it is started by orlopd")
		return 2
	}
	if settled {
		debug.SetGCPercent(gcPercent)
	} else {
		debug.SetMemoryLimit(startHeap)
		debug.SetGCPercent(-1)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return 1
	}
	m := newMonitor(platform{
		now: time.Now, bootID: strings.TrimSpace(string(boot)), start: startContainer,
		args: []string{"orlop-runtime", "monitor"},
	})
	if settled {
		if m.goOn(args[0]) != nil {
			return 1
		}
		return 0
	}
	unix.CloseOnExec(controlFD)
	conn, err := protocol.NewConn(controlFD, "control")
	if err != nil {
		fmt.Fprintln(os.Stderr, "orlop-runtime monitor: descriptor 3 must be the control connection:", err)
		return 2
	}
	if err := m.run(conn); err != nil {
		return 1
	}
	return 0
}
