package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

// statsFlags are the flags of stats.
type statsFlags struct {
	all, noStream, noTrunc bool
	format                 string
}

func (a *app) statsCommand() *cobra.Command {
	var o statsFlags
	cmd := &cobra.Command{
		Use:                   "stats [OPTIONS] [CONTAINER...]",
		Short:                 "Display a live stream of container(s) resource usage statistics",
		Annotations:           map[string]string{annAliases: "container stats, stats"},
		ValidArgsFunction:     a.completeContainers(running),
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&o.format, "format", "", formatHelp)
	f.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	return cmd
}

// statsInterval is how often the table is drawn; the daemon sends about one sample a second.
const statsInterval = 500 * time.Millisecond

func (a *app) stats(ctx context.Context, o statsFlags, names []string) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	ping, err := a.serverInfo(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	board := &statsBoard{ctx: ctx, api: api, stream: !o.noStream, os: ping.OSType}
	var ended <-chan error
	if len(names) == 0 {
		if ended, err = board.watch(o.all); err != nil {
			return err
		}
	}
	for _, name := range names {
		board.add(name, name)
	}
	board.awaitFirst()
	if len(names) > 0 {
		if err := board.failure(); err != nil {
			return err
		}
	}
	format := a.statsFormat(o.format, ping.OSType)
	if o.noStream {
		rows := board.rows(!o.noTrunc)
		if len(rows) == 0 {
			return nil
		}
		return render.Table(a.stdout, format, statsHeader(ping.OSType), rows)
	}
	return a.drawStats(ctx, board, format, o, len(names) == 0, ended)
}

// drawStats repaints the table in place until nothing is left to show, the daemon goes or ctx ends.
func (a *app) drawStats(ctx context.Context, board *statsBoard, format render.Format, o statsFlags, watching bool, ended <-chan error) error {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case err := <-ended:
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		rows := board.rows(!o.noTrunc)
		if len(rows) == 0 && !watching {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[J")
			return nil
		}
		var text, frame bytes.Buffer
		if err := render.Table(&text, format, statsHeader(board.os), rows); err != nil {
			return err
		}
		// One write per frame, erasing what is left of longer lines, so that nothing flickers.
		frame.WriteString("\x1b[H")
		for line := range bytes.SplitSeq(text.Bytes(), []byte{'\n'}) {
			frame.Write(line)
			frame.WriteString("\x1b[K\n")
		}
		frame.WriteString("\x1b[J")
		if _, err := a.stdout.Write(frame.Bytes()); err != nil {
			return err
		}
	}
}

func (a *app) statsFormat(source, os string) render.Format {
	if source == "" {
		source = a.configFile().StatsFormat
	}
	if source != "" && source != string(render.FormatTable) {
		return render.Format(source)
	}
	if os == "windows" {
		return "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.NetIO}}\t{{.BlockIO}}"
	}
	return "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
}

func statsHeader(os string) render.Header {
	memory := "MEM USAGE / LIMIT"
	if os == "windows" {
		memory = "PRIV WORKING SET"
	}
	return render.Header{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": memory,
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	}
}

// statsBoard collects the samples of a changing set of containers.
type statsBoard struct {
	ctx    context.Context
	api    *client.Client
	stream bool
	os     string

	first sync.WaitGroup // one for each container until it has its first sample or none will come

	mu   sync.Mutex // guards list and the fields of its members
	list []*statsEntry
}

// statsEntry is a container's latest sample.
type statsEntry struct {
	ref    string // as asked for: a name, or an id that the board found itself
	shown  string // in the column of the reference
	sample container.StatsResponse
	err    error // why there is no current sample
}

// watch adds every container there is, and from then on follows the daemon's events. It listens before it lists, so
// that no start falls in between.
func (b *statsBoard) watch(all bool) (<-chan error, error) {
	stream := b.api.Events(b.ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", string(events.ContainerEventType))})
	list, err := b.api.ContainerList(b.ctx, client.ContainerListOptions{All: all})
	if err != nil {
		return nil, err
	}
	for _, c := range list.Items {
		b.add(c.ID, render.ShortID(c.ID))
	}
	ended := make(chan error, 1)
	go func() {
		for {
			select {
			case e := <-stream.Messages:
				switch {
				case e.Action == events.ActionStart, e.Action == events.ActionCreate && all:
					b.add(e.Actor.ID, render.ShortID(e.Actor.ID))
				case e.Action == events.ActionDestroy, e.Action == events.ActionDie && !all:
					b.remove(e.Actor.ID)
				}
			case err := <-stream.Err:
				ended <- err
				return
			}
		}
	}()
	return ended, nil
}

func (b *statsBoard) add(ref, shown string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(b.list, func(e *statsEntry) bool { return e.ref == ref }) {
		return
	}
	e := &statsEntry{ref: ref, shown: shown}
	b.list = append(b.list, e)
	b.first.Add(1)
	go b.collect(e, sync.OnceFunc(b.first.Done))
}

func (b *statsBoard) remove(ref string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.DeleteFunc(b.list, func(e *statsEntry) bool { return e.ref == ref })
}

// statsPatience is how long a container may stay silent before its figures are no longer shown.
const statsPatience = 2 * time.Second

// collect reads a container's samples until the daemon sends no more, and calls ready when there is something to show.
func (b *statsBoard) collect(e *statsEntry, ready func()) {
	defer ready()
	set := func(sample *container.StatsResponse, err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		e.err = err
		if sample != nil {
			e.sample = *sample
		}
	}
	answer, err := b.api.ContainerStats(b.ctx, e.ref, client.ContainerStatsOptions{Stream: b.stream, IncludePreviousSample: !b.stream})
	if err != nil {
		set(nil, err)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	samples, failed := make(chan container.StatsResponse), make(chan error, 1)
	go func() {
		d := json.NewDecoder(answer.Body)
		for {
			var s container.StatsResponse
			if err := d.Decode(&s); err != nil {
				failed <- err
				return
			}
			select {
			case samples <- s:
			case <-b.ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case s := <-samples:
			if s.OSType == "" {
				s.OSType = b.os
			}
			set(&s, nil)
			ready()
			if !b.stream {
				return
			}
		case err := <-failed:
			set(nil, err)
			return
		case <-time.After(statsPatience):
			set(nil, errors.New("timeout waiting for stats"))
			ready()
			if !b.stream {
				return
			}
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *statsBoard) awaitFirst() { b.first.Wait() }

// failure joins the errors of the containers that have no sample.
func (b *statsBoard) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, e := range b.list {
		if e.err != nil {
			errs = append(errs, e.err)
		}
	}
	return errors.Join(errs...)
}

func (b *statsBoard) rows(trunc bool) []*statsRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]*statsRow, 0, len(b.list))
	for _, e := range b.list {
		rows = append(rows, &statsRow{ref: e.shown, s: e.sample, stale: e.err != nil, trunc: trunc, windows: b.os == "windows"})
	}
	return rows
}

// statsRow is a container's sample; its methods are the columns.
type statsRow struct {
	ref                   string
	s                     container.StatsResponse
	stale, trunc, windows bool
}

// MarshalJSON is the row of --format json.
func (r *statsRow) MarshalJSON() ([]byte, error) { return render.Columns(r) }

const noFigure = "--"

func (r *statsRow) Container() string { return r.ref }

func (r *statsRow) Name() string {
	if name := strings.TrimPrefix(r.s.Name, "/"); name != "" {
		return name
	}
	return noFigure
}

func (r *statsRow) ID() string {
	if r.trunc {
		return render.ShortID(r.s.ID)
	}
	return r.s.ID
}

func (r *statsRow) CPUPerc() string {
	if r.stale {
		return noFigure
	}
	if r.windows {
		return percent(cpuWindows(&r.s))
	}
	return percent(cpuUnix(&r.s))
}

func (r *statsRow) MemUsage() string {
	switch {
	case r.stale:
		return "-- / --"
	case r.windows:
		return units.BytesSize(float64(r.s.MemoryStats.PrivateWorkingSet))
	}
	return units.BytesSize(memoryUsed(&r.s.MemoryStats)) + " / " + units.BytesSize(float64(r.s.MemoryStats.Limit))
}

func (r *statsRow) MemPerc() string {
	if r.stale || r.windows {
		return noFigure
	}
	if r.s.MemoryStats.Limit == 0 {
		return percent(0)
	}
	return percent(memoryUsed(&r.s.MemoryStats) / float64(r.s.MemoryStats.Limit) * 100)
}

func (r *statsRow) NetIO() string {
	if r.stale {
		return noFigure
	}
	var in, out float64
	for _, n := range r.s.Networks {
		in, out = in+float64(n.RxBytes), out+float64(n.TxBytes)
	}
	return pair(in, out)
}

func (r *statsRow) BlockIO() string {
	if r.stale {
		return noFigure
	}
	if r.windows {
		return pair(float64(r.s.StorageStats.ReadSizeBytes), float64(r.s.StorageStats.WriteSizeBytes))
	}
	var read, written uint64
	for _, e := range r.s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case strings.HasPrefix(strings.ToLower(e.Op), "r"):
			read += e.Value
		case strings.HasPrefix(strings.ToLower(e.Op), "w"):
			written += e.Value
		}
	}
	return pair(float64(read), float64(written))
}

func (r *statsRow) PIDs() string {
	if r.stale || r.windows {
		return noFigure
	}
	return strconv.FormatUint(r.s.PidsStats.Current, 10)
}

func pair(in, out float64) string {
	return units.HumanSizeWithPrecision(in, 3) + " / " + units.HumanSizeWithPrecision(out, 3)
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }

// cpuUnix is the container's part of all processors' time since the sample before, 100 % being one processor.
func cpuUnix(s *container.StatsResponse) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	whole := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if whole <= 0 || used <= 0 {
		return 0
	}
	return used / whole * cpus * 100
}

// cpuWindows counts in intervals of 100 ns.
func cpuWindows(s *container.StatsResponse) float64 {
	intervals := float64(s.Read.Sub(s.PreRead).Nanoseconds()/100) * float64(s.NumProcs)
	if intervals <= 0 {
		return 0
	}
	return float64(s.CPUStats.CPUUsage.TotalUsage-s.PreCPUStats.CPUUsage.TotalUsage) / intervals * 100
}

// memoryUsed leaves out page cache the kernel can drop at once (cgroup v1 and v2 name it differently).
func memoryUsed(m *container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := m.Stats[key]; ok && cache < m.Usage {
			return float64(m.Usage - cache)
		}
	}
	return float64(m.Usage)
}
