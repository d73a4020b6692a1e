package httpapi

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

// notHere answers operations that this engine does not have yet.
func (a *API) notHere(_ *answer, r *request) error {
	return notImplemented(r.route.Operation + " is not available in this version of the engine")
}

// noSwarm answers operations of a cluster as an engine does that is in none,
// which is the truth: clients that look for an object of any kind go on.
func (a *API) noSwarm(_ *answer, _ *request) error {
	return errdefs.ErrUnavailable.WithMessage(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
}

// noPlugins answers with the plugins there are.
func (a *API) noPlugins(w *answer, _ *request) error {
	a.writeJSON(w, http.StatusOK, []struct{}{})
	return nil
}

// noPlugin answers what is asked about a plugin that cannot be there.
func (a *API) noPlugin(_ *answer, r *request) error {
	return notFound(fmt.Sprintf("plugin %q not found", r.name()))
}

// nothingToPrune answers for kinds of objects of which there can be none yet
// (build cache), so that pruning everything goes on with the others.
func (a *API) nothingToPrune(w *answer, r *request) error {
	if _, err := r.filters(); err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, map[string]any{"CachesDeleted": nil, "SpaceReclaimed": 0})
	return nil
}
