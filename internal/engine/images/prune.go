package images

import (
	"context"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/orlop/orlop/internal/domain/image"
)

// Prune removes images that no container uses: those without a tag, or with
// dangling=false all of them. Filters: dangling, label, label!, until.
// ErrConflict while another one runs, ErrInvalidArgument.
func (s *Service) Prune(ctx context.Context, filters image.Filters) (imagetypes.PruneReport, error) {
	ctx = s.context(ctx)
	s.mu.Lock()
	busy := s.pruning
	s.pruning = true
	s.mu.Unlock()
	if busy {
		return imagetypes.PruneReport{}, errdefs.ErrConflict.WithMessage("a prune operation is already running")
	}
	defer func() {
		s.mu.Lock()
		s.pruning = false
		s.mu.Unlock()
	}()
	if err := filters.Check("dangling", "label", "label!", "until"); err != nil {
		return imagetypes.PruneReport{}, err
	}
	danglingOnly, err := filters.Bool("dangling", true)
	if err != nil {
		return imagetypes.PruneReport{}, err
	}
	if len(filters["until"]) > 1 {
		return imagetypes.PruneReport{}, errdefs.ErrInvalidArgument.WithMessage("more than one until filter specified")
	}
	until, err := filters.Until(s.cfg.Now())
	if err != nil {
		return imagetypes.PruneReport{}, err
	}
	items, err := s.items(ctx)
	if err != nil {
		return imagetypes.PruneReport{}, err
	}
	// A layer is freed when the last image with it goes.
	users, sizes := map[digest.Digest]int{}, map[digest.Digest]int64{}
	for _, it := range items {
		for i, chain := range it.bundle.chains {
			users[chain]++
			sizes[chain] = it.sizes[i]
		}
	}
	report := imagetypes.PruneReport{ImagesDeleted: []imagetypes.DeleteResponse{}}
	for _, it := range items {
		created := it.bundle.created()
		if danglingOnly && !isDangling(it.refs) ||
			!until.IsZero() && (created.IsZero() || created.After(until)) ||
			!filters.MatchLabels(it.bundle.image.Config.Labels) {
			continue
		}
		if ctx.Err() != nil {
			// What went is told, also to somebody in a hurry.
			break
		}
		gone := s.pruneOne(ctx, it)
		report.ImagesDeleted = append(report.ImagesDeleted, gone...)
		for _, one := range gone {
			if one.Deleted != it.bundle.id.String() {
				continue
			}
			for _, chain := range it.bundle.chains {
				if users[chain]--; users[chain] == 0 {
					report.SpaceReclaimed += uint64(sizes[chain])
				}
			}
		}
	}
	s.released(ctx)
	if s.cfg.Events != nil {
		now := s.cfg.Now()
		s.cfg.Events.Publish(events.Message{
			Type: events.ImageEventType, Action: events.ActionPrune, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
			Actor: events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}},
		})
	}
	return report, nil
}

// pruneOne removes all references of an image, or the image without one. An
// image that is in use stays.
func (s *Service) pruneOne(ctx context.Context, it *item) []imagetypes.DeleteResponse {
	words := []string{it.bundle.id.Encoded()}
	if len(it.refs) > 0 {
		words = nil
		for _, ref := range it.refs {
			words = append(words, reference.FamiliarString(ref))
		}
	}
	var all []imagetypes.DeleteResponse
	for _, word := range words {
		gone, err := s.remove(ctx, word, false)
		if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
			s.cfg.Logger.WarnContext(ctx, "cannot prune image", "image", word, "error", err)
		}
		all = append(all, gone...)
	}
	return all
}
