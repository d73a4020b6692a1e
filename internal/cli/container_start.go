package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) startCommand() *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	var o client.ContainerStartOptions
	cmd := &cobra.Command{
		Use:                   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Start one or more stopped containers",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container start, start"},
		ValidArgsFunction:     a.completeContainers(startable),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := a.detachKeys(detachKeys)
			if err != nil {
				return err
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			switch {
			case (attach || interactive) && len(args) > 1:
				return errors.New("you cannot start and attach multiple containers at once")
			case attach || interactive:
				return a.startAttached(ctx, api, args[0], interactive, keys, o)
			case o.CheckpointID != "" && len(args) > 1:
				return errors.New("you cannot restore multiple containers at once")
			case o.CheckpointID != "":
				_, err := api.ContainerStart(ctx, args[0], o)
				return err
			}
			return a.startAll(ctx, api, args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.StringVar(&o.CheckpointID, "checkpoint", "", "Restore from this checkpoint")
	f.StringVar(&o.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	for _, name := range []string{"checkpoint", "checkpoint-dir"} {
		f.Lookup(name).Annotations = map[string][]string{"experimental": nil, "ostype": {"linux"}}
	}
	f.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	return cmd
}

// startAll starts one container after the other; a failure is told at once and does not keep the others back.
func (a *app) startAll(ctx context.Context, api *client.Client, names []string) error {
	var failed []string
	for _, name := range names {
		if _, err := api.ContainerStart(ctx, name, client.ContainerStartOptions{}); err != nil {
			a.complain(err)
			failed = append(failed, name)
			continue
		}
		fmt.Fprintln(a.stdout, name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", "))
	}
	return nil
}

func (a *app) startAttached(ctx context.Context, api *client.Client, name string, interactive bool, keys string, o client.ContainerStartOptions) error {
	inspected, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := inspected.Container
	tty, autoRemove := c.Config.Tty, c.HostConfig.AutoRemove
	if !tty {
		stop := forwardSignals(ctx, api, c.ID)
		defer stop()
	}
	ctx = context.WithoutCancel(ctx)
	waitCtx, cancelWait := context.WithCancel(ctx)
	defer cancelWait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attached := client.ContainerAttachOptions{
		Stream: true, Stdin: interactive && c.Config.OpenStdin, Stdout: true, Stderr: true, DetachKeys: keys,
	}
	s, status, err := a.attachAndWait(ctx, waitCtx, api, c.ID, attached, tty, autoRemove)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	copied := make(chan error, 1)
	go func() { copied <- s.run(ctx) }()
	if _, err := api.ContainerStart(ctx, c.ID, o); err != nil {
		cancel()
		<-copied
		if autoRemove {
			<-status
		}
		return err
	}
	if tty && a.stdout.terminal {
		stop := a.follow(ctx, func(ctx context.Context, height, width uint) error {
			_, err := api.ContainerResize(ctx, c.ID, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		})
		defer stop()
	}
	if err := <-copied; err != nil {
		if isEscape(err) {
			return nil
		}
		return err
	}
	return exitWith(<-status)
}
