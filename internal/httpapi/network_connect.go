package httpapi

import (
	"net/http"

	networktypes "github.com/moby/moby/api/types/network"
)

func (a *API) networkConnect(w *answer, r *request) error {
	var req networktypes.ConnectRequest
	if _, err := r.body(&req); err != nil {
		return err
	}
	if ep := req.EndpointConfig; ep != nil {
		if r.before(54) {
			// Clients sent back what an inspect had shown.
			ep.MacAddress = nil
		}
		if r.before(48) {
			ep.GwPriority = 0
		}
	}
	if err := a.cfg.Containers.ConnectNetwork(r.Context(), req.Container, r.name(), req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (a *API) networkDisconnect(w *answer, r *request) error {
	var req networktypes.DisconnectRequest
	if _, err := r.body(&req); err != nil {
		return err
	}
	if err := a.cfg.Containers.DisconnectNetwork(r.Context(), req.Container, r.name(), req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
