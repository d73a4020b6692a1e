// Package command is the OCI runtime's command line: runc's verbs, options and
// exit codes over package lifecycle, one file per verb. The entry point is Main.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
	"github.com/orlop/orlop/internal/runtime/quickstart"
)

// Version of the runtime; set by the linker.
var version = "dev"

// global are the options before the verb, and what they lead to.
type global struct {
	program       string
	root          string
	logFile       string
	logFormat     string
	debug         bool
	systemdCgroup bool
	log           *slog.Logger
	out, errs     io.Writer
}

// verb is one command.
type verb struct {
	name, args, help string
	// failed is what a failure is called, "NAME failed" when empty; code is its
	// exit code, 1 when 0.
	code int
	run  func(ctx context.Context, g *global, args []string) (int, error)
}

// verbs lists the commands in the order of the help.
func verbs() []verb {
	return []verb{
		{name: "create", args: "ID", help: "make a container", run: create},
		{name: "start", args: "ID", help: "run the process of a created container", run: start},
		{name: "run", args: "ID", help: "make a container and run its process", run: run},
		{name: "exec", args: "ID COMMAND [ARG...]", help: "run a further process in a container", run: execute, code: 255},
		{name: "state", args: "ID", help: "print the state of a container", run: state},
		{name: "kill", args: "ID [SIGNAL]", help: "send a signal to a container", run: kill},
		{name: "delete", args: "ID", help: "remove a container", run: remove},
		{name: "pause", args: "ID", help: "stop all processes of a container", run: pause},
		{name: "resume", args: "ID", help: "let the processes of a paused container run", run: resume},
		{name: "list", help: "list containers", run: list},
		{name: "ps", args: "ID [PS OPTION...]", help: "list the processes of a container", run: ps},
		{name: "update", args: "ID", help: "change the limits of a container", run: update},
		{name: "events", args: "ID", help: "print statistics and OOM kills of a container", run: events},
		{name: "features", help: "print what this runtime supports", run: printFeatures},
		{name: "spec", help: "write an example configuration", run: spec},
	}
}

// Main runs the command line and returns its exit status.
func Main(args []string) int {
	process.Calm()
	g := &global{program: filepath.Base(args[0]), out: os.Stdout, errs: os.Stderr}
	rest, done, err := g.parse(args[1:])
	if err != nil {
		return g.fail("", err, 1)
	}
	if done {
		return 0
	}
	closeLog, err := g.openLog()
	if err != nil {
		return g.fail("", err, 1)
	}
	defer closeLog()
	for _, v := range verbs() {
		if v.name != rest[0] {
			continue
		}
		code, err := v.run(context.Background(), g, rest[1:])
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		if err != nil {
			if code = v.code; code == 0 {
				code = 1
			}
			return g.fail(v.name+" failed", err, code)
		}
		return code
	}
	return g.fail("", fmt.Errorf("no such command: %s", rest[0]), 3)
}

// parse reads the options before the verb. done: nothing is left to do.
func (g *global) parse(args []string) (rest []string, done bool, err error) {
	fs := flag.NewFlagSet(g.program, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&g.root, "root", defaultRoot(), "folder of the containers' states; should be on a tmpfs")
	fs.StringVar(&g.logFile, "log", "", "file to log to instead of the standard error")
	fs.StringVar(&g.logFormat, "log-format", "text", "form of the log, text or json")
	fs.BoolVar(&g.debug, "debug", false, "log more")
	fs.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "cgroupsPath is slice:prefix:name and systemd makes the group")
	fs.Func("criu", "refused: checkpoints are not supported", func(string) error {
		return errors.New("checkpoints are not supported")
	})
	fs.Func("rootless", "auto, true or false: whether what only root may do is left out; the kernel is asked, so anything but auto must be true to it", rootless)
	show := fs.Bool("version", false, "print the version")
	fs.BoolVar(show, "v", false, "print the version")
	err = fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) || err == nil && !*show && (fs.NArg() == 0 || fs.Arg(0) == "help") {
		g.usage(fs)
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if *show {
		fmt.Fprintf(g.out, "%s version %s\nspec: %s\n", g.program, version, specs.Version)
		return nil, true, nil
	}
	return fs.Args(), false, nil
}

func (g *global) usage(fs *flag.FlagSet) {
	fmt.Fprintf(g.out, "%s runs containers as the OCI runtime specification says.\n\nUsage: %s [OPTIONS] COMMAND [OPTIONS] [ARG...]\n\nCommands:\n", g.program, g.program)
	for _, v := range verbs() {
		fmt.Fprintf(g.out, "  %-9s %-20s %s\n", v.name, v.args, v.help)
	}
	fmt.Fprintln(g.out, "\nOptions:")
	fs.SetOutput(g.out)
	fs.PrintDefaults()
}

// defaultRoot is on a tmpfs for root and for users of a session.
func defaultRoot() string {
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "orlop-runtime")
		}
	}
	return quickstart.DefaultRoot
}

// rootless checks the value of --rootless. Whether we may do what root does is
// asked of the kernel each time, so the option can only confirm it.
func rootless(s string) error {
	if s == "auto" {
		return nil
	}
	want, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("not auto, true or false")
	}
	if want != (os.Geteuid() != 0) {
		return fmt.Errorf("this process has the user id %d", os.Geteuid())
	}
	return nil
}

// openLog opens the log. Callers of OCI runtimes read a failure's reason from
// the last line of level error, in logrus's forms.
func (g *global) openLog() (func(), error) {
	if g.logFormat != "text" && g.logFormat != "json" {
		return nil, fmt.Errorf("invalid log-format: %s", g.logFormat)
	}
	w := g.errs
	closeLog := func() {}
	if g.logFile != "" {
		f, err := os.OpenFile(g.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return nil, err
		}
		w, closeLog = f, func() { _ = f.Close() }
	}
	g.log = newLogger(w, g.logFormat, g.debug)
	return closeLog, nil
}

func newLogger(w io.Writer, format string, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.LevelKey:
			l := strings.ToLower(a.Value.String())
			if l == "warn" {
				l = "warning"
			}
			return slog.String(slog.LevelKey, l)
		case slog.TimeKey:
			return slog.String(slog.TimeKey, a.Value.Time().Format(time.RFC3339))
		}
		return a
	}}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// fail logs and prints why a verb failed.
func (g *global) fail(what string, err error, code int) int {
	text := err.Error()
	var start *lifecycle.StartError
	if errors.As(err, &start) {
		text = "unable to start container process: " + text
	}
	if what != "" {
		text = g.program + " " + what + ": " + text
	}
	if g.log != nil {
		g.log.Error(text)
	}
	if g.logFile != "" || g.log == nil {
		fmt.Fprintln(g.errs, text)
	}
	return code
}

// options makes the flag set of a verb.
func (g *global) options(name, args string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(g.errs)
	fs.Usage = func() {
		fmt.Fprintf(g.out, "Usage: %s %s [OPTIONS] %s\n", g.program, name, args)
		fs.SetOutput(g.out)
		fs.PrintDefaults()
	}
	return fs
}

// parse reads a verb's options and checks the number of its arguments; most < 0
// is any number.
func parse(fs *flag.FlagSet, args []string, least, most int) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if n := fs.NArg(); n < least || most >= 0 && n > most {
		if least == most {
			return fmt.Errorf("%q requires exactly %d argument(s)", fs.Name(), least)
		}
		return fmt.Errorf("%q requires at least %d argument(s)", fs.Name(), least)
	}
	return nil
}

// open finds the container a verb is about.
func (g *global) open(id string) (*lifecycle.Container, error) {
	return lifecycle.Open(g.root, id)
}

// stringList collects the values of an option that may be repeated.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// printJSON prints v as indented JSON with a newline.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
