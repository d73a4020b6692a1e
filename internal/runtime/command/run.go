package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

func run(ctx context.Context, g *global, args []string) (int, error) {
	var m making
	fs := g.options("run", "ID")
	m.bind(fs)
	fs.BoolVar(&m.detach, "detach", false, "return when the process runs")
	fs.BoolVar(&m.detach, "d", false, "short for --detach")
	fs.BoolVar(&m.keep, "keep", false, "do not delete the container when its process ended")
	fs.BoolVar(&m.noSubreaper, "no-subreaper", false, "do not adopt orphans of the container")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	o, err := m.options(g, fs.Arg(0))
	if err != nil {
		return 0, err
	}
	o.StartNow = true
	terminal := o.Spec.Process != nil && o.Spec.Process.Terminal
	if err := checkTerminal(terminal, m.detach, m.console); err != nil {
		return 0, err
	}
	if !m.detach && !m.noSubreaper {
		// Without a pid namespace, orphans of the container become ours.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 0, err
		}
	}
	signals := catch(m.detach)
	c, err := lifecycle.Create(ctx, o)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if m.detach {
		return 0, nil
	}
	status, err := foreground(c.Console(), signals, func(sig int) { _ = c.Kill(sig, false) }, c.Wait)
	if !m.keep {
		err = errors.Join(err, c.Delete(ctx, true))
	}
	return status.Code, err
}

// checkTerminal refuses combinations in which nobody would hold the terminal.
func checkTerminal(terminal, detach bool, socket string) error {
	switch {
	case terminal && detach && socket == "":
		return errors.New("cannot allocate tty when detaching without a console socket to pass it to")
	case socket != "" && !(terminal && detach):
		return errors.New("cannot use console socket unless detaching with a terminal")
	}
	return nil
}

// common are the signals that people and service managers send. They are caught
// from the beginning; catching all 64 takes a Go process 300 switches between
// its threads (3 ms of CPU), which a short command should not pay.
var common = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH,
	unix.SIGPIPE,
}

// settled is how long a process runs before the other signals are caught too.
const settled = 100 * time.Millisecond

// catch collects the signals that a foreground process passes on.
func catch(detach bool) chan os.Signal {
	if detach {
		return nil
	}
	const room = 128 // as many as arrive before the loop runs
	c := make(chan os.Signal, room)
	signal.Notify(c, common...)
	return c
}

// foreground connects our terminal and signals to a process until it ends.
func foreground(console *os.File, signals chan os.Signal, send func(int), wait func() (lifecycle.Status, error)) (lifecycle.Status, error) {
	restore := func() {}
	var output sync.WaitGroup
	if console != nil {
		restore = rawTerminal()
		resize(console)
		go func() { _, _ = io.Copy(console, os.Stdin) }()
		output.Go(func() { _, _ = io.Copy(os.Stdout, console) })
	}
	defer restore()
	ended := make(chan struct{})
	var status lifecycle.Status
	var err error
	go func() {
		status, err = wait()
		close(ended)
	}()
	rest := time.NewTimer(settled)
	defer rest.Stop()
	for {
		select {
		case <-rest.C:
			signal.Notify(signals)
		case sig := <-signals:
			n, ok := sig.(unix.Signal)
			switch {
			case !ok, n == unix.SIGCHLD, n == unix.SIGURG: // ours, or the Go runtime's
			case n == unix.SIGWINCH && console != nil:
				resize(console)
			default:
				send(int(n))
			}
		case <-ended:
			signal.Stop(signals)
			output.Wait() // ends when the last holder of the terminal is gone
			return status, err
		}
	}
}

// resize gives the terminal the size of ours.
func resize(console *os.File) {
	if ws, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = pty.Resize(console, ws.Row, ws.Col)
	}
}

// rawTerminal passes every key through, if the standard input is a terminal.
func rawTerminal() (restore func()) {
	fd := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		fmt.Fprintln(os.Stderr, "make terminal raw:", err)
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
