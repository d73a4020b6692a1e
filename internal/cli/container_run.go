package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orlop/orlop/internal/cli/creation"
	"github.com/orlop/orlop/internal/cli/flagvalue"
)

// createFlags are the flags of run and create that are not part of the container.
type createFlags struct {
	name, platform, pull string
	quiet, apiSocket     bool
}

func (o *createFlags) add(f *pflag.FlagSet, act string) {
	f.StringVar(&o.name, "name", "", "Assign a name to the container")
	f.StringVar(&o.pull, "pull", pullMissing, `Pull image before `+act+` ("always", "missing", "never")`)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	f.BoolVar(&o.apiSocket, "use-api-socket", false, "Bind mount Docker API socket and required auth")
	f.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	// -h is the host name here, so help has no short form.
	f.Bool("help", false, "Print usage")
	f.Bool("disable-content-trust", true, "Skip image verification (deprecated)")
	f.Lookup("disable-content-trust").Deprecated = "support for docker content trust was removed"
	f.Lookup("disable-content-trust").Hidden = true
}

// runFlags are those of run alone.
type runFlags struct {
	createFlags
	detach, sigProxy bool
	detachKeys       string
}

func (a *app) runCommand() *cobra.Command {
	var o runFlags
	var c *creation.Options
	cmd := &cobra.Command{
		Use:                   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:                 "Create and run a new container from an image",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annTop: "1", annAliases: "container run, run"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runContainer(cmd.Context(), &o, c, args)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	o.add(f, "running")
	c = creation.AddFlags(f)
	return cmd
}

// runContainer is create, attach, wait and start, in this order, so that neither output nor exit can be missed.
func (a *app) runContainer(ctx context.Context, o *runFlags, c *creation.Options, args []string) error {
	request, err := a.request(ctx, "run", &o.createFlags, c, args)
	if err != nil {
		return err
	}
	config := request.Config
	if o.detach {
		if c.HasAttach() {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		config.AttachStdin, config.AttachStdout, config.AttachStderr, config.StdinOnce = false, false, false, false
	} else if err := a.stdin.checkTTY(config.AttachStdin, config.Tty); err != nil {
		return err
	}
	keys, err := a.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	id, err := a.create(ctx, api, &o.createFlags, request)
	if err != nil {
		return a.startFailure(err)
	}
	if !config.AttachStdin && !config.AttachStdout && !config.AttachStderr {
		fmt.Fprintln(a.stdout, id)
		if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			if c.AutoRemove() {
				awaitRemoval(ctx, api, id)
			}
			return a.startFailure(err)
		}
		return nil
	}
	if o.sigProxy {
		stop := forwardSignals(ctx, api, id)
		defer stop()
	}

	// From here a signal is the container's affair, not ours.
	ctx = context.WithoutCancel(ctx)
	waitCtx, cancelWait := context.WithCancel(ctx)
	defer cancelWait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attached := client.ContainerAttachOptions{
		Stream: true, Stdin: config.AttachStdin, Stdout: config.AttachStdout, Stderr: config.AttachStderr, DetachKeys: keys,
	}
	streams, status, err := a.attachAndWait(ctx, waitCtx, api, id, attached, config.Tty, c.AutoRemove())
	if err != nil {
		return err
	}
	defer streams.conn.Close()
	copied := make(chan error, 1)
	go func() { copied <- streams.run(ctx) }()

	if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		// The terminal must be as it was before anything is printed on it.
		cancel()
		<-copied
		if c.AutoRemove() {
			<-status
		}
		return a.startFailure(err)
	}
	if config.Tty && a.stdout.terminal {
		stop := a.follow(ctx, func(ctx context.Context, height, width uint) error {
			_, err := api.ContainerResize(ctx, id, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		})
		defer stop()
	}
	return finish(copied, status, func() {
		if !config.AttachStdout && !config.AttachStderr {
			cancel()
		}
	})
}

// attachAndWait attaches to a container that is not started yet and asks for its exit, at the same time: both only
// have to be in place before the start. The wait ends with waitCtx, because its answer outlives the attached stream.
func (a *app) attachAndWait(ctx, waitCtx context.Context, api *client.Client, id string, o client.ContainerAttachOptions, tty, autoRemove bool) (*session, <-chan int, error) {
	waiting := make(chan (<-chan int), 1)
	go func() { waiting <- a.awaitExit(waitCtx, api, id, autoRemove) }()
	resp, err := api.ContainerAttach(ctx, id, o)
	status := <-waiting
	if err != nil {
		return nil, nil, err
	}
	return a.session(resp.HijackedResponse, o.Stdin, o.Stdout, o.Stderr, tty, o.DetachKeys), status, nil
}

// session joins a hijacked connection with our streams. A terminal has one output: its stderr is stdout.
func (a *app) session(conn client.HijackedResponse, in, out, errs, tty bool, keys string) *session {
	s := &session{app: a, conn: conn, tty: tty, detachKeys: keys}
	if in {
		s.in = a.stdin
	}
	if out {
		s.out = a.stdout
	}
	if errs {
		s.err = io.Writer(a.stderr)
		if tty {
			s.err = a.stdout
		}
	}
	return s
}

// finish waits for both the streams and the exit. Detaching ends the command with success; an exit still lets the
// output run dry, which exited may cut short.
func finish(copied <-chan error, status <-chan int, exited func()) error {
	select {
	case err := <-copied:
		if isEscape(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return exitWith(<-status)
	case code := <-status:
		exited()
		<-copied
		return exitWith(code)
	}
}

// request reads the flags of run or create into a create request; act is which of them.
func (a *app) request(ctx context.Context, act string, o *createFlags, c *creation.Options, args []string) (*creation.Request, error) {
	if err := checkPull(o.pull); err != nil {
		return nil, a.badCreation(err, act)
	}
	api, err := a.api()
	if err != nil {
		return nil, err
	}
	// Variables for a proxy come from the configuration unless the command line has them.
	c.SetEnv(withProxies(c.Env(), a.configFile().ParseProxyConfig(api.DaemonHost(), flagvalue.PairsToOptionalMap(c.Env()))))
	request, err := c.Request(args[0], args[1:], func() string {
		// A daemon that does not answer fails the create.
		ping, _ := a.serverInfo(ctx)
		return ping.OSType
	})
	if err != nil {
		return nil, a.badCreation(err, act)
	}
	return request, nil
}

// withProxies joins the variables of the command line with those the configuration adds. A variable given twice counts
// as given last.
func withProxies(given []string, all map[string]*string) []string {
	env := make([]string, 0, len(all))
	add := func(name string) {
		value, ok := all[name]
		switch {
		case !ok:
			return
		case value == nil:
			env = append(env, name)
		default:
			env = append(env, name+"="+*value)
		}
		delete(all, name)
	}
	for _, pair := range given {
		name, _, _ := strings.Cut(pair, "=")
		add(name)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		add(name)
	}
	return env
}

// badCreation is a refusal by the client before anything was asked of the daemon: 125.
func (a *app) badCreation(err error, act string) error {
	return &statusError{code: 125, cause: err, text: a.withHelp(a.reworded(err), act)}
}

func (a *app) withHelp(err error, act string) string {
	return fmt.Sprintf("%[1]s: %[2]s\n\nRun '%[1]s %[3]s --help' for more information", a.name, err, act)
}

// startFailure gives the daemon's error the status a shell would: 127 for a program that is not there, 126 for one
// that cannot be run, 125 for everything else. The API has no field for it, so the words decide, as in Docker.
func (a *app) startFailure(err error) error {
	err = a.reworded(err)
	code, text := 125, err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"), strings.Contains(text, "system cannot find the file specified"):
		code = 127
	case strings.Contains(text, syscall.EACCES.Error()), strings.Contains(text, syscall.EISDIR.Error()):
		code = 126
	}
	return &statusError{code: code, cause: err, text: a.withHelp(err, "run")}
}
