package cli

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
	"github.com/orlop/orlop/internal/cli/render"
)

// Help texts of --format, shared by all list and all inspect commands.
const (
	formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`
	inspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`
)

// psFlags are the flags of ps.
type psFlags struct {
	quiet, size, all, noTrunc, latest bool
	last                              int
	format                            string
	filter                            flagvalue.Filter
}

func (a *app) psCommand() *cobra.Command {
	var o psFlags
	cmd := &cobra.Command{
		Use:                   "ps [OPTIONS]",
		Short:                 "List containers",
		Args:                  noArgs,
		Annotations:           map[string]string{annTop: "3", annAliases: "container ls, container list, container ps, ps"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, &o) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&o.format, "format", "", formatHelp)
	f.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	f.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	return cmd
}

func (a *app) containerListCommand() *cobra.Command {
	cmd := a.psCommand()
	cmd.Use, cmd.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	return cmd
}

func (a *app) ps(cmd *cobra.Command, o *psFlags) error {
	if o.format == "" {
		o.format = a.configFile().PsFormat
	} else if o.quiet {
		fmt.Fprintln(a.stderr, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
	}
	options := client.ContainerListOptions{All: o.all, Limit: o.last, Size: o.size, Filters: o.filter.Value()}
	if o.latest && o.last == -1 {
		options.Limit = 1
	}
	if o.format != "" {
		// Sizes cost the daemon a walk through every file, so they are asked for only when they show.
		wantsSize, err := usesSize(o.format)
		if err != nil {
			return err
		}
		if wantsSize && !o.quiet && !cmd.Flags().Changed("size") {
			options.Size = true
		}
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	list, err := api.ContainerList(cmd.Context(), options)
	if err != nil {
		return err
	}
	return render.Table(a.stdout, containerFormat(o.format, o.quiet, options.Size), containerHeader(), containerRows(list.Items, !o.noTrunc))
}

// usesSize runs a format on an empty row to see whether it asks for sizes; a format that fails on it is refused.
func usesSize(format string) (bool, error) {
	t, err := render.Parse(format)
	if err != nil {
		return false, fmt.Errorf("failed to parse template: %w", err)
	}
	probe := &containerRow{}
	if err := t.Execute(&strings.Builder{}, probe); err != nil {
		return false, fmt.Errorf("failed to execute template: %w", err)
	}
	return probe.sizeUsed, nil
}

// The tables of containers; a template after "table" names its own columns.
const (
	containerTable render.Format = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	containerRaw   render.Format = `container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
`
)

func containerFormat(source string, quiet, size bool) render.Format {
	switch render.Format(source) {
	case render.FormatTable, "":
		switch {
		case quiet:
			return render.FormatID
		case size:
			return containerTable + "\t{{.Size}}"
		}
		return containerTable
	case render.FormatRaw:
		switch {
		case quiet:
			return `container_id: {{.ID}}`
		case size:
			return containerRaw + `size: {{.Size}}` + "\n"
		}
		return containerRaw
	}
	if quiet {
		return render.FormatID
	}
	return render.Format(source)
}

func containerHeader() render.Header {
	return render.Header{
		"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
		"RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS",
		"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
}

func containerRows(list []container.Summary, trunc bool) []*containerRow {
	rows := make([]*containerRow, len(list))
	for i := range list {
		rows[i] = &containerRow{c: &list[i], trunc: trunc}
	}
	return rows
}

// containerRow is a container in a list; its methods are the columns.
type containerRow struct {
	c        *container.Summary // nil in a probe of the format
	trunc    bool
	sizeUsed bool
}

func (r *containerRow) summary() *container.Summary {
	if r.c == nil {
		r.c = &container.Summary{}
	}
	return r.c
}

// MarshalJSON is the row of --format json.
func (r *containerRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *containerRow) ID() string {
	if r.trunc {
		return render.ShortID(r.summary().ID)
	}
	return r.summary().ID
}

// Names leaves out, when shortened, the names that links gave the container (they have a slash inside).
func (r *containerRow) Names() string {
	var names []string
	for _, name := range r.summary().Names {
		name = strings.TrimPrefix(name, "/")
		if r.trunc && strings.Contains(name, "/") {
			continue
		}
		names = append(names, name)
		if r.trunc {
			break
		}
	}
	return strings.Join(names, ",")
}

// Image leaves out, when shortened, the digest of a reference.
func (r *containerRow) Image() string {
	c := r.summary()
	if c.Image == "" {
		return "<no image>"
	}
	if !r.trunc {
		return c.Image
	}
	if short := render.ShortID(c.ImageID); short == render.ShortID(c.Image) {
		return short
	}
	ref, err := reference.ParseNormalizedNamed(c.Image)
	if err != nil {
		return c.Image
	}
	if _, ok := ref.(reference.Digested); ok {
		bare := reference.TrimNamed(ref)
		if tagged, ok := ref.(reference.Tagged); ok {
			if withTag, err := reference.WithTag(bare, tagged.Tag()); err == nil {
				return reference.FamiliarString(withTag)
			}
		}
		return reference.FamiliarString(bare)
	}
	return reference.FamiliarString(ref)
}

func (r *containerRow) Command() string {
	command := r.summary().Command
	if r.trunc {
		command = render.Ellipsis(command, 20)
	}
	return strconv.Quote(command)
}

func (r *containerRow) CreatedAt() string { return time.Unix(r.summary().Created, 0).String() }

func (r *containerRow) RunningFor() string { return ago(r.summary().Created) }

// ago words the time since a moment given in seconds since 1970.
func ago(created int64) string {
	return units.HumanDuration(time.Since(time.Unix(created, 0))) + " ago"
}

// platformText is a platform that prints in its short form and encodes as its parts.
type platformText struct{ ocispec.Platform }

func (p platformText) String() string { return platforms.FormatAll(p.Platform) }

func (r *containerRow) Platform() *platformText {
	d := r.summary().ImageManifestDescriptor
	if d == nil || d.Platform == nil {
		return nil
	}
	return &platformText{*d.Platform}
}

func (r *containerRow) Ports() string { return displayPorts(r.summary().Ports) }

func (r *containerRow) State() string { return string(r.summary().State) }

func (r *containerRow) Status() string { return r.summary().Status }

func (r *containerRow) Size() string {
	r.sizeUsed = true
	c := r.summary()
	size := units.HumanSizeWithPrecision(float64(c.SizeRw), 3)
	if c.SizeRootFs > 0 {
		size += " (virtual " + units.HumanSizeWithPrecision(float64(c.SizeRootFs), 3) + ")"
	}
	return size
}

func (r *containerRow) Labels() string { return labelText(r.summary().Labels) }

// labelText lists labels by key.
func labelText(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// Label is one label's value, empty when there is none of that name.
func (r *containerRow) Label(name string) string { return r.summary().Labels[name] }

func (r *containerRow) Mounts() string {
	var names []string
	for _, m := range r.summary().Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if r.trunc {
			name = render.Ellipsis(name, 15)
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func (r *containerRow) LocalVolumes() string {
	n := 0
	for _, m := range r.summary().Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r *containerRow) Networks() string {
	s := r.summary().NetworkSettings
	if s == nil {
		return ""
	}
	names := make([]string, 0, len(s.Networks))
	for name := range s.Networks {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// displayPorts words a container's ports: runs of consecutive ones with the same address and protocol, published to
// the same number, are joined; a port published to another number stands alone, after those.
func displayPorts(ports []container.PortSummary) string {
	type run struct {
		key         string
		first, last uint16
	}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(x, y container.PortSummary) int {
		for _, c := range []int{
			int(x.PrivatePort) - int(y.PrivatePort), x.IP.Compare(y.IP), int(x.PublicPort) - int(y.PublicPort), strings.Compare(x.Type, y.Type),
		} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	word := func(r run) string {
		ip, proto, published := strings.Cut(r.key, "/")
		text := strconv.Itoa(int(r.first))
		if r.first != r.last {
			text += "-" + strconv.Itoa(int(r.last))
		}
		if !published {
			return text + "/" + ip
		}
		return net.JoinHostPort(ip, text) + "->" + text + "/" + proto
	}
	var ended, moved []string
	var open []run
	for _, p := range ports {
		key := p.Type
		if p.IP.IsValid() {
			if p.PublicPort != p.PrivatePort {
				host := net.JoinHostPort(p.IP.String(), strconv.Itoa(int(p.PublicPort)))
				moved = append(moved, fmt.Sprintf("%s->%d/%s", host, p.PrivatePort, p.Type))
				continue
			}
			key = p.IP.String() + "/" + p.Type
		}
		i := slices.IndexFunc(open, func(r run) bool { return r.key == key })
		switch {
		case i < 0:
			open = append(open, run{key, p.PrivatePort, p.PrivatePort})
		case p.PrivatePort == open[i].last+1:
			open[i].last = p.PrivatePort
		default:
			ended = append(ended, word(open[i]))
			open[i] = run{key, p.PrivatePort, p.PrivatePort}
		}
	}
	for _, r := range open {
		ended = append(ended, word(r))
	}
	return strings.Join(append(ended, moved...), ", ")
}
