package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
	"github.com/orlop/orlop/internal/cli/render"
)

// networkGroup is `network`.
func (a *app) networkGroup() *cobra.Command {
	return a.group("network", "Manage networks", []entry{
		{"audit", nil, (*app).networkAuditCommand},
		{"connect", nil, (*app).networkConnectCommand},
		{"create", nil, (*app).networkCreateCommand},
		{"disconnect", nil, (*app).networkDisconnectCommand},
		{"handover", nil, (*app).networkHandOverCommand},
		{"inspect", nil, (*app).networkInspectCommand},
		{"ls", []string{"list"}, (*app).networkListCommand},
		{"prune", nil, (*app).networkPruneCommand},
		{"rm", []string{"remove"}, (*app).networkRemoveCommand},
	})
}

func (a *app) networkInspectCommand() *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short:                 "Display detailed information on one or more networks",
		Args:                  minArgs(1),
		ValidArgsFunction:     a.completeNetworks,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.inspectWith(args, format, lookupNetwork(cmd.Context(), api, verbose))
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

func lookupNetwork(ctx context.Context, api *client.Client, verbose bool) render.Lookup {
	return func(ref string) (any, []byte, error) {
		n, err := api.NetworkInspect(ctx, ref, client.NetworkInspectOptions{Verbose: verbose})
		return &n.Network, n.Raw, err
	}
}

func (a *app) networkListCommand() *cobra.Command {
	var filter flagvalue.Filter
	var format string
	var noTrunc, quiet bool
	cmd := &cobra.Command{
		Use:                   "ls [OPTIONS]",
		Aliases:               []string{"list"},
		Short:                 "List networks",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			list, err := api.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			if format == "" && !quiet {
				format = a.configFile().NetworksFormat
			}
			slices.SortFunc(list.Items, func(x, y network.Summary) int { return naturally(x.Name, y.Name) })
			rows := make([]*networkRow, len(list.Items))
			for i := range list.Items {
				rows[i] = &networkRow{&list.Items[i], !noTrunc}
			}
			return render.Table(a.stdout, networkFormat(format, quiet), networkHeader(), rows)
		},
	}
	f := cmd.Flags()
	f.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	f.StringVar(&format, "format", "", formatHelp)
	f.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	return cmd
}

func networkFormat(source string, quiet bool) render.Format {
	switch render.Format(source) {
	case render.FormatTable, "":
		if quiet {
			return render.FormatID
		}
		return "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
	case render.FormatRaw:
		if quiet {
			return "network_id: {{.ID}}"
		}
		return "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"
	}
	return render.Format(source)
}

func networkHeader() render.Header {
	return render.Header{
		"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
		"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
	}
}

// networkRow is a network in a list; its methods are the columns.
type networkRow struct {
	n     *network.Summary
	trunc bool
}

// MarshalJSON is the row of --format json.
func (r *networkRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *networkRow) ID() string {
	if r.trunc {
		return render.ShortID(r.n.ID)
	}
	return r.n.ID
}
func (r *networkRow) Name() string          { return r.n.Name }
func (r *networkRow) Driver() string        { return r.n.Driver }
func (r *networkRow) Scope() string         { return r.n.Scope }
func (r *networkRow) IPv4() string          { return strconv.FormatBool(r.n.EnableIPv4) }
func (r *networkRow) IPv6() string          { return strconv.FormatBool(r.n.EnableIPv6) }
func (r *networkRow) Internal() string      { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) Labels() string        { return labelText(r.n.Labels) }
func (r *networkRow) Label(k string) string { return r.n.Labels[k] }
func (r *networkRow) CreatedAt() string     { return r.n.Created.String() }

// ingressWarning is asked before the routing mesh of a cluster is removed.
const ingressWarning = "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same docker engine version. " +
	"Otherwise, removal may not be effective and functionality of newly create ingress networks will be impaired.\nAre you sure you want to continue?"

func (a *app) networkRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "rm NETWORK [NETWORK...]",
		Aliases:               []string{"remove"},
		Short:                 "Remove one or more networks",
		Args:                  minArgs(1),
		ValidArgsFunction:     a.completeNetworks,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			failed := false
			for _, name := range args {
				info, err := api.NetworkInspect(cmd.Context(), name, client.NetworkInspectOptions{})
				if err == nil && info.Network.Ingress {
					if err := a.confirm(cmd.Context(), ingressWarning); errors.As(err, &declined{}) {
						continue
					} else if err != nil {
						return err
					}
				}
				_, err = api.NetworkRemove(cmd.Context(), name, client.NetworkRemoveOptions{})
				switch {
				case err == nil:
					fmt.Fprintln(a.stdout, name)
				case force && errdefs.IsNotFound(err):
				default:
					a.complain(err)
					failed = true
				}
			}
			if failed {
				return errors.New("exit status 1")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func (a *app) networkPruneCommand() *cobra.Command {
	var o pruneFlags
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove all unused networks",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.force {
				if err := a.confirm(cmd.Context(), "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?"); err != nil {
					return err
				}
			}
			p, err := a.pruneNetworks(cmd.Context(), o.filter.Value())
			if err == nil && p.text != "" {
				fmt.Fprintln(a.stdout, p.text)
			}
			return err
		},
	}
	o.add(cmd, "until=<timestamp>")
	return cmd
}
