// Command orlopd is the daemon: Docker's Engine API over an engine of its own.
// Started under the name dockerd it takes dockerd's place: its folders, its
// socket and its habits.
//
// main reads the configuration and owns the process: roots, pid file,
// listeners, signals. wire.go is the only place where the ports of the engine
// meet what carries them out.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/orphan"
)

func main() {
	if err := run(os.Args, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr *os.File) error {
	started := time.Now()
	brand := brandOf(args[0])
	cmd, err := parse(brand, args[1:])
	if err != nil {
		return err
	}
	switch {
	case cmd.help:
		fmt.Fprint(stdout, cmd.usage())
		return nil
	case cmd.version:
		fmt.Fprintln(stdout, versionLine(brand))
		return nil
	}
	if err := cmd.load(os.Getenv); err != nil {
		return err
	}
	if cmd.validate {
		// On standard error, as other daemons that check their configuration.
		fmt.Fprintln(stderr, "configuration OK")
		return nil
	}
	if err := checkSystem(brand); err != nil {
		return err
	}
	level := new(slog.LevelVar)
	d := &process{cmd: cmd, level: level, log: newLogger(stderr, cmd.config, level), started: started}
	return d.run(context.Background())
}

// Limits of the process that a daemon full of small objects wants.
const (
	// gcPercent trades a little processor time for a heap that stays close to
	// what is live: an idle engine should be small.
	gcPercent = 50
	// headerTimeout bounds how long a client may take to send its headers.
	headerTimeout = 5 * time.Minute
	// drainTimeout is what requests in flight get when the daemon stops.
	drainTimeout = 5 * time.Second
)

// process is one life of the daemon.
type process struct {
	cmd     *command
	level   *slog.LevelVar
	log     *slog.Logger
	started time.Time

	// mu guards config, which a reload replaces.
	mu     sync.Mutex
	config *Config
}

func (d *process) run(ctx context.Context) (err error) {
	c := d.cmd.config
	d.config = c
	debug.SetGCPercent(gcPercent)
	for name, value := range map[string]string{"HTTP_PROXY": c.HTTPProxy, "HTTPS_PROXY": c.HTTPSProxy, "NO_PROXY": c.NoProxy} {
		if value != "" {
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	quietLibraries(d.log)
	// Modes of what the daemon makes are what the code says.
	unix.Umask(0)

	// Before anything is started: containers of killed monitors fall to us.
	if err := orphan.Adopt(); err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1)
	defer signal.Stop(signals)

	if err := c.remap(ctx, d.log); err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}
	unlock, err := lockRoots(c.DataRoot, c.ExecRoot)
	if err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}
	defer unlock()
	// A folder of an earlier release, or an administrator's, may be wider. A
	// local user who came through could run what is setuid in a container
	// (CVE-2021-41091).
	if err := os.Chmod(c.DataRoot, 0o710); err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}
	removePid, err := writePidFile(c.PidFile)
	if err != nil {
		return fmt.Errorf("failed to start daemon, ensure %s is not running or delete %s: %w", c.Brand.Program, c.PidFile, err)
	}
	defer removePid()

	// The sockets are there before the engine is: clients wait instead of
	// failing.
	sockets, err := listeners(c, d.log)
	if err != nil {
		return fmt.Errorf("failed to load listeners: %w", err)
	}
	closeSockets := func() {
		for _, l := range sockets {
			l.Close()
		}
	}
	defer closeSockets()

	e, err := wire(ctx, c, d.log)
	if err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}
	defer func() {
		if cerr := e.close(); cerr != nil {
			d.log.Error("close the engine", "error", cerr)
		}
	}()

	if err := e.restore(ctx); err != nil {
		return fmt.Errorf("failed to start daemon: %w", err)
	}
	engineCtx, stopEngine := context.WithCancel(ctx)
	defer stopEngine()
	engineDone := make(chan error, 1)
	go func() { engineDone <- e.run(engineCtx) }()
	stopped := false
	defer func() {
		if !stopped {
			stopEngine()
			<-engineDone
		}
	}()

	requests, cutOff := context.WithCancel(ctx)
	defer cutOff()
	server := &http.Server{
		BaseContext:       func(net.Listener) context.Context { return requests },
		Handler:           e.api,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, len(sockets))
	for _, l := range sockets {
		d.log.Info("API listen on " + l.Addr().String())
		go func(l net.Listener) { served <- server.Serve(l) }(l)
	}
	d.log.Info("Daemon has completed initialization", "ready", time.Since(d.started).Round(time.Microsecond))
	d.notify(daemon.SdNotifyReady)

	cause := d.waitForEnd(ctx, e, signals, served, engineDone, &stopped)
	d.notify(daemon.SdNotifyStopping)

	// No new requests; then containers, if they are to stop, while those who
	// wait for them are still answered; then what follows without end is cut
	// off and the rest may finish (docs/decisions/0062).
	server.SetKeepAlivesEnabled(false)
	closeSockets()
	stopAll := !d.current().LiveRestore
	grace, cancel := context.WithCancel(ctx)
	if t := d.current().ShutdownTimeout; t >= 0 {
		cancel()
		grace, cancel = context.WithTimeout(ctx, time.Duration(t)*time.Second)
	}
	if err := e.shutdown(grace, stopAll); err != nil {
		d.log.Error("stop containers", "error", err)
	}
	cancel()
	cutOff()
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	_ = server.Shutdown(drain)
	cancel()
	_ = server.Close()
	if !stopped {
		stopEngine()
		<-engineDone
		stopped = true
	}
	d.log.Info("Daemon shutdown complete", "containersStopped", stopAll)
	return cause
}

// waitForEnd handles signals until the daemon is to end, and says why when that
// was not asked for.
func (d *process) waitForEnd(ctx context.Context, e *engine, signals <-chan os.Signal, served, engineDone <-chan error, stopped *bool) error {
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGHUP:
				d.reload(ctx, e)
			case unix.SIGUSR1:
				d.dumpStacks()
			default:
				d.log.Info("Processing signal '" + s.String() + "'")
				go d.forceOnThird(signals)
				return nil
			}
		case err := <-served:
			if errors.Is(err, http.ErrServerClosed) {
				continue
			}
			return fmt.Errorf("shutting down due to ServeAPI error: %w", err)
		case err := <-engineDone:
			*stopped = true
			if err == nil {
				err = errors.New("the engine ended by itself")
			}
			return fmt.Errorf("shutting down: %w", err)
		}
	}
}

// forceOnThird ends the process at the third request to end: whoever asks three
// times does not want to wait for containers.
func (d *process) forceOnThird(signals <-chan os.Signal) {
	asked := 1
	for s := range signals {
		if s == unix.SIGUSR1 {
			d.dumpStacks()
			continue
		}
		if s == unix.SIGHUP {
			continue
		}
		if asked++; asked >= 3 {
			d.log.Error("Forcing daemon shutdown without cleanup: 3 interrupts received")
			os.Exit(128 + int(s.(unix.Signal)))
		}
	}
}

// notify tells systemd; without systemd it does nothing.
func (d *process) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("notify systemd", "state", state, "error", err)
	}
}

func (d *process) current() *Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

// lookPath finds a program in PATH.
func lookPath(name string) (string, error) { return exec.LookPath(name) }
