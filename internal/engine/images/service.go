package images

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// Config of a Service.
type Config struct {
	// Namespace of containerd that everything is kept in.
	Namespace string
	Content   content.Store
	Images    c8dimages.Store
	Leases    leases.Manager
	// Tx runs fn in one write transaction that Images and Leases take part in
	// through its context.
	Tx func(ctx context.Context, fn func(ctx context.Context) error) error
	// Lease protects what is made with its context until end is called; a
	// daemon that dies meanwhile leaves nothing of it.
	Lease    func(ctx context.Context, id string) (leased context.Context, end func() error, err error)
	Layers   Layers
	Registry OpenRepository
	// Events may be nil.
	Events Publisher
	// InUse lists the containers that stand on an image; nil is none.
	InUse func(id digest.Digest) []Use
	// Released is called after references were removed: what is kept for
	// images without containers may go, and garbage be collected. May be nil.
	Released func(ctx context.Context) error
	// Driver is the name of the storage driver in inspect; default overlay2.
	Driver string
	// Platform of this host; the zero value is probed.
	Platform ocispec.Platform
	// MaxDownloads bounds concurrent blob downloads of the engine; default 3
	// (Docker's max-concurrent-downloads).
	MaxDownloads int
	// MaxUploads bounds concurrent uploads; default 5.
	MaxUploads int
	// PartialFor is how long what a failed pull has brought is kept for the
	// next try; default 24 h.
	PartialFor time.Duration
	// Now and NewID (64 hex digits) are required.
	Now    func() time.Time
	NewID  func() string
	Logger *slog.Logger
}

// Service is the use cases. It is safe for concurrent use.
type Service struct {
	cfg       Config
	downloads atomic.Pointer[semaphore.Weighted]
	uploads   atomic.Pointer[semaphore.Weighted]

	// names is held by whoever changes references.
	names sync.Mutex

	mu sync.Mutex
	// opened caches what manifests say, by digest: it never changes.
	opened map[digest.Digest]*bundle
	// pulling are the pulls under way, by what they pull.
	pulling map[string]chan struct{}
	pruning bool
}

// New checks cfg and makes a Service; it starts nothing.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Namespace == "", cfg.Content == nil, cfg.Images == nil, cfg.Leases == nil, cfg.Tx == nil, cfg.Lease == nil,
		cfg.Layers == nil, cfg.Registry == nil, cfg.Now == nil, cfg.NewID == nil:
		return nil, errors.New("images: incomplete configuration")
	}
	if cfg.PartialFor <= 0 {
		cfg.PartialFor = 24 * time.Hour
	}
	if cfg.Driver == "" {
		cfg.Driver = "overlay2"
	}
	if cfg.Platform.OS == "" {
		cfg.Platform = platforms.DefaultSpec()
	}
	if cfg.InUse == nil {
		cfg.InUse = func(digest.Digest) []Use { return nil }
	}
	if cfg.Released == nil {
		cfg.Released = func(context.Context) error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, opened: map[digest.Digest]*bundle{}, pulling: map[string]chan struct{}{}}
	s.Bound(cfg.MaxDownloads, cfg.MaxUploads)
	return s, nil
}

// Bound changes how many blobs are downloaded and uploaded at once; 0 and less
// is the default, see Config. What is under way still counts to the old bounds.
func (s *Service) Bound(downloads, uploads int) {
	if downloads <= 0 {
		downloads = 3
	}
	if uploads <= 0 {
		uploads = 5
	}
	s.downloads.Store(semaphore.NewWeighted(int64(downloads)))
	s.uploads.Store(semaphore.NewWeighted(int64(uploads)))
}

func (s *Service) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, s.cfg.Namespace)
}

// publish tells what happened to an image; actor is what events show as its id.
func (s *Service) publish(action events.Action, actor, name string, labels map[string]string) {
	if s.cfg.Events == nil {
		return
	}
	attributes := map[string]string{}
	maps.Copy(attributes, labels)
	if name != "" {
		attributes["name"] = name
	}
	now := s.cfg.Now()
	s.cfg.Events.Publish(events.Message{
		Type: events.ImageEventType, Action: action, Scope: "local",
		Actor: events.Actor{ID: actor, Attributes: attributes},
		Time:  now.Unix(), TimeNano: now.UnixNano(),
	})
}

// platformOr returns the platform asked for, or this host's.
func (s *Service) platformOr(p *ocispec.Platform) ocispec.Platform {
	if p == nil {
		return s.cfg.Platform
	}
	return platforms.Normalize(*p)
}

// released lets the store free what nothing refers to any more. That the space
// is not free yet is no reason to fail what was done.
func (s *Service) released(ctx context.Context) {
	if err := s.cfg.Released(context.WithoutCancel(ctx)); err != nil {
		s.cfg.Logger.WarnContext(ctx, "cannot free the space of removed images yet", "error", err)
	}
}
