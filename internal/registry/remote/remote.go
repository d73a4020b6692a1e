// Package remote speaks to registries (OCI distribution spec, Docker Registry
// HTTP API V2): it resolves names, downloads and uploads.
//
// The entry point is [New]; [Client.Open] starts a session with one repository.
// Tokens and challenges are handled by containerd's authorizer; requests,
// retries and resuming are ours, because the words and classes of errors are
// Docker's and because what has arrived of a blob must survive a failure.
//
// Lock order: [Repository.mu] guards the choice of endpoint, [Client.mu] the
// cache of schemes; both are leaves and never held over the network.
package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/orlop/orlop/internal/domain/image"
)

// Config of a Client.
type Config struct {
	// Insecure lists registries (host, host:port, *.domain or CIDR) that may be spoken
	// to with plain HTTP or an unknown certificate. Loopback (127.0.0.0/8, ::1,
	// localhost) always is.
	Insecure []string
	// Mirrors are URLs that are asked for images of Docker Hub first.
	Mirrors []string
	// CertsDir holds <host[:port]>/*.crt, *.cert and *.key as Docker's
	// /etc/docker/certs.d does. Empty is none.
	CertsDir string
	// UserAgent defaults to "orlop".
	UserAgent string
	// Attempts bounds the tries of one transfer that make no progress;
	// default 5. Docker's max-download-attempts.
	Attempts int
	// Stall is how long a connection may be silent before the transfer is
	// tried again; default 60 s.
	Stall time.Duration
	// After defaults to time.After; tests move a clock.
	After func(time.Duration) <-chan time.Time
	// LookupIP finds the addresses of a host for CIDRs in Insecure; default is
	// the system's resolver.
	LookupIP func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger   *slog.Logger
}

// Client opens sessions with registries. It is safe for concurrent use.
type Client struct {
	cfg     Config
	mirrors []*url.URL
	nets    []netip.Prefix
	hosts   []string

	mu sync.Mutex
	// clients by host: connections are kept between pulls.
	clients map[string]*http.Client
}

// New checks cfg. ErrInvalidArgument for a mirror that is no URL.
func New(cfg Config) (*Client, error) {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "orlop"
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 5
	}
	if cfg.Stall <= 0 {
		cfg.Stall = 60 * time.Second
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.LookupIP == nil {
		cfg.LookupIP = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, clients: map[string]*http.Client{}}
	for _, mirror := range cfg.Mirrors {
		u, err := url.Parse(mirror)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid mirror: %q is not a valid http or https URL", mirror))
		}
		c.mirrors = append(c.mirrors, u)
	}
	for _, entry := range append([]string{"127.0.0.0/8", "::1/128"}, cfg.Insecure...) {
		entry = strings.TrimPrefix(strings.TrimPrefix(entry, "http://"), "https://")
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			c.nets = append(c.nets, prefix)
			continue
		}
		c.hosts = append(c.hosts, strings.ToLower(entry))
	}
	c.hosts = append(c.hosts, "localhost")
	return c, nil
}

// insecure reports whether host (with or without a port) may be spoken to
// without a trusted certificate.
func (c *Client) insecure(ctx context.Context, host string) bool {
	name := strings.ToLower(host)
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	for _, entry := range c.hosts {
		if entry == name || entry == strings.ToLower(host) {
			return true
		}
		if domain, ok := strings.CutPrefix(entry, "*"); ok && strings.HasPrefix(domain, ".") && strings.HasSuffix(name, domain) {
			return true
		}
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return c.inNets(addr)
	}
	// A name is looked up only when a network beyond loopback was configured.
	if len(c.nets) <= 2 {
		return false
	}
	addrs, err := c.cfg.LookupIP(ctx, name)
	if err != nil {
		return false
	}
	for _, addr := range addrs {
		if c.inNets(addr) {
			return true
		}
	}
	return false
}

func (c *Client) inNets(addr netip.Addr) bool {
	for _, prefix := range c.nets {
		if prefix.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// httpClient returns the client for host; certificates are read once.
func (c *Client) httpClient(host string, insecure bool) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.clients[host]; client != nil {
		return client, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure} //nolint:gosec // asked for by configuration, loopback otherwise
	if c.cfg.CertsDir != "" {
		if err := readCerts(filepath.Join(c.cfg.CertsDir, host), config); err != nil {
			return nil, err
		}
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &watchedConn{Conn: conn, stall: c.cfg.Stall}, nil
		},
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: c.cfg.Stall,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		// Blobs are what the digest was taken of; nobody may unpack them on
		// the way.
		DisableCompression: true,
	}
	client := &http.Client{Transport: transport}
	c.clients[host] = client
	return client, nil
}

// watchedConn gives up a connection that is silent for too long.
type watchedConn struct {
	net.Conn
	stall time.Duration
}

func (w *watchedConn) Read(p []byte) (int, error) {
	if err := w.SetReadDeadline(time.Now().Add(w.stall)); err != nil {
		return 0, err
	}
	return w.Conn.Read(p)
}

// readCerts reads a folder of Docker's certs.d.
func readCerts(dir string, config *tls.Config) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read registry certificates: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch filepath.Ext(entry.Name()) {
		case ".crt":
			pem, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read registry certificates: %w", err)
			}
			if config.RootCAs == nil {
				if config.RootCAs, err = x509.SystemCertPool(); err != nil {
					config.RootCAs = x509.NewCertPool()
				}
			}
			config.RootCAs.AppendCertsFromPEM(pem)
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if err != nil {
				return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("missing key %s for client certificate %s: %v", filepath.Base(key), entry.Name(), err))
			}
			config.Certificates = append(config.Certificates, pair)
		}
	}
	return nil
}

// Open starts a session with the repository of ref. It sends nothing yet.
func (c *Client) Open(ctx context.Context, ref reference.Named, access image.Access) (*Repository, error) {
	domain := reference.Domain(ref)
	creds, err := credentials(access.Auth)
	if err != nil {
		return nil, err
	}
	r := &Repository{client: c, name: reference.TrimNamed(ref), path: reference.Path(ref), domain: domain, access: access}
	if domain == "docker.io" {
		for _, mirror := range c.mirrors {
			r.candidates = append(r.candidates, candidate{
				host: mirror.Host, schemes: []string{mirror.Scheme}, mirror: true, prefix: strings.TrimSuffix(mirror.Path, "/"),
				insecure: c.insecure(ctx, mirror.Host),
			})
		}
		r.candidates = append(r.candidates, candidate{host: "registry-1.docker.io", schemes: []string{"https"}, creds: creds})
		return r, nil
	}
	cand := candidate{host: domain, schemes: []string{"https"}, creds: creds}
	if c.insecure(ctx, domain) {
		cand.insecure = true
		cand.schemes = append(cand.schemes, "http")
	}
	r.candidates = append(r.candidates, cand)
	return r, nil
}
