package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) historyCommand() *cobra.Command {
	var human, noTrunc, quiet bool
	var format, platform string
	cmd := &cobra.Command{
		Use:                   "history [OPTIONS] IMAGE",
		Short:                 "Show the history of an image",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annAliases: "image history, history"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := parsePlatforms(optional(platform))
			if err != nil {
				return err
			}
			var options []client.ImageHistoryOption
			if len(list) > 0 {
				options = append(options, client.ImageHistoryWithPlatform(list[0]))
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			history, err := api.ImageHistory(cmd.Context(), args[0], options...)
			if err != nil {
				return err
			}
			rows := make([]*historyRow, len(history.Items))
			for i := range history.Items {
				rows[i] = &historyRow{&history.Items[i], !noTrunc, human}
			}
			return render.Table(a.stdout, historyFormat(format, quiet, human), historyHeader(), rows)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", formatHelp)
	f.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	f.StringVar(&platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.48"}}
	f.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	return cmd
}

func historyFormat(source string, quiet, human bool) render.Format {
	if source != "" && source != string(render.FormatTable) {
		return render.Format(source)
	}
	switch {
	case quiet:
		return render.FormatID
	case !human:
		return "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
}

func historyHeader() render.Header {
	return render.Header{
		"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
	}
}

// historyRow is one step of an image's making; its methods are the columns.
type historyRow struct {
	h     *image.HistoryResponseItem
	trunc bool
	human bool
}

// MarshalJSON is the row of --format json.
func (r *historyRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *historyRow) ID() string {
	if r.trunc {
		return render.ShortID(r.h.ID)
	}
	return r.h.ID
}

func (r *historyRow) CreatedAt() string { return time.Unix(r.h.Created, 0).Format(time.RFC3339) }

// CreatedSince has no answer for a time before 2000: reproducible builds set one near 1970.
func (r *historyRow) CreatedSince() string {
	if !r.human {
		return r.CreatedAt()
	}
	if r.h.Created <= time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		return "N/A"
	}
	return ago(r.h.Created)
}

func (r *historyRow) CreatedBy() string {
	text := strings.ReplaceAll(r.h.CreatedBy, "\t", " ")
	if r.trunc {
		return render.Ellipsis(text, 45)
	}
	return text
}

func (r *historyRow) Size() string {
	if r.human {
		return units.HumanSizeWithPrecision(float64(r.h.Size), 3)
	}
	return strconv.FormatInt(r.h.Size, 10)
}

func (r *historyRow) Comment() string { return r.h.Comment }
