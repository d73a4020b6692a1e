// Package registrytest is a registry in memory for tests: it serves images that
// are made in the test, and fails in the ways registries fail.
//
// The entry point is [New]. Nothing of the client under test is shared with it.
//
// Lock order: Registry.mu is a leaf; it is not held while a response is written.
package registrytest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Media types of Docker, as most registries still serve them.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Registry is the server. The fields may be changed between requests with
// [Registry.Do].
type Registry struct {
	// User and Password, when set, are asked for (basic authentication).
	User, Password string
	// Bearer, when set, is the token that a token server at /token gives for
	// User and Password (or anonymously without a user).
	Bearer string
	// Cut breaks the connection at this offset of a blob, Times times
	// (-1: always).
	Cut map[digest.Digest]*Cut
	// NoRange ignores Range headers.
	NoRange bool
	// Hold blocks the answer to a blob after Cut bytes until closed.
	Hold chan struct{}
	// Status, when not 0, is answered to everything but /v2/.
	Status int

	mu        sync.Mutex
	manifests map[string]document
	blobs     map[digest.Digest][]byte
	tags      map[string][]string
	requests  []string
	server    *httptest.Server
}

// Cut is a blob that does not arrive whole.
type Cut struct {
	At    int64
	Times int
}

type document struct {
	mediaType string
	data      []byte
}

// Nobody is an address on loopback that refuses connections until the test ends: it
// is bound, so that nobody else gets it, and not listened at.
func Nobody(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", addr.(*unix.SockaddrInet4).Port)
}

// New starts a registry on loopback; it ends with the test.
func New(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{manifests: map[string]document{}, blobs: map[digest.Digest][]byte{}, tags: map[string][]string{}, Cut: map[digest.Digest]*Cut{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// Host is host:port.
func (r *Registry) Host() string { return strings.TrimPrefix(r.server.URL, "http://") }

// Close stops serving; connections are refused from then on.
func (r *Registry) Close() { r.server.Close() }

// Do runs fn while no request looks at the fields.
func (r *Registry) Do(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// Requests returns "METHOD path range" of every request so far that contains
// part.
func (r *Registry) Requests(part string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, line := range r.requests {
		if strings.Contains(line, part) {
			out = append(out, line)
		}
	}
	return out
}

// Blob stores a blob and describes it.
func (r *Registry) Blob(mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.Do(func() { r.blobs[desc.Digest] = data })
	return desc
}

// Alias serves the blob of another digest under id: a registry that lies.
func (r *Registry) Alias(id, other digest.Digest) { r.Do(func() { r.blobs[id] = r.blobs[other] }) }

// Manifest stores a manifest or index of a repository under tag (may be empty).
func (r *Registry) Manifest(repo, tag, mediaType string, v any) ocispec.Descriptor {
	data, ok := v.([]byte)
	if !ok {
		data, _ = json.Marshal(v)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.Do(func() {
		r.manifests[repo+"@"+desc.Digest.String()] = document{mediaType, data}
		if tag != "" {
			r.manifests[repo+":"+tag] = document{mediaType, data}
			r.tags[repo] = append(r.tags[repo], tag)
		}
	})
	return desc
}

// File is an entry of a layer. A name that ends in / is a folder.
type File struct {
	Name, Data string
	Mode       int64
	Uid        int
	Link       string
}

// Tar makes the tar of a layer.
func Tar(files ...File) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Uid: f.Uid, Size: int64(len(f.Data)), Typeflag: tar.TypeReg, ModTime: time.Unix(1000000000, 0)}
		switch {
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag, h.Size = tar.TypeDir, 0
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		_ = w.WriteHeader(h)
		_, _ = w.Write([]byte(f.Data))
	}
	_ = w.Close()
	return buf.Bytes()
}

// Gzip and Zstd compress a tar.
func Gzip(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(data)
	_ = w.Close()
	return buf.Bytes()
}

// Zstd compresses a tar.
func Zstd(data []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(data, nil)
}

// Image is what Add makes.
type Image struct {
	Manifest, Config ocispec.Descriptor
	Layers           []ocispec.Descriptor
}

// Spec of an image; each of Layers is a plain tar.
type Spec struct {
	Platform ocispec.Platform
	Labels   map[string]string
	Cmd      []string
	Layers   [][]byte
	// OCI media types and zstd layers instead of Docker's and gzip.
	OCI     bool
	Created time.Time
}

// Add stores an image under tag (may be empty).
func (r *Registry) Add(repo, tag string, spec Spec) Image {
	if spec.Platform.OS == "" {
		spec.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	if spec.Created.IsZero() {
		spec.Created = time.Unix(1700000000, 0).UTC()
	}
	manifestType, configType, layerType := DockerManifest, DockerConfig, DockerLayer
	if spec.OCI {
		manifestType, configType, layerType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd
	}
	config := ocispec.Image{
		Created: &spec.Created, Platform: spec.Platform,
		Config: ocispec.ImageConfig{Labels: spec.Labels, Cmd: spec.Cmd},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	var img Image
	for i, plain := range spec.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		config.History = append(config.History, ocispec.History{Created: &spec.Created, CreatedBy: fmt.Sprintf("step %d", i)})
		data := Gzip(plain)
		if spec.OCI {
			data = Zstd(plain)
		}
		img.Layers = append(img.Layers, r.Blob(layerType, data))
	}
	data, _ := json.Marshal(config)
	img.Config = r.Blob(configType, data)
	img.Manifest = r.Manifest(repo, tag, manifestType, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: img.Config, Layers: img.Layers,
	})
	img.Manifest.Platform = &spec.Platform
	return img
}

// Index stores an index of images under tag.
func (r *Registry) Index(repo, tag string, images ...Image) ocispec.Descriptor {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, img := range images {
		index.Manifests = append(index.Manifests, img.Manifest)
	}
	return r.Manifest(repo, tag, ocispec.MediaTypeImageIndex, index)
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, strings.TrimSpace(req.Method+" "+req.URL.Path+" "+req.Header.Get("Range")))
	allowed, status := r.authorized(req), r.Status
	r.mu.Unlock()
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	if !allowed {
		r.challenge(w)
		return
	}
	if req.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	switch {
	case strings.Contains(path, "/manifests/"):
		repo, object, _ := strings.Cut(path, "/manifests/")
		r.serveManifest(w, repo, object)
	case strings.Contains(path, "/blobs/"):
		_, object, _ := strings.Cut(path, "/blobs/")
		r.serveBlob(w, req, digest.Digest(object))
	case strings.HasSuffix(path, "/tags/list"):
		repo := strings.TrimSuffix(path, "/tags/list")
		r.mu.Lock()
		tags := r.tags[repo]
		r.mu.Unlock()
		if tags == nil {
			fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (r *Registry) authorized(req *http.Request) bool {
	switch {
	case r.Bearer != "":
		return req.Header.Get("Authorization") == "Bearer "+r.Bearer
	case r.User != "":
		user, password, _ := req.BasicAuth()
		return user == r.User && password == r.Password
	}
	return true
}

func (r *Registry) challenge(w http.ResponseWriter) {
	if r.Bearer != "" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, r.server.URL))
	} else {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, _ := req.BasicAuth()
	if req.Method == http.MethodPost {
		user, password = req.FormValue("username"), req.FormValue("password")
	}
	if user != r.User || password != r.Password {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"token": r.Bearer, "access_token": r.Bearer})
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func (r *Registry) serveManifest(w http.ResponseWriter, repo, object string) {
	r.mu.Lock()
	doc, ok := r.manifests[repo+":"+object]
	if !ok {
		doc, ok = r.manifests[repo+"@"+object]
	}
	r.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", doc.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(doc.data).String())
	_, _ = w.Write(doc.data)
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, id digest.Digest) {
	r.mu.Lock()
	data, ok := r.blobs[id]
	end := int64(len(data))
	cut := r.Cut[id]
	broken := cut != nil && cut.Times != 0
	if broken {
		end = min(cut.At, end)
		if cut.Times > 0 {
			cut.Times--
		}
	}
	hold, ranged := r.Hold, !r.NoRange
	r.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	var from int64
	if value := req.Header.Get("Range"); ranged && value != "" {
		from, _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(value, "bytes="), "-"), 10, 64)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
		w.Header().Set("Content-Length", strconv.FormatInt(int64(len(data))-from, 10))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	}
	if from < end {
		_, _ = w.Write(data[from:end])
	}
	if !broken {
		return
	}
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	if hold != nil {
		select {
		case <-hold:
		case <-req.Context().Done():
		}
	}
	panic(http.ErrAbortHandler)
}
