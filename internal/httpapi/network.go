package httpapi

import (
	"context"
	"net/http"
	"strconv"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
)

// Networks is what this API calls of engine/networks.
type Networks interface {
	List(ctx context.Context, opts networks.ListOptions) ([]networktypes.Summary, error)
	Inspect(ctx context.Context, ref string) (networktypes.Inspect, error)
}

func (a *API) networkList(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := a.cfg.Networks.List(r.Context(), networks.ListOptions{Filters: filters})
	if err != nil {
		return err
	}
	if !r.before(28) {
		a.writeJSON(w, http.StatusOK, emptyNotNull(list))
		return nil
	}
	// Until API 1.28 the list had the containers too.
	full := make([]networktypes.Inspect, 0, len(list))
	for _, n := range list {
		inspect, err := a.cfg.Networks.Inspect(r.Context(), n.ID)
		if err != nil {
			return err
		}
		full = append(full, inspect)
	}
	a.writeJSON(w, http.StatusOK, full)
	return nil
}

func (a *API) networkInspect(w *answer, r *request) error {
	if v := r.query("verbose"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return invalid("invalid value for verbose: " + v + ": " + err.Error())
		}
	}
	inspect, err := a.cfg.Networks.Inspect(r.Context(), r.name())
	if err != nil {
		return err
	}
	if scope := r.query("scope"); scope != "" && scope != inspect.Scope {
		return notFound("network " + r.name() + " not found")
	}
	if r.before(52) {
		inspect.Status = nil
	}
	a.writeJSON(w, http.StatusOK, inspect)
	return nil
}
