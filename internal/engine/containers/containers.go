// Package containers holds the use cases of containers: in which order store,
// networks, monitors and events are asked to do what a verb of the API means.
//
// Every verb has the same three steps. It decides under the container's lock,
// by the lifecycle table of domain/container; it acts without the lock; it
// records the outcome under the lock. An act in progress is a state of its own,
// so whoever comes meanwhile finds a row of the table, not a held lock.
//
// Entry points: New, Restore once, Run; then the verbs, one file each.
//
// Lock order: object.mu (one container) before Service.mu (the index by id and
// name). Neither is held over the kernel, the network or a child; object.mu is
// held over one transaction of the store, so that a record is never older than
// the state it tells. Reads of lists and single containers use the immutable
// snapshot that every change of an object leaves behind, and take neither.
package containers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
)

// Runtime is an OCI runtime that containers may ask for by name.
type Runtime struct {
	// Path of a foreign runtime; "" is our own.
	Path string
	Args []string
}

// Config of a Service. Every field is required unless it says otherwise.
type Config struct {
	Store    Store
	Launcher Launcher
	Images   Images
	Networks Networks
	// NetworkWarnings tell the maker of a container that the host's firewall is
	// in its way; nil for none.
	NetworkWarnings func() []string
	Logs            Logs
	Events          Publisher
	Host            Host
	Views           Views
	Volumes         Volumes
	RunDir          RunDir
	Storage         Storage
	// Seccomp loads a profile: "" is Docker's default.
	Seccomp func(profile string, spec *specs.Spec) (*specs.LinuxSeccomp, error)

	Settings
	// CgroupParent of containers when neither they nor the daemon's
	// configuration name one, e.g. "/orlop-0a1b2c3d".
	CgroupParent string
	// CgroupPrefix names systemd scopes.
	CgroupPrefix string
	// AppArmorProfile is the name of the default profile.
	AppArmorProfile string

	Logger *slog.Logger
	Now    func() time.Time
	// After is time.After, or a test's clock.
	After func(time.Duration) <-chan time.Time
	// NewID draws 64 hexadecimal digits.
	NewID func() string
}

// Settings are what a reload of the daemon's configuration may change.
type Settings struct {
	// Defaults of the daemon for create requests. Their map of ids and root
	// folder are those of the daemon's start.
	Defaults container.Defaults
	// Runtimes by name; the default one is Defaults.Runtime.
	Runtimes map[string]Runtime
	// StopTimeout before a kill, for containers without their own; 0 is 10 s.
	StopTimeout time.Duration
}

// Service is safe for concurrent use.
type Service struct {
	cfg      Config
	settings atomic.Pointer[Settings]
	facts    container.HostFacts

	// leaving is closed when the daemon goes and containers stay: watchers
	// let go. work counts everything that was started for a container.
	leaving   chan struct{}
	leaveOnce sync.Once
	work      sync.WaitGroup
	stopping  atomic.Bool
	pruning   atomic.Bool

	mu    sync.RWMutex
	byID  map[string]*object
	names map[string]string // name → id, also of containers being made
	execs map[string]*execution
	// departed are the last containers that removed themselves, by id: a
	// client that asks for the exit of one it has just started (start, then
	// wait) must not lose to our being fast. The oldest goes first.
	departed      map[string]departure
	departedOrder []string
}

// departure is what may still be asked about a container that is gone.
type departure struct {
	code int
	err  string
	at   time.Time
}

// departedKept and departedMax bound how long, and of how many containers, an
// exit can be asked for after they removed themselves.
const (
	departedKept = time.Minute
	departedMax  = 1024
)

// DefaultStopTimeout is Docker's.
const DefaultStopTimeout = 10 * time.Second

// New checks the configuration and makes a service; it starts nothing.
func New(cfg Config) (*Service, error) {
	for name, missing := range map[string]bool{
		"Store": cfg.Store == nil, "Launcher": cfg.Launcher == nil, "Images": cfg.Images == nil, "Networks": cfg.Networks == nil,
		"Logs": cfg.Logs == nil, "Events": cfg.Events == nil, "Host": cfg.Host == nil, "Views": cfg.Views == nil,
		"Volumes": cfg.Volumes == nil, "RunDir": cfg.RunDir == nil, "Storage": cfg.Storage == nil, "Seccomp": cfg.Seccomp == nil,
		"Now": cfg.Now == nil, "NewID": cfg.NewID == nil,
	} {
		if missing {
			return nil, errors.New("containers: configuration has no " + name)
		}
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.CgroupPrefix == "" {
		cfg.CgroupPrefix = "orlop"
	}
	s := &Service{
		cfg:     cfg,
		facts:   cfg.Host.Facts(),
		leaving: make(chan struct{}),
		byID:    map[string]*object{},
		names:   map[string]string{},
		execs:   map[string]*execution{},

		departed: map[string]departure{},
	}
	s.Reload(cfg.Settings)
	return s, nil
}

// Reload replaces the settings: containers that are made or started from now on
// get the new ones.
func (s *Service) Reload(settings Settings) {
	if settings.StopTimeout == 0 {
		settings.StopTimeout = DefaultStopTimeout
	}
	if len(settings.Defaults.Runtimes) == 0 {
		settings.Defaults.Runtimes = slices.Sorted(maps.Keys(settings.Runtimes))
	}
	s.settings.Store(&settings)
}

// Run forgets execs that ended long ago, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.cfg.After(execKept):
			s.forgetExecs()
		}
	}
}

// spawn runs work that outlives a request; Shutdown waits for it.
func (s *Service) spawn(work func()) { s.work.Go(work) }

// find looks a container up by full id, name, or the beginning of an id that
// only one container has.
func (s *Service) find(ref string) (*object, error) {
	name := strings.TrimPrefix(ref, "/")
	if name == "" {
		return nil, invalid("invalid name or ID supplied: %q", ref)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.byID[name]; o != nil {
		return o, nil
	}
	if o := s.byID[s.names[name]]; o != nil {
		return o, nil
	}
	if !container.LooksLikeID(name) {
		return nil, container.NotFound(ref)
	}
	var found *object
	for id, o := range s.byID {
		if !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, invalid("multiple IDs found with provided prefix: %s", name)
		}
		found = o
	}
	if found == nil {
		return nil, container.NotFound(ref)
	}
	return found, nil
}

// objects lists every container, in no order.
func (s *Service) objects() []*object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.byID))
}

// reserve takes a name for id. ErrConflict with Docker's text.
func (s *Service) reserve(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.names[name]; taken && other != id {
		return container.NameConflict(name, other)
	}
	s.names[name] = id
	return nil
}

// release gives a name back if id has it.
func (s *Service) release(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == id {
		delete(s.names, name)
	}
}

func (s *Service) enter(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[o.id] = o
	s.names[o.name] = o.id
}

func (s *Service) forget(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
	if s.names[name] == id {
		delete(s.names, name)
	}
	for execID, e := range s.execs {
		if e.o.id == id {
			delete(s.execs, execID)
		}
	}
}

// depart remembers how a container that removes itself ended.
func (s *Service) depart(id string, code int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.departed[id]; !there {
		s.departedOrder = append(s.departedOrder, id)
	}
	s.departed[id] = departure{code: code, err: text, at: s.cfg.Now()}
	for len(s.departedOrder) > departedMax {
		delete(s.departed, s.departedOrder[0])
		s.departedOrder = s.departedOrder[1:]
	}
}

// exitOfDeparted is the exit of a container that removed itself a moment ago.
func (s *Service) exitOfDeparted(id string) (departure, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.departed[id]
	return d, ok && s.cfg.Now().Sub(d.at) < departedKept
}

// Counts of containers, for /info.
type Counts struct {
	All, Running, Paused, Stopped int
}

// Count counts containers by state.
func (s *Service) Count() Counts {
	var c Counts
	for _, o := range s.objects() {
		c.All++
		switch snap := o.snapshot(); {
		case snap.state == container.StatePaused || snap.state == container.StateUnpausing:
			c.Paused++
		case snap.state.WireRunning():
			c.Running++
		default:
			c.Stopped++
		}
	}
	return c
}

// User is a container that was made from an image.
type User struct {
	ID, Name string
	Running  bool
}

// UsersOf lists the containers made from the image, for the images' service.
func (s *Service) UsersOf(imageID string) []User {
	var users []User
	for _, o := range s.objects() {
		snap := o.snapshot()
		if snap.saved.Image.ID.String() == imageID || snap.saved.Image.Manifest.String() == imageID {
			users = append(users, User{ID: o.id, Name: snap.name, Running: snap.state.WireRunning()})
		}
	}
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.ID, b.ID) })
	return users
}

// invalid makes an ErrInvalidArgument with exactly this text.
func invalid(format string, args ...any) error {
	return withText(errdefs.ErrInvalidArgument, format, args...)
}
