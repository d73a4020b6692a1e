package main

import (
	"context"
	"iter"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/logfile"
)

// logs is containers.Logs over log files.
type logs struct{ r *logfile.Reader }

func (l logs) Read(ctx context.Context, log container.LogConfig, opts containers.LogRead) iter.Seq2[containers.LogEntry, error] {
	entries := l.r.Read(ctx, logfile.Config{Driver: log.Driver, Path: log.Path, MaxFiles: log.MaxFiles}, logfile.Options{
		Tail: opts.Tail, Since: opts.Since, Until: opts.Until, Follow: opts.Follow, Ended: opts.Stop,
	})
	return func(yield func(containers.LogEntry, error) bool) {
		for e, err := range entries {
			if !yield(containers.LogEntry{Time: e.Time, Stream: e.Stream, Line: e.Line, Attrs: e.Attrs}, err) {
				return
			}
		}
	}
}
