package main

import (
	"io"
	"log/slog"
	"strings"
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
