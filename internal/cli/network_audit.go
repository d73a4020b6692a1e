package cli

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

// networkAuditCommand prints what is reachable from where. Docker has no such command.
func (a *app) networkAuditCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "audit [OPTIONS]",
		Short:                 "Show what is reachable from where",
		Args:                  noArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		Hidden:                a.name == "docker", // whose help is Docker's
		RunE: func(cmd *cobra.Command, _ []string) error {
			var audit struct {
				Reach    []*reachRow
				Warnings []string
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			if err := ownCall(cmd.Context(), api, http.MethodGet, "/orlop/network/audit", &audit); err != nil {
				return err
			}
			if format == "" {
				format = "table {{.From}}\t{{.To}}\t{{.Ports}}\t{{.By}}\t{{.Why}}"
			}
			header := render.Header{"From": "FROM", "To": "TO", "Ports": "PORTS", "By": "BY", "Why": "WHY"}
			if err := render.Table(a.stdout, render.Format(format), header, audit.Reach); err != nil {
				return err
			}
			for _, w := range audit.Warnings {
				fmt.Fprintln(a.stderr, w)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	return cmd
}

// reachRow is a line of the audit; its methods are the columns.
type reachRow struct {
	r struct{ From, To, Ports, By, Why string }
}

// UnmarshalJSON reads the daemon's answer.
func (r *reachRow) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &r.r) }

// MarshalJSON is the row of --format json.
func (r *reachRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

func (r *reachRow) From() string  { return r.r.From }
func (r *reachRow) To() string    { return r.r.To }
func (r *reachRow) Ports() string { return r.r.Ports }
func (r *reachRow) By() string    { return r.r.By }
func (r *reachRow) Why() string   { return r.r.Why }
