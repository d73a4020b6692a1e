// Package containerstest has what tests of the containers' use cases need:
// fakes of every port, a clock that tests move, and contract suites that the
// real adapters and the fakes both pass.
//
// Entry point: New makes a service on fakes.
package containerstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/containers"
)

// Kit is a service on fakes.
type Kit struct {
	*containers.Service
	Clock    *Clock
	Store    *Store
	Launcher *Launcher
	Networks *Networks
	Images   *Images
	Volumes  *Volumes
	RunDir   *RunDir
	Events   *Events
	Config   containers.Config
}

// New makes a kit. change may adapt the configuration before the service is
// made.
func New(t *testing.T, change ...func(*containers.Config)) *Kit {
	t.Helper()
	k := &Kit{
		Clock:    NewClock(),
		Store:    NewStore(t.TempDir()),
		Networks: &Networks{open: map[string]bool{}},
		Images:   NewImages(),
		Volumes:  &Volumes{root: t.TempDir()},
		RunDir:   &RunDir{files: map[string][]byte{}},
		Events:   &Events{},
	}
	k.Launcher = NewLauncher(k.Clock, k.RunDir)
	k.boot(t, change...)
	return k
}

// Reboot makes another service on the same fakes, as a daemon that starts
// again, and restores it. The one before is shut down without stopping what
// runs, unless it was killed: then it is only let go.
func (k *Kit) Reboot(t *testing.T, change ...func(*containers.Config)) {
	t.Helper()
	old := k.Service
	k.boot(t, change...)
	if err := old.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := k.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (k *Kit) boot(t *testing.T, change ...func(*containers.Config)) {
	t.Helper()
	ids := 0
	cfg := containers.Config{
		Store: k.Store, Launcher: k.Launcher, Images: k.Images, Networks: k.Networks, Logs: Logs{}, Events: k.Events,
		Host: Host{}, Views: Views{}, Volumes: k.Volumes, RunDir: k.RunDir, Storage: Storage{},
		Seccomp:      func(string, *specs.Spec) (*specs.LinuxSeccomp, error) { return &specs.LinuxSeccomp{}, nil },
		CgroupParent: "/orlop-test",
		Now:          k.Clock.Now, After: k.Clock.After,
		NewID: func() string {
			ids++
			return digest.FromString(fmt.Sprint(t.Name(), ids, k.Clock.Now().UnixNano())).Encoded()
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	k.Config = cfg
	s, err := containers.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k.Service = s
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx, false); err != nil {
			t.Error(err)
		}
	})
}

// Make creates a container of the busybox image and returns its id.
func (k *Kit) Make(t *testing.T, name string, change ...func(*containertypes.CreateRequest)) string {
	t.Helper()
	req := containertypes.CreateRequest{
		Config:     &containertypes.Config{Image: "busybox", Cmd: []string{"sleep", "1h"}},
		HostConfig: &containertypes.HostConfig{},
	}
	for _, c := range change {
		c(&req)
	}
	resp, err := k.Create(t.Context(), containers.CreateOptions{Name: name, Request: req})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return resp.ID
}

// Run makes and starts a container and returns its monitor.
func (k *Kit) Run(t *testing.T, name string, change ...func(*containertypes.CreateRequest)) *Monitor {
	t.Helper()
	id := k.Make(t, name, change...)
	if err := k.Start(t.Context(), id); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	return k.Launcher.Monitor(id)
}

// State inspects a container.
func (k *Kit) State(t *testing.T, ref string) containertypes.State {
	t.Helper()
	resp, err := k.Inspect(t.Context(), ref, false)
	if err != nil {
		t.Fatalf("inspect %s: %v", ref, err)
	}
	return *resp.State
}

// Clock stands still until a test moves it. After's channels fire when the
// time is reached.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers []timer
	added  chan struct{}
}

type timer struct {
	at time.Time
	c  chan time.Time
}

// NewClock starts on a fixed day.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), added: make(chan struct{})}
}

// Now moves by a nanosecond each time, so that moments differ.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(1)
	return c.now
}

// After is time.After.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- c.now
		return ch
	}
	c.timers = append(c.timers, timer{c.now.Add(d), ch})
	close(c.added)
	c.added = make(chan struct{})
	return ch
}

// Move moves the clock and fires what is due.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.timers = slices.DeleteFunc(c.timers, func(t timer) bool {
		if t.at.After(c.now) {
			return false
		}
		t.c <- c.now
		return true
	})
}

// WaitFor blocks until somebody waits for d or longer, at most up to longest.
func (c *Clock) WaitFor(t *testing.T, shortest, longest time.Duration) {
	t.Helper()
	for {
		c.mu.Lock()
		added := c.added
		found := slices.ContainsFunc(c.timers, func(t timer) bool {
			left := t.at.Sub(c.now)
			return left >= shortest && left <= longest
		})
		c.mu.Unlock()
		if found {
			return
		}
		select {
		case <-added:
		case <-t.Context().Done():
			t.Fatalf("nobody waits for %v to %v", shortest, longest)
		}
	}
}

// Events records what is published.
type Events struct {
	mu   sync.Mutex
	list []events.Message
}

// Publish implements containers.Publisher.
func (e *Events) Publish(m events.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, m)
}

// Actions lists the actions of one type so far.
func (e *Events) Actions(typ events.Type) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, m := range e.list {
		if m.Type == typ {
			out = append(out, string(m.Action))
		}
	}
	return out
}

// Last returns the newest event with an action.
func (e *Events) Last(action events.Action) (events.Message, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range slices.Backward(e.list) {
		if m.Action == action {
			return m, true
		}
	}
	return events.Message{}, false
}

// Images knows busybox, and what tests add.
type Images struct {
	mu    sync.Mutex
	known map[string]containers.Image
}

// NewImages has one image.
func NewImages() *Images {
	i := &Images{known: map[string]containers.Image{}}
	i.Add("busybox", func(img *containers.Image) { img.Config.Config.Cmd = []string{"sh"} })
	return i
}

// Add makes an image.
func (i *Images) Add(name string, change func(*containers.Image)) {
	img := containers.Image{ID: digest.FromString("image " + name), Name: name + ":latest", ChainID: digest.FromString("chain " + name)}
	img.Manifest.Digest = digest.FromString("manifest " + name)
	img.Config.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	img.Config.Config.Env = []string{"PATH=/bin", "FROM=image"}
	change(&img)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[name] = img
}

// Resolve implements containers.Images.
func (i *Images) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (containers.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	img, ok := i.known[ref]
	if !ok {
		return img, errdefs.ErrNotFound.WithMessage("No such image: " + ref + ":latest")
	}
	return img, nil
}

// Networks gives every container an address and remembers who is open.
type Networks struct {
	mu   sync.Mutex
	open map[string]bool
	// OpenError is returned by Open; CloseGate, when set, blocks Close.
	OpenError error
	CloseGate chan struct{}
	Restored  []containers.LiveSandbox
	// Opened are the requests of Open, in their order.
	Opened []containers.SandboxRequest
}

// Check implements containers.Networks.
func (n *Networks) Check(context.Context, containers.SandboxRequest) error { return nil }

// Open implements containers.Networks.
func (n *Networks) Open(_ context.Context, req containers.SandboxRequest) (*containers.Sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.OpenError != nil {
		return nil, n.OpenError
	}
	if n.open[req.ContainerID] {
		return nil, fmt.Errorf("sandbox of %s is open already", req.ContainerID)
	}
	n.open[req.ContainerID] = true
	n.Opened = append(n.Opened, req)
	return &containers.Sandbox{
		Attachment: network.Attachment{ContainerID: req.ContainerID, Mode: req.Mode},
		Hosts:      []byte("127.0.0.1 localhost\n"), Hostname: []byte(req.Hostname + "\n"), ResolvConf: []byte("nameserver 127.0.0.11\n"),
	}, nil
}

// Started implements containers.Networks.
func (n *Networks) Started(context.Context, string, int) error { return nil }

// Close implements containers.Networks.
func (n *Networks) Close(_ context.Context, id string) error {
	n.mu.Lock()
	gate := n.CloseGate
	n.mu.Unlock()
	if gate != nil {
		<-gate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, id)
	return nil
}

// Open reports how many sandboxes are open.
func (n *Networks) Count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open)
}

// Restore implements containers.Networks.
func (n *Networks) Restore(_ context.Context, live []containers.LiveSandbox) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Restored = live
	n.open = map[string]bool{}
	for _, l := range live {
		n.open[l.Attachment.ContainerID] = true
	}
	return nil
}

// Resolve implements containers.Networks: every network exists.
func (n *Networks) Resolve(_ context.Context, ref string, _ containertypes.NetworkMode, _ []string, _ *networktypes.EndpointSettings) (string, error) {
	return ref, nil
}

// Connect implements containers.Networks.
func (n *Networks) Connect(_ context.Context, req containers.SandboxRequest, ref string, _ *networktypes.EndpointSettings) (network.Change, error) {
	return n.change(req, func(names []string) []string { return append(names, ref) })
}

// HandOver implements containers.Networks.
func (n *Networks) HandOver(_ context.Context, fromID, toID string) (from, to network.Attachment, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open[fromID] || !n.open[toID] {
		return from, to, errdefs.ErrNotFound
	}
	return network.Attachment{ContainerID: fromID}, network.Attachment{ContainerID: toID, Ports: []network.Binding{{Proto: "tcp", HostPort: 8080}}}, nil
}

// Disconnect implements containers.Networks.
func (n *Networks) Disconnect(_ context.Context, req containers.SandboxRequest, ref string) (network.Change, error) {
	return n.change(req, func(names []string) []string {
		return slices.DeleteFunc(names, func(name string) bool { return name == ref })
	})
}

func (n *Networks) change(req containers.SandboxRequest, edit func([]string) []string) (network.Change, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open[req.ContainerID] {
		return network.Change{}, errdefs.ErrNotFound
	}
	att := network.Attachment{ContainerID: req.ContainerID, Mode: req.Mode}
	for _, name := range edit(slices.Sorted(maps.Keys(req.Endpoints))) {
		att.Endpoints = append(att.Endpoints, network.Endpoint{NetworkName: name})
	}
	if req.Commit != nil {
		if err := req.Commit(att); err != nil {
			return network.Change{}, err
		}
	}
	return network.Change{Attachment: att}, nil
}

// Rename implements containers.Networks.
func (n *Networks) Rename(_ context.Context, req containers.SandboxRequest) (network.Attachment, error) {
	att := network.Attachment{ContainerID: req.ContainerID, Mode: req.Mode, Name: req.Name}
	if req.Commit != nil {
		return att, req.Commit(att)
	}
	return att, nil
}

// Settings implements containers.Networks.
func (n *Networks) Settings(id string) *containertypes.NetworkSettings {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open[id] {
		return nil
	}
	return &containertypes.NetworkSettings{Ports: networktypes.PortMap{}, Networks: map[string]*networktypes.EndpointSettings{"bridge": {NetworkID: "net-1"}}}
}

// Logs have three lines.
type Logs struct{}

// Open implements containers.Logs.
func (Logs) Open(_ context.Context, _ container.LogConfig, opts containers.LogRead) containers.LogEntries {
	next, stop := iter.Pull(func(yield func(containers.LogEntry) bool) {
		if !yield(containers.LogEntry{Stream: 1, Line: []byte("out\n")}) || !yield(containers.LogEntry{Stream: 2, Line: []byte("err\n")}) {
			return
		}
		if opts.Follow {
			<-opts.Stop
			yield(containers.LogEntry{Stream: 1, Line: []byte("last\n")})
		}
	})
	return entries{next, stop}
}

type entries struct {
	next func() (containers.LogEntry, bool)
	stop func()
}

func (e entries) Next() (containers.LogEntry, error) {
	one, ok := e.next()
	if !ok {
		return one, io.EOF
	}
	return one, nil
}

func (e entries) Close() { e.stop() }

// Host is a machine with every controller of cgroup v1.
type Host struct{}

// Facts implements containers.Host.
func (Host) Facts() container.HostFacts { return Facts() }

// Facts of a machine that has everything.
func Facts() container.HostFacts {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
		"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_MKNOD",
		"CAP_AUDIT_WRITE", "CAP_SETFCAP",
	}
	return container.HostFacts{
		CgroupVersion: 1, MemoryLimit: true, SwapLimit: true, MemoryReservation: true, MemorySwappiness: true, OomKillDisable: true,
		CPUShares: true, CPUCfs: true, Cpuset: true, PidsLimit: true, BlkioWeight: true, BlkioWeightDevice: true, BlkioReadBps: true,
		BlkioWriteBps: true, BlkioReadIOps: true, BlkioWriteIOps: true, Cpus: "0-3", Mems: "0", NCPU: 4, Seccomp: true,
		CgroupNamespaces: true, RecursiveReadOnly: true, PingGroupRange: true, UnprivilegedPortStart: true,
		Capabilities: caps, KnownCapabilities: append(slices.Clone(caps), "CAP_SYS_RESOURCE"),
	}
}

// Hostname implements containers.Host.
func (Host) Hostname() string { return "machine" }

// BootID implements containers.Host.
func (Host) BootID() string { return "boot-1" }

// Device implements containers.Host.
func (Host) Device(path string) (specs.LinuxDevice, error) {
	if !strings.HasPrefix(path, "/dev/") {
		return specs.LinuxDevice{}, errdefs.ErrInvalidArgument.WithMessage("not a device node")
	}
	return specs.LinuxDevice{Path: path, Type: "c", Major: 10, Minor: 200}, nil
}

// Devices implements containers.Host.
func (h Host) Devices(dir string) ([]specs.LinuxDevice, error) {
	d, err := h.Device(filepath.Join(dir, "one"))
	return []specs.LinuxDevice{d}, err
}

// Weighs implements containers.Host.
func (Host) Weighs(string) bool { return true }

// MountOf implements containers.Host.
func (Host) MountOf(string) (string, string, error) { return "/", "shared", nil }

// Processes implements containers.Host.
func (Host) Processes(pid int) ([]int, error) { return []int{pid}, nil }

// PS implements containers.Host.
func (Host) PS(context.Context, []string) ([]byte, error) {
	return []byte("UID PID CMD\nroot 1 init\nroot 4242 sleep 1h\n"), nil
}

// Stats implements containers.Host.
func (Host) Stats(context.Context, int) (*containertypes.StatsResponse, error) {
	return &containertypes.StatsResponse{}, nil
}

// Views shows the topmost layer, or the writable one.
type Views struct{}

// View implements containers.Views.
func (Views) View(_ context.Context, rootfs container.Rootfs, how containers.ViewMode, fn func(dir string) error) error {
	if how != containers.ViewWritable || rootfs.Upper == "" {
		return fn(rootfs.Lower[0])
	}
	if err := os.MkdirAll(rootfs.Upper, 0o755); err != nil {
		return err
	}
	return fn(rootfs.Upper)
}

// Volumes are folders.
type Volumes struct {
	root string
	mu   sync.Mutex
	n    int
}

// Ensure implements containers.Volumes.
func (v *Volumes) Ensure(_ context.Context, name string, _ map[string]string) (containers.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := containers.Volume{Name: name, Anonymous: name == ""}
	if name == "" {
		v.n++
		vol.Name = fmt.Sprintf("anonymous%d", v.n)
	}
	vol.Path = filepath.Join(v.root, vol.Name)
	err := os.Mkdir(vol.Path, 0o755)
	vol.Created = err == nil
	if os.IsExist(err) {
		err = nil
	}
	return vol, err
}

// Remove implements containers.Volumes.
func (v *Volumes) Remove(_ context.Context, name string) error {
	return os.RemoveAll(filepath.Join(v.root, name))
}

// List names the volumes.
func (v *Volumes) List(t *testing.T) []string {
	entries, err := os.ReadDir(v.root)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// RunDir keeps run files in memory.
type RunDir struct {
	mu    sync.Mutex
	files map[string][]byte
}

// Write implements containers.RunDir.
func (r *RunDir) Write(id, name string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[id+"/"+name] = slices.Clone(data)
	return nil
}

// Read implements containers.RunDir.
func (r *RunDir) Read(id, name string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.files[id+"/"+name]
	if !ok {
		return nil, os.ErrNotExist
	}
	return data, nil
}

// Drop forgets the files of a container.
func (r *RunDir) Drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.files {
		if strings.HasPrefix(name, id+"/") {
			delete(r.files, name)
		}
	}
}

// Shm implements containers.RunDir.
func (r *RunDir) Shm(id string, _ int64) (string, error) { return "/run/test/" + id + "/shm", nil }

// Pin implements containers.RunDir.
func (r *RunDir) Pin(id string, n int, _ *os.File) (string, func() error, error) {
	return fmt.Sprintf("/run/test/pins/%s-%d", id, n), func() error { return nil }, nil
}

// DropShm implements containers.RunDir.
func (r *RunDir) DropShm(string) error { return nil }

// Storage describes nothing.
type Storage struct{}

// Driver implements containers.Storage.
func (Storage) Driver() string { return "overlay2" }

// Describe implements containers.Storage.
func (Storage) Describe(container.Rootfs) (*storage.DriverData, *storage.Storage) { return nil, nil }

// Store keeps records in memory and folders below a root.
type Store struct {
	root string

	mu      sync.Mutex
	records map[string]container.Record
	images  map[string]container.ImageUse
	commits int
	// DeleteError is returned by Delete.
	DeleteError error
}

// NewStore makes an empty store.
func NewStore(root string) *Store {
	return &Store{root: root, records: map[string]container.Record{}, images: map[string]container.ImageUse{}}
}

// Commits counts transactions that wrote.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Saved returns the stored state of a container.
func (s *Store) Saved(t *testing.T, id string) container.Saved {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	saved, err := container.ParseSaved(s.records[id])
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

// Edit changes a stored state behind the service's back.
func (s *Store) Edit(t *testing.T, id string, change func(*container.Saved)) {
	t.Helper()
	saved := s.Saved(t, id)
	change(&saved)
	raw, err := json.Marshal(saved)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[id]
	rec.State = raw
	s.records[id] = rec
}

func (s *Store) owner(name, except string) string {
	for id, rec := range s.records {
		if rec.Name == name && id != except {
			return id
		}
	}
	return ""
}

// Create implements containers.Store.
func (s *Store) Create(_ context.Context, rec container.Record, image container.ImageUse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.owner(rec.Name, ""); id != "" {
		return container.NameTaken{Name: rec.Name, ID: id}
	}
	s.commits++
	s.records[rec.ID], s.images[rec.ID] = rec, image
	return os.MkdirAll(s.Dir(rec.ID), 0o700)
}

// Save implements containers.Store.
func (s *Store) Save(_ context.Context, rec container.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.records[rec.ID]
	if !ok {
		return fmt.Errorf("save container %s: %w", rec.ID, errdefs.ErrNotFound)
	}
	s.commits++
	old.State, old.Schema = rec.State, rec.Schema
	s.records[rec.ID] = old
	return nil
}

// Rename implements containers.Store.
func (s *Store) Rename(_ context.Context, id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.owner(name, id); other != "" {
		return container.NameTaken{Name: name, ID: other}
	}
	rec, ok := s.records[id]
	if !ok {
		return errdefs.ErrNotFound
	}
	rec.Name = name
	s.records[id] = rec
	s.commits++
	return nil
}

// Delete implements containers.Store.
func (s *Store) Delete(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.DeleteError != nil {
		return s.DeleteError
	}
	if _, ok := s.records[id]; ok {
		s.commits++
	}
	delete(s.records, id)
	delete(s.images, id)
	return os.RemoveAll(s.Dir(id))
}

// Load implements containers.Store.
func (s *Store) Load(context.Context) ([]container.Record, []error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []container.Record
	for _, rec := range s.records {
		out = append(out, rec)
	}
	return out, nil, nil
}

// Rootfs implements containers.Store.
func (s *Store) Rootfs(_ context.Context, id string) (container.Rootfs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.records[id]; !ok {
		return container.Rootfs{}, errdefs.ErrNotFound
	}
	layer := filepath.Join(s.root, "layer")
	upper := filepath.Join(s.Dir(id), "upper")
	return container.Rootfs{Lower: []string{layer}, Upper: upper, Work: filepath.Join(s.Dir(id), "work")},
		errors.Join(os.MkdirAll(layer, 0o755), os.MkdirAll(upper, 0o755))
}

// Layer is the folder that is every image's only layer.
func (s *Store) Layer() string { return filepath.Join(s.root, "layer") }

// Sizes implements containers.Store.
func (s *Store) Sizes(context.Context, string) (int64, int64, error) { return 10, 100, nil }

// Dir implements containers.Store.
func (s *Store) Dir(id string) string { return filepath.Join(s.root, "containers", id) }
