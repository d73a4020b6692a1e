package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// executing are the options of exec.
type executing struct {
	process, cwd, user, pidFile, console, label, apparmor, cgroup string
	env, caps, groups                                             stringList
	tty, detach, noNewPrivs, ignorePaused                         bool
	preserve                                                      int
}

func execute(ctx context.Context, g *global, args []string) (int, error) {
	var x executing
	fs := g.options("exec", "ID COMMAND [ARG...]")
	for _, o := range []struct {
		to    *string
		short string
		long  string
		help  string
	}{
		{&x.process, "p", "process", "file with the process object"},
		{&x.user, "u", "user", "user as UID[:GID]"},
		{&x.cwd, "", "cwd", "current folder"},
		{&x.pidFile, "", "pid-file", "file to write the pid to"},
		{&x.console, "", "console-socket", "unix socket that gets the terminal"},
		{&x.label, "", "process-label", "SELinux label"},
		{&x.apparmor, "", "apparmor", "AppArmor profile"},
		{&x.cgroup, "", "cgroup", "group below the container's to run in"},
	} {
		fs.StringVar(o.to, o.long, "", o.help)
		if o.short != "" {
			fs.StringVar(o.to, o.short, "", "short for --"+o.long)
		}
	}
	for _, o := range []struct {
		to          *stringList
		short, long string
		help        string
	}{
		{&x.env, "e", "env", "variable NAME=VALUE"},
		{&x.caps, "c", "cap", "capability to add"},
		{&x.groups, "g", "additional-gids", "additional group"},
	} {
		fs.Var(o.to, o.long, o.help)
		fs.Var(o.to, o.short, "short for --"+o.long)
	}
	for _, o := range []struct {
		to          *bool
		short, long string
		help        string
	}{
		{&x.tty, "t", "tty", "give it a terminal"},
		{&x.detach, "d", "detach", "return when the process runs"},
		{&x.noNewPrivs, "", "no-new-privs", "set no_new_privs"},
		{&x.ignorePaused, "", "ignore-paused", "also in a paused container"},
	} {
		fs.BoolVar(o.to, o.long, false, o.help)
		if o.short != "" {
			fs.BoolVar(o.to, o.short, false, "short for --"+o.long)
		}
	}
	fs.IntVar(&x.preserve, "preserve-fds", 0, "number of descriptors from 3 on to pass to the process")
	if err := parse(fs, args, 1, -1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	p, err := x.processOf(c.Spec(), fs.Args()[1:])
	if err != nil {
		return 0, err
	}
	return x.run(ctx, g, c, p)
}

// processOf is the process to run: from a file, or the container's own with
// what the options change.
func (x *executing) processOf(s *specs.Spec, args []string) (*specs.Process, error) {
	if x.process != "" {
		return bundle.LoadProcess(x.process)
	}
	if len(args) == 0 {
		return nil, errors.New("process args cannot be empty")
	}
	var p specs.Process
	if s.Process != nil {
		p = *s.Process
	}
	p.Args, p.Terminal, p.ConsoleSize = args, x.tty, nil
	p.Env = append(append([]string{}, p.Env...), x.env...)
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if x.apparmor != "" {
		p.ApparmorProfile = x.apparmor
	}
	if x.label != "" {
		p.SelinuxLabel = x.label
	}
	p.NoNewPrivileges = p.NoNewPrivileges || x.noNewPrivs
	if len(x.caps) > 0 {
		p.Capabilities = addCaps(p.Capabilities, x.caps)
	}
	for _, v := range x.groups {
		gid, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parsing %s as int for gid failed: %w", v, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	if x.user != "" {
		uid, gid, both := strings.Cut(x.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parsing %s as int for uid failed: %w", uid, err)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return nil, fmt.Errorf("parsing %s as int for gid failed: %w", gid, err)
			}
			p.User.GID = uint32(n)
		}
	}
	return &p, nil
}

// addCaps adds capabilities to every set but the ambient and inheritable ones.
func addCaps(c *specs.LinuxCapabilities, names []string) *specs.LinuxCapabilities {
	var out specs.LinuxCapabilities
	if c != nil {
		out = *c
	}
	for _, set := range []*[]string{&out.Bounding, &out.Effective, &out.Permitted} {
		*set = append(append([]string{}, *set...), names...)
	}
	return &out
}

func (x *executing) run(ctx context.Context, g *global, c *lifecycle.Container, p *specs.Process) (int, error) {
	if err := checkTerminal(p.Terminal, x.detach, x.console); err != nil {
		return 0, err
	}
	extra, err := inherited(x.preserve)
	if err != nil {
		return 0, err
	}
	signals := catch(x.detach)
	proc, err := c.Exec(ctx, lifecycle.ExecOptions{
		Process: p, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: extra, PidFile: x.pidFile,
		ConsoleSocket: x.console, Detach: x.detach, Cgroup: x.cgroup, IgnorePaused: x.ignorePaused, Logger: g.log,
	})
	if err != nil {
		return 0, err
	}
	defer proc.Close()
	if x.detach {
		return 0, nil
	}
	status, err := foreground(proc.Console(), signals, func(sig int) { _ = proc.Signal(sig) }, proc.Wait)
	return status.Code, err
}
