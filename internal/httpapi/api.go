// Package httpapi speaks Docker's Engine API, versions 1.24 to 1.56, over the
// engine's use cases.
//
// The whole API is one table, routes.go: what an operation is called, its path,
// the versions that know it, the access it needs, how much body it takes and
// the handler that serves it. Everything that is true of every operation
// (version negotiation, headers, body limits, errors, panics) happens once, in
// ServeHTTP; a handler only reads its arguments, calls one use case and writes
// its answer. What older versions of the API want differently is in compat_*.go.
//
// Entry point: New, which gives an http.Handler. The package holds no lock: the
// objects it calls guard themselves, and a slow or broken client can only hold
// up its own connection.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Config is what an API is made of. Every field but those said to be optional
// must be set.
type Config struct {
	Containers Containers
	Images     Images
	Networks   Networks
	Volumes    Volumes
	Events     Events
	System     System

	// Product and Version make the Server header, e.g. "Orlop/0.1.0 (linux)".
	Product, Version string
	// MinVersion is the oldest API version that is answered, as
	// "major.minor"; empty is 1.24, the oldest this package knows.
	MinVersion string
	// Experimental is announced to clients (Docker-Experimental header).
	Experimental bool
	// BuilderVersion is announced on /_ping: "2" is BuildKit; empty sends none.
	BuilderVersion string

	// Authorize may refuse a request to an operation; nil allows everything.
	// Its error is answered as it is classed (ErrPermissionDenied is 403).
	Authorize func(r *http.Request, operation string, access Access) error
	// Hangup calls gone once, when the peer of a hijacked connection has closed
	// both directions; it returns at once, and stop ends the watch. Optional:
	// without it a client that disappears is noticed by the next write.
	Hangup func(conn net.Conn, gone func()) (stop func())
	// Taken returns once the peer of a hijacked connection has read all that
	// was written to it, as far as that can be known and within a bound of its
	// own. Optional: without it output may arrive together with the answer's head.
	Taken func(conn net.Conn)

	Logger *slog.Logger
	// Now is the clock that deadlines of answers are counted from.
	Now func() time.Time
}

// API is the http.Handler of the Engine API. It is immutable and safe for
// concurrent use.
type API struct {
	cfg    Config
	min    Version
	table  routeTable
	server string
}

// New checks cfg and returns the handler. It fails with ErrInvalidArgument when
// MinVersion is not between 1.24 and 1.56.
func New(cfg Config) (*API, error) {
	if cfg.MinVersion == "" {
		cfg.MinVersion = OldestVersion.String()
	}
	oldest, err := ValidateMinVersion(cfg.MinVersion)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &API{
		cfg:    cfg,
		min:    oldest,
		table:  newRouteTable(Routes()),
		server: fmt.Sprintf("%s/%s (%s)", cfg.Product, cfg.Version, runtime.GOOS),
	}, nil
}

// request is one call of an operation: the HTTP request, its parsed query and
// the version of the API that the client speaks.
type request struct {
	*http.Request
	route   *Route
	version Version
	vars    []string
}

// name is the value of the route's first path variable.
func (r *request) name() string {
	if len(r.vars) == 0 {
		return ""
	}
	return r.vars[0]
}

// before reports whether the client speaks an API older than 1.minor.
func (r *request) before(minor int) bool { return r.version.less(one(minor)) }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	// A deadline that the previous answer on this connection set must not end
	// this one. Writers that do not know deadlines are those of tests.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})

	if clean := cleanPath(hr.URL.Path); clean != hr.URL.Path {
		target := *hr.URL
		target.Path = clean
		w.Header().Set("Location", target.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if strings.HasPrefix(hr.URL.Path, "/debug/") {
		serveDebug(w, hr)
		return
	}

	rw := &answer{ResponseWriter: w}
	prefix, rest := splitVersion(hr.URL.Path)
	route, vars := a.table.find(hr.Method, rest)
	if route == nil {
		a.writeJSON(rw, http.StatusNotFound, errorBody{Message: "page not found"})
		return
	}
	r := &request{Request: hr, route: route, vars: vars}

	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		a.cfg.Logger.Error("handler panicked", "operation", route.Operation, "path", hr.URL.Path,
			"panic", p, "stack", string(debug.Stack()))
		if rw.wrote || rw.hijacked {
			// The answer has begun: cutting the connection is the only way
			// left to tell the client that it is not whole.
			panic(http.ErrAbortHandler)
		}
		a.writeJSON(rw, http.StatusInternalServerError, errorBody{Message: "internal error: " + route.Operation + " failed, see the daemon's log"})
	}()

	if err := a.serve(rw, r, prefix); err != nil {
		a.writeError(rw, r, prefix, err)
	}
}

// serve does what comes before every handler, then calls it.
func (a *API) serve(w *answer, r *request, prefix string) error {
	h := w.Header()
	h.Set("Api-Version", NewestVersion.String())
	h.Set("Docker-Experimental", fmt.Sprint(a.cfg.Experimental))
	h.Set("Ostype", runtime.GOOS)
	h.Set("Server", a.server)

	r.version = NewestVersion
	if prefix != "" {
		r.version = parseVersion(prefix)
	}
	if r.version.less(a.min) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", prefix, a.min))
	}
	if NewestVersion.less(r.version) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"client version %s is too new. Maximum supported API version is %s", prefix, NewestVersion))
	}
	if r.route.Min != 0 && r.version.less(r.route.Min) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"%s %s requires minimum API version %s", r.Method, r.route.Path, r.route.Min))
	}
	if r.route.Max != 0 && r.route.Max.less(r.version) {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf(
			"%s %s was removed after API version %s", r.Method, r.route.Path, r.route.Max))
	}
	if a.cfg.Authorize != nil {
		if err := a.cfg.Authorize(r.Request, r.route.Operation, r.route.Access); err != nil {
			return err
		}
	}
	if limit := r.route.Body; limit != Unbounded && r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, max(limit, smallBody))
	}
	if err := r.parseForm(); err != nil {
		return err
	}
	return r.route.handle(a, w, r)
}

// writeError answers a handler's error, unless the answer has begun already or
// nobody is there to read it.
func (a *API) writeError(w *answer, r *request, prefix string, err error) {
	status := statusOf(err)
	log := a.cfg.Logger.With("operation", r.route.Operation, "method", r.Method, "path", r.URL.Path, "error", err)
	if cause := context.Cause(r.Context()); cause != nil {
		log.Debug("request canceled by its client")
		return
	}
	switch {
	case w.hijacked || w.wrote:
		log.Info("request failed after its answer began", "status", status)
		return
	case status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		log.Error("request failed", "status", status)
	default:
		log.Debug("request refused", "status", status)
	}
	if prefix != "" && parseVersion(prefix).less(OldestVersion) {
		// Clients of that age print the body as it is.
		http.Error(w, err.Error(), status)
		return
	}
	if status == http.StatusNotModified {
		// A 304 has no body.
		w.WriteHeader(status)
		return
	}
	a.writeJSON(w, status, errorBody{Message: err.Error()})
}

// cleanPath removes empty and dot segments, keeping a trailing slash, as
// Docker's router does before it looks at a path.
func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	if p[0] != '/' {
		p = "/" + p
	}
	clean := path.Clean(p)
	if p[len(p)-1] == '/' && clean != "/" {
		clean += "/"
	}
	return clean
}

// serveDebug answers the profiling pages, which have no version and no JSON.
func serveDebug(w http.ResponseWriter, r *http.Request) {
	switch name := strings.TrimPrefix(r.URL.Path, "/debug/pprof/"); name {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	case r.URL.Path:
		http.NotFound(w, r)
	default:
		// The index, and every named profile below it.
		pprof.Index(w, r)
	}
}
