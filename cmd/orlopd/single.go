package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockRoots makes the roots and locks them, so that two daemons never share
// one. The locks end with the process, whatever ends it.
func lockRoots(dirs ...string) (func(), error) {
	var held []*os.File
	release := func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, dir := range dirs {
		// Others may pass through but not look around.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			release()
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(dir, "orlopd.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
		owner, _ := os.ReadFile(f.Name())
		if err := lock(f, owner); err != nil {
			release()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s is in use by another daemon (pid %s)", dir, strings.TrimSpace(string(owner)))
			}
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if err := f.Truncate(0); err == nil {
			_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
	}
	return release, nil
}

// leftoverWait is how long the lock of a daemon that is gone is waited for.
const leftoverWait = 5 * time.Second

// lock takes the lock of a root. When the daemon that had it was killed, a child
// that it was starting may hold its files until that has executed: this is
// waited for.
func lock(f *os.File, owner []byte) error {
	const pause = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || waited >= leftoverWait {
			return err
		}
		pid, convErr := strconv.Atoi(strings.TrimSpace(string(owner)))
		if convErr != nil || unix.Kill(pid, 0) == nil {
			return err
		}
		time.Sleep(pause)
	}
}

// writePidFile refuses when the process that the file names still lives; a file
// left behind by one that was killed is replaced.
func writePidFile(path string) (remove func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("failed to create pidfile directory: %w", err)
	}
	if raw, err := os.ReadFile(path); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil && pid != os.Getpid() && isDaemon(pid) {
			return nil, fmt.Errorf("process with PID %d is still running", pid)
		}
	}
	own := strconv.Itoa(os.Getpid())
	if err := os.WriteFile(path, []byte(own), 0o644); err != nil {
		return nil, err
	}
	return func() {
		// Only what is still ours: a successor may have written its own.
		if raw, err := os.ReadFile(path); err == nil && string(raw) == own {
			_ = os.Remove(path)
		}
	}, nil
}

// isDaemon reports whether a process lives and runs this program: pids are used
// again, often by the next boot's first processes.
func isDaemon(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	ours, err := os.Executable()
	return err == nil && filepath.Base(strings.TrimSuffix(theirs, " (deleted)")) == filepath.Base(ours)
}
