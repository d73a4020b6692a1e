package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// listeners opens every address of the configuration. On failure none stays
// open.
func listeners(c *Config, log *slog.Logger) (open []net.Listener, err error) {
	var secure *tls.Config
	if c.TLS {
		if secure, err = serverTLS(c); err != nil {
			return nil, fmt.Errorf("invalid TLS configuration: %w", err)
		}
	}
	defer func() {
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			open = nil
		}
	}()
	for _, host := range c.Hosts {
		proto, addr, _ := strings.Cut(host, "://")
		var more []net.Listener
		switch proto {
		case "unix":
			var l net.Listener
			if l, err = listenUnix(addr, c.SocketGroup, c.Brand, log); err == nil {
				more = []net.Listener{l}
			}
		case "tcp":
			var l net.Listener
			if l, err = listenTCP(addr, c, secure, log); err == nil {
				more = []net.Listener{l}
			}
		case "fd":
			more, err = listenFD(addr, secure)
		default:
			err = fmt.Errorf("invalid protocol format: %q", proto)
		}
		if err != nil {
			return open, fmt.Errorf("listen on %s: %w", host, err)
		}
		open = append(open, more...)
	}
	return open, nil
}

// listenUnix replaces a socket that nobody serves. It has mode 0660 from its
// first moment on, and belongs to the group when there is one.
func listenUnix(path, group string, b Brand, log *slog.Logger) (net.Listener, error) {
	gid, err := lookupGroup(group)
	if err != nil {
		if group != "" && group != b.Group {
			return nil, err
		}
		log.Debug("the socket stays with the group of the daemon", "group", group, "cause", err)
		gid = os.Getgid()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s is served by another program", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if dir := parentDir(path); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	// The mask is of the whole process; nothing else makes files yet.
	old := unix.Umask(0o777)
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	if err = os.Chown(path, 0, gid); err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func parentDir(path string) string {
	if strings.HasPrefix(path, "@") { // an abstract socket has no folder
		return ""
	}
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return ""
	}
	return path[:i]
}

// listenTCP refuses to serve an unencrypted port unless that was asked for in
// so many words: whoever can connect is root on this machine.
func listenTCP(addr string, c *Config, secure *tls.Config, log *slog.Logger) (net.Listener, error) {
	if secure == nil && !c.TLSSet {
		return nil, errors.New("binding to an IP address without --tlsverify gives root access on this machine to everyone who can connect; give --tlsverify with certificates, or say --tls=false to accept that")
	}
	if secure == nil || secure.ClientAuth != tls.RequireAndVerifyClientCert {
		log.Warn("Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network.", "host", addr)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return l, nil
}

// listenFD takes sockets that systemd opened: all of them, or the one named by
// its descriptor number.
func listenFD(addr string, secure *tls.Config) ([]net.Listener, error) {
	var all []net.Listener
	var err error
	if secure != nil {
		all, err = activation.TLSListeners(secure)
	} else {
		all, err = activation.Listeners()
	}
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	if addr == "" || addr == "*" {
		return all, nil
	}
	fd, err := strconv.Atoi(addr)
	if err != nil {
		return nil, fmt.Errorf("failed to parse systemd fd address: should be a number: %v", addr)
	}
	const first = 3 // sd_listen_fds(3): SD_LISTEN_FDS_START
	if fd < first || fd-first >= len(all) {
		return nil, errors.New("too few socket activated files passed in by systemd")
	}
	if all[fd-first] == nil {
		return nil, fmt.Errorf("failed to listen on systemd activated file: fd %d", fd)
	}
	for i, l := range all {
		if i != fd-first && l != nil {
			l.Close()
		}
	}
	return all[fd-first : fd-first+1], nil
}

// serverTLS reads certificate, key and, to verify clients, their authority.
func serverTLS(c *Config) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("could not load X509 key pair (cert: %q, key: %q): %w", c.TLSCert, c.TLSKey, err)
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		// HTTP/2 cannot hand over a connection, which attach and exec need.
		NextProtos: []string{"http/1.1"},
	}
	if c.TLSVerify {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("could not read CA certificate %q: %w", c.TLSCA, err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("failed to append certificates from PEM file: %q", c.TLSCA)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}
