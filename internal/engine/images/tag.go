package images

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/image"
)

// Tag gives an image another name; a name that another image has moves.
// ErrNotFound, ErrInvalidArgument.
func (s *Service) Tag(ctx context.Context, source, repo, tag string) error {
	ctx = s.context(ctx)
	ref, err := image.ParseTag(repo, tag)
	if err != nil {
		return err
	}
	if ref == nil {
		return errdefs.ErrInvalidArgument.WithMessage("invalid reference format")
	}
	r, b, err := s.resolve(ctx, source, nil)
	if err != nil {
		return err
	}
	if err := s.setNames(ctx, naming{name: ref.String(), target: r.stored.Target, bundle: b}); err != nil {
		return err
	}
	s.publish(events.ActionTag, b.id.String(), reference.FamiliarString(ref), b.image.Config.Labels)
	return nil
}
