// Package plugin speaks Docker's plugin protocol (version 1): a plugin is a
// program that listens on a socket and answers POST requests with JSON bodies.
// The engine finds it by name in folders of sockets and of files that tell its
// address, asks once what it can do (Plugin.Activate) and calls it when a
// network names it.
//
// Entry points: New, Registry.NetworkDriver and Registry.IPAMDriver.
//
// A plugin that hangs holds up who called it, for Config.Timeout, and nobody
// else: no lock is held over a call.
package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// DefaultTimeout is how long a plugin may take for an answer, and how long one
// that does not listen is tried again (dockerd's 30 seconds).
const DefaultTimeout = 30 * time.Second

// maxAnswer bounds a plugin's answer in bytes.
const maxAnswer = 4 << 20

// mediaType of requests and answers.
const mediaType = "application/vnd.docker.plugins.v1.2+json"

// Config is where plugins are looked for, the first folder first.
type Config struct {
	// Sockets are folders with NAME.sock or NAME/NAME.sock.
	Sockets []string
	// Specs are folders with NAME.spec or NAME.json (or in a folder NAME).
	Specs []string
	// Timeout of one call; 0 is DefaultTimeout.
	Timeout time.Duration
	Logger  *slog.Logger
}

// Registry knows the plugins of this machine. It is safe for concurrent use.
//
// Lock order: Registry.mu only; it guards the map.
type Registry struct {
	cfg Config

	mu      sync.Mutex
	plugins map[string]*client // by name
}

// New makes a registry; nothing is looked for before it is asked.
func New(cfg Config) *Registry {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registry{cfg: cfg, plugins: map[string]*client{}}
}

// client is a plugin that was found.
type client struct {
	name string
	at   address
	http *http.Client
	base string
	cfg  Config

	// turn is held while the plugin is asked what it can do.
	turn chan struct{}
	// implements is nil before that. Guarded by turn.
	implements []string
}

// address is where a plugin listens.
type address struct {
	Addr      string
	TLSConfig *tlsFiles
}

// tlsFiles are the names that a .json file uses.
type tlsFiles struct {
	CAFile, CertFile, KeyFile string
	InsecureSkipVerify        bool
}

// find looks for a plugin's address. ErrNotFound when there is none.
func (r *Registry) find(name string) (address, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return address{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", name))
	}
	both := func(dir, file string) []string {
		return []string{filepath.Join(dir, file), filepath.Join(dir, name, file)}
	}
	for _, dir := range r.cfg.Sockets {
		for _, path := range both(dir, name+".sock") {
			if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
				return address{Addr: "unix://" + path}, nil
			}
		}
	}
	for _, dir := range r.cfg.Specs {
		for _, path := range append(both(dir, name+".spec"), both(dir, name+".json")...) {
			data, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return address{}, fmt.Errorf("read plugin %s: %w", name, err)
			}
			a := address{Addr: strings.TrimSpace(string(data))}
			if strings.HasSuffix(path, ".json") {
				a = address{}
				if err := json.Unmarshal(data, &a); err != nil {
					return address{}, fmt.Errorf("read plugin %s: %s: %w", name, path, err)
				}
			}
			return a, nil
		}
	}
	return address{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", name))
}

// get returns a plugin that was asked what it can do, and can do kind.
// ErrNotFound when there is none, or it cannot.
func (r *Registry) get(ctx context.Context, name, kind string) (*client, error) {
	at, err := r.find(name)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	c := r.plugins[name]
	if c == nil || !c.at.equal(at) {
		if c, err = r.dial(name, at); err == nil {
			r.plugins[name] = c
		}
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	can, err := c.activate(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(can, kind) {
		return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q does not implement %q", name, kind))
	}
	return c, nil
}

func (a address) equal(b address) bool {
	if (a.TLSConfig == nil) != (b.TLSConfig == nil) || a.TLSConfig != nil && *a.TLSConfig != *b.TLSConfig {
		return false
	}
	return a.Addr == b.Addr
}

func (r *Registry) dial(name string, at address) (*client, error) {
	bad := func(err error) error { return fmt.Errorf("plugin %s: address %q: %w", name, at.Addr, err) }
	u, err := url.Parse(at.Addr)
	if err != nil {
		return nil, bad(err)
	}
	tr := &http.Transport{MaxIdleConns: 4, IdleConnTimeout: time.Minute}
	c := &client{name: name, at: at, cfg: r.cfg, http: &http.Client{Transport: tr}, turn: make(chan struct{}, 1)}
	switch u.Scheme {
	case "unix":
		path := u.Path
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		c.base = "http://plugin.localhost/"
	case "tcp", "http":
		c.base = "http://" + u.Host + "/"
	case "https":
		c.base = "https://" + u.Host + "/"
	case "":
		return nil, bad(errors.New("unknown protocol"))
	default:
		return nil, bad(errors.New("unknown protocol " + u.Scheme))
	}
	if at.TLSConfig != nil && u.Scheme != "unix" {
		if tr.TLSClientConfig, err = at.TLSConfig.load(); err != nil {
			return nil, bad(err)
		}
		c.base = "https://" + u.Host + "/"
	}
	return c, nil
}

// load reads the files; without a CA the server is not verified, as Docker has
// it.
func (f tlsFiles) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.InsecureSkipVerify || f.CAFile == ""}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in " + f.CAFile)
		}
	}
	if f.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// activate asks the plugin what it can do, once.
func (c *client) activate(ctx context.Context) ([]string, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("plugin %s: %w", c.name, ctx.Err())
	}
	if c.implements != nil {
		return c.implements, nil
	}
	var manifest struct{ Implements []string }
	if err := c.call(ctx, "Plugin.Activate", nil, &manifest); err != nil {
		return nil, err
	}
	c.implements = append([]string{}, manifest.Implements...)
	return c.implements, nil
}

// statusError is an answer that is no success.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string { return e.message }

// missing reports whether the plugin does not know the method.
func missing(err error) bool {
	var e *statusError
	return errors.As(err, &e) && e.status == http.StatusNotFound
}

// call sends one request. A plugin that does not listen is tried again, after
// 1, 2, 4… seconds, until the time is over: it may just be restarting.
// ErrUnavailable when it does not answer.
func (c *client) call(ctx context.Context, method string, args, answer any) error {
	body := []byte{}
	if args != nil {
		var err error
		if body, err = json.Marshal(args); err != nil {
			return fmt.Errorf("call %s of plugin %s: %w", method, c.name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	for pause := time.Second; ; pause *= 2 {
		err := c.once(ctx, method, body, answer)
		var op *net.OpError
		if err == nil || !errors.As(err, &op) || op.Op != "dial" {
			if err != nil && ctx.Err() != nil {
				err = errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("no answer within %s: %v", c.cfg.Timeout, err))
			}
			return c.failed(method, err)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return c.failed(method, errdefs.ErrUnavailable.WithMessage(err.Error()))
		}
		c.cfg.Logger.Warn("plugin does not listen, trying again", "plugin", c.name, "error", err, "after", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return c.failed(method, errdefs.ErrUnavailable.WithMessage(err.Error()))
		}
	}
}

func (c *client) failed(method string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("call %s of plugin %s: %w", method, c.name, err)
}

func (c *client) once(ctx context.Context, method string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", mediaType)
	req.Header.Set("Content-Type", mediaType)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Err string }
		message := strings.TrimSpace(string(data))
		if json.Unmarshal(data, &e) == nil && e.Err != "" {
			message = e.Err
		}
		return &statusError{resp.StatusCode, message}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}
