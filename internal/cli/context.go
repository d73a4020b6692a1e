package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/endpoint"
	"github.com/orlop/orlop/internal/cli/render"
)

// contextGroup is `context`: named endpoints, stored where Docker's client has them.
func (a *app) contextGroup() *cobra.Command {
	return a.group("context", "Manage contexts", []entry{
		{"create", nil, (*app).contextCreateCommand},
		{"inspect", nil, (*app).contextInspectCommand},
		{"ls", []string{"list"}, (*app).contextListCommand},
		{"rm", []string{"remove"}, (*app).contextRemoveCommand},
		{"show", nil, (*app).contextShowCommand},
		{"update", nil, (*app).contextUpdateCommand},
		{"use", nil, (*app).contextUseCommand},
	})
}

// contextMetadata reads a context; "default" is made of flags and environment.
func (a *app) contextMetadata(name string) (endpoint.Metadata, error) {
	if name != endpoint.DefaultContext {
		return a.contexts().Get(name)
	}
	ep, err := a.defaultEndpoint()
	if err != nil {
		return endpoint.Metadata{}, err
	}
	return endpoint.NewMetadata(name, "", ep)
}

func (a *app) contextShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: noArgs,
		ValidArgsFunction: cobra.NoFileCompletions, DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(a.stdout, a.currentContext())
			return nil
		},
	}
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current " + a.name + " context", Args: exactArgs(1),
		ValidArgsFunction: a.completeContexts, DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			name, stored := args[0], ""
			if name != endpoint.DefaultContext {
				if err := endpoint.CheckName(name); err != nil {
					return err
				}
				if _, err := a.contexts().Get(name); err != nil {
					return err
				}
				stored = name
			}
			// A file that would say the same is not written: it may be shared or not be there.
			if config := a.configFile(); config.CurrentContext != stored {
				config.CurrentContext = stored
				if err := config.Save(); err != nil {
					return err
				}
			}
			fmt.Fprintln(a.stdout, name)
			fmt.Fprintf(a.stderr, "Current context is now %q\n", name)
			if variable, _ := a.hostFromEnv(); variable != "" && name != endpoint.DefaultContext {
				fmt.Fprintf(a.stderr, "Warning: %[1]s environment variable overrides the active context. "+
					"To use %[2]q, either set the global --context flag, or unset %[1]s environment variable.\n", variable, name)
			}
			return nil
		},
	}
}

func (a *app) contextListCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: noArgs,
		ValidArgsFunction: cobra.NoFileCompletions, DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			rows, err := a.contextRows()
			if err != nil {
				return err
			}
			f := render.Format(format)
			switch {
			case quiet:
				f = "{{.Name}}"
			case f == "" || f == render.FormatTable:
				f = "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
			}
			header := render.Header{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}
			if err := render.Table(a.stdout, f, header, rows); err != nil {
				return err
			}
			if variable, _ := a.hostFromEnv(); variable != "" {
				fmt.Fprintf(a.stderr, "Warning: %[1]s environment variable overrides the active context. "+
					"To use a context, either set the global --context flag, or unset %[1]s environment variable.\n", variable)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return cmd
}

// contextRows lists the stored contexts and "default", and the current one with its fault when it is not among them.
func (a *app) contextRows() ([]*contextRow, error) {
	all, err := a.contexts().List()
	if err != nil {
		return nil, err
	}
	byDefault, err := a.contextMetadata(endpoint.DefaultContext)
	if err != nil {
		return nil, err
	}
	current := a.currentContext()
	var rows []*contextRow
	found := false
	for _, m := range append(all, byDefault) {
		row := &contextRow{name: m.Name, description: m.Description(), current: m.Name == current}
		if m.Name == endpoint.DefaultContext {
			row.description = "Current DOCKER_HOST based configuration"
		}
		found = found || row.current
		ep, err := m.Endpoint()
		if err != nil {
			row.fault = err.Error()
		}
		row.host = ep.Host
		rows = append(rows, row)
	}
	if !found {
		_, err := a.contexts().Get(current)
		row := &contextRow{name: current, current: true}
		if err != nil {
			row.fault = err.Error()
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y *contextRow) int { return naturally(x.name, y.name) })
	return rows, nil
}

// contextRow is a context in a list; its methods are the columns.
type contextRow struct {
	name, description, host, fault string
	current                        bool
}

// MarshalJSON is the row of --format json.
func (r *contextRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *contextRow) Name() string           { return r.name }
func (r *contextRow) Description() string    { return r.description }
func (r *contextRow) DockerEndpoint() string { return r.host }
func (r *contextRow) Current() bool          { return r.current }
func (r *contextRow) Error() string          { return render.Ellipsis(r.fault, 45) }

func (a *app) contextInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts",
		ValidArgsFunction: a.completeContexts, DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{a.currentContext()}
			}
			return a.inspectWith(args, format, a.lookupContext)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

// contextDetail is what inspect shows of a context.
type contextDetail struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]any
	TLSMaterial map[string][]string
	Storage     struct{ MetadataPath, TLSPath string }
}

func (a *app) lookupContext(name string) (any, []byte, error) {
	m, err := a.contextMetadata(name)
	if err != nil {
		return nil, nil, err
	}
	d := contextDetail{Name: m.Name, Metadata: m.Metadata, Endpoints: map[string]any{}, TLSMaterial: map[string][]string{}}
	if d.Metadata == nil {
		d.Metadata = map[string]any{}
	}
	for key, raw := range m.Endpoints {
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, nil, fmt.Errorf("context %q: endpoint %q: %w", name, key, err)
		}
		d.Endpoints[key] = value
	}
	var files *endpoint.TLSFiles
	if name == endpoint.DefaultContext {
		ep, err := a.defaultEndpoint()
		if err != nil {
			return nil, nil, err
		}
		files = ep.TLS
		d.Storage.MetadataPath, d.Storage.TLSPath = "<IN MEMORY>", "<IN MEMORY>"
	} else {
		if files, err = a.contexts().TLS(name); err != nil {
			return nil, nil, err
		}
		d.Storage.MetadataPath, d.Storage.TLSPath = a.contexts().Paths(name)
	}
	if names := files.Names(); len(names) > 0 {
		d.TLSMaterial["docker"] = names
	}
	raw, err := json.Marshal(d)
	return d, raw, err
}

func (a *app) contextRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm CONTEXT [CONTEXT...]", Aliases: []string{"remove"}, Short: "Remove one or more contexts", Args: minArgs(1),
		ValidArgsFunction: a.completeContexts, DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			current := a.currentContext()
			for _, name := range args {
				if err := a.removeContext(name, name == current, force); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(a.stdout, name)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

func (a *app) removeContext(name string, current, force bool) error {
	if name == endpoint.DefaultContext {
		return errors.New(`context "default" cannot be removed`)
	}
	if current {
		if !force {
			return fmt.Errorf("context %q is in use, set -f flag to force remove", name)
		}
		config := a.configFile()
		config.CurrentContext = ""
		if err := config.Save(); err != nil {
			return err
		}
	}
	if _, err := a.contexts().Get(name); errdefs.IsNotFound(err) && !force {
		return fmt.Errorf("context %q does not exist", name)
	}
	return a.contexts().Remove(name)
}

// dockerFlagHelp describes the value of --docker, in help texts.
const dockerFlagHelp = `
Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ %s context %s my-context --description "some description" --docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file"
`

func (a *app) contextCreateCommand() *cobra.Command {
	var description, from string
	var docker map[string]string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] CONTEXT", Short: "Create a context", Args: exactArgs(1),
		Long:              "Create a context\n" + fmt.Sprintf(dockerFlagHelp, a.name, "create"),
		ValidArgsFunction: cobra.NoFileCompletions, DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if err := endpoint.CheckName(name); err != nil {
				return err
			}
			if _, err := a.contexts().Get(name); err == nil {
				return fmt.Errorf("context %q already exists", name)
			} else if !errdefs.IsNotFound(err) {
				return fmt.Errorf("error while getting existing contexts: %w", err)
			}
			if from != "" && docker != nil {
				return errors.New("cannot use --docker flag when --from is set")
			}
			if from == "" && docker == nil {
				from = a.currentContext()
			}
			if from != "" {
				if description == "" {
					if m, err := a.contextMetadata(from); err == nil {
						description = m.Description()
					}
				}
				docker = map[string]string{"from": from}
			}
			if err := a.storeContext(name, description, docker); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, name)
			fmt.Fprintf(a.stderr, "Successfully created context %q\n", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "Description of the context")
	cmd.Flags().StringToStringVar(&docker, "docker", nil, "set the docker endpoint")
	cmd.Flags().StringVar(&from, "from", "", "create context from a named context")
	return cmd
}

func (a *app) contextUpdateCommand() *cobra.Command {
	var description string
	var docker map[string]string
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTEXT", Short: "Update a context", Args: exactArgs(1),
		Long:              "Update a context\n" + fmt.Sprintf(dockerFlagHelp, a.name, "update"),
		ValidArgsFunction: a.completeContexts, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := endpoint.CheckName(name); err != nil {
				return err
			}
			m, err := a.contexts().Get(name)
			if err != nil {
				return err
			}
			if description == "" {
				description = m.Description()
			}
			if docker == nil {
				docker = map[string]string{"from": name}
			}
			if err := a.storeContext(name, description, docker); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, name)
			fmt.Fprintf(a.stderr, "Successfully updated context %q\n", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "Description of the context")
	cmd.Flags().StringToStringVar(&docker, "docker", nil, "set the docker endpoint")
	return cmd
}

// storeContext writes a context with the endpoint that the fields of --docker describe.
func (a *app) storeContext(name, description string, fields map[string]string) error {
	ep, err := a.endpointOf(fields)
	if err != nil {
		return fmt.Errorf("unable to create docker endpoint config: %w", err)
	}
	m, err := endpoint.NewMetadata(name, description, ep)
	if err != nil {
		return err
	}
	return a.contexts().Put(m, ep.TLS)
}

func (a *app) endpointOf(fields map[string]string) (endpoint.Endpoint, error) {
	for key := range fields {
		if !strings.Contains(" from host ca cert key skip-tls-verify ", " "+key+" ") {
			return endpoint.Endpoint{}, errors.New("unrecognized config key: " + key)
		}
	}
	if from, ok := fields["from"]; ok {
		if from == endpoint.DefaultContext {
			return a.defaultEndpoint()
		}
		return a.contexts().Endpoint(from)
	}
	host, err := endpoint.ParseHost(fields["host"])
	if err != nil {
		return endpoint.Endpoint{}, err
	}
	ep := endpoint.Endpoint{Host: host}
	switch text := fields["skip-tls-verify"]; text {
	case "", "false", "0":
	case "true", "1":
		ep.SkipTLSVerify = true
	default:
		return ep, fmt.Errorf("skip-tls-verify: invalid boolean %q", text)
	}
	ep.TLS, err = endpoint.ReadTLSFiles(fields["ca"], fields["cert"], fields["key"])
	return ep, err
}
