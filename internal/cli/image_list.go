package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
	"github.com/orlop/orlop/internal/cli/render"
)

// imagesFlags are the flags of images.
type imagesFlags struct {
	all, digests, noTrunc, quiet, tree bool
	format                             string
	filter                             flagvalue.Filter
}

func (a *app) imagesCommand() *cobra.Command {
	var o imagesFlags
	cmd := &cobra.Command{
		Use:                   "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short:                 "List images",
		Args:                  maxArgs(1),
		Annotations:           map[string]string{annTop: "7", annAliases: "image ls, image list, images"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.images(cmd, &o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	f.BoolVar(&o.digests, "digests", false, "Show digests")
	f.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&o.format, "format", "", formatHelp)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	f.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
	f.Lookup("tree").Annotations = map[string][]string{"version": {"1.47"}}
	return cmd
}

func (a *app) imageListCommand() *cobra.Command {
	cmd := a.imagesCommand()
	cmd.Use, cmd.Aliases = "ls [OPTIONS] [REPOSITORY[:TAG]]", []string{"list"}
	return cmd
}

func (a *app) images(cmd *cobra.Command, o *imagesFlags, args []string) error {
	filters := o.filter.Value()
	if len(args) > 0 {
		filters.Add("reference", args[0])
	}
	if o.tree {
		for _, c := range []struct {
			given bool
			flag  string
		}{{o.quiet, "--quiet"}, {o.noTrunc, "--no-trunc"}, {o.digests, "--show-digest"}, {o.format != "", "--format"}} {
			if c.given {
				return errors.New(c.flag + " is not yet supported with --tree")
			}
		}
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	list, err := api.ImageList(cmd.Context(), client.ImageListOptions{All: o.all, Filters: filters, Manifests: o.tree})
	if err != nil {
		return err
	}
	if o.tree {
		return a.imageTree(list.Items)
	}
	format := o.format
	if format == "" && !o.quiet {
		format = a.configFile().ImagesFormat
	}
	source := imageFormat(format, o.quiet, o.digests)
	rows := imageRows(list.Items, !o.noTrunc, o.digests || strings.Contains(string(source), "{{.Digest}}"), o.digests)
	if err := render.Table(a.stdout, source, imageHeader(), rows); err != nil {
		return err
	}
	if len(list.Items) == 0 && len(args) > 0 && cmd.CalledAs() == "images" {
		a.hintSubcommand(args[0])
	}
	return nil
}

// hintSubcommand helps who typed `images ls` for `image ls`.
func (a *app) hintSubcommand(word string) {
	switch word {
	case "build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag":
		fmt.Fprintf(a.stderr, "\nNo images found matching %q: did you mean \"%s image %s\"?\n", word, a.name, word)
	}
}

// The tables of images; a template after "table" names its own columns.
const (
	imageTable       render.Format = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
	imageDigestTable render.Format = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
)

func imageFormat(source string, quiet, digests bool) render.Format {
	switch render.Format(source) {
	case render.FormatTable, "":
		switch {
		case quiet:
			return render.FormatID
		case digests:
			return imageDigestTable
		}
		return imageTable
	case render.FormatRaw:
		digest := ""
		if digests {
			digest = "digest: {{.Digest}}\n"
		}
		if quiet {
			return `image_id: {{.ID}}`
		}
		return render.Format("repository: {{ .Repository }}\ntag: {{.Tag}}\n" + digest +
			"image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n")
	}
	format := render.Format(source)
	if format.IsTable() && digests && !strings.Contains(source, "{{.Digest}}") {
		format += "\t{{.Digest}}"
	}
	return format
}

func imageHeader() render.Header {
	return render.Header{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
		"CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}
}

// isDangling reports whether nothing names the image; older daemons send a placeholder for that.
func isDangling(i image.Summary) bool {
	if len(i.RepoTags) == 0 && len(i.RepoDigests) == 0 {
		return true
	}
	return slices.Equal(i.RepoTags, []string{"<none>:<none>"}) && slices.Equal(i.RepoDigests, []string{"<none>@<none>"})
}

// imageRows has a row per name of each image: per tag, per tag and digest when digests show, and for a repository
// known by digest only one per digest (withDigests) or one alone.
func imageRows(list []image.Summary, trunc, showDigest, withDigests bool) []*imageRow {
	var rows []*imageRow
	for i := range list {
		row := imageRow{i: &list[i], trunc: trunc}
		if isDangling(list[i]) {
			row.repository, row.tag, row.digest = "<none>", "<none>", "<none>"
			rows = append(rows, &row)
			continue
		}
		rows = append(rows, namedRows(row, showDigest, withDigests)...)
	}
	return rows
}

func namedRows(row imageRow, showDigest, withDigests bool) []*imageRow {
	tags, digests := map[string][]string{}, map[string][]string{}
	for _, text := range row.i.RepoTags {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			if tagged, ok := ref.(reference.NamedTagged); ok {
				name := reference.FamiliarName(ref)
				tags[name] = append(tags[name], tagged.Tag())
			}
		}
	}
	for _, text := range row.i.RepoDigests {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			if canonical, ok := ref.(reference.Canonical); ok {
				name := reference.FamiliarName(ref)
				digests[name] = append(digests[name], canonical.Digest().String())
			}
		}
	}
	var rows []*imageRow
	add := func(repository, tag, digest string) {
		r := row
		r.repository, r.tag, r.digest = repository, tag, digest
		rows = append(rows, &r)
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		for _, tag := range tags[name] {
			if !showDigest || len(digests[name]) == 0 {
				add(name, tag, "<none>")
				continue
			}
			for _, digest := range digests[name] {
				add(name, tag, digest)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		if _, tagged := tags[name]; tagged {
			continue
		}
		if !withDigests {
			add(name, "<none>", "")
			continue
		}
		for _, digest := range digests[name] {
			add(name, "<none>", digest)
		}
	}
	return rows
}

// imageRow is one name of an image; its methods are the columns.
type imageRow struct {
	i                       *image.Summary
	trunc                   bool
	repository, tag, digest string
}

// MarshalJSON is the row of --format json.
func (r *imageRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *imageRow) ID() string {
	if r.trunc {
		return render.ShortID(r.i.ID)
	}
	return r.i.ID
}
func (r *imageRow) Repository() string { return r.repository }
func (r *imageRow) Tag() string        { return r.tag }
func (r *imageRow) Digest() string     { return r.digest }

func (r *imageRow) CreatedSince() string {
	if time.Unix(r.i.Created, 0).IsZero() {
		return ""
	}
	return ago(r.i.Created)
}
func (r *imageRow) CreatedAt() string { return time.Unix(r.i.Created, 0).String() }
func (r *imageRow) Size() string      { return units.HumanSizeWithPrecision(float64(r.i.Size), 3) }

// VirtualSize is the size under the name and with the digits it had in older clients.
func (r *imageRow) VirtualSize() string { return units.HumanSize(float64(r.i.Size)) }

func (r *imageRow) Containers() string {
	if r.i.Containers == -1 {
		return "N/A"
	}
	return strconv.FormatInt(r.i.Containers, 10)
}

func (r *imageRow) SharedSize() string {
	if r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.SharedSize))
}

func (r *imageRow) UniqueSize() string {
	if r.i.Size == -1 || r.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.i.Size - r.i.SharedSize))
}
