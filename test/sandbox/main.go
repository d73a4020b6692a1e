// Command sandbox runs a command in mount, pid, network, ipc and uts namespaces
// of its own, with /run empty and only the loopback device, and takes
// everything with it when it ends: the command's orphans die with the pid
// namespace, interfaces and rules with the network namespace, mounts with the
// mount namespace, and the control groups named by -cgroup are removed. What it
// changes in /dev and /etc is changed in copies of its own.
//
//	sandbox [-cgroup NAME] [-cwd DIR] [-tied] [-systemd] COMMAND ARG…
//	sandbox -streams COMMAND ARG…
//
// The second form is for what comes into a sandbox by nsenter(1): it gives up
// standard streams that are the host's /dev/null for the sandbox's own, and is
// then the command.
//
// With -systemd the host's systemd can be asked for units from inside: its
// buses stay in /run, and there is no pid namespace, because it has to know the
// pids it is told. The command's orphans are then killed one by one, and NAME
// is a slice that is stopped.
//
// It ends when the command ends, or on SIGINT and SIGTERM, which it passes on;
// with -tied also when its parent dies, even by SIGKILL. The exit status is the
// command's.
// When the command runs it writes to descriptor 3, if that is open, the pid of
// the first process inside in the caller's pid namespace, for nsenter(1).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/testkit/hostfiles"
)

// innerEnv marks the process that is the first inside, systemdEnv that it is not
// pid 1.
const (
	innerEnv   = "ORLOP_SANDBOX_INNER"
	systemdEnv = "ORLOP_SANDBOX_SYSTEMD"
)

// readyFD is where the first process inside tells the outer one that the command
// runs, and the outer one its caller.
const readyFD = 3

func main() {
	if os.Getenv(innerEnv) != "" {
		os.Exit(inner())
	}
	os.Exit(outer())
}

func outer() int {
	group := flag.String("cgroup", "", "control groups of this name, directly below each hierarchy's root, are removed at the end")
	cwd := flag.String("cwd", "", "working directory")
	tied := flag.Bool("tied", false, "end with the parent; only for parents of one thread, because the kernel means the thread that started us")
	systemd := flag.Bool("systemd", false, "let systemd be asked for units")
	streams := flag.Bool("streams", false, "make no sandbox: be the command, without streams from outside of this one")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		return 2
	}
	if *streams {
		return fail(become(flag.Args()))
	}
	// Looked at before anything is opened here.
	var asker *os.File
	if _, err := unix.FcntlInt(readyFD, unix.F_GETFD, 0); err == nil {
		asker = os.NewFile(readyFD, "asker")
		unix.CloseOnExec(readyFD)
	}
	// The inner process ends with this thread, so it has to be the main one.
	runtime.LockOSThread()
	if *tied {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
			return fail(err)
		}
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", flag.Args()...)
	cmd.Env = append(os.Environ(), innerEnv+"=1")
	cmd.Dir = *cwd
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
	}
	if *systemd {
		cmd.Env = append(cmd.Env, systemdEnv+"=1")
		cmd.SysProcAttr.Cloneflags &^= unix.CLONE_NEWPID
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	ready, tell, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	cmd.ExtraFiles = []*os.File{tell}
	err = cmd.Start()
	_ = tell.Close()
	if err != nil {
		return fail(err)
	}
	// Without an answer it has said itself why it is not ready.
	if n, _ := ready.Read(make([]byte, 1)); n == 1 && asker != nil {
		_, _ = fmt.Fprintln(asker, cmd.Process.Pid)
	}
	_ = ready.Close()
	if asker != nil {
		_ = asker.Close()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for asked := 0; ; {
		select {
		case sig := <-signals:
			asked++
			if asked > 1 {
				_ = cmd.Process.Kill()
			} else {
				_ = cmd.Process.Signal(sig)
			}
		case err := <-done:
			if *group != "" {
				remove := removeGroups
				if *systemd {
					remove = stopSlice
				}
				if err := remove(*group); err != nil {
					fmt.Fprintln(os.Stderr, "sandbox:", err)
				}
			}
			return status(err)
		}
	}
}

// become executes a command in place of this program, with streams of this
// mount namespace.
func become(args []string) error {
	if err := hostfiles.Streams(); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	return 125
}

func status(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 137
	default:
		return fail(err)
	}
}

// inner is pid 1: it prepares the namespaces, runs the command, reaps every
// orphan and ends with the command, which ends all others.
func inner() int {
	systemd := os.Getenv(systemdEnv) != ""
	tell := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	if err := prepare(systemd); err != nil {
		return fail(err)
	}
	// What make(1) starts inherits these two as ignored, and Docker and runc pass
	// that on to their containers: it would show who started the tests.
	process.DefaultSignal(32)
	process.DefaultSignal(33)
	if systemd {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fail(err)
		}
		defer killOrphans()
	}
	// Registered before the command starts, so that no child's end is missed.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, innerEnv+"=") || strings.HasPrefix(v, systemdEnv+"=")
	})
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return fail(err)
	}
	main, err := os.StartProcess(path, os.Args[1:], &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return fail(err)
	}
	// Not earlier: who counts the processes inside counts the command too.
	if _, err := tell.Write([]byte{1}); err != nil {
		return fail(err)
	}
	_ = tell.Close()
	go func() {
		for sig := range signals {
			_ = main.Signal(sig)
		}
	}()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fail(err)
		case pid == main.Pid && ws.Signaled():
			return 128 + int(ws.Signal())
		case pid == main.Pid:
			return ws.ExitStatus()
		}
	}
}

// killOrphans kills every descendant, which have all become children or will.
func killOrphans() {
	for {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, e := range entries {
			list, _ := os.ReadFile("/proc/self/task/" + e.Name() + "/children") // a thread that has ended has none
			for _, f := range strings.Fields(string(list)) {
				if pid, err := strconv.Atoi(f); err == nil {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// stopSlice stops a slice with every unit in it.
func stopSlice(name string) error {
	out, err := exec.CommandContext(context.Background(), "systemctl", "stop", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("stop %s: %w: %s", name, err, out)
	}
	return nil
}

func prepare(systemd bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	buses := map[string]int{}
	if systemd {
		for _, dir := range []string{"/run/dbus", "/run/systemd"} {
			fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			if err != nil {
				return fmt.Errorf("keep %s: %w", dir, err)
			}
			defer unix.Close(fd)
			buses[dir] = fd
		}
	}
	for _, m := range []struct{ fs, at, data string }{{"proc", "/proc", ""}, {"tmpfs", "/run", "mode=755"}} {
		if err := unix.Mount(m.fs, m.at, m.fs, unix.MS_NOSUID|unix.MS_NODEV, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for dir, fd := range buses {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
	}
	if err := errors.Join(hostfiles.Privatize(), hostfiles.Streams()); err != nil {
		return err
	}
	// SIOCSIFFLAGS by hand: a netlink library is more than one flag needs.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(uint16(net.FlagUp) | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// removeGroups removes name below the root of every hierarchy. The processes
// are dead, but the kernel needs a moment to let go of the groups.
func removeGroups(name string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var failed error
	for _, line := range strings.Split(string(mounts), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		failed = errors.Join(failed, removeTree(filepath.Join(f[1], name)))
	}
	return failed
}

func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for i := len(dirs) - 1; i >= 0; i-- {
		for {
			err := unix.Rmdir(dirs[i])
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove %s: %w", dirs[i], err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}
