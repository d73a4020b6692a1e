package cli

import (
	"context"
	"errors"
	"log/slog"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) attachCommand() *cobra.Command {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:                   "attach [OPTIONS] CONTAINER",
		Short:                 "Attach local standard input, output, and error streams to a running container",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annAliases: "container attach, attach"},
		ValidArgsFunction:     a.completeContainers(notPaused),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := a.detachKeys(detachKeys)
			if err != nil {
				return err
			}
			return a.attach(cmd.Context(), args[0], noStdin, sigProxy, keys)
		},
	}
	f := cmd.Flags()
	f.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	f.BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	return cmd
}

func (a *app) attach(ctx context.Context, name string, noStdin, sigProxy bool, keys string) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	// Asked first, so that no exit falls between the look at the state and the question.
	wait := api.ContainerWait(context.WithoutCancel(ctx), name, client.ContainerWaitOptions{})
	c, err := attachable(ctx, api, name)
	if err != nil {
		return err
	}
	tty := c.Config.Tty
	if err := a.stdin.checkTTY(!noStdin, tty); err != nil {
		return err
	}
	// A signal that is not passed on ends this command and nothing else, which Docker's client does only at the third.
	var left <-chan struct{}
	if sigProxy && !tty {
		stop := forwardSignals(ctx, api, name)
		defer stop()
	} else {
		left = ctx.Done()
	}
	o := client.ContainerAttachOptions{Stream: true, Stdin: !noStdin && c.Config.OpenStdin, Stdout: true, Stderr: true, DetachKeys: keys}
	resp, err := api.ContainerAttach(ctx, name, o)
	if err != nil {
		return err
	}
	defer resp.Close()
	// A container that stopped in between accepts the attach and stays silent for ever.
	if _, err := attachable(ctx, api, name); err != nil {
		return err
	}
	if tty && a.stdout.terminal {
		resize := func(ctx context.Context, height, width uint) error {
			_, err := api.ContainerResize(ctx, name, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		}
		// A change of size makes the program redraw; without one a second attach shows nothing until a key is hit.
		if height, width := a.stdout.size(); height != 0 || width != 0 {
			if err := resize(ctx, height+1, width+1); err != nil {
				slog.Debug("resize terminal", "error", err)
			}
		}
		stop := a.follow(ctx, resize)
		defer stop()
	}
	s := a.session(resp.HijackedResponse, o.Stdin, true, true, tty, keys)
	if err := s.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	select {
	case result := <-wait.Result:
		if result.Error != nil {
			return errors.New(result.Error.Message)
		}
		return exitWith(int(result.StatusCode))
	case err := <-wait.Error:
		return err
	case <-left:
		return ctx.Err()
	}
}

// attachable looks the container up and refuses one whose process is not there or stands still.
func attachable(ctx context.Context, api *client.Client, name string) (*container.InspectResponse, error) {
	c, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	switch state := c.Container.State; {
	case !state.Running:
		return nil, errors.New("You cannot attach to a stopped container, start it first")
	case state.Paused:
		return nil, errors.New("You cannot attach to a paused container, unpause it first")
	case state.Restarting:
		return nil, errors.New("You cannot attach to a restarting container, wait until it is running")
	}
	return &c.Container, nil
}
