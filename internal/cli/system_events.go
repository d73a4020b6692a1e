package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/flagvalue"
	"github.com/orlop/orlop/internal/cli/render"
)

func (a *app) eventsCommand() *cobra.Command {
	var filter flagvalue.Filter
	var format, since, until string
	cmd := &cobra.Command{
		Use:                   "events [OPTIONS]",
		Short:                 "Get real time events from the server",
		Args:                  noArgs,
		Annotations:           map[string]string{annAliases: "system events, events"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := eventTemplate(format)
			if err != nil {
				return &statusError{code: 64, text: "Error parsing format: " + err.Error()}
			}
			return a.events(cmd.Context(), client.EventsListOptions{Since: since, Until: until, Filters: filter.Value()}, t)
		},
	}
	f := cmd.Flags()
	f.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", inspectFormatHelp)
	f.StringVar(&since, "since", "", "Show all events created since timestamp")
	f.StringVar(&until, "until", "", "Stream events until this timestamp")
	return cmd
}

// eventTemplate compiles a format and tries it on an empty event, so that a wrong name is told now and not at the
// first event; nil is the plain form.
func eventTemplate(format string) (*template.Template, error) {
	switch format {
	case "":
		return nil, nil
	case "json":
		format = "{{json .}}"
	}
	t, err := render.Parse(format)
	if err != nil {
		return nil, err
	}
	return t, t.Execute(io.Discard, &events.Message{})
}

func (a *app) events(ctx context.Context, o client.EventsListOptions, t *template.Template) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := api.Events(ctx, o)
	for {
		select {
		case event := <-stream.Messages:
			if t == nil {
				fmt.Fprintln(a.stdout, eventLine(event))
				continue
			}
			if err := t.Execute(a.stdout, event); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout)
		case err := <-stream.Err:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// eventLine is the plain form of an event.
func eventLine(e events.Message) string {
	const fixedNanoseconds = "2006-01-02T15:04:05.000000000Z07:00"
	var b strings.Builder
	switch {
	case e.TimeNano != 0:
		b.WriteString(time.Unix(0, e.TimeNano).Format(fixedNanoseconds) + " ")
	case e.Time != 0:
		b.WriteString(time.Unix(e.Time, 0).Format(fixedNanoseconds) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		var list []string
		for _, k := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
			list = append(list, k+"="+e.Actor.Attributes[k])
		}
		b.WriteString(" (" + strings.Join(list, ", ") + ")")
	}
	return b.String()
}
