package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/orlop/orlop/internal/cli/creation"
	"github.com/orlop/orlop/internal/cli/endpoint"
)

// secretConfig is where a container started with --use-api-socket finds the user's registry credentials.
const secretConfig = "/run/secrets/docker/config.json"

// shareAPISocket gives the container the daemon's socket at Docker's place, and tells it where the credentials will
// be, unless it was told another place. It returns the credentials file to put there, nil for none.
func (a *app) shareAPISocket(request *creation.Request) ([]byte, error) {
	ep, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	_, inside, _ := strings.Cut(endpoint.DockerHost(), "://")
	source := inside
	if socket, ok := strings.CutPrefix(ep.Host, "unix://"); ok {
		source = socket
	}
	request.HostConfig.Mounts = append(request.HostConfig.Mounts, mount.Mount{
		Type: mount.TypeBind, Source: source, Target: "/var/run/docker.sock", BindOptions: &mount.BindOptions{},
	})
	if slices.ContainsFunc(request.Config.Env, func(e string) bool { return strings.HasPrefix(e, "DOCKER_CONFIG=") }) {
		return nil, nil
	}
	all, err := a.configFile().GetAllCredentials()
	if err != nil {
		return nil, fmt.Errorf("resolving credentials failed: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	request.Config.Env = append(request.Config.Env, "DOCKER_CONFIG="+path.Dir(secretConfig))
	var content bytes.Buffer
	if err := (&configfile.ConfigFile{AuthConfigs: all}).SaveToWriter(&content); err != nil {
		return nil, fmt.Errorf("resolving credentials failed: %w", err)
	}
	return content.Bytes(), nil
}

// putCredentials writes the credentials file into a container that was created and not yet started.
func putCredentials(ctx context.Context, api *client.Client, id string, content []byte) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: secretConfig[1:], Size: int64(len(content)), Mode: 0o600}); err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive})
	return err
}
