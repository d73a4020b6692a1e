package images

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/orlop/orlop/internal/domain/image"
)

// Remove untags and deletes as Docker does; the decision is
// image.PlanRemoval's. It returns what went, in order. ErrNotFound,
// ErrConflict with Docker's words; nothing changes then.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	ctx = s.context(ctx)
	if len(opts.Platforms) > 0 {
		return nil, errdefs.ErrNotImplemented.WithMessage("removing single platforms of an image is not supported: an image has one platform here")
	}
	gone, err := s.remove(ctx, ref, opts.Force)
	if err != nil {
		return nil, err
	}
	s.released(ctx)
	return gone, nil
}

func (s *Service) remove(ctx context.Context, ref string, force bool) ([]imagetypes.DeleteResponse, error) {
	s.names.Lock()
	defer s.names.Unlock()
	r, byID, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	all, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	request := image.RemovalRequest{
		Asked: ref, ID: r.id, References: references(all, r.id), Uses: s.cfg.InUse(r.id), Force: force,
	}
	if !byID {
		request.Name = r.ref
	}
	plan, err := image.PlanRemoval(request)
	if err != nil {
		return nil, err
	}
	// Labels and layers are gone when there are events to publish.
	b, err := s.open(ctx, r)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
		return nil, err
	}
	if err := s.applyRemoval(ctx, r, all, plan); err != nil {
		return nil, fmt.Errorf("remove image %s: %w", ref, err)
	}
	return s.removed(r, b, plan), nil
}

func (s *Service) applyRemoval(ctx context.Context, r record, all []record, plan image.Removal) error {
	return s.cfg.Tx(ctx, func(ctx context.Context) error {
		for _, ref := range plan.Untag {
			if err := s.cfg.Images.Delete(ctx, ref.String()); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		if !plan.Delete {
			return s.keepUntagged(ctx, map[digest.Digest]record{r.id: r})
		}
		for _, other := range all {
			if other.id == r.id && other.ref == nil {
				if err := s.cfg.Images.Delete(ctx, other.stored.Name); err != nil && !errdefs.IsNotFound(err) {
					return err
				}
			}
		}
		return nil
	})
}

func (s *Service) removed(r record, b *bundle, plan image.Removal) []imagetypes.DeleteResponse {
	gone := []imagetypes.DeleteResponse{}
	var labels map[string]string
	if b != nil {
		labels = b.image.Config.Labels
	}
	for _, ref := range plan.Untag {
		gone = append(gone, imagetypes.DeleteResponse{Untagged: reference.FamiliarString(ref)})
		s.publish(events.ActionUnTag, r.id.String(), r.id.String(), labels)
	}
	if !plan.Delete {
		return gone
	}
	gone = append(gone, imagetypes.DeleteResponse{Deleted: r.id.String()})
	s.publish(events.ActionDelete, r.id.String(), r.id.String(), nil)
	if b != nil {
		s.mu.Lock()
		delete(s.opened, b.manifest.Digest)
		s.mu.Unlock()
		for i := len(b.chains) - 1; i >= 0; i-- {
			gone = append(gone, imagetypes.DeleteResponse{Deleted: b.chains[i].String()})
		}
	}
	return gone
}
