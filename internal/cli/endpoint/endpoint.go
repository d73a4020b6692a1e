package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"
)

// Endpoint is a daemon's address with what is needed to trust it and to be trusted.
type Endpoint struct {
	Host          string
	SkipTLSVerify bool
	TLS           *TLSFiles // nil: plain
}

// TLSFiles are the contents of a CA bundle, a client certificate and its key, in PEM; each may be missing.
type TLSFiles struct{ CA, Cert, Key []byte }

// ReadTLSFiles reads the named files; an empty name is a missing file. It returns nil when nothing was named.
func ReadTLSFiles(ca, cert, key string) (*TLSFiles, error) {
	var t TLSFiles
	for _, f := range []struct {
		name string
		into *[]byte
	}{{ca, &t.CA}, {cert, &t.Cert}, {key, &t.Key}} {
		if f.name == "" {
			continue
		}
		content, err := os.ReadFile(f.name)
		if err != nil {
			return nil, err
		}
		*f.into = content
	}
	if t.CA == nil && t.Cert == nil && t.Key == nil {
		return nil, nil
	}
	return &t, nil
}

// ClientOptions makes the options of an API client for the endpoint. remote is the program that is run on the far
// side of an ssh:// address to reach its daemon.
func (e Endpoint) ClientOptions(remote string) ([]client.Opt, error) {
	if strings.HasPrefix(e.Host, "ssh://") {
		dial, err := sshDialer(e.Host, remote)
		if err != nil {
			return nil, err
		}
		return []client.Opt{
			client.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}, CheckRedirect: client.CheckRedirect}),
			client.WithHost("http://" + sshHostName),
			client.WithDialContext(dial),
		}, nil
	}
	var opts []client.Opt
	if !isLocal(e.Host) && (e.TLS != nil || e.SkipTLSVerify) {
		config, err := e.tlsConfig()
		if err != nil {
			return nil, err
		}
		dialer := &net.Dialer{KeepAlive: 30 * time.Second, Timeout: 30 * time.Second}
		opts = append(opts, client.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext},
			CheckRedirect: client.CheckRedirect,
		}))
	}
	return append(opts, client.WithHost(e.Host)), nil
}

func (e Endpoint) tlsConfig() (*tls.Config, error) {
	config := tlsconfig.ClientDefault()
	config.InsecureSkipVerify = e.SkipTLSVerify
	if e.TLS == nil {
		return config, nil
	}
	if e.TLS.CA != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(e.TLS.CA) {
			return nil, errors.New("failed to retrieve context tls info: ca.pem seems invalid")
		}
	}
	if e.TLS.Cert != nil && e.TLS.Key != nil {
		if block, _ := pem.Decode(e.TLS.Key); block == nil {
			return nil, errors.New("no valid private key found")
		}
		pair, err := tls.X509KeyPair(e.TLS.Cert, e.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("failed to retrieve context tls info: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// dialFunc opens a connection; network and address are the transport's and need not be those of the endpoint.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)
