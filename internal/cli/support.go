package cli

import (
	"errors"
	"fmt"

	"github.com/moby/moby/client/pkg/versions"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Annotations of flags: what the daemon must be for them. A flag that is not given asks nothing of the daemon.
const (
	needsVersion      = "version"      // API version
	needsOS           = "ostype"       // operating system
	needsExperimental = "experimental" // experimental features on
)

// supported refuses flags that the daemon is too old for, or of the wrong system for. Only a flag that was given and
// that needs something asks the daemon.
func (a *app) supported(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && len(f.Annotations) > 0 {
			errs = append(errs, a.supportedFlag(cmd, f))
		}
	})
	return errors.Join(errs...)
}

// supportedFlag checks what a flag needs against the daemon. A daemon that cannot be reached supports everything: the
// request itself reports the failure.
func (a *app) supportedFlag(cmd *cobra.Command, f *pflag.Flag) error {
	ping, err := a.serverInfo(cmd.Context())
	if err != nil {
		return nil
	}
	if needed := first(f.Annotations[needsVersion]); needed != "" && versions.LessThan(a.client.ClientVersion(), needed) {
		return fmt.Errorf(`"--%s" requires API version %s, but the Docker daemon API version is %s`, f.Name, needed, a.client.ClientVersion())
	}
	if needed := first(f.Annotations[needsOS]); needed != "" && ping.OSType != "" && ping.OSType != needed {
		return fmt.Errorf(`"--%s" is only supported on a Docker daemon running on %s, but the Docker daemon is running on %s`, f.Name, needed, ping.OSType)
	}
	if _, needed := f.Annotations[needsExperimental]; needed && !ping.Experimental {
		return fmt.Errorf(`"--%s" is only supported on a Docker daemon with experimental features enabled`, f.Name)
	}
	return nil
}

// hideUnsupported takes flags the daemon cannot serve out of a help text. Help is also wanted when there is no daemon,
// and then shows all.
func (a *app) hideUnsupported(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations) > 0 && a.supportedFlag(cmd, f) != nil {
			f.Hidden = true
		}
	})
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
