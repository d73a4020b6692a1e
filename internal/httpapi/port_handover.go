package httpapi

// portHandOver is ours: POST /orlop/ports/handover?from=CONTAINER&to=CONTAINER
// leads the published ports of one running container to another. 204; 400 for
// the same container twice or one without an address, 404 for an unknown one,
// 409 for one that does not run or has no published ports.
func (a *API) portHandOver(w *answer, r *request) error {
	from, to := r.query("from"), r.query("to")
	if from == "" || to == "" {
		return invalid("both containers have to be named: from and to")
	}
	return done(w, a.cfg.Containers.HandOverPorts(r.Context(), from, to))
}
