package cli_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// socketPath is as long on every machine and in every test, because tables show
// it: a column's width must not depend on the name of a temporary folder.
func socketPath(t *testing.T) string {
	t.Helper()
	const length = 100 // of at most 107 (unix(7))
	dir := t.TempDir()
	if pad := length - len(dir) - len("/.sock"); pad > 0 {
		return filepath.Join(dir, strings.Repeat("d", pad)+".sock")
	}
	dir, err := os.MkdirTemp("/tmp", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, strings.Repeat("d", length-len(dir)-len("/.sock"))+".sock")
}

// fakeDaemon answers the Engine API with fixed objects on a unix socket and keeps what it was asked. Objects are
// looked up by name: a name it does not know is 404 with Docker's words, a few names stand for special answers.
type fakeDaemon struct {
	socket string
	routes []route

	mu       sync.Mutex // guards what follows
	requests []string
	pulled   bool
	started  chan struct{}
}

// apiVersion is that of the oldest client compared with, so that both speak the same.
const apiVersion = "1.50"

func newFakeDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{socket: socketPath(t), routes: apiRoutes(), started: make(chan struct{})}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: d}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return d
}

// asked returns the requests in a form that can be compared: method, path without version, sorted query, the body's
// members that are not empty, and the credentials sent along. What only settles the version is left out.
func (d *fakeDaemon) asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.requests)
}

var versionPrefix = regexp.MustCompile(`^/v\d+\.\d+`)

func (d *fakeDaemon) record(r *http.Request, path string) []byte {
	body, _ := io.ReadAll(r.Body)
	text := r.Method + " " + path
	if q := sameQuery(r.URL.Query()); len(q) > 0 {
		text += "?" + q.Encode()
	}
	if len(body) > 0 {
		var v any
		if json.Unmarshal(body, &v) == nil {
			short, _ := json.Marshal(withoutEmpty(v))
			text += " " + string(short)
		} else {
			text += fmt.Sprintf(" (%d bytes)", len(body))
		}
	}
	if auth := r.Header.Get("X-Registry-Auth"); auth != "" {
		if plain, err := base64.URLEncoding.DecodeString(auth); err == nil {
			text += " auth=" + strings.TrimSpace(string(plain))
		}
	}
	if path != "/_ping" {
		d.mu.Lock()
		d.requests = append(d.requests, text)
		d.mu.Unlock()
	}
	return body
}

// sameQuery takes out what newer clients leave out or spell another way.
func sameQuery(q url.Values) url.Values {
	if q.Get("tail") == "all" {
		q.Del("tail")
	}
	if q.Get("filters") == "" {
		q.Del("filters")
	}
	if q.Get("stream") == "0" {
		q.Set("stream", "false")
	}
	q.Del("verbose") // of system df, since API 1.52
	return q
}

// withoutEmpty drops members that say nothing: null, "", 0, false, [] and {}.
func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, m := range v {
			if m = withoutEmpty(m); m == nil || k == "ConsoleSize" || k == "Detach" {
				continue
			}
			if list, ok := m.([]any); ok && k == "Env" {
				slices.SortFunc(list, func(x, y any) int { return strings.Compare(x.(string), y.(string)) })
			}
			out[k] = m
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			if m := withoutEmpty(v[i]); m != nil {
				v[i] = m
			}
		}
		return v
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := versionPrefix.ReplaceAllString(r.URL.Path, "")
	body := d.record(r, path)
	h := w.Header()
	h.Set("Api-Version", apiVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
	h.Set("Content-Type", "application/json")
	for _, route := range d.routes {
		if route.method == r.Method || route.method == "GET" && r.Method == "HEAD" {
			if m := route.path.FindStringSubmatch(path); m != nil {
				route.answer(d, w, &call{r, m, body})
				return
			}
		}
	}
	fail(w, http.StatusNotFound, "page not found")
}

type call struct {
	*http.Request
	part []string // of the path
	body []byte
}

func fail(w http.ResponseWriter, status int, format string, args ...any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(format, args...)})
}

func text(s string) func(*fakeDaemon, http.ResponseWriter, *call) {
	return func(_ *fakeDaemon, w http.ResponseWriter, _ *call) { _, _ = io.WriteString(w, s) }
}

func status(code int) func(*fakeDaemon, http.ResponseWriter, *call) {
	return func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
		if fault(w, c.part[1]) {
			return
		}
		w.WriteHeader(code)
	}
}

// fault answers for the names that stand for a failure.
func fault(w http.ResponseWriter, name string) bool {
	switch {
	case strings.HasPrefix(name, "missing"):
		fail(w, 404, "No such container: %s", name)
	case name == "busy":
		fail(w, 409, "cannot stop container: busy: tried to kill container, but did not receive an exit event")
	case name == "unimplemented":
		fail(w, 501, "containers of this kind are not implemented")
	default:
		return false
	}
	return true
}

type route struct {
	method string
	path   *regexp.Regexp
	answer func(*fakeDaemon, http.ResponseWriter, *call)
}

func on(method, path string, answer func(*fakeDaemon, http.ResponseWriter, *call)) route {
	return route{method, regexp.MustCompile("^" + path + "$"), answer}
}

func frame(kind byte, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	b[0] = kind
	binary.BigEndian.PutUint32(b[4:], uint32(len(text)))
	return append(b, text...)
}

// hijack takes the connection over as the daemon does for attach and exec.
func hijack(w http.ResponseWriter) (net.Conn, *bytes.Buffer, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	var buffered bytes.Buffer
	if n := rw.Reader.Buffered(); n > 0 {
		_, _ = io.CopyN(&buffered, rw, int64(n))
	}
	return conn, &buffered, nil
}

func queryOf(c *call, key string) string { return c.URL.Query().Get(key) }
