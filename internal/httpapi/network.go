package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/networks"
)

// Networks is what this API calls of engine/networks.
type Networks interface {
	List(ctx context.Context, opts networks.ListOptions) ([]networktypes.Summary, error)
	Inspect(ctx context.Context, ref string) (networktypes.Inspect, error)
	Create(ctx context.Context, req networktypes.CreateRequest, raw json.RawMessage) (networktypes.CreateResponse, error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, filters map[string][]string) (networktypes.PruneReport, error)
	Audit(ctx context.Context) (networks.Audited, error)
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
		full = append(full, compatNetworkInspect(r, inspect))
	}
	a.writeJSON(w, http.StatusOK, full)
	return nil
}

// compatNetworkInspect shapes a network for the client's version.
func compatNetworkInspect(r *request, n networktypes.Inspect) networktypes.Inspect {
	if r.before(52) {
		n.Status = nil
	}
	return n
}

func (a *API) networkInspect(w *answer, r *request) error {
	// Verbose adds the services of a cluster's network, of which there are none.
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
	a.writeJSON(w, http.StatusOK, compatNetworkInspect(r, inspect))
	return nil
}

// body reads the JSON document of a request, and returns its bytes as they came.
func (r *request) body(out any) (json.RawMessage, error) {
	if err := r.checkJSON(); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, r.badJSON(err)
	}
	if len(raw) == 0 {
		return nil, invalid("invalid JSON: got EOF while reading request body")
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, r.badJSON(err)
	}
	return raw, nil
}

func (a *API) networkCreate(w *answer, r *request) error {
	var req networktypes.CreateRequest
	raw, err := r.body(&req)
	if err != nil {
		return err
	}
	if r.before(48) && req.EnableIPv4 != nil {
		req.EnableIPv4 = nil
		raw = nil // as it is meant
	}
	resp, err := a.cfg.Networks.Create(r.Context(), req, raw)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusCreated, resp)
	return nil
}

func (a *API) networkDelete(w *answer, r *request) error {
	return done(w, a.cfg.Networks.Remove(r.Context(), r.name()))
}

func (a *API) networkPrune(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := a.cfg.Networks.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, report)
	return nil
}

// networkAudit is Orlop's own: what is reachable from where.
func (a *API) networkAudit(w *answer, r *request) error {
	audit, err := a.cfg.Networks.Audit(r.Context())
	if err != nil {
		return err
	}
	audit.Reach = emptyNotNull(audit.Reach)
	a.writeJSON(w, http.StatusOK, audit)
	return nil
}
