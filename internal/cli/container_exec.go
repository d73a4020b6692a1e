package cli

import (
	"context"
	"errors"
	"os"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
)

func (a *app) execCommand() *cobra.Command {
	var o client.ExecCreateOptions
	var interactive, detach bool
	env, envFiles := flagvalue.NewList(flagvalue.Env), flagvalue.NewList(nil)
	cmd := &cobra.Command{
		Use:                   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short:                 "Execute a command in a running container",
		Args:                  minArgs(2),
		Annotations:           map[string]string{annTop: "2", annAliases: "container exec, exec"},
		ValidArgsFunction:     a.completeContainers(notPaused),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			o.Cmd = args[1:]
			if o.Env, err = flagvalue.ReadPairs(envFiles.Values(), env.Values(), os.LookupEnv); err != nil {
				return err
			}
			if !detach {
				o.AttachStdin, o.AttachStdout, o.AttachStderr = interactive, true, true
			}
			if o.DetachKeys, err = a.detachKeys(o.DetachKeys); err != nil {
				return err
			}
			return a.exec(cmd.Context(), args[0], o, detach)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&o.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.VarP(env, "env", "e", "Set environment variables")
	f.Var(envFiles, "env-file", "Read in a file of environment variables")
	f.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&o.Privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&o.User, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	f.StringVarP(&o.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func (a *app) exec(ctx context.Context, container string, o client.ExecCreateOptions, detach bool) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	if err := a.stdin.checkTTY(o.AttachStdin, o.TTY); err != nil && !detach {
		// An unknown container is the greater mistake. Nothing was created yet, so nothing is left behind.
		if _, unknown := api.ContainerInspect(ctx, container, client.ContainerInspectOptions{}); unknown != nil {
			return unknown
		}
		return err
	}
	if o.TTY {
		o.ConsoleSize.Height, o.ConsoleSize.Width = a.stdout.size()
	}
	created, err := api.ExecCreate(ctx, container, o)
	if err != nil {
		return err
	}
	id := created.ID
	if id == "" {
		return errors.New("exec ID empty")
	}
	if detach {
		_, err := api.ExecStart(ctx, id, client.ExecStartOptions{Detach: true, TTY: o.TTY, ConsoleSize: o.ConsoleSize})
		return err
	}
	resp, err := api.ExecAttach(ctx, id, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: o.ConsoleSize})
	if err != nil {
		return err
	}
	defer resp.Close()
	if o.TTY && a.stdin.terminal {
		stop := a.follow(ctx, func(ctx context.Context, height, width uint) error {
			_, err := api.ExecResize(ctx, id, client.ExecResizeOptions{Height: height, Width: width})
			return err
		})
		defer stop()
	}
	s := a.session(resp.HijackedResponse, o.AttachStdin, o.AttachStdout, o.AttachStderr, o.TTY, o.DetachKeys)
	if err := s.run(ctx); err != nil {
		return err
	}
	result, err := api.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		if client.IsErrConnectionFailed(err) {
			return exitWith(-1) // the daemon died under us
		}
		return err
	}
	return exitWith(result.ExitCode)
}
