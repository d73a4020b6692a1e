package httpapi

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/moby/moby/api/types"

	"github.com/orlop/orlop/internal/engine/containers"
)

// logTime is RFC 3339 with nine digits of nanoseconds always, so that lines of
// a log align.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (a *API) containerLogs(w *answer, r *request) error {
	// Everything is checked before the answer begins: from then on an error
	// can only be told inside the stream.
	opts := containers.LogsOptions{
		Stdout:     r.flag("stdout"),
		Stderr:     r.flag("stderr"),
		Follow:     r.flag("follow"),
		Timestamps: r.flag("timestamps"),
		Tail:       r.query("tail"),
	}
	if !opts.Stdout && !opts.Stderr {
		return invalid("must specify at least one of 'stdout' or 'stderr'")
	}
	var err error
	if opts.Since, err = r.timestamp("since", `"`); err != nil {
		return err
	}
	if r.query("until") != "0" {
		if opts.Until, err = r.timestamp("until", `"`); err != nil {
			return err
		}
	}
	asJSON := ""
	if !r.before(54) {
		switch format := r.query("format"); format {
		case "json":
			asJSON = types.MediaTypeNDJSON
		case "":
		default:
			return invalid("unsupported log format")
		}
		if kind := acceptedStream(r.Header); kind != "" {
			asJSON = kind
		}
	}
	details := r.flag("details")

	log, err := a.cfg.Containers.Logs(r.Context(), r.name(), opts)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()

	head := newStream(w)
	if asJSON != "" {
		w.Header().Set("Content-Type", asJSON)
		head.begin(http.StatusOK)
		out := coalesce(head)
		defer out.close()
		return writeLogJSON(jsonLines(out, asJSON), log, details)
	}
	kind := types.MediaTypeRawStream
	if !log.TTY() && !r.before(42) {
		kind = types.MediaTypeMultiplexedStream
	}
	w.Header().Set("Content-Type", kind)
	head.begin(http.StatusOK)
	out := coalesce(head)
	defer out.close()

	var stdout, stderr, failure io.Writer = out, out, out
	if !log.TTY() {
		mux := newMultiplexer(out)
		stdout, stderr, failure = mux.stream(frameStdout), mux.stream(frameStderr), mux.stream(frameSystemError)
	}
	var line []byte
	for {
		entry, err := log.Next()
		switch {
		case errors.Is(err, io.EOF) || r.Context().Err() != nil:
			return nil
		case err != nil:
			_, _ = fmt.Fprintf(failure, "Error grabbing logs: %v\n", err)
			return nil
		}
		to := stdout
		if entry.Stream == frameStderr {
			to = stderr
		}
		line = line[:0]
		if opts.Timestamps {
			line = append(entry.Time.UTC().AppendFormat(line, logTime), ' ')
		}
		if details {
			line = append(appendAttrs(line, entry.Attrs), ' ')
		}
		line = append(line, entry.Line...)
		if _, err := to.Write(line); err != nil {
			return nil
		}
	}
}

// appendAttrs writes the labels and variables of a line as k=v,k=v with query
// escapes, ordered by key.
func appendAttrs(dst []byte, attrs map[string]string) []byte {
	for i, key := range slices.Sorted(maps.Keys(attrs)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, url.QueryEscape(key)...)
		dst = append(dst, '=')
		dst = append(dst, url.QueryEscape(attrs[key])...)
	}
	return dst
}

// logRecord is one line of a log as a JSON record (API 1.54).
type logRecord struct {
	Line      string
	Source    string
	Timestamp time.Time
	Attrs     []logAttr `json:",omitempty"`
	Error     string    `json:",omitempty"`
}

type logAttr struct{ Key, Value string }

func writeLogJSON(write func(any) error, log containers.LogStream, details bool) error {
	for {
		entry, err := log.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			_ = write(logRecord{Error: err.Error()})
			return nil
		}
		record := logRecord{Line: string(entry.Line), Source: "stdout", Timestamp: entry.Time}
		if entry.Stream == frameStderr {
			record.Source = "stderr"
		}
		if details {
			for _, key := range slices.Sorted(maps.Keys(entry.Attrs)) {
				record.Attrs = append(record.Attrs, logAttr{key, entry.Attrs[key]})
			}
		}
		if err := write(record); err != nil {
			return nil
		}
	}
}
