package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// reload reads daemon.json again and takes over those of its keys that may
// change while containers run. Other keys are compared: a change that needs a
// restart is told, not half done.
func (d *process) reload(ctx context.Context, e *engine) {
	d.log.Info("Got signal to reload configuration", "config-file", d.cmd.configFile)
	if sent, _ := daemon.SdNotify(false, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec()); sent {
		defer d.notify(daemon.SdNotifyReady)
	}
	// From the defaults on, so that a key that was taken out of the file has
	// its default again.
	next, err := parse(d.cmd.config.Brand, d.cmd.args)
	if err == nil {
		err = next.load(os.Getenv)
	}
	if err != nil {
		d.log.Error("Error reloading configuration", "error", err)
		return
	}
	merged, changed, pending := mergeReload(d.current(), next)
	if len(pending) > 0 {
		d.log.Warn("changed options take effect when the daemon is restarted", "options", strings.Join(pending, ", "))
	}
	if err := e.reload(ctx, merged); err != nil {
		d.log.Error("Error reconfiguring the daemon", "error", err)
		return
	}
	d.level.Set(merged.logLevel())
	d.mu.Lock()
	d.config = merged
	d.mu.Unlock()
	d.log.Info("Reloaded configuration", "changed", strings.Join(changed, ", "))
}

// mergeReload is the running configuration with the reloadable options of the
// new one; changed lists those that differ, pending those that differ and need
// a restart.
func mergeReload(running *Config, next *command) (merged *Config, changed, pending []string) {
	copied := *running
	merged = &copied
	now, wanted := options(merged), next.opts
	for i, o := range now {
		if o.setting.String() == wanted[i].setting.String() {
			continue
		}
		if !o.reload {
			pending = append(pending, o.flag)
			continue
		}
		changed = append(changed, o.flag)
	}
	c := next.config
	merged.Labels, merged.Debug, merged.ShutdownTimeout, merged.LiveRestore = c.Labels, c.Debug, c.ShutdownTimeout, c.LiveRestore
	merged.InsecureRegistries, merged.RegistryMirrors = c.InsecureRegistries, c.RegistryMirrors
	merged.MaxDownloads, merged.MaxUploads, merged.MaxDownloadAttempts = c.MaxDownloads, c.MaxUploads, c.MaxDownloadAttempts
	merged.Features, merged.StopTimeout = c.Features, c.StopTimeout
	merged.Runtimes, merged.DefaultRuntime = c.Runtimes, c.DefaultRuntime
	merged.ShmSize, merged.IpcMode, merged.CgroupnsMode = c.ShmSize, c.IpcMode, c.CgroupnsMode
	return merged, changed, pending
}

// dumpStacks writes what every goroutine does into a file of the exec root.
func (d *process) dumpStacks() {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	path := filepath.Join(d.current().ExecRoot, fmt.Sprintf("goroutine-stacks-%s.log", time.Now().UTC().Format("2006-01-02T150405Z")))
	if err := os.WriteFile(path, buf, 0o600); err != nil {
		d.log.Error("Failed to write goroutines dump", "error", err)
		return
	}
	d.log.Info("goroutine stacks written to " + path)
}
