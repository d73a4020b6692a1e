package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/containers"
	"github.com/orlop/orlop/internal/engine/images"
	"github.com/orlop/orlop/internal/engine/networks"
	"github.com/orlop/orlop/internal/engine/system"
	"github.com/orlop/orlop/internal/httpapi"
)

// The fakes know one object called "web" (or "busybox") and refuse every other
// name as Docker does. They record what they were asked in the fields that the
// tests look at; no test uses one concurrently with itself.

func unknown(kind, ref string) error {
	return errdefs.ErrNotFound.WithMessage("No such " + kind + ": " + ref)
}

func (*fakeContainers) ConnectNetwork(context.Context, string, string, *networktypes.EndpointSettings) error {
	return nil
}
func (f *fakeContainers) HandOverPorts(_ context.Context, from, to string) error {
	return cmp.Or(f.known(from), f.known(to))
}
func (*fakeContainers) DisconnectNetwork(context.Context, string, string, bool) error { return nil }

type fakeContainers struct {
	dropped uint64
	created containers.CreateOptions
	stopped containers.StopOptions
	listed  containers.ListOptions
	removed containers.RemoveOptions
	logged  containers.LogsOptions
	updated containertypes.UpdateConfig
	waited  containertypes.WaitCondition
	execed  containertypes.ExecCreateRequest

	inspect  containertypes.InspectResponse
	list     []containertypes.Summary
	log      []containers.LogEntry
	logErr   error
	tty      bool
	exit     chan containertypes.WaitResponse
	conduct  func(context.Context, containers.Streams) error // what attach and exec do with their streams
	attached containers.AttachOptions
	started  containers.ExecStartOptions
}

func (f *fakeContainers) known(ref string) error {
	if ref != "web" {
		return unknown("container", ref)
	}
	return nil
}

func (f *fakeContainers) Create(_ context.Context, opts containers.CreateOptions) (containertypes.CreateResponse, error) {
	f.created = opts
	if opts.Name == "taken" {
		return containertypes.CreateResponse{}, errdefs.ErrConflict.WithMessage(`Conflict. The container name "/taken" is already in use`)
	}
	return containertypes.CreateResponse{ID: "4c01db0b339c"}, nil
}
func (f *fakeContainers) Start(_ context.Context, ref string) error {
	if ref == "running" {
		return errdefs.ErrNotModified
	}
	return f.known(ref)
}
func (f *fakeContainers) Stop(_ context.Context, ref string, opts containers.StopOptions) error {
	f.stopped = opts
	return f.known(ref)
}
func (f *fakeContainers) Restart(_ context.Context, ref string, opts containers.StopOptions) error {
	f.stopped = opts
	return f.known(ref)
}
func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	if signal == "NOPE" {
		return errdefs.ErrInvalidArgument.WithMessage("invalid signal: NOPE")
	}
	return f.known(ref)
}
func (f *fakeContainers) Pause(_ context.Context, ref string) error {
	if ref == "web" {
		return errdefs.ErrConflict.WithMessage("Container web is already paused")
	}
	return f.known(ref)
}
func (f *fakeContainers) Unpause(_ context.Context, ref string) error           { return f.known(ref) }
func (f *fakeContainers) Rename(_ context.Context, ref, name string) error      { return f.known(ref) }
func (f *fakeContainers) Resize(_ context.Context, ref string, h, w uint) error { return f.known(ref) }
func (f *fakeContainers) Wait(_ context.Context, ref string, c containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
	f.waited = c
	return f.exit, f.known(ref)
}
func (f *fakeContainers) Inspect(_ context.Context, ref string, size bool) (containertypes.InspectResponse, error) {
	return f.inspect, f.known(ref)
}
func (f *fakeContainers) LogDropped(string) uint64 { return f.dropped }
func (f *fakeContainers) List(_ context.Context, opts containers.ListOptions) ([]containertypes.Summary, error) {
	f.listed = opts
	return f.list, nil
}
func (f *fakeContainers) Remove(_ context.Context, ref string, opts containers.RemoveOptions) error {
	f.removed = opts
	if ref == "panic" {
		panic("remove blew up")
	}
	if ref == "broken" {
		return io.ErrUnexpectedEOF
	}
	return f.known(ref)
}
func (f *fakeContainers) Top(_ context.Context, ref, args string) (containertypes.TopResponse, error) {
	return containertypes.TopResponse{Titles: []string{"PID"}, Processes: [][]string{{args}}}, f.known(ref)
}
func (f *fakeContainers) Prune(context.Context, map[string][]string) (containertypes.PruneReport, error) {
	return containertypes.PruneReport{}, nil
}
func (f *fakeContainers) Update(_ context.Context, ref string, req containertypes.UpdateConfig) (containertypes.UpdateResponse, error) {
	f.updated = req
	return containertypes.UpdateResponse{}, f.known(ref)
}
func (f *fakeContainers) Changes(_ context.Context, ref string) ([]containertypes.FilesystemChange, error) {
	return []containertypes.FilesystemChange{{Kind: 1, Path: "/new"}}, f.known(ref)
}
func (f *fakeContainers) Export(_ context.Context, ref string, w io.Writer) error {
	if err := f.known(ref); err != nil {
		return err
	}
	_, err := io.WriteString(w, "tar")
	return err
}
func (f *fakeContainers) Stats(_ context.Context, ref string, opts containers.StatsOptions) (iter.Seq2[*containertypes.StatsResponse, error], error) {
	return func(yield func(*containertypes.StatsResponse, error) bool) {
		for range 2 {
			if !yield(&containertypes.StatsResponse{ID: ref}, nil) || !opts.Stream {
				return
			}
		}
	}, f.known(ref)
}

type fakeLog struct {
	tty     bool
	entries []containers.LogEntry
	err     error
}

func (l *fakeLog) TTY() bool { return l.tty }
func (l *fakeLog) Next() (containers.LogEntry, error) {
	if len(l.entries) == 0 {
		if l.err != nil {
			return containers.LogEntry{}, l.err
		}
		return containers.LogEntry{}, io.EOF
	}
	e := l.entries[0]
	l.entries = l.entries[1:]
	return e, nil
}
func (l *fakeLog) Close() error { return nil }

func (f *fakeContainers) Logs(_ context.Context, ref string, opts containers.LogsOptions) (containers.LogStream, error) {
	f.logged = opts
	return &fakeLog{f.tty, f.log, f.logErr}, f.known(ref)
}
func (f *fakeContainers) Attach(ctx context.Context, ref string, opts containers.AttachOptions) error {
	f.attached = opts
	if err := f.known(ref); err != nil {
		return err
	}
	s, err := opts.Streams(f.tty)
	if err != nil {
		return err
	}
	return f.conduct(ctx, s)
}
func (f *fakeContainers) ExecCreate(_ context.Context, ref string, req containertypes.ExecCreateRequest) (string, error) {
	f.execed = req
	return "e1", f.known(ref)
}
func (f *fakeContainers) ExecStart(ctx context.Context, id string, opts containers.ExecStartOptions) error {
	f.started = opts
	if id != "e1" {
		return unknown("exec instance", id)
	}
	if opts.Detach {
		return nil
	}
	s, err := opts.Streams(opts.TTY)
	if err != nil {
		return err
	}
	return f.conduct(ctx, s)
}
func (f *fakeContainers) ExecInspect(_ context.Context, id string) (containertypes.ExecInspectResponse, error) {
	if id != "e1" {
		return containertypes.ExecInspectResponse{}, unknown("exec instance", id)
	}
	return containertypes.ExecInspectResponse{ID: id}, nil
}
func (f *fakeContainers) ExecResize(context.Context, string, uint, uint) error { return nil }

type fakeImages struct {
	pulled   images.PullOptions
	pushed   images.PushOptions
	imported images.ImportOptions
	loaded   images.LoadOptions
	listed   images.ListOptions
	removed  images.RemoveOptions
	body     string
	messages []jsonstream.Message
	err      error
	list     []imagetypes.Summary
	inspect  imagetypes.InspectResponse
}

func (f *fakeImages) tell(progress func(jsonstream.Message) error) error {
	for _, m := range f.messages {
		if err := progress(m); err != nil {
			return err
		}
	}
	return f.err
}
func (f *fakeImages) Pull(_ context.Context, opts images.PullOptions) error {
	f.pulled = opts
	return f.tell(opts.Progress)
}
func (f *fakeImages) Push(_ context.Context, opts images.PushOptions) error {
	f.pushed = opts
	return f.tell(opts.Progress)
}
func (f *fakeImages) Load(_ context.Context, r io.Reader, opts images.LoadOptions) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.body, f.loaded = string(b), opts
	return f.tell(opts.Progress)
}
func (f *fakeImages) Save(_ context.Context, refs []string, w io.Writer, _ images.SaveOptions) error {
	for _, ref := range refs {
		if ref != "busybox" && ref != "a/b:c" {
			return unknown("image", ref)
		}
	}
	_, err := io.WriteString(w, "tar of "+refs[0])
	return err
}
func (f *fakeImages) Import(_ context.Context, opts images.ImportOptions) (digest.Digest, error) {
	b, err := io.ReadAll(opts.Source)
	f.body, f.imported = string(b), opts
	return "", err
}
func (f *fakeImages) Tag(_ context.Context, source, repo, tag string) error {
	if source != "busybox" {
		return unknown("image", source)
	}
	return nil
}
func (f *fakeImages) List(_ context.Context, opts images.ListOptions) ([]imagetypes.Summary, error) {
	f.listed = opts
	return f.list, nil
}
func (f *fakeImages) Inspect(_ context.Context, ref string, _ images.InspectOptions) (imagetypes.InspectResponse, error) {
	if ref != "busybox" && ref != "a/b:c" {
		return imagetypes.InspectResponse{}, unknown("image", ref)
	}
	return f.inspect, nil
}
func (f *fakeImages) Remove(_ context.Context, ref string, opts images.RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	f.removed = opts
	if ref != "busybox" {
		return nil, unknown("image", ref)
	}
	return []imagetypes.DeleteResponse{{Untagged: ref}}, nil
}
func (f *fakeImages) History(_ context.Context, ref string, _ *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	return nil, nil
}
func (f *fakeImages) Prune(context.Context, image.Filters) (imagetypes.PruneReport, error) {
	return imagetypes.PruneReport{}, nil
}

type fakeNetworks struct{}

func (fakeNetworks) List(context.Context, networks.ListOptions) ([]networktypes.Summary, error) {
	return []networktypes.Summary{{Network: networktypes.Network{Name: "bridge", ID: "n1", Scope: "local"}}}, nil
}
func (fakeNetworks) Create(_ context.Context, req networktypes.CreateRequest, _ json.RawMessage) (networktypes.CreateResponse, error) {
	if req.EnableIPv4 != nil && !*req.EnableIPv4 {
		return networktypes.CreateResponse{ID: "ipv6only"}, nil
	}
	return networktypes.CreateResponse{ID: "n2"}, nil
}
func (fakeNetworks) Remove(context.Context, string) error { return nil }
func (fakeNetworks) Prune(context.Context, map[string][]string) (networktypes.PruneReport, error) {
	return networktypes.PruneReport{}, nil
}
func (fakeNetworks) Inspect(_ context.Context, ref string) (networktypes.Inspect, error) {
	if ref != "bridge" && ref != "n1" {
		return networktypes.Inspect{}, errdefs.ErrNotFound.WithMessage("network " + ref + " not found")
	}
	return networktypes.Inspect{Network: networktypes.Network{Name: "bridge", ID: "n1", Scope: "local"}}, nil
}

type fakeVolumes struct{}

func (fakeVolumes) List(context.Context, map[string][]string) ([]volumetypes.Volume, error) {
	return []volumetypes.Volume{{Name: "data"}}, nil
}
func (fakeVolumes) Inspect(_ context.Context, name string) (volumetypes.Volume, error) {
	if name != "data" {
		return volumetypes.Volume{}, errdefs.ErrNotFound.WithMessage("get " + name + ": no such volume")
	}
	return volumetypes.Volume{Name: name}, nil
}

type fakeEvents struct{ messages []events.Message }

func (f *fakeEvents) Subscribe(context.Context, time.Time, time.Time, map[string][]string) (iter.Seq2[events.Message, error], error) {
	return func(yield func(events.Message, error) bool) {
		for _, m := range f.messages {
			if !yield(m, nil) {
				return
			}
		}
	}, nil
}

type fakeSystem struct {
	info  systemtypes.Info
	usage systemtypes.DiskUsage
	asked system.DiskUsageOptions
}

func (f *fakeSystem) Info(context.Context) (systemtypes.Info, error) { return f.info, nil }
func (f *fakeSystem) Version(context.Context) (systemtypes.VersionResponse, error) {
	return systemtypes.VersionResponse{Version: "0.1.0", Os: "linux"}, nil
}
func (f *fakeSystem) DiskUsage(_ context.Context, opts system.DiskUsageOptions) (systemtypes.DiskUsage, error) {
	f.asked = opts
	return f.usage, nil
}
func (f *fakeSystem) Auth(_ context.Context, c registry.AuthConfig) (string, error) {
	if c.Password != "right" {
		return "", errdefs.ErrUnauthenticated.WithMessage("incorrect username or password")
	}
	return "token", nil
}

// engine is a server with fakes behind it.
type engine struct {
	*httptest.Server
	containers *fakeContainers
	images     *fakeImages
	events     *fakeEvents
	system     *fakeSystem
}

func newEngine(t *testing.T, change ...func(*httpapi.Config)) *engine {
	t.Helper()
	e := &engine{
		containers: &fakeContainers{exit: make(chan containertypes.WaitResponse, 1)},
		images:     &fakeImages{},
		events:     &fakeEvents{},
		system:     &fakeSystem{},
	}
	cfg := httpapi.Config{
		Containers: e.containers, Images: e.images, Networks: fakeNetworks{}, Volumes: fakeVolumes{}, Events: e.events, System: e.system,
		Product: "Orlop", Version: "0.1.0", BuilderVersion: "2", Now: time.Now,
	}
	for _, f := range change {
		f(&cfg)
	}
	api, err := httpapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Server = httptest.NewServer(api)
	t.Cleanup(e.Server.Close)
	return e
}

func (fakeNetworks) Audit(context.Context) (networks.Audited, error) {
	return networks.Audited{Reach: []network.Reach{{From: "anywhere", To: "container web", Ports: "80/tcp", By: "0.0.0.0:8080", Why: "published"}}, Warnings: []string{}}, nil
}
