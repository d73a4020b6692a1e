package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) diskUsageCommand() *cobra.Command {
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use:                   "df [OPTIONS]",
		Short:                 "Show " + a.name + " disk usage",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			usage, err := api.DiskUsage(cmd.Context(), client.DiskUsageOptions{Verbose: verbose})
			if err != nil {
				return err
			}
			if verbose {
				return a.diskUsageVerbose(usage, format)
			}
			return a.diskUsageSummary(usage, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

func (a *app) diskUsageSummary(u client.DiskUsageResult, source string) error {
	format := render.Format(source)
	switch format {
	case "", render.FormatTable:
		format = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
	case render.FormatRaw:
		format = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n"
	}
	header := render.Header{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
	return render.Table(a.stdout, format, header, []*usageRow{
		{"Images", u.Images.TotalCount, u.Images.ActiveCount, u.Images.TotalSize, u.Images.Reclaimable, true},
		{"Containers", u.Containers.TotalCount, u.Containers.ActiveCount, u.Containers.TotalSize, u.Containers.Reclaimable, true},
		{"Local Volumes", u.Volumes.TotalCount, u.Volumes.ActiveCount, u.Volumes.TotalSize, u.Volumes.Reclaimable, true},
		{"Build Cache", u.BuildCache.TotalCount, u.BuildCache.ActiveCount, u.BuildCache.TotalSize, u.BuildCache.Reclaimable, false},
	})
}

// usageRow is the sum over one kind of object; its methods are the columns.
type usageRow struct {
	kind                             string
	total, active, size, reclaimable int64
	percent                          bool // whether the reclaimable part is also told as a share
}

// MarshalJSON is the row of --format json.
func (r *usageRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *usageRow) Type() string       { return r.kind }
func (r *usageRow) TotalCount() string { return strconv.FormatInt(r.total, 10) }
func (r *usageRow) Active() string     { return strconv.FormatInt(r.active, 10) }
func (r *usageRow) Size() string       { return units.HumanSize(float64(r.size)) }
func (r *usageRow) Reclaimable() string {
	text := units.HumanSize(float64(r.reclaimable))
	if r.percent && r.size > 0 {
		text += fmt.Sprintf(" (%d%%)", r.reclaimable*100/r.size)
	}
	return text
}

// usageDetail is what a template of `system df -v` sees.
type usageDetail struct {
	Images     []*imageRow
	Containers []*containerRow
	Volumes    []*volumeRow
	BuildCache []*cacheRow
}

func (a *app) diskUsageVerbose(u client.DiskUsageResult, source string) error {
	format := render.Format(source)
	table := format == "" || format == render.FormatTable
	trunc := table || format.IsTable()
	var d usageDetail
	for i := range u.Images.Items {
		// One row per image: what counts here is the space, not the names.
		rows := imageRows(u.Images.Items[i:i+1], trunc, false, false)
		if len(rows) > 0 {
			rows[0].digest = ""
			d.Images = append(d.Images, rows[0])
		}
	}
	for i := range u.Containers.Items {
		u.Containers.Items[i].SizeRootFs = 0 // the image's part is told with the images
	}
	d.Containers = containerRows(u.Containers.Items, trunc)
	for i := range u.Volumes.Items {
		d.Volumes = append(d.Volumes, &volumeRow{&u.Volumes.Items[i]})
	}
	slices.SortStableFunc(u.BuildCache.Items, byUse)
	for i := range u.BuildCache.Items {
		d.BuildCache = append(d.BuildCache, &cacheRow{&u.BuildCache.Items[i], trunc})
	}
	if !table {
		t, err := render.Parse(format.Template())
		if err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, d); err != nil {
			return err
		}
		_, err = b.WriteTo(a.stdout)
		return err
	}
	fmt.Fprint(a.stdout, "Images space usage:\n\n")
	if err := render.Table(a.stdout, "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", imageHeader(), d.Images); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, "\nContainers space usage:\n\n")
	if err := render.Table(a.stdout, "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", containerHeader(), d.Containers); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, "\nLocal Volumes space usage:\n\n")
	if err := render.Table(a.stdout, "table {{.Name}}\t{{.Links}}\t{{.Size}}", render.Header{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}, d.Volumes); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(u.BuildCache.TotalSize)))
	return render.Table(a.stdout, "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}", render.Header{
		"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED",
	}, d.BuildCache)
}

// byUse orders build cache by its last use, never used first, then by size.
func byUse(x, y build.CacheRecord) int {
	switch {
	case x.LastUsedAt == nil && y.LastUsedAt == nil:
		return int(x.Size - y.Size)
	case x.LastUsedAt == nil:
		return -1
	case y.LastUsedAt == nil:
		return 1
	}
	if c := x.LastUsedAt.Compare(*y.LastUsedAt); c != 0 {
		return c
	}
	return int(x.Size - y.Size)
}

// volumeRow is a volume; its methods are the columns.
type volumeRow struct{ v *volume.Volume }

// MarshalJSON is the row of --format json.
func (r *volumeRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *volumeRow) Name() string          { return r.v.Name }
func (r *volumeRow) Driver() string        { return r.v.Driver }
func (r *volumeRow) Scope() string         { return r.v.Scope }
func (r *volumeRow) Mountpoint() string    { return r.v.Mountpoint }
func (r *volumeRow) Labels() string        { return labelText(r.v.Labels) }
func (r *volumeRow) Label(k string) string { return r.v.Labels[k] }

// Availability, Group and Status speak of cluster volumes.
func (r *volumeRow) Availability() string {
	if r.v.ClusterVolume == nil {
		return "N/A"
	}
	return string(r.v.ClusterVolume.Spec.Availability)
}
func (r *volumeRow) Group() string {
	if r.v.ClusterVolume == nil {
		return "N/A"
	}
	return r.v.ClusterVolume.Spec.Group
}
func (r *volumeRow) Status() string {
	switch c := r.v.ClusterVolume; {
	case c == nil:
		return "N/A"
	case c.Info == nil || c.Info.VolumeID == "":
		return "pending creation"
	case len(c.PublishStatus) == 0:
		return "created"
	default:
		return fmt.Sprintf("in use (%d nodes)", len(c.PublishStatus))
	}
}
func (r *volumeRow) Links() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return strconv.FormatInt(r.v.UsageData.RefCount, 10)
}
func (r *volumeRow) Size() string {
	if r.v.UsageData == nil {
		return "N/A"
	}
	return units.HumanSize(float64(r.v.UsageData.Size))
}

// cacheRow is a record of the build cache; its methods are the columns.
type cacheRow struct {
	r     *build.CacheRecord
	trunc bool
}

// MarshalJSON is the row of --format json.
func (r *cacheRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *cacheRow) ID() string {
	id := r.r.ID
	if r.trunc {
		id = render.ShortID(id)
	}
	if r.r.InUse {
		id += "*"
	}
	return id
}
func (r *cacheRow) Parent() string {
	parent := strings.Join(r.r.Parents, ", ")
	if r.trunc {
		parent = render.ShortID(parent)
	}
	return parent
}
func (r *cacheRow) CacheType() string   { return r.r.Type }
func (r *cacheRow) Description() string { return r.r.Description }
func (r *cacheRow) Size() string        { return units.HumanSizeWithPrecision(float64(r.r.Size), 3) }
func (r *cacheRow) CreatedAt() string   { return r.r.CreatedAt.String() }
func (r *cacheRow) CreatedSince() string {
	return units.HumanDuration(time.Since(r.r.CreatedAt)) + " ago"
}
func (r *cacheRow) LastUsedAt() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return r.r.LastUsedAt.String()
}
func (r *cacheRow) LastUsedSince() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return units.HumanDuration(time.Since(*r.r.LastUsedAt)) + " ago"
}
func (r *cacheRow) UsageCount() string { return strconv.Itoa(r.r.UsageCount) }
func (r *cacheRow) InUse() string      { return strconv.FormatBool(r.r.InUse) }
func (r *cacheRow) Shared() string     { return strconv.FormatBool(r.r.Shared) }
