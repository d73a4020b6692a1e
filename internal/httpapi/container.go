package httpapi

import (
	"context"
	"io"
	"iter"
	"net/http"
	"strconv"

	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"github.com/orlop/orlop/internal/engine/containers"
)

// Containers is what this API calls of engine/containers. A ref is a name, an
// id or the unique beginning of an id.
type Containers interface {
	Create(ctx context.Context, opts containers.CreateOptions) (containertypes.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, opts containers.StopOptions) error
	Restart(ctx context.Context, ref string, opts containers.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Wait(ctx context.Context, ref string, condition containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error)
	Inspect(ctx context.Context, ref string, size bool) (containertypes.InspectResponse, error)
	// LogDropped counts bytes of the last run's output that are missing in the log.
	LogDropped(ref string) uint64
	List(ctx context.Context, opts containers.ListOptions) ([]containertypes.Summary, error)
	Remove(ctx context.Context, ref string, opts containers.RemoveOptions) error
	Resize(ctx context.Context, ref string, height, width uint) error
	Top(ctx context.Context, ref, psArgs string) (containertypes.TopResponse, error)
	Prune(ctx context.Context, filters map[string][]string) (containertypes.PruneReport, error)
	ConnectNetwork(ctx context.Context, ref, network string, ask *networktypes.EndpointSettings) error
	HandOverPorts(ctx context.Context, from, to string) error
	DisconnectNetwork(ctx context.Context, ref, network string, force bool) error
	Update(ctx context.Context, ref string, req containertypes.UpdateConfig) (containertypes.UpdateResponse, error)
	Changes(ctx context.Context, ref string) ([]containertypes.FilesystemChange, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	Stats(ctx context.Context, ref string, opts containers.StatsOptions) (iter.Seq2[*containertypes.StatsResponse, error], error)
	Logs(ctx context.Context, ref string, opts containers.LogsOptions) (containers.LogStream, error)
	Attach(ctx context.Context, ref string, opts containers.AttachOptions) error
	ExecCreate(ctx context.Context, ref string, req containertypes.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, opts containers.ExecStartOptions) error
	ExecInspect(ctx context.Context, id string) (containertypes.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint) error
}

func (a *API) containerList(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	opts := containers.ListOptions{All: r.flag("all"), Size: r.flag("size"), Filters: filters}
	if s := r.query("limit"); s != "" {
		if opts.Limit, err = strconv.Atoi(s); err != nil {
			return invalid(err.Error())
		}
	}
	list, err := a.cfg.Containers.List(r.Context(), opts)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, compatContainerList(r, list))
	return nil
}

func (a *API) containerInspect(w *answer, r *request) error {
	inspect, err := a.cfg.Containers.Inspect(r.Context(), r.name(), r.flag("size"))
	if err != nil {
		return err
	}
	answer := compatContainerInspect(r, inspect)
	if lost := a.cfg.Containers.LogDropped(inspect.ID); lost > 0 {
		// Docker has no place for it. Who does not know the key loses nothing.
		answer = with(answer, map[string]any{"State": map[string]any{"LogDropped": lost}})
	}
	a.writeJSON(w, http.StatusOK, answer)
	return nil
}

func (a *API) containerTop(w *answer, r *request) error {
	top, err := a.cfg.Containers.Top(r.Context(), r.name(), r.query("ps_args"))
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, top)
	return nil
}

func (a *API) containerChanges(w *answer, r *request) error {
	changes, err := a.cfg.Containers.Changes(r.Context(), r.name())
	if err != nil {
		return err
	}
	// Docker answers null when nothing changed, and clients know it.
	a.writeJSON(w, http.StatusOK, changes)
	return nil
}

func (a *API) containerExport(w *answer, r *request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	err := a.cfg.Containers.Export(r.Context(), r.name(), w)
	if err != nil && w.wrote {
		a.cfg.Logger.Error("container export failed after it began", "container", r.name(), "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

func (a *API) containerPrune(w *answer, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := a.cfg.Containers.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, report)
	return nil
}

func (a *API) containerDelete(w *answer, r *request) error {
	err := a.cfg.Containers.Remove(r.Context(), r.name(), containers.RemoveOptions{
		Force:   r.flag("force"),
		Volumes: r.flag("v"),
		Link:    r.flag("link"),
	})
	return done(w, err)
}

func (a *API) containerUpdate(w *answer, r *request) error {
	var req containertypes.UpdateConfig
	if err := r.json(&req); err != nil {
		return err
	}
	if r.before(40) {
		req.PidsLimit = nil
	}
	if r.before(55) {
		req.BlkioWeightDevice = nil
		req.BlkioDeviceReadBps, req.BlkioDeviceWriteBps = nil, nil
		req.BlkioDeviceReadIOps, req.BlkioDeviceWriteIOps = nil, nil
	}
	if req.PidsLimit != nil && *req.PidsLimit <= 0 {
		// 0 and every negative number mean without limit.
		req.PidsLimit = new(int64)
	}
	resp, err := a.cfg.Containers.Update(r.Context(), r.name(), req)
	if err != nil {
		return err
	}
	a.writeJSON(w, http.StatusOK, resp)
	return nil
}

// done answers 204 when there is no error.
func done(w *answer, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
