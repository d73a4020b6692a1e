package main

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// logLevel is what --log-level and --debug choose.
func (c *Config) logLevel() slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	switch strings.ToLower(c.LogLevel) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error", "fatal", "panic":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// newLogger writes the daemon's own log; level can be changed while it runs.
func newLogger(w io.Writer, c *Config, level *slog.LevelVar) *slog.Logger {
	level.Set(c.logLevel())
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// quietLibraries sends what containerd's libraries log to the daemon's own log.
// They warn of what is none of the user's business (a file system without
// fs-verity), so what is less than an error is for debugging.
func quietLibraries(to *slog.Logger) {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.DebugLevel)
	l.AddHook(libraryLog{to})
	log.L = logrus.NewEntry(l)
}

type libraryLog struct{ to *slog.Logger }

// Levels implements logrus.Hook.
func (libraryLog) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h libraryLog) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.ErrorLevel {
		level = slog.LevelError
	}
	args := make([]any, 0, 2*len(e.Data))
	for key, value := range e.Data {
		args = append(args, key, value)
	}
	h.to.Log(context.Background(), level, e.Message, args...)
	return nil
}
