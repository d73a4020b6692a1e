package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

// inspectTypes are the values of --type.
var inspectTypes = []string{"config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"}

func (a *app) inspectCommand() *cobra.Command {
	var format, kind string
	var size bool
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short:                 "Return low-level information on Docker objects",
		Args:                  minArgs(1),
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			list := `"` + strings.Join(inspectTypes, `", "`) + `"`
			if cmd.Flags().Changed("type") && kind == "" {
				return fmt.Errorf("type is empty: must be one of %s", list)
			}
			if kind != "" && !strings.Contains(list, `"`+kind+`"`) {
				return fmt.Errorf("unknown type: %q: must be one of %s", kind, list)
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			return a.inspectWith(args, format, a.lookupAny(cmd.Context(), api, kind, size))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&format, "format", "f", "", inspectFormatHelp)
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	f.StringVar(&kind, "type", "", "Only inspect objects of the given type")
	return cmd
}

// objectKind is one kind of object that inspect looks through.
type objectKind struct {
	name   string
	swarm  bool // exists only where the daemon manages a swarm
	lookup render.Lookup
}

// objectKinds are all kinds in the order in which a name is tried.
func objectKinds(ctx context.Context, api *client.Client, size bool) []objectKind {
	return []objectKind{
		{"container", false, lookupContainer(ctx, api, size)},
		{"image", false, lookupImage(ctx, api)},
		{"network", false, lookupNetwork(ctx, api, false)},
		{"volume", false, func(ref string) (any, []byte, error) {
			r, err := api.VolumeInspect(ctx, ref, client.VolumeInspectOptions{})
			return &r.Volume, r.Raw, err
		}},
		{"service", true, func(ref string) (any, []byte, error) {
			r, err := api.ServiceInspect(ctx, ref, client.ServiceInspectOptions{InsertDefaults: true})
			return &r.Service, r.Raw, err
		}},
		{"task", true, func(ref string) (any, []byte, error) {
			r, err := api.TaskInspect(ctx, ref, client.TaskInspectOptions{})
			return &r.Task, r.Raw, err
		}},
		{"node", true, func(ref string) (any, []byte, error) {
			r, err := api.NodeInspect(ctx, ref, client.NodeInspectOptions{})
			return &r.Node, r.Raw, err
		}},
		{"plugin", false, func(ref string) (any, []byte, error) {
			r, err := api.PluginInspect(ctx, ref, client.PluginInspectOptions{})
			return &r.Plugin, r.Raw, err
		}},
		{"secret", true, func(ref string) (any, []byte, error) {
			r, err := api.SecretInspect(ctx, ref, client.SecretInspectOptions{})
			return &r.Secret, r.Raw, err
		}},
		{"config", true, func(ref string) (any, []byte, error) {
			r, err := api.ConfigInspect(ctx, ref, client.ConfigInspectOptions{})
			return &r.Config, r.Raw, err
		}},
	}
}

// lookupAny tries a name as every kind until one has it; kind limits it to one. Whether the daemon manages a swarm is
// asked at most once and only when the name was nothing else.
func (a *app) lookupAny(ctx context.Context, api *client.Client, kind string, size bool) render.Lookup {
	kinds := objectKinds(ctx, api, size)
	var manager *bool
	managesSwarm := func() bool {
		if manager == nil {
			info, err := api.Info(ctx, client.InfoOptions{})
			if err != nil {
				a.complain(err)
			}
			yes := err == nil && info.Info.Swarm.ControlAvailable
			manager = &yes
		}
		return *manager
	}
	return func(ref string) (any, []byte, error) {
		for _, k := range kinds {
			if kind != "" && k.name != kind || kind == "" && k.swarm && !managesSwarm() {
				continue
			}
			typed, raw, err := k.lookup(ref)
			if err != nil {
				if kind == "" && notThatKind(err) {
					continue
				}
				return nil, nil, err
			}
			if size && k.name != "container" {
				fmt.Fprintln(a.stderr, "WARNING: --size ignored for", k.name)
			}
			return typed, raw, nil
		}
		return nil, nil, fmt.Errorf("Error: No such object: %s", ref)
	}
}

// notThatKind reports whether an error only says that the name is no object of that kind. A name that cannot be an
// image's, and a kind the daemon does not have, are told apart from real failures by their class.
func notThatKind(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) || errdefs.IsNotImplemented(err) || errdefs.IsUnavailable(err)
}
