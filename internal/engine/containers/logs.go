package containers

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/container"
)

// LogsOptions are a request for a container's log.
type LogsOptions struct {
	Stdout, Stderr bool
	// Follow goes on until the container ends.
	Follow bool
	// Timestamps is the writer's matter: every entry has its time.
	Timestamps   bool
	Since, Until time.Time
	// Tail is the number of lines to begin with; "all" and everything that is
	// not a number is the whole log.
	Tail string
}

// Logs reads the log of a container. ErrNotImplemented when its driver keeps
// none.
func (s *Service) Logs(ctx context.Context, ref string, opts LogsOptions) (LogStream, error) {
	if !opts.Stdout && !opts.Stderr {
		return nil, invalid("You must choose at least one stream")
	}
	o, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	snap, report := o.snapshot(), o.exit
	o.mu.Unlock()
	if snap.state == container.StateRemoving || snap.state == container.StateDead {
		return nil, conflict("can not get logs from container which is dead or marked for removal")
	}
	log, err := s.logOf(snap)
	if err != nil {
		return nil, err
	}
	tail, err := strconv.Atoi(opts.Tail)
	if err != nil || tail < 0 {
		tail = -1
	}
	read := LogRead{Tail: tail, Since: opts.Since, Until: opts.Until, Follow: opts.Follow && snap.state.Alive(), Stop: report.done}
	return newLogStream(s.cfg.Logs.Open(ctx, log, read), snap.saved.Config.Tty, opts.Stdout, opts.Stderr), nil
}

// logOf describes where a container's log lies.
func (s *Service) logOf(snap *snapshot) (container.LogConfig, error) {
	if snap.saved.HostConfig.LogConfig.Type == "none" {
		return container.LogConfig{}, withText(errdefs.ErrNotImplemented, "configured logging driver does not support reading")
	}
	return s.logConfig(snap.id, snap.name, &snap.saved)
}

// logConfig is what the monitor of a container is told about its log.
func (s *Service) logConfig(id, name string, saved *container.Saved) (container.LogConfig, error) {
	log := saved.HostConfig.LogConfig
	path := s.logPath(id, log.Type)
	return container.LogConfigOf(log, container.NewLogInfo(id, name, s.cfg.Host.Hostname(), path, saved), path)
}

// logReader leaves out of a log what is not wanted.
type logReader struct {
	tty            bool
	stdout, stderr bool

	mu      sync.Mutex // guards entries, whose methods may not be called at once
	entries LogEntries
}

func newLogStream(entries LogEntries, tty, stdout, stderr bool) *logReader {
	return &logReader{tty: tty, stdout: stdout, stderr: stderr, entries: entries}
}

func (r *logReader) TTY() bool { return r.tty }

func (r *logReader) Next() (LogEntry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		entry, err := r.entries.Next()
		switch {
		case err != nil:
			return LogEntry{}, err
		case entry.Stream == 2 && !r.stderr, entry.Stream != 2 && !r.stdout:
			continue
		}
		return entry, nil
	}
}

func (r *logReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries.Close()
	return nil
}

// copyLog writes the whole log to an attached client.
func (s *Service) copyLog(ctx context.Context, snap *snapshot, wanted AttachStreams, client Streams) error {
	log, err := s.logOf(snap)
	if err != nil {
		return err
	}
	r := newLogStream(s.cfg.Logs.Open(ctx, log, LogRead{Tail: -1}), snap.saved.Config.Tty, wanted.Stdout, wanted.Stderr)
	defer r.Close()
	for {
		entry, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			s.cfg.Logger.Warn("read log for attached client", "container", snap.id, "error", err)
			return nil
		}
		w := client.Out
		if entry.Stream == 2 && !r.tty {
			w = client.Err
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(entry.Line); err != nil {
			return nil // the client has gone
		}
	}
}
