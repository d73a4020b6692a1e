package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

// buildCommand is `build`: the builder is a plugin of its own (docker-buildx), to which the flags belong.
func (a *app) buildCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                "build [OPTIONS] PATH | URL | -",
		Short:              "Build an image from a Dockerfile",
		Annotations:        map[string]string{annTop: "4", annAliases: "image build, build, buildx build, builder build"},
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.buildx(cmd, append([]string{"build"}, args...))
		},
	}
	return cmd
}

func (a *app) builderGroup() *cobra.Command {
	return &cobra.Command{
		Use:                "builder",
		Short:              "Manage builds",
		DisableFlagParsing: true,
		RunE:               func(cmd *cobra.Command, args []string) error { return a.buildx(cmd, args) },
	}
}

// buildx hands words to the buildx plugin, behind the global flags of this command line.
func (a *app) buildx(cmd *cobra.Command, words []string) error {
	global := a.cfg.Args[1 : len(a.cfg.Args)-len(a.rest)]
	args := append(append(append([]string{}, global...), "buildx"), words...)
	if ran, err := a.runPlugin(cmd.Context(), "buildx", args); ran {
		return err
	}
	return errors.New("ERROR: BuildKit is enabled but the buildx component is missing or broken.\n" +
		"       Install the buildx component to build images with BuildKit:\n" +
		"       https://docs.docker.com/go/buildx/")
}
