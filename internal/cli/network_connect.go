package cli

import (
	"net"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
)

func (a *app) networkConnectCommand() *cobra.Command {
	var ip, ip6 net.IP
	var linkLocal []net.IP
	var aliases, driverOpts []string
	var priority int
	links := flagvalue.NewList(flagvalue.Link)
	cmd := &cobra.Command{
		Use:                   "connect [OPTIONS] NETWORK CONTAINER",
		Short:                 "Connect a container to a network",
		Args:                  exactArgs(2),
		ValidArgsFunction:     a.completeMembers(false),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := driverOptions(driverOpts)
			if err != nil {
				return err
			}
			ipam := &network.EndpointIPAMConfig{IPv4Address: addrOf(ip), IPv6Address: addrOf(ip6)}
			for _, l := range linkLocal {
				ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, addrOf(l))
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			_, err = api.NetworkConnect(cmd.Context(), args[0], client.NetworkConnectOptions{
				Container: args[1],
				EndpointConfig: &network.EndpointSettings{
					IPAMConfig: ipam, Links: links.Values(), Aliases: aliases, DriverOpts: options, GwPriority: priority,
				},
			})
			return err
		},
	}
	f := cmd.Flags()
	f.IPVar(&ip, "ip", nil, `IPv4 address (e.g., "172.30.100.104")`)
	f.IPVar(&ip6, "ip6", nil, `IPv6 address (e.g., "2001:db8::33")`)
	f.Var(links, "link", "Add link to another container")
	f.StringSliceVar(&aliases, "alias", []string{}, "Add network-scoped alias for the container")
	f.IPSliceVar(&linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	f.StringSliceVar(&driverOpts, "driver-opt", []string{}, "driver options for the network")
	f.IntVar(&priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func (a *app) networkDisconnectCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short:                 "Disconnect a container from a network",
		Args:                  exactArgs(2),
		ValidArgsFunction:     a.completeMembers(true),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			_, err = api.NetworkDisconnect(cmd.Context(), args[0], client.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

// completeMembers offers networks, then the containers that are on the network
// named first, or those that are not.
func (a *app) completeMembers(on bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return a.completeNetworks(cmd, args, begun)
		case 1:
		default:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api, err := a.api()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := api.ContainerList(cmd.Context(), client.ContainerListOptions{All: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		members := slices.DeleteFunc(list.Items, func(c container.Summary) bool {
			if c.NetworkSettings == nil {
				return on
			}
			_, is := c.NetworkSettings.Networks[args[0]]
			return is != on
		})
		var names []string
		for _, c := range members {
			for _, name := range c.Names {
				if len(name) > 1 && name[0] == '/' && !slices.Contains([]byte(name[1:]), '/') {
					names = append(names, name[1:])
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
