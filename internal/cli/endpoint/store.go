package endpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/atomicwriter"
)

// DefaultContext is the name of the context made of flags and environment; it is never stored.
const DefaultContext = "default"

// engineEndpoint is the key of the Engine API's address in a context; a context may hold endpoints of other tools.
const engineEndpoint = "docker"

// tlsNames are the files a context's TLS folder may hold.
var tlsNames = []string{"ca.pem", "cert.pem", "key.pem"}

// Store is the contexts folder: meta/<digest of the name>/meta.json and tls/<digest>/docker/*.pem, the layout Docker's
// client, Compose and buildx share.
type Store struct{ Dir string }

// Metadata is a context as stored. Endpoints and Metadata keep members this client does not know.
type Metadata struct {
	Name      string                     `json:"Name,omitempty"`
	Metadata  map[string]any             `json:"Metadata,omitempty"`
	Endpoints map[string]json.RawMessage `json:"Endpoints,omitempty"`
}

// engine is the stored form of an Engine API endpoint.
type engine struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// NewMetadata describes a context with one Engine API endpoint.
func NewMetadata(name, description string, e Endpoint) (Metadata, error) {
	raw, err := json.Marshal(engine{Host: e.Host, SkipTLSVerify: e.SkipTLSVerify})
	if err != nil {
		return Metadata{}, err
	}
	m := Metadata{Name: name, Metadata: map[string]any{}, Endpoints: map[string]json.RawMessage{engineEndpoint: raw}}
	if description != "" {
		m.Metadata["Description"] = description
	}
	return m, nil
}

// Description is the text given when the context was made.
func (m Metadata) Description() string {
	text, _ := m.Metadata["Description"].(string)
	return text
}

// Endpoint is the context's Engine API address, without TLS files.
func (m Metadata) Endpoint() (Endpoint, error) {
	raw, ok := m.Endpoints[engineEndpoint]
	if !ok {
		return Endpoint{}, errors.New("cannot find docker endpoint in context")
	}
	var e engine
	if err := json.Unmarshal(raw, &e); err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q is not of type EndpointMeta", engineEndpoint)
	}
	return Endpoint{Host: e.Host, SkipTLSVerify: e.SkipTLSVerify}, nil
}

const nameForm = `^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`

// CheckName refuses what cannot be a context's name; "default" is refused too.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("context name cannot be empty")
	case name == DefaultContext:
		return errors.New(`"default" is a reserved context name`)
	case !regexp.MustCompile(nameForm).MatchString(name):
		return fmt.Errorf("context name %q is invalid, names are validated against regexp %q", name, nameForm)
	}
	return nil
}

func (s Store) meta(name string) string { return filepath.Join(s.Dir, "meta", digest(name)) }
func (s Store) tls(name string) string  { return filepath.Join(s.Dir, "tls", digest(name)) }

func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// Paths are the folders of a context's metadata and TLS files.
func (s Store) Paths(name string) (meta, tls string) { return s.meta(name), s.tls(name) }

// Get reads a context. ErrNotFound when there is none of that name.
func (s Store) Get(name string) (Metadata, error) {
	m, err := readMetadata(filepath.Join(s.meta(name), "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("context %q: context not found: %w", name, notFound{err})
	}
	if err != nil {
		return m, fmt.Errorf("context %q: %w", name, err)
	}
	return m, nil
}

// notFound classes an error without adding words to it.
type notFound struct{ error }

func (n notFound) Unwrap() error        { return n.error }
func (n notFound) Is(target error) bool { return target == errdefs.ErrNotFound }

func readMetadata(path string) (Metadata, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := json.Unmarshal(content, &m); err != nil {
		return Metadata{}, fmt.Errorf("parsing %s: %w", path, err)
	}
	return m, nil
}

// List reads all contexts in order of name. A context that cannot be read fails the list.
func (s Store) List() ([]Metadata, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Metadata
	for _, entry := range entries {
		m, err := readMetadata(filepath.Join(s.Dir, "meta", entry.Name(), "meta.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Metadata) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Put writes a context and its TLS files, replacing what was there; nil files leave none.
func (s Store) Put(m Metadata, files *TLSFiles) error {
	if err := os.RemoveAll(s.tls(m.Name)); err != nil {
		return fmt.Errorf("store context %s: %w", m.Name, err)
	}
	if files != nil {
		dir := filepath.Join(s.tls(m.Name), engineEndpoint)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("store context %s: %w", m.Name, err)
		}
		for i, content := range [][]byte{files.CA, files.Cert, files.Key} {
			if content == nil {
				continue
			}
			if err := atomicwriter.WriteFile(filepath.Join(dir, tlsNames[i]), content, 0o600); err != nil {
				return fmt.Errorf("store context %s: %w", m.Name, err)
			}
		}
	}
	content, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("store context %s: %w", m.Name, err)
	}
	if err := os.MkdirAll(s.meta(m.Name), 0o755); err != nil {
		return fmt.Errorf("store context %s: %w", m.Name, err)
	}
	if err := atomicwriter.WriteFile(filepath.Join(s.meta(m.Name), "meta.json"), content, 0o644); err != nil {
		return fmt.Errorf("store context %s: %w", m.Name, err)
	}
	return nil
}

// Remove deletes a context; deleting one that is not there is no error.
func (s Store) Remove(name string) error {
	return errors.Join(os.RemoveAll(s.meta(name)), os.RemoveAll(s.tls(name)))
}

// TLS reads a context's TLS files, nil when it has none.
func (s Store) TLS(name string) (*TLSFiles, error) {
	var paths [3]string
	for i, file := range tlsNames {
		path := filepath.Join(s.tls(name), engineEndpoint, file)
		if _, err := os.Stat(path); err == nil {
			paths[i] = path
		}
	}
	files, err := ReadTLSFiles(paths[0], paths[1], paths[2])
	if err != nil {
		return nil, fmt.Errorf("failed to retrieve TLS data for context %q: %w", name, err)
	}
	return files, nil
}

// Endpoint reads a context's Engine API address with its TLS files.
func (s Store) Endpoint(name string) (Endpoint, error) {
	m, err := s.Get(name)
	if err != nil {
		return Endpoint{}, err
	}
	e, err := m.Endpoint()
	if err != nil {
		return Endpoint{}, err
	}
	e.TLS, err = s.TLS(name)
	return e, err
}

// Names lists the TLS files by name, for display.
func (t *TLSFiles) Names() []string {
	var names []string
	if t == nil {
		return nil
	}
	for i, content := range [][]byte{t.CA, t.Cert, t.Key} {
		if content != nil {
			names = append(names, tlsNames[i])
		}
	}
	return names
}
