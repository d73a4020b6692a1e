package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/security"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

// clientInfo is the client's part of info.
type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []plugin
	Warnings []string
}

// fullInfo is what a template of info sees: the daemon's fields at the top, the client's beneath.
type fullInfo struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string    `json:",omitempty"`
	UserName     string      `json:"-"`
	ClientInfo   *clientInfo `json:",omitempty"`
	ClientErrors []string    `json:",omitempty"`
}

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "info [OPTIONS]",
		Short:                 "Display system-wide information",
		Args:                  noArgs,
		Annotations:           map[string]string{annTop: "12", annAliases: "system info, info"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, _ []string) error { return a.info(cmd.Context(), format) },
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

func (a *app) info(ctx context.Context, format string) error {
	all := fullInfo{
		Info:       &system.Info{},
		ClientInfo: &clientInfo{Debug: a.global.debug, clientVersion: a.clientVersion(), Plugins: a.plugins(ctx)},
	}
	var connErr error
	if needsServer(format, all) {
		connErr = a.addServerInfo(ctx, format, &all)
	}
	if format == "" {
		all.UserName = a.configFile().AuthConfigs[indexServer].Username
		return errors.Join(a.printInfo(&all), connErr)
	}
	return errors.Join(connErr, a.formatInfo(all, format))
}

// needsServer reports whether a format asks for anything the client does not know itself: it is tried on the client's
// part alone.
func needsServer(format string, all fullInfo) bool {
	if format == "" || format == "json" || format == "{{json .}}" || !regexp.MustCompile(`\.[a-zA-Z]`).MatchString(format) {
		return true
	}
	t, err := render.Parse(format)
	if err != nil {
		return true
	}
	return t.Execute(io.Discard, struct {
		ClientInfo   *clientInfo
		ClientErrors []string
	}{all.ClientInfo, all.ClientErrors}) != nil
}

// addServerInfo asks the daemon. One that cannot be reached is the command's error; one that answers badly is told in
// the output.
func (a *app) addServerInfo(ctx context.Context, format string, all *fullInfo) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	result, err := api.Info(ctx, client.InfoOptions{})
	if err == nil {
		all.Info = &result.Info
		return nil
	}
	if format == "" {
		all.Info = nil
	}
	if client.IsErrConnectionFailed(err) {
		return err
	}
	all.ServerErrors = append(all.ServerErrors, err.Error())
	if format != "" {
		a.complain(err)
	}
	return nil
}

func (a *app) formatInfo(all fullInfo, format string) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := render.Parse(format)
	if err != nil {
		return &statusError{code: 64, text: "template parsing error: " + err.Error()}
	}
	err = t.Execute(a.stdout, all)
	fmt.Fprintln(a.stdout)
	return err
}

func (a *app) printInfo(all *fullInfo) error {
	out := a.stdout
	c := all.ClientInfo
	fmt.Fprintln(out, "Client:")
	fprintIf(out, " Version:   ", c.Version)
	fmt.Fprintln(out, " Context:   ", c.Context)
	fmt.Fprintln(out, " Debug Mode:", c.Debug)
	a.printPlugins(c)
	for _, text := range all.ClientErrors {
		fmt.Fprintln(a.stderr, "ERROR:", text)
	}
	fmt.Fprint(out, "\nServer:\n")
	if all.Info != nil {
		a.printServerInfo(all)
	}
	for _, text := range all.ServerErrors {
		fmt.Fprintln(a.stderr, "ERROR:", text)
	}
	if len(all.ServerErrors)+len(all.ClientErrors) > 0 {
		return errors.New("errors pretty printing info")
	}
	return nil
}

func (a *app) printPlugins(c *clientInfo) {
	if len(c.Plugins) > 0 {
		fmt.Fprintln(a.stdout, " Plugins:")
	}
	for _, p := range c.Plugins {
		if p.Err != "" {
			c.Warnings = append(c.Warnings, fmt.Sprintf("WARNING: Plugin %q is not valid: %s", p.Path, p.Err))
			continue
		}
		fmt.Fprintf(a.stdout, "  %s: %s (%s)\n", p.Name, p.ShortDescription, p.Vendor)
		fprintIf(a.stdout, "    Version: ", p.Version)
		fprintIf(a.stdout, "    Path:    ", p.Path)
	}
	for _, text := range c.Warnings {
		fmt.Fprintln(a.stderr, text)
	}
}

func (a *app) printServerInfo(all *fullInfo) {
	out, i := a.stdout, all.Info
	fmt.Fprintf(out, " Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n",
		i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	fprintIf(out, " Server Version:", i.ServerVersion)
	fprintIf(out, " Storage Driver:", i.Driver)
	printPairs(out, "  ", i.DriverStatus)
	fprintIf(out, " Logging Driver:", i.LoggingDriver)
	fprintIf(out, " Cgroup Driver:", i.CgroupDriver)
	fprintIf(out, " Cgroup Version:", i.CgroupVersion)
	fmt.Fprintln(out, " Plugins:")
	fmt.Fprintln(out, "  Volume:", strings.Join(i.Plugins.Volume, " "))
	fmt.Fprintln(out, "  Network:", strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		fmt.Fprintln(out, "  Authorization:", strings.Join(i.Plugins.Authorization, " "))
	}
	fmt.Fprintln(out, "  Log:", strings.Join(i.Plugins.Log, " "))
	printLines(out, " CDI spec directories:", i.CDISpecDirs)
	if len(i.DiscoveredDevices) > 0 {
		fmt.Fprintln(out, " Discovered Devices:")
		for _, d := range i.DiscoveredDevices {
			fmt.Fprintf(out, "  %s: %s\n", d.Source, d.ID)
		}
	}
	fmt.Fprintln(out, " Swarm:", i.Swarm.LocalNodeState)
	printSwarm(out, &i.Swarm)
	if len(i.Runtimes) > 0 {
		fmt.Fprintln(out, " Runtimes:", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
		fmt.Fprintln(out, " Default Runtime:", i.DefaultRuntime)
	}
	if i.OSType == "linux" {
		printLinux(out, i)
	}
	if i.OSType == "windows" {
		fmt.Fprintln(out, " Default Isolation:", i.Isolation)
	}
	fprintIf(out, " Kernel Version:", i.KernelVersion)
	fprintIf(out, " Operating System:", i.OperatingSystem)
	fprintIf(out, " OSType:", i.OSType)
	fprintIf(out, " Architecture:", i.Architecture)
	fmt.Fprintln(out, " CPUs:", i.NCPU)
	fmt.Fprintln(out, " Total Memory:", units.BytesSize(float64(i.MemTotal)))
	fprintIf(out, " Name:", i.Name)
	fprintIf(out, " ID:", i.ID)
	fmt.Fprintln(out, " Docker Root Dir:", i.DockerRootDir)
	fmt.Fprintln(out, " Debug Mode:", i.Debug)
	if i.Debug || a.global.debug {
		fmt.Fprintf(out, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  EventsListeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	fprintIf(out, " HTTP Proxy:", i.HTTPProxy)
	fprintIf(out, " HTTPS Proxy:", i.HTTPSProxy)
	fprintIf(out, " No Proxy:", i.NoProxy)
	fprintIf(out, " Username:", all.UserName)
	printLines(out, " Labels:", i.Labels)
	fmt.Fprintln(out, " Experimental:", i.ExperimentalBuild)
	printRegistries(out, i)
	fmt.Fprintln(out, " Live Restore Enabled:", i.LiveRestoreEnabled)
	fprintIf(out, " Product License:", i.ProductLicense)
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(out, " Default Address Pools:")
		for _, pool := range i.DefaultAddressPools {
			fmt.Fprintf(out, "   Base: %s, Size: %d\n", pool.Base, pool.Size)
		}
	}
	if i.FirewallBackend != nil {
		fmt.Fprintln(out, " Firewall Backend:", i.FirewallBackend.Driver)
		printPairs(out, "  ", i.FirewallBackend.Info)
	}
	fmt.Fprintln(out)
	for _, warning := range i.Warnings {
		fmt.Fprintln(a.stderr, warning)
	}
}

func printPairs(out io.Writer, indent string, pairs [][2]string) {
	for _, p := range pairs {
		fmt.Fprintf(out, "%s%s: %s\n", indent, p[0], p[1])
	}
}

func printLines(out io.Writer, title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintln(out, title)
	}
	for _, line := range lines {
		fmt.Fprintln(out, "  "+line)
	}
}

func printLinux(out io.Writer, i *system.Info) {
	fmt.Fprintln(out, " Init Binary:", i.InitBinary)
	fmt.Fprintln(out, " containerd version:", i.ContainerdCommit.ID)
	fmt.Fprintln(out, " runc version:", i.RuncCommit.ID)
	fmt.Fprintln(out, " init version:", i.InitCommit.ID)
	options := security.DecodeOptions(i.SecurityOptions)
	if len(options) > 0 {
		fmt.Fprintln(out, " Security Options:")
	}
	for _, option := range options {
		fmt.Fprintln(out, "  "+option.Name)
		for _, o := range option.Options {
			if o.Key == "profile" {
				fmt.Fprintln(out, "   Profile:", o.Value)
			}
		}
	}
}

func printRegistries(out io.Writer, i *system.Info) {
	c := i.RegistryConfig
	if c == nil {
		return
	}
	if len(c.InsecureRegistryCIDRs)+len(c.IndexConfigs) > 0 {
		fmt.Fprintln(out, " Insecure Registries:")
		for _, name := range slices.Sorted(maps.Keys(c.IndexConfigs)) {
			if index := c.IndexConfigs[name]; !index.Secure {
				fmt.Fprintln(out, "  "+index.Name)
			}
		}
		for _, cidr := range c.InsecureRegistryCIDRs {
			fmt.Fprintf(out, "  %s\n", cidr)
		}
	}
	printLines(out, " Registry Mirrors:", c.Mirrors)
}

func printSwarm(out io.Writer, s *swarm.Info) {
	if s.LocalNodeState == swarm.LocalNodeStateInactive || s.LocalNodeState == swarm.LocalNodeStateLocked || s.LocalNodeState == "" {
		return
	}
	fmt.Fprintln(out, "  NodeID:", s.NodeID)
	fprintIf(out, "  Error:", s.Error)
	fmt.Fprintln(out, "  Is Manager:", s.ControlAvailable)
	if s.Cluster != nil && s.ControlAvailable && s.Error == "" && s.LocalNodeState != swarm.LocalNodeStateError {
		fmt.Fprintln(out, "  ClusterID:", s.Cluster.ID)
		fmt.Fprintln(out, "  Managers:", s.Managers)
		fmt.Fprintln(out, "  Nodes:", s.Nodes)
	}
	fmt.Fprintln(out, "  Node Address:", s.NodeAddr)
	if len(s.RemoteManagers) > 0 {
		var addrs []string
		for _, m := range s.RemoteManagers {
			addrs = append(addrs, m.Addr)
		}
		slices.Sort(addrs)
		fmt.Fprintln(out, "  Manager Addresses:")
		for _, addr := range addrs {
			fmt.Fprintf(out, "   %s\n", addr)
		}
	}
}
