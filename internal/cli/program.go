// Package cli is the command line of orlop: Docker's commands, flags, texts and exit codes, spoken to an Engine API
// through github.com/moby/moby/client. Invoked under the name docker it is docker.
//
// Entry point: Main. The command table in commands.go names every command; a file per command (container_run.go,
// image_pull.go, …) builds and runs it. Only the command that was asked for is built, because building all of them
// costs more than the whole start of the process may (decision 0080).
//
// The app value belongs to the goroutine of Main; goroutines that a command starts (stream copies, signal forwarding,
// waits) get what they need passed in, and the command waits for those that write to the user's terminal. There are
// no locks.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orlop/orlop/internal/cli/endpoint"
)

// Config is what main knows: who we are, how we were called, and our streams.
type Config struct {
	Args []string // os.Args

	// Version, Commit and BuildTime (RFC 3339) identify the build; each may be empty.
	Version, Commit, BuildTime string

	Stdin, Stdout, Stderr *os.File
}

// Main runs one command line and returns the exit status: 0; 1 for most errors; 125 for a wrong flag and for
// failures of run and create before the container's process; 126 and 127 when that process could not be started;
// the process's own status when run, exec, start and attach waited for it; 128 plus the signal when a signal ended us.
func Main(ctx context.Context, cfg Config) int {
	ctx, caught, stop := untilSignal(ctx)
	defer stop()
	a := newApp(cfg)
	err := a.run(ctx, cfg.Args[1:])
	if err == nil {
		return 0
	}
	if sig, ok := caught(err).(syscall.Signal); ok {
		return 128 + int(sig)
	}
	if errdefs.IsCanceled(err) {
		return 0 // the user said no
	}
	if text := a.reworded(err).Error(); text != "" {
		fmt.Fprintln(a.stderr, text)
	}
	var status *statusError
	if errors.As(err, &status) && status.code != 0 {
		return status.code
	}
	return 1
}

// untilSignal returns a context that ends with the first SIGINT or SIGTERM, and which signal an error is due to, nil for
// none. After two more the process ends at once, for a command that does not heed its context.
func untilSignal(parent context.Context) (_ context.Context, caught func(error) os.Signal, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 3)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	go func() {
		for n := 0; ; n++ {
			select {
			case sig := <-ch:
				cancel(signaled{sig})
				if n == 2 {
					fmt.Fprint(os.Stderr, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
					os.Exit(1)
				}
			case <-parent.Done():
				return
			}
		}
	}()
	caught = func(err error) os.Signal {
		var s signaled
		if errors.As(err, &s) || errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &s) {
			return s.Signal
		}
		return nil
	}
	return ctx, caught, func() { signal.Stop(ch); cancel(nil) }
}

// signaled is the cause of a context that a signal ended.
type signaled struct{ os.Signal }

func (s signaled) Error() string { return s.String() }

// app is one invocation.
type app struct {
	cfg     Config
	name    string // "orlop" or "docker", the first word of every text
	product string // "Orlop" or "Docker"

	stdin          *input
	stdout, stderr *output

	global  globalOptions
	rest    []string // the command and its arguments, without global flags
	cfgFile *configfile.ConfigFile
	client  *client.Client
	pinged  *client.PingResult
}

func newApp(cfg Config) *app {
	a := &app{cfg: cfg, name: "orlop", product: "Orlop"}
	base := strings.TrimSuffix(filepath.Base(cfg.Args[0]), ".exe")
	if base == "docker" {
		a.name, a.product = "docker", "Docker"
	}
	a.stdin, a.stdout, a.stderr = newInput(cfg.Stdin), newOutput(cfg.Stdout), newOutput(cfg.Stderr)
	return a
}

// run reads the global flags, finds the command and executes it.
func (a *app) run(ctx context.Context, args []string) error {
	root := a.rootCommand()
	flags := pflag.NewFlagSet(a.name, pflag.ContinueOnError)
	flags.SetOutput(a.stderr)
	// The first word that is no flag is the command; what follows belongs to it.
	flags.SetInterspersed(false)
	flags.AddFlagSet(root.Flags())
	flags.AddFlagSet(root.PersistentFlags())
	if err := flags.Parse(args); err != nil {
		return flagError(root, err)
	}
	a.rest = flags.Args()
	if err := a.applyGlobals(flags); err != nil {
		return err
	}
	if err := a.addCommands(root); err != nil {
		return err
	}
	if len(a.rest) > 0 && !knows(root, a.rest) {
		if ran, err := a.runPlugin(ctx, a.rest[0], a.cfg.Args[1:]); ran {
			return err
		}
	}
	root.SetArgs(a.rest)
	return root.ExecuteContext(ctx)
}

// knows reports whether root has a command for args.
func knows(root *cobra.Command, args []string) bool {
	if strings.HasPrefix(args[0], "__complete") || args[0] == "help" || args[0] == "completion" {
		return true
	}
	for _, c := range root.Commands() {
		if c.Name() == args[0] || c.HasAlias(args[0]) {
			return true
		}
	}
	return false
}

// configFile is the user's config.json; one that cannot be read is reported once and counts as empty.
func (a *app) configFile() *configfile.ConfigFile {
	if a.cfgFile == nil {
		a.cfgFile = config.LoadDefaultConfigFile(a.stderr)
	}
	return a.cfgFile
}

func (a *app) contexts() endpoint.Store { return endpoint.Store{Dir: config.ContextStoreDir()} }

// api is the client of the daemon this invocation talks to. It connects on first use.
func (a *app) api() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	ep, err := a.endpoint()
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err)
	}
	opts, err := ep.ClientOptions(a.name)
	if err != nil {
		return nil, err
	}
	opts = append(opts, client.WithAPIVersionFromEnv(), client.WithUserAgent(a.userAgent()))
	if headers := a.configFile().HTTPHeaders; len(headers) > 0 {
		opts = append(opts, client.WithHTTPHeaders(headers))
	}
	if a.client, err = client.New(opts...); err != nil {
		return nil, err
	}
	return a.client, nil
}

// unreachable words, as Docker's client always has, that nobody listens on the daemon's socket.
type unreachable struct {
	text  string
	cause error
}

func (e *unreachable) Error() string { return e.text }
func (e *unreachable) Unwrap() error { return e.cause }

// reworded gives a missing socket the words of a refused connection, which scripts look for; the library describes
// the system call.
func (a *app) reworded(err error) error {
	var status *statusError
	if a.client == nil || errors.As(err, &status) || !client.IsErrConnectionFailed(err) || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	daemon := "docker"
	if a.name != "docker" {
		daemon = a.name
	}
	return &unreachable{fmt.Sprintf("Cannot connect to the %s daemon at %s. Is the %s daemon running?", a.product, a.client.DaemonHost(), daemon), err}
}

// complain prints an error that does not end the command.
func (a *app) complain(err error) { fmt.Fprintln(a.stderr, a.reworded(err)) }

// userAgent has Docker's form: registries and proxies know it, and daemons put it into their requests.
func (a *app) userAgent() string {
	return a.product + "-Client/" + a.version() + " (" + runtime.GOOS + ")"
}

func (a *app) version() string {
	if a.cfg.Version == "" {
		return "unknown-version"
	}
	return a.cfg.Version
}

func (a *app) commit() string {
	if a.cfg.Commit == "" {
		return "unknown-commit"
	}
	return a.cfg.Commit
}

// serverInfo asks the daemon for its API version, operating system and features, once; it also settles the API
// version of the requests that follow.
func (a *app) serverInfo(ctx context.Context) (client.PingResult, error) {
	if a.pinged != nil {
		return *a.pinged, nil
	}
	api, err := a.api()
	if err != nil {
		return client.PingResult{}, err
	}
	ping, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return ping, err
	}
	a.pinged = &ping
	return ping, nil
}
