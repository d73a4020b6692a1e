package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"

	"github.com/orlop/orlop/internal/cli/render"
)

// imageTree lists every image with the platforms it holds beneath it.
func (a *app) imageTree(list []image.Summary) error {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(x, y image.Summary) int { return int(y.Created - x.Created) })
	size := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	mark := func(used bool) string {
		if used {
			return "U"
		}
		return ""
	}
	var cells bytes.Buffer
	fmt.Fprintln(&cells, "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA")
	for _, i := range list {
		var content int64
		used := i.Containers > 0
		var children []image.ManifestSummary
		for _, m := range i.Manifests {
			content += m.Size.Content
			if m.Kind == image.ManifestKindImage && m.ImageData != nil {
				children = append(children, m)
				used = used || len(m.ImageData.Containers) > 0
			}
		}
		names := slices.Sorted(slices.Values(i.RepoTags))
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		for _, name := range names {
			fmt.Fprintln(&cells, strings.Join([]string{name, render.ShortID(i.ID), size(i.Size), size(content), mark(used)}, "\t"))
		}
		for n, m := range children {
			branch := "├─ "
			if n == len(children)-1 {
				branch = "└─ "
			}
			fmt.Fprintln(&cells, strings.Join([]string{
				branch + platforms.Format(m.ImageData.Platform), render.ShortID(m.ID), size(m.Size.Total), size(m.Size.Content), mark(len(m.ImageData.Containers) > 0),
			}, "\t"))
		}
	}
	return render.Columnize(a.stdout, cells.Bytes(), 10, 3)
}
