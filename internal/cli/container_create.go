package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/creation"
)

// When run and create pull.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

func checkPull(when string) error {
	switch when {
	case pullAlways, pullMissing, pullNever, "":
		return nil
	}
	return fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", when, pullAlways, pullMissing, pullNever)
}

func (a *app) createCommand() *cobra.Command {
	var o createFlags
	var c *creation.Options
	cmd := &cobra.Command{
		Use:                   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:                 "Create a new container",
		Args:                  minArgs(1),
		Annotations:           map[string]string{annAliases: "container create, create"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			request, err := a.request(ctx, "create", &o, c, args)
			if err != nil {
				return err
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			id, err := a.create(ctx, api, &o, request)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, id)
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	o.add(f, "creating")
	c = creation.AddFlags(f)
	return cmd
}

// create makes the container, pulling its image when the daemon does not have it, and returns its id. Warnings of the
// daemon and the pull's progress go to stderr: stdout is for the id.
func (a *app) create(ctx context.Context, api *client.Client, o *createFlags, request *creation.Request) (id string, err error) {
	var platform *ocispec.Platform
	if o.platform != "" {
		p, err := platforms.Parse(o.platform)
		if err != nil {
			return "", fmt.Errorf("error parsing specified platform: %w", err)
		}
		platform = &p
	}
	cid, err := newCIDFile(request.HostConfig.ContainerIDFile)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, cid.close()) }()
	image := request.Config.Image
	ref, err := reference.ParseAnyReference(image)
	if err != nil {
		return "", err
	}
	var credentials []byte
	if o.apiSocket {
		if credentials, err = a.shareAPISocket(request); err != nil {
			return "", err
		}
	}
	if o.pull == pullAlways {
		if err := a.pullFor(ctx, api, image, platform, o.quiet); err != nil {
			return "", err
		}
	}
	request.HostConfig.ConsoleSize[0], request.HostConfig.ConsoleSize[1] = a.stdout.size()
	options := client.ContainerCreateOptions{
		Name: o.name, Platform: platform,
		Config: request.Config, HostConfig: request.HostConfig, NetworkingConfig: request.Networking,
	}
	created, err := api.ContainerCreate(ctx, options)
	named, isName := ref.(reference.Named)
	if err != nil && errdefs.IsNotFound(err) && isName && o.pull == pullMissing {
		if !o.quiet {
			fmt.Fprintf(a.stderr, "Unable to find image '%s' locally\n", reference.FamiliarString(reference.TagNameOnly(named)))
		}
		if err := a.pullFor(ctx, api, image, platform, o.quiet); err != nil {
			return "", err
		}
		created, err = api.ContainerCreate(ctx, options)
	}
	if err != nil {
		return "", err
	}
	if credentials != nil {
		if err := putCredentials(ctx, api, created.ID, credentials); err != nil {
			created.Warnings = append(created.Warnings, fmt.Sprintf("injecting docker config.json into container failed: %v", err))
		}
	}
	for _, warning := range created.Warnings {
		fmt.Fprintln(a.stderr, "WARNING:", warning)
	}
	return created.ID, cid.write(created.ID)
}

// pullFor pulls an image that a container needs, with the progress on stderr.
func (a *app) pullFor(ctx context.Context, api *client.Client, image string, platform *ocispec.Platform, quiet bool) error {
	auth, err := a.registryAuth(image)
	if err != nil {
		return err
	}
	o := client.ImagePullOptions{RegistryAuth: auth}
	if platform != nil {
		o.Platforms = []ocispec.Platform{*platform}
	}
	progress, err := api.ImagePull(ctx, image, o)
	if err != nil {
		return err
	}
	defer func() { _ = progress.Close() }()
	if quiet {
		return progress.Wait(ctx)
	}
	return jsonmessage.DisplayJSONMessagesStream(progress, a.stderr, a.stderr.fd, a.stderr.terminal, nil)
}

// cidFile is --cidfile: made before the container, so that it cannot fail afterwards, and gone if there is none.
type cidFile struct {
	file    *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	if _, err := os.Stat(path); err == nil {
		return nil, errors.New("container ID file found, make sure the other container isn't running or delete " + path)
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{file: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.file == nil {
		return nil
	}
	if _, err := c.file.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID (%s) to file: %w", id, err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() error {
	if c.file == nil {
		return nil
	}
	_ = c.file.Close()
	if c.written {
		return nil
	}
	if err := os.Remove(c.file.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("failed to remove the CID file: %w", err)
	}
	return nil
}
