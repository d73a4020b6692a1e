package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orlop/orlop/internal/engine/containers"
)

func (a *API) containerCreate(w *answer, r *request) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	raw, req, err := readCreate(r)
	if err != nil {
		return err
	}
	var platform *ocispec.Platform
	if !r.before(41) {
		if platform, err = r.platform(); err != nil {
			return err
		}
	}
	asSent, err := json.Marshal(req)
	if err != nil {
		return err
	}
	warnings, err := compatContainerCreate(r, raw, &req)
	if err != nil {
		return err
	}
	// What this version of the API means differently becomes part of the
	// recorded request: the record is read without knowing the version.
	if raw, err = carryOver(raw, asSent, req); err != nil {
		return err
	}
	resp, err := a.cfg.Containers.Create(r.Context(), containers.CreateOptions{
		Name:     r.query("name"),
		Platform: platform,
		Request:  req,
		Raw:      raw,
	})
	if err != nil {
		return err
	}
	resp.Warnings = append(emptyNotNull(resp.Warnings), warnings...)
	a.writeJSON(w, http.StatusCreated, resp)
	return nil
}

// readCreate reads the body: its bytes as they came, for the record, and what
// this package knows of it. No part of the result is nil.
func readCreate(r *request) (json.RawMessage, containertypes.CreateRequest, error) {
	var req containertypes.CreateRequest
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, req, r.badJSON(err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&req); err != nil {
		// Unlike other operations, this one names the bare cause of an empty
		// body.
		return nil, req, invalid("invalid JSON: " + err.Error())
	}
	if dec.More() {
		return nil, req, invalid("unexpected content after JSON")
	}
	if req.Config == nil {
		return nil, req, invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &containertypes.HostConfig{}
	}
	if req.HostConfig.PortBindings == nil {
		req.HostConfig.PortBindings = networktypes.PortMap{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &networktypes.NetworkingConfig{}
	}
	if req.NetworkingConfig.EndpointsConfig == nil {
		req.NetworkingConfig.EndpointsConfig = map[string]*networktypes.EndpointSettings{}
	}
	return bytes.TrimSpace(body), req, nil
}
