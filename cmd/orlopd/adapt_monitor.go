package main

import (
	"context"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/monitor/daemonside"
)

// launcher is containers.Launcher over monitors.
type launcher struct{ *daemonside.Launcher }

func (l launcher) Start(ctx context.Context, launch container.Launch, opts containers.StartOptions) (containers.Monitor, []containers.Stream, error) {
	files := daemonside.Files{NetNS: opts.NetNS}
	var streams []containers.Stream
	for _, want := range opts.Attach {
		s, file, err := daemonside.NewAttach(daemonside.AttachOptions(want))
		if err != nil {
			for i := range streams {
				_ = streams[i].Close()
				_ = files.Attach[i].Close()
			}
			return nil, nil, err
		}
		streams = append(streams, stream{s})
		files.Attach = append(files.Attach, file)
	}
	m, err := l.Launcher.Start(ctx, launch, files)
	if err != nil {
		for _, s := range streams {
			_ = s.Close()
		}
		return nil, nil, err
	}
	return monitor{m}, streams, nil
}

func (l launcher) Adopt(ctx context.Context, id string) (containers.Monitor, error) {
	m, err := l.Launcher.Adopt(ctx, id)
	if err != nil {
		return nil, err
	}
	return monitor{m}, nil
}

// monitor is containers.Monitor.
type monitor struct{ *daemonside.Monitor }

func (m monitor) Attach(ctx context.Context, want containers.AttachStreams) (containers.Stream, error) {
	s, err := m.Monitor.Attach(ctx, daemonside.AttachOptions(want))
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

func (m monitor) Update(ctx context.Context, resources *specs.LinuxResources) error {
	return m.Monitor.Update(ctx, resources)
}

func (m monitor) Exec(ctx context.Context, req containers.ExecRequest) (containers.Exec, error) {
	x, err := m.Monitor.Exec(ctx, daemonside.ExecRequest{
		ID: req.ID, Process: req.Process, Detach: req.Detach, Note: req.Note,
		Stdin: req.Streams.Stdin, Stdout: req.Streams.Stdout, Stderr: req.Streams.Stderr,
	})
	if err != nil {
		return nil, err
	}
	return execution{x}, nil
}

func (m monitor) Execs(ctx context.Context) ([]containers.Exec, error) {
	list, err := m.Monitor.Execs(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]containers.Exec, len(list))
	for i, x := range list {
		out[i] = execution{x}
	}
	return out, nil
}

// execution is containers.Exec.
type execution struct{ *daemonside.Exec }

func (x execution) Stream() containers.Stream {
	s := x.Exec.Stream()
	if s == nil {
		return nil
	}
	return stream{s}
}

// stream is containers.Stream.
type stream struct{ s *daemonside.Stream }

func (s stream) Stdin() io.WriteCloser                     { return s.s.Stdin }
func (s stream) Next() (kind byte, data []byte, err error) { return s.s.Next() }
func (s stream) Close() error                              { return s.s.Close() }
