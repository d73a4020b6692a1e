package httpapi

import (
	"context"
	"net/http"

	volumetypes "github.com/moby/moby/api/types/volume"
)

// Volumes is what this API calls about volumes. Making and removing them by
// name is not part of it yet: they come and go with containers.
type Volumes interface {
	// List returns the volumes that match filters (dangling, driver, label,
	// name), ordered by name. ErrInvalidArgument for filters it does not know.
	List(ctx context.Context, filters map[string][]string) ([]volumetypes.Volume, error)
	// Inspect returns one volume. ErrNotFound.
	Inspect(ctx context.Context, name string) (volumetypes.Volume, error)
}

func (a *API) volumeList(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := a.cfg.Volumes.List(r.Context(), filters)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, volumetypes.ListResponse{Volumes: emptyNotNull(list), Warnings: []string{}})
	return nil
}

func (a *API) volumeInspect(w *answer, r *request) error {
	volume, err := a.cfg.Volumes.Inspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, volume)
	return nil
}
