package cli

import (
	"fmt"

	"github.com/moby/moby/client/pkg/versions"
	"github.com/spf13/cobra"
)

// supportedBy checks what a flag or command needs against the daemon. A daemon that cannot be reached supports
// everything: the request itself reports the failure.
func (a *app) supportedBy(what string, cmd *cobra.Command, version, ostype string) error {
	if version == "" && ostype == "" {
		return nil
	}
	ping, err := a.serverInfo(cmd.Context())
	if err != nil {
		return nil
	}
	if current := a.client.ClientVersion(); version != "" && versions.LessThan(current, version) {
		return fmt.Errorf(`%s requires API version %s, but the Docker daemon API version is %s`, what, version, current)
	}
	if ostype != "" && ping.OSType != "" && ping.OSType != ostype {
		return fmt.Errorf("%s is only supported on a Docker daemon running on %s, but the Docker daemon is running on %s", what, ostype, ping.OSType)
	}
	return nil
}
