package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"
)

func (a *app) pullCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:                   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short:                 "Download an image from a registry",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annTop: "5", annAliases: "image pull, pull"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pull(cmd.Context(), args[0], all, quiet, platform)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	f.Bool("disable-content-trust", true, "Skip image verification (deprecated)")
	f.Lookup("disable-content-trust").Deprecated = "support for docker content trust was removed"
	f.Lookup("disable-content-trust").Hidden = true
	f.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	return cmd
}

// tagged adds "latest" to a bare name, saying so, unless all tags are meant; with all, a tag is a contradiction.
func (a *app) tagged(name string, all, quiet bool) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	switch {
	case all && !reference.IsNameOnly(ref):
		return nil, errors.New("tag can't be used with --all-tags/-a")
	case !all && reference.IsNameOnly(ref):
		ref = reference.TagNameOnly(ref)
		if t, ok := ref.(reference.Tagged); ok && !quiet {
			fmt.Fprintln(a.stdout, "Using default tag:", t.Tag())
		}
	}
	return ref, nil
}

func (a *app) pull(ctx context.Context, name string, all, quiet bool, platform string) error {
	ref, err := a.tagged(name, all, quiet)
	if err != nil {
		return err
	}
	o := client.ImagePullOptions{All: all}
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return err
		}
		o.Platforms = append(o.Platforms, p)
	}
	if o.RegistryAuth, err = a.registryAuth(ref.String()); err != nil {
		return err
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	progress, err := api.ImagePull(ctx, reference.FamiliarString(ref), o)
	if err != nil {
		return err
	}
	defer func() { _ = progress.Close() }()
	if quiet {
		err = progress.Wait(ctx)
	} else {
		err = jsonmessage.DisplayJSONMessagesStream(progress, a.stdout, a.stdout.fd, a.stdout.terminal, nil)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, ref.String())
	return nil
}

// registryAuth is the header value with the user's credentials for the registry of an image; empty credentials when
// there are none.
func (a *app) registryAuth(image string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", err
	}
	key := authKey(reference.Domain(ref))
	found, err := a.configFile().GetAuthConfig(key)
	if err != nil {
		return "", err
	}
	return authconfig.Encode(authOf(found))
}

// indexServer is the key under which credentials for Docker Hub are kept since before registries had host names.
const indexServer = "https://index.docker.io/v1/"

func authKey(domain string) string {
	if domain == "docker.io" || domain == "index.docker.io" {
		return indexServer
	}
	return domain
}

func authOf(c types.AuthConfig) registry.AuthConfig {
	return registry.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth,
		ServerAddress: c.ServerAddress, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}
