package command

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"

	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// making are the options that create and run share.
type making struct {
	bundle, console, pidFile  string
	noPivot, noNewKeyring     bool
	preserve                  int
	detach, keep, noSubreaper bool
}

func (m *making) bind(fs *flag.FlagSet) {
	fs.StringVar(&m.bundle, "bundle", "", "folder of the bundle; default is the current one")
	fs.StringVar(&m.bundle, "b", "", "short for --bundle")
	fs.StringVar(&m.console, "console-socket", "", "unix socket that gets the terminal")
	fs.StringVar(&m.pidFile, "pid-file", "", "file to write the process's pid to")
	fs.BoolVar(&m.noPivot, "no-pivot", false, "do not use pivot_root")
	fs.BoolVar(&m.noNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.IntVar(&m.preserve, "preserve-fds", 0, "number of descriptors from 3 on to pass to the process")
}

// options turns them into those of lifecycle.Create. Descriptors given by
// systemd (LISTEN_FDS) come first, as sd_listen_fds(3) wants.
func (m *making) options(g *global, id string) (lifecycle.Options, error) {
	if m.bundle == "" {
		m.bundle = "."
	}
	spec, config, err := bundle.Read(m.bundle)
	if err != nil {
		return lifecycle.Options{}, err
	}
	o := lifecycle.Options{
		ID: id, Bundle: m.bundle, Root: g.root, Spec: spec, Config: config, SystemdCgroup: g.systemdCgroup, PlainCgroup: true, NoPivot: m.noPivot,
		NoNewKeyring: m.noNewKeyring, ConsoleSocket: m.console, PidFile: m.pidFile, Logger: g.log,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	listen := 0
	if v := os.Getenv("LISTEN_FDS"); v != "" && spec.Process != nil {
		if listen, err = strconv.Atoi(v); err != nil || listen < 0 {
			return lifecycle.Options{}, fmt.Errorf("unable to parse LISTEN_FDS %q", v)
		}
		o.Config = nil
		spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+v, "LISTEN_PID=1")
	}
	o.ExtraFiles, err = inherited(listen + m.preserve)
	return o, err
}

// inherited wraps the descriptors 3, 4, … that our caller left open for us.
func inherited(n int) ([]*os.File, error) {
	files := make([]*os.File, 0, max(n, 0))
	for fd := 3; fd < 3+n; fd++ {
		f := os.NewFile(uintptr(fd), "fd"+strconv.Itoa(fd))
		if f == nil {
			return nil, fmt.Errorf("descriptor %d is negative", fd)
		}
		if _, err := f.Stat(); err != nil {
			return nil, fmt.Errorf("please check that preserved-fd %d (of %d) is present: %w", fd-3, n, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func create(ctx context.Context, g *global, args []string) (int, error) {
	var m making
	fs := g.options("create", "ID")
	m.bind(fs)
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	o, err := m.options(g, fs.Arg(0))
	if err != nil {
		return 0, err
	}
	if p := o.Spec.Process; p != nil && p.Terminal && m.console == "" {
		return 0, fmt.Errorf("cannot allocate tty without a console socket to pass it to")
	} else if m.console != "" && (p == nil || !p.Terminal) {
		return 0, fmt.Errorf("cannot use console socket without a terminal")
	}
	o.StartApart = true
	c, err := lifecycle.Create(ctx, o)
	if err != nil {
		return 0, err
	}
	return 0, c.Close()
}

func start(ctx context.Context, g *global, args []string) (int, error) {
	fs := g.options("start", "ID")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return 0, c.Start(ctx)
}
