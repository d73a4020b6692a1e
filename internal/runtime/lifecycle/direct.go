package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/initproc"
)

// direct starts an exec without a stage: as a list of system calls. Whatever it
// fails with, nothing has been executed then and nothing is left, and the stage
// is to be started, which can do everything and says best what was wrong.
func (x *execution) direct(ctx context.Context) error {
	if len(defense.Environment()) > 0 {
		return initproc.ErrStage // which has the defenses to take away
	}
	c := x.c
	config, err := x.config()
	if err != nil {
		return err
	}
	if config.Process.Terminal || notifies(c.spec.Linux.Seccomp) || fault.Environ() != nil {
		return initproc.ErrStage
	}
	target := c.PidFD()
	if target == nil {
		return unix.ESRCH
	}
	root, err := c.rootOf(target)
	if err != nil {
		return err
	}
	defer root.Close()
	cmd := &process.Command{}
	x.namespaces(cmd, target)
	if cmd.Files, err = stdio(false, x.Stdin, x.Stdout, x.Stderr, x.closeLater); err != nil {
		return err
	}
	cmd.Files = append(cmd.Files, x.ExtraFiles...)
	if err := x.group(ctx, cmd); err != nil {
		return err
	}
	proc, err := procfs()
	if err != nil {
		return err
	}
	defer proc.Close()
	l := process.NewCalls(len(cmd.Files))
	cmd.Calls = l
	warnings, err := config.BecomeCalls(l, initproc.Place{
		Root: root,
		Proc: func() uintptr { return l.File(proc) },
		Join: func() {
			for _, f := range x.join {
				l.Add("join cgroup "+f.Name(), unix.SYS_WRITE, l.File(f), l.Str("0"), 1)
			}
		},
	})
	if err != nil {
		return err
	}
	p, err := cmd.Start()
	if err != nil {
		return err
	}
	if st, err := pidfd.ReadStat(p.Pid); err == nil {
		x.startTime = st.Start
	}
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Signal(p.PidFD, int(unix.SIGKILL)) })
	err = p.Started()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	x.proc = p
	if x.PidFile != "" {
		if err := writePidFile(x.PidFile, p.Pid); err != nil {
			x.kill()
			x.proc = nil
			return err
		}
	}
	warn(x.Logger, warnings, p)
	return nil
}

// warn tells what a child had to do without.
func warn(log *slog.Logger, warnings []string, p *process.Process) {
	for _, w := range warnings {
		log.Warn(w)
	}
	for _, f := range p.Failures() {
		if !errors.Is(f, unix.ENOSYS) {
			log.Warn(f.Error())
		}
	}
}

// procfs opens our own /proc, when it is one.
func procfs() (*os.File, error) {
	f, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(int(f.Fd()), &fs); err == nil && fs.Type != unix.PROC_SUPER_MAGIC {
		err = errors.New("/proc is not a procfs")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// rootOf opens the root of the container's first process.
func (c *Container) rootOf(process *os.File) (safepath.FD, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(c.saved.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return safepath.None, err
	}
	// It still lives, so the pid was its own.
	if err := pidfd.Signal(process, 0); err != nil {
		_ = unix.Close(fd)
		return safepath.None, fmt.Errorf("container ended: %w", err)
	}
	return safepath.FD(fd), nil
}
