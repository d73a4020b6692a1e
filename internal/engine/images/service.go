package images

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	c8dimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/domain/image"
)

// Config of a Service.
type Config struct {
	// Namespace of containerd that everything is kept in.
	Namespace string
	Content   content.Store
	Images    c8dimages.Store
	Leases    leases.Manager
	Layers    Layers
	Registry  OpenRepository
	// Events may be nil.
	Events Publisher
	// InUse lists the containers that stand on an image; nil is none.
	InUse func(id digest.Digest) []Use
	// Released is called after references were removed: what is kept for
	// images without containers may go, and garbage be collected. May be nil.
	Released func(ctx context.Context) error
	// Platform of this host; the zero value is probed.
	Platform ocispec.Platform
	// MaxDownloads bounds concurrent blob downloads of the engine; default 3.
	MaxDownloads int
	// MaxUploads bounds concurrent uploads; default 5.
	MaxUploads int
	// Now and NewID (64 hex digits) are required.
	Now    func() time.Time
	NewID  func() string
	Logger *slog.Logger
}

// Service is the use cases. It is safe for concurrent use.
type Service struct {
	cfg   Config
	names sync.Mutex
	mu    sync.Mutex
}

// New checks cfg and makes a Service; it starts nothing.
func New(cfg Config) (*Service, error) {
	if cfg.Namespace == "" || cfg.Content == nil || cfg.Images == nil || cfg.Leases == nil || cfg.Layers == nil || cfg.Now == nil || cfg.NewID == nil {
		return nil, errors.New("images: incomplete configuration")
	}
	return &Service{cfg: cfg}, nil
}

func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	return Image{}, errdefs.ErrNotImplemented
}
func (s *Service) Pull(ctx context.Context, opts PullOptions) error { return errdefs.ErrNotImplemented }
func (s *Service) Push(ctx context.Context, opts PushOptions) error { return errdefs.ErrNotImplemented }
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions) error {
	return errdefs.ErrNotImplemented
}
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, opts SaveOptions) error {
	return errdefs.ErrNotImplemented
}
func (s *Service) Import(ctx context.Context, opts ImportOptions) (digest.Digest, error) {
	return "", errdefs.ErrNotImplemented
}
func (s *Service) Tag(ctx context.Context, source, repo, tag string) error {
	return errdefs.ErrNotImplemented
}
func (s *Service) List(ctx context.Context, opts ListOptions) ([]imagetypes.Summary, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) Inspect(ctx context.Context, ref string, opts InspectOptions) (imagetypes.InspectResponse, error) {
	return imagetypes.InspectResponse{}, errdefs.ErrNotImplemented
}
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) Prune(ctx context.Context, filters image.Filters) (imagetypes.PruneReport, error) {
	return imagetypes.PruneReport{}, errdefs.ErrNotImplemented
}
func (s *Service) Count(ctx context.Context) (int, error) { return 0, errdefs.ErrNotImplemented }
