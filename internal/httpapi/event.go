package httpapi

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
)

// Events is what this API calls of engine/events.
type Events interface {
	// Subscribe yields the recorded events from since on (none when it is
	// zero) and then new ones, until the time until (never when it is zero) or
	// until ctx ends. It fails with ErrInvalidArgument for filters it does not
	// know.
	Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) (iter.Seq2[events.Message, error], error)
}

func (a *API) systemEvents(w *answer, r *request) error {
	since, err := r.timestamp("since", "'")
	if err != nil {
		return err
	}
	until, err := r.timestamp("until", "'")
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return invalid(fmt.Sprintf("`since` time (%s) cannot be after `until` time (%s)", r.query("since"), r.query("until")))
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	messages, err := a.cfg.Events.Subscribe(r.Context(), since, until, filters)
	if err != nil {
		return err
	}
	kind := types.MediaTypeJSONLines
	if r.before(52) {
		// It never was one JSON document, but that is what it was called.
		kind = types.MediaTypeJSON
	}
	if accepted := acceptedStream(r.Header); accepted != "" {
		kind = accepted
	}
	w.Header().Set("Content-Type", kind)
	out := newStream(w)
	out.begin(http.StatusOK)
	write := jsonLines(out, kind)
	for m, err := range messages {
		if err != nil {
			return err
		}
		if r.before(46) && m.Type == events.ImageEventType && m.Action == events.ActionCreate {
			continue
		}
		if err := write(compatEvent(r, m)); err != nil {
			return nil
		}
	}
	return nil
}
