package cli

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// wanted says which containers a command can act on; nil stands for all, stopped ones included.
type wanted func(container.ContainerState) bool

func running(s container.ContainerState) bool {
	return s == container.StateRunning || s == container.StatePaused
}

func notPaused(s container.ContainerState) bool { return s == container.StateRunning }

func paused(s container.ContainerState) bool { return s == container.StatePaused }

func startable(s container.ContainerState) bool {
	return s == container.StateExited || s == container.StateCreated
}

// completeContainers offers container names to the shell; a daemon that does not answer offers none.
func (a *app) completeContainers(want wanted) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		api, err := a.api()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := api.ContainerList(cmd.Context(), client.ContainerListOptions{All: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range list.Items {
			if want != nil && !want(c.State) {
				continue
			}
			for _, name := range c.Names {
				name = strings.TrimPrefix(name, "/")
				if !slices.Contains(args, name) && !strings.Contains(name, "/") {
					names = append(names, name)
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers image references for the first most arguments; a negative most is no limit.
func (a *app) completeImages(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api, err := a.api()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := api.ImageList(cmd.Context(), client.ImageListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var refs []string
		for _, image := range list.Items {
			for _, tag := range image.RepoTags {
				if tag != "<none>:<none>" {
					refs = append(refs, tag)
				}
			}
		}
		return refs, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNetworks offers network names.
func (a *app) completeNetworks(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, err := a.api()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := api.NetworkList(cmd.Context(), client.NetworkListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeContexts offers context names.
func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list, err := a.contexts().List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := []string{"default"}
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
