package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

func kill(_ context.Context, g *global, args []string) (int, error) {
	fs := g.options("kill", "ID [SIGNAL]")
	all := fs.Bool("all", false, "send it to every process of the container")
	fs.BoolVar(all, "a", false, "short for --all")
	if err := parse(fs, args, 1, 2); err != nil {
		return 0, err
	}
	sig := unix.SIGTERM
	if fs.NArg() == 2 {
		var err error
		if sig, err = parseSignal(fs.Arg(1)); err != nil {
			return 0, err
		}
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return 0, c.Kill(int(sig), *all)
}

// parseSignal reads a number, or a name with or without "SIG".
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		const last = 64
		if n < 0 || n > last {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	// SIGRTMIN+n and SIGRTMAX-n as in signal(7) with glibc's numbers.
	const rtMin, rtMax = 34, 64
	for base, at := range map[string]int{"SIGRTMIN": rtMin, "SIGRTMAX": rtMax} {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				continue
			}
		}
		if at+n >= rtMin && at+n <= rtMax {
			return unix.Signal(at + n), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

func remove(ctx context.Context, g *global, args []string) (int, error) {
	fs := g.options("delete", "ID")
	force := fs.Bool("force", false, "kill a running container first; no error when there is none")
	fs.BoolVar(force, "f", false, "short for --force")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	id := fs.Arg(0)
	c, err := g.open(id)
	if errdefs.IsNotFound(err) || errdefs.IsDataLoss(err) {
		// Perhaps the folder of a create that died.
		if errdefs.IsNotFound(err) || *force {
			if lerr := lifecycle.DeleteLeftover(g.root, id); lerr == nil {
				return 0, nil
			}
		}
		if *force && errdefs.IsNotFound(err) {
			return 0, nil
		}
	}
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return 0, c.Delete(ctx, *force)
}

func pause(ctx context.Context, g *global, args []string) (int, error) {
	return onOne(g, "pause", args, func(c *lifecycle.Container) error { return c.Pause(ctx) })
}

func resume(ctx context.Context, g *global, args []string) (int, error) {
	return onOne(g, "resume", args, func(c *lifecycle.Container) error { return c.Resume(ctx) })
}

// onOne runs a verb that has no options.
func onOne(g *global, name string, args []string, act func(*lifecycle.Container) error) (int, error) {
	fs := g.options(name, "ID")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return 0, act(c)
}
