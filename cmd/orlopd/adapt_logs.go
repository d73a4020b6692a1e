package main

import (
	"context"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/logfile"
)

// logs is containers.Logs over log files.
type logs struct{ r *logfile.Reader }

func (l logs) Open(ctx context.Context, log container.LogConfig, opts containers.LogRead) containers.LogEntries {
	return logEntries{l.r.Open(ctx, logfile.Config{Driver: log.Driver, Path: log.Path, MaxFiles: log.MaxFiles}, logfile.Options{
		Tail: opts.Tail, Since: opts.Since, Until: opts.Until, Follow: opts.Follow, Ended: opts.Stop,
	})}
}

type logEntries struct{ *logfile.Log }

func (l logEntries) Next() (containers.LogEntry, error) {
	e, err := l.Log.Next()
	return containers.LogEntry{Time: e.Time, Stream: e.Stream, Line: e.Line, Attrs: e.Attrs}, err
}
